"""The sweep touches what is due and nothing else, and merging keeps to one owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest

from tercet import IllegalTransition, InvalidRequest, MemCube, Refused, ScopedMemory, Tercet, Text, derive
from tercet.cube import Behavioural, Governance
from tercet.exchange.archive import export_scope
from tercet.exchange.restore import import_archive
from tercet.govern.retention import Retention
from tercet.lifecycle import EDGES, RETENTION, State, step
from tercet.testing import FakeEmbedder, SeededClock
from tercet.testing.base import all_clear
from tercet.testing.dump import dump
from tercet.text.prepare import prepare, space_of
from tercet.vault import states, sweep
from tercet.vault.connection import query
from tercet.vault.sweep import Sweep
from tercet.vault.writer import Writer

DAY, ARCHIVED = timedelta(days=1), State.ARCHIVED


@pytest.fixture
def clock() -> SeededClock:
    return SeededClock()


@pytest.fixture
def t(tmp_path: Path, clock: SeededClock) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=clock) as t:
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    return t.scope(user="alice")


def merged(alice: ScopedMemory, sources: list[str], text: str) -> str:
    draft = derive([alice.get(id) for id in sources], Text(text), method="merge/v1")
    embedder = FakeEmbedder()
    [entry] = prepare([draft], embedder)
    with alice.tercet.vault.tenant("default").writing(by="test") as writer:
        return states.merge(writer, entry, space_of(embedder)).id


def test_the_table_says_who_fires_what() -> None:
    for current, targets in EDGES.items():
        for target, fires in targets.items():
            for by in ("read", "revise", "forget", RETENTION):
                if by in fires:
                    assert step(current, target, by=by) is target
                else:
                    with pytest.raises(Refused, match=f"not by {by}"):
                        step(current, target, by=by)
    assert step(State.FROZEN, State.MERGED, former=State.MERGED, by="revise") is State.MERGED
    with pytest.raises(IllegalTransition):
        step(State.FROZEN, State.MERGED, former=State.GENERATED)


def test_batches_are_bounded_and_read_only_what_is_due(
    t: Tercet, alice: ScopedMemory, clock: SeededClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCH", 3)
    alice.remember_many([f"Stays {i}." for i in range(50)])
    for i in range(8):
        alice.remember(f"Goes {i}.", expires=DAY)
    later = alice.remember("Goes later.", expires=10 * DAY)
    clock.advance(2 * DAY)
    first = t.audit()[-1].seq
    t.work(until_idle=True)
    lines = t.audit(since=first)
    assert [line.action for line in lines].count("erasure") == 3
    assert [line.action for line in lines].count("forget") == 8
    with t.vault.tenant("default").maintaining() as connection:
        [(due,)] = query(connection, "SELECT due FROM jobs WHERE name = 'sweep'")
        [(expires,)] = query(connection, "SELECT expires FROM cubes WHERE expires IS NOT NULL")
        assert due == expires
        plans = [
            query(connection, f"EXPLAIN QUERY PLAN {statement}", (0, 0, 0, 9))
            for statement in (sweep._ENDED, sweep._DUE)
        ]
        for plan, index in zip(plans, ("cubes_by_end", "cubes_by_decay"), strict=True):
            assert index in repr(plan), plan
    assert alice.get(later.id) == later
    all_clear(t)


def test_an_earlier_end_moves_the_sweep_forward(t: Tercet, alice: ScopedMemory, clock: SeededClock) -> None:
    alice.remember("Late.", expires=100 * DAY)
    alice.remember("Early.", expires=DAY)
    clock.advance(2 * DAY)
    assert t.work(until_idle=True) == 1  # the scrub; the sweep waits for the late one
    assert [cube.text for cube in alice.list()] == ["Late."]


def test_a_hold_placed_during_a_sweep_wins(
    tmp_path: Path, t: Tercet, alice: ScopedMemory, clock: SeededClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another process holds between two batches stays."""
    monkeypatch.setattr(sweep, "BATCH", 2)
    cubes = [alice.remember(f"Number {i}.", expires=DAY) for i in range(6)]
    clock.advance(2 * DAY)
    tenant = t.vault.tenant("default")
    real, transactions = tenant.writing, 0
    with Tercet.open(tmp_path, embedder=None, clock=clock) as other:

        def writing(*, by: str) -> AbstractContextManager[Writer]:
            nonlocal transactions
            transactions += 1
            if transactions == 2:
                other.scope(user="alice").hold(cubes[3].id, "case 7")
            return real(by=by)

        monkeypatch.setattr(tenant, "writing", writing)
        Sweep(floor=0.1, archive_timeout=None).run(tenant, clock)
    assert [cube.id for cube in alice.list()] == [cubes[3].id]


def test_a_frozen_product_keeps_its_source(t: Tercet, alice: ScopedMemory, clock: SeededClock) -> None:
    source = alice.remember("A source.", expires=DAY)
    product = alice.remember(derive([source], Text("Made of it."), method="m"))
    alice.freeze(product.id)
    clock.advance(2 * DAY)
    t.work(until_idle=True)
    assert alice.list().total == 2
    alice.unfreeze(product.id)
    clock.advance(2 * DAY)
    t.work(until_idle=True)
    assert alice.list().total == 0
    all_clear(t)


def test_time_in_the_freezer_counts_for_nothing(tmp_path: Path, clock: SeededClock) -> None:
    rules = Retention(half_life_days={"*": 1.0}, floor=0.25, archive_timeout=5 * DAY)
    with Tercet.open(tmp_path, embedder=None, clock=clock, retention=rules) as t:
        alice = t.scope(user="alice")
        one, two = alice.remember("One."), alice.remember("Two.")
        alice.archive(two.id)
        for cube in (one, two):
            alice.freeze(cube.id)
        clock.advance(100 * DAY)
        t.work(until_idle=True)
        for cube in (one, two):
            alice.unfreeze(cube.id)
        t.work(until_idle=True)
        assert [alice.get(cube.id).state for cube in (one, two)] == [State.GENERATED, State.ARCHIVED]
        clock.advance(1.5 * DAY)  # faded after two days without a use, of which there was none while it was frozen
        t.work(until_idle=True)
        assert [alice.get(cube.id).state for cube in (one, two)] == [State.GENERATED, State.ARCHIVED]
        clock.advance(DAY)
        t.work(until_idle=True)
        assert [alice.get(cube.id).state for cube in (one, two)] == [State.ARCHIVED, State.ARCHIVED]
        clock.advance(4 * DAY)
        t.work(until_idle=True)
        assert [cube.id for cube in alice.list()] == [one.id]


def test_merging(t: Tercet, alice: ScopedMemory) -> None:
    """The head is merged, its inputs archived and superseded by it; what made it is on record; a use activates it."""
    one, two = alice.remember("I moved to Oslo."), alice.remember("I moved to Oslo in May.")
    head = alice.get(merged(alice, [one.id, two.id], "She moved to Oslo in May."))
    assert (head.state, head.behavioural.method) == (State.MERGED, "merge/v1")
    assert [link.id for link in head.behavioural.derivations] == [one.id, two.id]
    for id in (one.id, two.id):
        cube = alice.get(id)
        assert (cube.state, cube.behavioural.superseded_by, cube.version) == (State.ARCHIVED, head.id, 2)
    assert [hit.cube.id for hit in alice.recall("Oslo")] == [head.id]
    t.flush_uses(t.vault.tenant("default"))
    assert alice.get(head.id).state is State.ACTIVATED
    again = alice.get(merged(alice, [head.id, alice.remember("In Oslo since May.").id], "Oslo, since May."))
    assert again.state is State.MERGED
    assert alice.get(head.id).behavioural.superseded_by == again.id
    assert set(alice.forget(one.id).erased) == {one.id, head.id, again.id}
    all_clear(t)


def test_what_may_not_merge_changes_nothing(t: Tercet, alice: ScopedMemory) -> None:
    one, two, frozen, archived = alice.remember_many(["One.", "Two.", "Frozen.", "Archived."])
    alice.freeze(frozen.id)
    alice.archive(archived.id)
    bob = t.scope(user="bob").remember("Bob's.")
    before = dump(t)
    for sources, error in (
        ([one.id, frozen.id], IllegalTransition),
        ([one.id, archived.id], IllegalTransition),
        ([one.id], InvalidRequest),
    ):
        with pytest.raises(error):
            merged(alice, sources, "Both.")
    draft = derive([one, bob], Text("Both."), method="m", share=True)
    [entry] = prepare([draft], None)
    with pytest.raises(Refused, match="one owner"), t.vault.tenant("default").writing(by="test") as writer:
        states.merge(writer, entry, None)
    assert dump(t) == before
    assert alice.get(two.id) == two


def test_what_comes_archived_does_not_fade_away(tmp_path: Path, clock: SeededClock) -> None:
    """A half-life ends in the archive; from there only a time-out leads on."""
    archive = BytesIO()
    with Tercet.open(tmp_path / "a", embedder=None, clock=clock) as t:
        alice = t.scope(user="alice")
        cube = alice.remember(MemCube(Text("One."), governance=Governance(half_life_days=1.0)))
        drafted = MemCube(
            Text("Two."), governance=Governance(half_life_days=1.0), behavioural=Behavioural(state=ARCHIVED)
        )
        other = alice.remember(drafted)
        alice.archive(cube.id)
        export_scope(alice, archive)
    archive.seek(0)
    with Tercet.open(tmp_path / "b", embedder=None, clock=clock) as t:
        alice = t.scope(user="alice")
        import_archive(alice, archive)
        clock.advance(100 * DAY)
        t.work(until_idle=True)
        assert [(one.id, one.state) for one in alice.list()] == [(cube.id, ARCHIVED), (other.id, ARCHIVED)]
        all_clear(t)
