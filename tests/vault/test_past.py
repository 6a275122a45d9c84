"""Readers of a branch or of the past share what was worked out for the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet import Tercet
from tercet.testing import FakeEmbedder
from tercet.vault.branches import Moment


@pytest.fixture
def t(tmp_path: Path) -> Tercet:
    """A branch that shows a memory as it was before the main line changed it."""
    t = Tercet.open(tmp_path / "v", embedder=FakeEmbedder())
    alice = t.scope(user="alice")
    one = alice.remember("The boiler code is 4417.")
    t.branch("b")
    alice.revise(one.id, "The heating is off.")
    return t


def test_the_next_reader_takes_over_what_the_last_only_read(t: Tercet) -> None:
    """Opening it anew would copy all that the branch shows otherwise, at every look."""
    tenant = t.vault.tenant("default")
    opened = []
    for _ in range(2):
        with tenant.reading(Moment("b")) as reader:
            assert reader.past is not None
            opened.append(reader.past.connection)
    assert opened[0] is opened[1]
    with tenant.reading(Moment("b")) as first, tenant.reading(Moment("b")) as second:
        assert first.past is not None
        assert second.past is not None
        assert first.past.connection is not second.past.connection
    t.close()


def test_what_a_failed_write_took_out_is_there_for_the_next_reader(t: Tercet) -> None:
    b = t.scope(user="alice", branch="b")
    [cube] = b.list()

    def fail() -> None:
        with t.vault.tenant("default").writing(by="test", branch="b") as writer:
            writer.reader.cover(writer.reader.head(cube.id, b.scope)[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(b.list()) == [cube]
    assert cube.text == "The boiler code is 4417."
    t.close()
