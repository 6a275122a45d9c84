"""Wide searches through coded segments: as good as reading every row, and never a row that is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from apsw import Connection

from tercet import Tercet
from tercet.scoped import ScopedMemory
from tercet.vault import sqlite, writer
from tercet.vault.connection import scalar
from tercet.vault.datakeys import Seal
from tercet.vault.search import columns, wide
from tercet.vault.search.graph import Graph
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
    monkeypatch.setattr(wide, "GRAPH", Graph(breadth=64, least=100))
    monkeypatch.setattr(wide, "measured", lambda _: 150)  # a timing: on so few rows it could fall either way
    monkeypatch.setattr(scene, "SMALL", 50)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=directions) as t:
        t.scope(user="alice").remember_many([f"Note number {i}" for i in range(ROWS)])
        yield t


def nearest(memory: ScopedMemory, i: int) -> list[str]:
    return [hit.cube.text for hit in memory.recall(f"{i}", limit=5, policy="vectors")]


def way(memory: ScopedMemory, i: int, where: dict[str, str] | None = None) -> object:
    [hit] = memory.recall(f"{i}", limit=1, policy="vectors", where=where)
    return hit.why["vectors"]


def meta(t: Tercet, key: str) -> str | None:
    with t.vault.tenant("default").reading() as reader:
        value = scalar(reader.connection, "SELECT value FROM meta WHERE key = ?", (key,))
    return None if value is None else str(value)


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


def test_a_revised_memory_is_found_by_its_new_vector_only(vault: Tercet) -> None:
    vault.work(until_idle=True)
    alice = vault.scope(user="alice")
    alice.revise(next(cube for cube in alice.list(limit=20) if cube.text == "Note number 8").id, "Note number 9002")
    tenant = vault.vault.tenant("default")
    with tenant.reading() as reader:
        [number] = [n for (n,) in reader.connection.execute("SELECT number FROM journal ORDER BY seq DESC LIMIT 1")]
        every = np.array([n for (n,) in reader.connection.execute("SELECT n FROM cubes ORDER BY n")])
        for text, first in (("8", False), ("9002", True)):
            vector = np.array(directions([text])[0], np.float32)
            found = tenant._wide.nearest(reader.connection, every, 1, vector / np.linalg.norm(vector), 5)
            assert found is not None
            assert found[1] == "graph"
            assert (number in found[0]) == first


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


def test_a_segment_that_another_process_removes_while_it_is_opened_is_no_error(
    vault: Tercet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight processes on one folder met it: the next one is written, and this one unlinked, just before the open."""
    vault.work(until_idle=True)
    vault.vault.tenant("default").forget_cache()
    opened, gone = Path.open, list[Path]()

    def late(path: Path, *args: object, **options: object) -> object:
        if path.suffix == ".lvq":
            path.unlink()
            gone.append(path)
        return opened(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", late)
    assert nearest(vault.scope(), 7)[0] == "Note number 7"
    assert gone


def test_a_backup_without_segments_makes_its_own(vault: Tercet, tmp_path: Path) -> None:
    vault.work(until_idle=True)
    vault.backup(tmp_path / "copy")
    with Tercet.open(tmp_path / "copy", embedder=directions) as copy:
        assert nearest(copy.scope(user="alice"), 3)[0] == "Note number 3"
        copy.vault.tenant("default").index()
        assert len(segments(copy)) == 1
        assert nearest(copy.scope(user="alice"), 3)[0] == "Note number 3"


def test_why_says_whether_a_scan_or_the_graph_found_it(vault: Tercet) -> None:
    alice = vault.scope(user="alice")
    assert way(alice, 3) == "scan"
    assert meta(vault, "scan_rows") is None
    vault.work(until_idle=True)
    assert meta(vault, "scan_rows") == "150"
    assert way(alice, 3) == "graph"
    assert "vectors" not in alice.recall("3", limit=1, policy="words")[0].why
    bob = vault.scope(user="bob")
    bob.remember_many([{"role": "user", "content": f"Note number {i}", "tags": ["odd"]} for i in range(1001, 1401, 2)])
    assert way(bob, 1003) == "scan"  # not in the segment yet
    vault.vault.tenant("default").index()
    everyone = vault.scope()
    assert way(everyone, 1003) == "graph"
    assert way(everyone, 1003, where={"tags": "odd"}) == "scan"  # the nearest 128 and more of 800 hold too few of 200


def test_the_size_is_measured_once_a_vault(vault: Tercet, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.work(until_idle=True)
    alice = vault.scope(user="alice")
    monkeypatch.setattr(wide, "measured", lambda _: 10**9)
    alice.remember_many([f"Note number {i}" for i in range(2000, 2200)])
    vault.vault.tenant("default").index()
    assert len(Segment.open(segments(vault)[0])) == ROWS + 200
    assert meta(vault, "scan_rows") == "150"
    assert way(alice, 3) == "graph"


def test_what_is_measured_is_a_number_of_rows(vault: Tercet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(wide, "WIDE", 100)
    monkeypatch.setattr(wide, "GRAPH", Graph(breadth=64, least=100))
    vault.vault.tenant("default").index()
    assert 0 < int(str(meta(vault, "scan_rows"))) <= ROWS


def test_an_erasure_leaves_codes_without_a_graph_until_the_job_makes_one(vault: Tercet) -> None:
    vault.work(until_idle=True)
    alice = vault.scope(user="alice")
    gone = alice.list(limit=1)[0]
    alice.forget(gone.id)
    assert not Segment.open(segments(vault)[0]).has_graph
    assert way(alice, 3) == "scan"
    vault.work(until_idle=True)
    [after] = segments(vault)
    assert Segment.open(after).has_graph
    assert len(Segment.open(after)) == ROWS - 1
    assert way(alice, 3) == "graph"


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_erased_while_an_index_is_built_is_not_in_it(
    vault: Tercet, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(sqlite, "AT_ONCE", -1)
    alice = vault.scope(user="alice")
    gone = next(cube for cube in alice.list(limit=ROWS) if cube.text == "Note number 7")
    build = wide.build
    rows: list[int] = []

    def slow(
        connection: Connection, folder: Path, space: int, dim: int, *, whole: bool = True, seal: Seal | None = None
    ) -> wide.Built | None:
        built = build(connection, folder, space, dim, whole=whole, seal=seal)
        if not rows:
            assert nearest(alice, 8)[0] == "Note number 8"  # searches and writes go on meanwhile
            alice.forget(gone.id)
        rows.append(0 if built is None else built.rows)
        return built

    monkeypatch.setattr(wide, "build", slow)
    vault.vault.tenant("default").index()
    assert rows == [ROWS, ROWS - 1]
    folder = vault.vault.folder / "segments"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["vectors-1-1.lvq"]
    assert len(Segment.open(segments(vault)[0])) == ROWS - 1


def test_leftovers_of_a_broken_build_go_with_the_next_erasure(vault: Tercet) -> None:
    vault.work(until_idle=True)
    [path] = segments(vault)
    leftover = path.with_name("vectors-1-abc.building.part")
    leftover.write_bytes(path.read_bytes())
    alice = vault.scope(user="alice")
    alice.forget(alice.list(limit=1)[0].id)
    assert not leftover.exists()


def test_a_filter_does_not_lower_recall(vault: Tercet) -> None:
    everyone, odd = vault.scope(), vault.scope(user="bob")
    odd.remember_many([{"role": "user", "content": f"Note number {i}", "tags": ["odd"]} for i in range(1001, 3001, 2)])
    vault.work(until_idle=True)
    exact = np.array([directions([f"{i}"])[0] for i in [*range(ROWS), *range(1001, 3001, 2)]])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    numbers = np.array([*range(ROWS), *range(1001, 3001, 2)])
    assert (way(everyone, 3), way(everyone, 3, where={"tags": "odd"})) == ("graph", "graph")
    filters: list[dict[str, str] | None] = [None, {"tags": "odd"}]
    shares: list[list[float]] = [[], []]
    for i in range(40):
        query = exact[np.flatnonzero(numbers == i)[0]]
        for where, share in zip(filters, shares, strict=True):
            kept = numbers > 1000 if where else numbers >= 0
            best = numbers[kept][np.argsort(-(exact[kept] @ query))[:10]]
            hits = everyone.recall(f"{i}", limit=10, policy="vectors", where=where)
            found = [int(hit.cube.text.rpartition(" ")[2]) for hit in hits]
            share.append(len(set(found) & set(best.tolist())) / 10)
    assert np.mean(shares[1]) >= np.mean(shares[0]) - 0.001
    assert np.mean(shares[0]) > 0.97


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
