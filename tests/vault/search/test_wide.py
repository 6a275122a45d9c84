"""Wide searches through coded segments: as good as reading every row, and never a row that is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tercet import Tercet
from tercet.scoped import ScopedMemory
from tercet.vault import writer
from tercet.vault.search import columns, wide
from tercet.vault.search.segment import Segment

ROWS = 600


def directions(texts: Sequence[str]) -> list[list[float]]:
    """A vector for each text, told by its number alone."""
    return [
        np.random.default_rng(int("".join(c for c in text if c.isdigit()) or "0")).normal(size=24).tolist()
        for text in texts
    ]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wide, made small enough for a test."""
    from tercet.text.recall import scene

    for module in (columns, wide, writer):
        monkeypatch.setattr(module, "WIDE", 100)
    monkeypatch.setattr(writer, "INDEX_EVERY", 100)
    monkeypatch.setattr(scene, "SMALL", 50)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=directions) as t:
        t.scope(user="alice").remember_many([f"Note number {i}" for i in range(ROWS)])
        yield t


def nearest(memory: ScopedMemory, i: int) -> list[str]:
    return [hit.cube.text for hit in memory.recall(f"{i}", limit=5, policy="vectors")]


def segments(t: Tercet) -> list[Path]:
    return sorted((t.vault.folder / "segments").rglob("*.lvq"))


def test_a_large_vault_gets_a_segment_and_answers_as_before(vault: Tercet) -> None:
    alice = vault.scope(user="alice")
    before = [nearest(alice, i) for i in range(20)]
    assert segments(vault) == []
    assert vault.work(until_idle=True) == 1
    assert len(segments(vault)) == 1
    after = [nearest(alice, i) for i in range(20)]
    assert [found[0] for found in after] == [f"Note number {i}" for i in range(20)]
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(before, after, strict=True)]
    assert np.mean(shared) >= 0.95


def test_what_came_later_is_found_and_what_went_is_not(vault: Tercet) -> None:
    vault.work(until_idle=True)
    alice = vault.scope(user="alice")
    new = alice.remember("Note number 9001")
    gone = next(cube for cube in alice.list(limit=20) if cube.text == "Note number 7")
    changed = next(cube for cube in alice.list(limit=20) if cube.text == "Note number 8")
    alice.revise(changed.id, "Note number 9002")
    alice.forget(gone.id)
    assert nearest(alice, 9001)[0] == new.text
    assert nearest(alice, 9002)[0] == "Note number 9002"
    assert "Note number 7" not in nearest(alice, 7)
    assert "Note number 8" not in nearest(alice, 8)


def test_an_erasure_writes_the_segment_anew(vault: Tercet) -> None:
    vault.work(until_idle=True)
    [before] = segments(vault)
    alice = vault.scope(user="alice")
    receipt = alice.forget(alice.list(limit=1)[0].id)
    assert receipt.scrubbed_at is not None
    [after] = segments(vault)
    assert after != before
    assert len(Segment.open(after)) == ROWS - 1


def test_filters_are_kept_on_the_way_through_the_index(vault: Tercet) -> None:
    bob = vault.scope(user="bob")
    bob.remember_many([{"role": "user", "content": f"Note number {i}", "tags": ["odd"]} for i in range(1001, 1400, 2)])
    vault.work(until_idle=True)
    everyone = vault.scope()
    found = [hit.cube for hit in everyone.recall("1003", limit=20, where={"tags": "odd"}, policy="vectors")]
    assert found[0].text == "Note number 1003"
    assert all(cube.tags == ("odd",) for cube in found)


def test_a_damaged_segment_is_noticed_and_the_rows_answer(vault: Tercet) -> None:
    vault.work(until_idle=True)
    [path] = segments(vault)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    vault.vault.tenant("default").forget_cache()
    assert nearest(vault.scope(user="alice"), 3)[0] == "Note number 3"
    assert not path.exists()
    vault.vault.tenant("default").index()
    assert len(segments(vault)) == 1


def test_a_backup_without_segments_makes_its_own(vault: Tercet, tmp_path: Path) -> None:
    vault.work(until_idle=True)
    vault.backup(tmp_path / "copy")
    with Tercet.open(tmp_path / "copy", embedder=directions) as copy:
        assert nearest(copy.scope(user="alice"), 3)[0] == "Note number 3"
        copy.vault.tenant("default").index()
        assert len(segments(copy)) == 1
        assert nearest(copy.scope(user="alice"), 3)[0] == "Note number 3"


def test_the_index_serves_branches_and_the_past(vault: Tercet) -> None:
    """It holds the main line as it is; what a branch or the past has otherwise is scanned beside it."""
    alice = vault.scope(user="alice")
    vault.branch("early")
    early = vault.scope(user="alice", branch="early")
    early.remember("Note number 5001")
    then = alice.changes(limit=10_000)[-1].seq
    changed, gone = (next(c for c in alice.list(limit=20) if c.text == f"Note number {i}") for i in (8, 7))
    alice.revise(changed.id, "Note number 9002")
    alice.forget(gone.id)
    vault.work(until_idle=True)
    [path] = segments(vault)
    assert len(Segment.open(path)) == ROWS - 1
    past = alice.as_of(known=then)
    for view in (early, past):
        assert nearest(view, 8)[0] == "Note number 8"
        assert nearest(view, 300)[0] == "Note number 300"
        assert not {"Note number 9002", "Note number 7"} & {*nearest(view, 9002), *nearest(view, 7)}
    assert nearest(early, 5001)[0] == "Note number 5001"
    assert "Note number 5001" not in nearest(alice, 5001)
    assert nearest(alice, 9002)[0] == "Note number 9002"
    assert vault.doctor() == {"default": []}
