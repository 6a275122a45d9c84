"""The journal: an edit, a removed or swapped line, a new chain and a cut end are all seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import InvalidRequest, Tercet
from tercet.scope import Caller
from tercet.vault import journal, mark
from tercet.vault.connection import query, scalar


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path / "vault", embedder=None, signing_key=tmp_path / "key") as t:
        scope = t.scope(user="alice", by=Caller("importer"))
        for i in range(10):
            scope.remember(f"Number {i}.")
        yield t


def rechain(connection: apsw.Connection) -> None:
    """What an editor does who knows how the chain is made: every hash anew."""
    previous = journal.GENESIS
    for *line, _ in list(journal._lines(connection)):
        previous = journal._link(previous, tuple(line))
        connection.execute("UPDATE journal SET hash = ? WHERE seq = ?", (previous, line[0]))


def edit(connection: apsw.Connection) -> None:
    connection.execute("UPDATE journal SET by = 'somebody else' WHERE seq = 7")


def remove(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM journal WHERE seq = 7")


def swap(connection: apsw.Connection) -> None:
    """The content of two lines, each under the other's number."""
    lines = query(
        connection, "SELECT at, action, cube, number, version, scope, by, detail, hash FROM journal WHERE seq IN (7, 9)"
    )
    for seq, line in zip((9, 7), lines, strict=True):
        connection.execute(
            "UPDATE journal SET (at, action, cube, number, version, scope, by, detail, hash) = (?,?,?,?,?,?,?,?,?) "
            "WHERE seq = ?",
            (*line, seq),
        )


def cut(connection: apsw.Connection) -> None:
    """The end, and what SQLite remembers of it."""
    connection.execute("DELETE FROM journal WHERE seq > 15")
    connection.execute("UPDATE sqlite_sequence SET seq = 15 WHERE name = 'journal'")


@pytest.mark.parametrize("harm", [edit, remove, swap])
def test_harm_to_a_line_breaks_the_chain(t: Tercet, harm: Callable[[apsw.Connection], None]) -> None:
    assert t.verify_audit().passed
    with t.vault.tenant("default").maintaining() as connection:
        harm(connection)
    problems = t.verify_audit().problems
    assert any("line 7" in one for one in problems)


@pytest.mark.parametrize("harm", [edit, swap, cut])
def test_a_new_chain_contradicts_what_was_anchored(
    t: Tercet, tmp_path: Path, harm: Callable[[apsw.Connection], None]
) -> None:
    """Even with the mark beside the file made to fit; without a paper in hand nobody could tell."""
    scope, tenant = t.scope(user="alice"), t.vault.tenant("default")
    receipt = scope.forget(scope.list(limit=1)[0].id)
    early = tmp_path / "early"
    t.anchor(early)
    scope.remember("And one more.")
    late = tmp_path / "late"
    assert t.anchor(late)["seq"] == t.audit()[-1].seq
    assert t.verify_audit([receipt, early, late]).anchored == t.audit()[-1].seq
    with tenant.maintaining() as connection:
        harm(connection)
        rechain(connection)
        mark.write(tenant.path, *journal.head(connection))
    assert t.verify_audit().problems == ()
    for paper in (receipt, early, late):
        assert t.verify_audit([paper]).problems
    assert not t.verify(receipt).passed


def test_a_cut_end_is_seen_by_the_mark(t: Tercet) -> None:
    with t.vault.tenant("default").maintaining() as connection:
        cut(connection)
    assert any("lost writes" in one for one in t.verify_audit().problems)


def test_a_line_after_the_anchor_is_not_vouched_for(t: Tercet, tmp_path: Path) -> None:
    t.anchor(tmp_path / "anchor")
    seq = t.audit()[-1].seq
    t.scope(user="alice").remember("Later.")
    found = t.verify_audit([tmp_path / "anchor"])
    assert (found.passed, found.anchored, found.lines) == (True, seq, seq + 2)


def test_the_log_says_who_did_what_when(t: Tercet) -> None:
    """A page at a time, oldest first."""
    lines = t.audit(limit=3)
    assert [line.seq for line in lines] == [1, 2, 3]
    assert {(line.by, line.action) for line in lines} == {("importer", "remember")}
    rest = t.audit(since=3)
    assert rest[0].seq == 4
    with t.vault.tenant("default").reading() as reader:
        assert rest[-1].hash == scalar(reader.connection, "SELECT hash FROM journal ORDER BY seq DESC LIMIT 1").hex()
    assert t.audit(since=rest[-1].seq) == []
    wrongs: tuple[dict[str, Any], ...] = ({"since": -1}, {"since": "x"}, {"limit": 0})
    for wrong in wrongs:
        with pytest.raises(InvalidRequest):
            t.audit(**wrong)


def test_papers_that_cannot_be_read_are_told_of(t: Tercet, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\x00junk")
    assert any("neither a receipt" in one for one in t.verify_audit([tmp_path / "junk"]).problems)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        t.verify_audit([tmp_path / "nowhere"])
