"""Columns that were kept in step equal columns that are read anew, and so do the postings kept with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tercet import Tercet
from tercet.lifecycle import State
from tercet.vault.connection import query
from tercet.vault.ids import parse_id
from tercet.vault.search import columns, view
from tercet.vault.search.columns import SCALARS, Columns
from tercet.vault.search.view import ScopeView

TERMS = ("boiler", "kitchen", "nothing")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few rows be many, and keep few postings."""
    monkeypatch.setattr(columns, "WIDE", 10)
    monkeypatch.setattr(view, "KEPT", 60)


def same(t: Tercet, kept: Columns) -> None:
    """Compare with columns and postings read anew."""
    with t.vault.tenant("default").reading() as reader:
        fresh = Columns(None, 0, 1)
        tables = [held.readable(held.at(reader.connection)) for held in (kept, fresh)]
        assert tables[0].n.tolist() == tables[1].n.tolist()
        for name in set(SCALARS) - {"run", "speaker", "kind", "state"}:  # those are codes, in the order of coming
            np.testing.assert_array_equal(getattr(tables[0], name), getattr(tables[1], name))
        states = [
            [held.states.names[code] for code in table.state] for held, table in zip((kept, fresh), tables, strict=True)
        ]
        assert states[0] == states[1]
        views = [ScopeView(reader.connection, None, table, [], (0, 1), lambda *_: None) for table in tables]
        for term in TERMS:
            for one, other in zip(*(seen.postings(term) for seen in views), strict=True):
                assert one.tolist() == other.tolist()


def move(t: Tercet, id: str, target: State) -> None:
    """Take a cube from generated to another state."""
    with t.vault.tenant("default").writing(by="test") as writer:
        [(n,)] = query(writer.connection, "SELECT n FROM cubes WHERE id = ?", (parse_id(id),))
        writer.move(n, target, by="revise")


def test_they_stay_in_step_whatever_changes(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        kept = Columns(None, 0, 1)
        alice, bob = t.scope(user="alice"), t.scope(user="bob")
        cubes = alice.remember_many([f"The boiler of kitchen {i}" for i in range(30)])
        same(t, kept)
        with t.vault.tenant("default").reading() as reader:
            before = kept.at(reader.connection)
        for cube in cubes[:5]:
            move(t, cube.id, State.ACTIVATED)
        same(t, kept)
        with t.vault.tenant("default").reading() as reader:
            assert kept.at(reader.connection).n is before.n  # nothing but the states was read again
        move(t, cubes[7].id, State.ARCHIVED)
        same(t, kept)
        bob.remember("Another boiler")
        same(t, kept)
        alice.revise(cubes[9].id, "A lamp in place of it")
        same(t, kept)
        alice.forget(cubes[11].id)
        same(t, kept)


def table_of(numbers: list[int]) -> columns.Table:
    n, times = np.array(numbers, dtype=np.int64), np.zeros(len(numbers))
    return columns.Table(n, n, n, n, n, n, times, times, times, n, n, None, None)


def test_numbers_are_found_whether_near_or_far_apart() -> None:
    far = np.array([3, 4, 500_000, 600_000, 70_000, 1, 10**12, -5], dtype=np.int64)
    assert table_of([500_000, 3, 70_000]).rows_of(far).tolist() == [1, -1, 0, -1, 2, -1, -1, -1]
    near = np.array([2, 3, 4, 5, 6, 10**12, -5], dtype=np.int64)
    assert table_of([5, 3, 4]).rows_of(near).tolist() == [-1, 1, 2, 0, -1, -1, -1]
    assert table_of([]).rows_of(near).tolist() == [-1] * 7
