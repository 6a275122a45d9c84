"""The contract of a cube's life: states, ends, decay, holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tercet.cube import Governance, MemCube, Text, derive
from tercet.errors import Held, IllegalTransition, InvalidRequest, MissingMemory, StaleWrite
from tercet.govern.retention import Retention
from tercet.kernel import Tercet
from tercet.lifecycle import EDGES, State
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet, all_clear
from tercet.testing.seeded import SeededClock

DAY = timedelta(days=1)


class LifeTests(Contract):
    """What lives, ends; what is frozen or held, stays."""

    @pytest.fixture
    def clock(self) -> SeededClock:
        """Time, which the test lets pass."""
        return SeededClock()

    def test_every_edge_is_legal_or_changes_nothing(self, alice: ScopedMemory, t: Tercet) -> None:
        """From each state each move does what the table says, with a line that tells the former state, or raises."""
        moves: dict[State, Callable[[str], object]] = {
            State.ACTIVATED: alice.unarchive,
            State.ARCHIVED: alice.archive,
            State.FROZEN: alice.freeze,
        }
        for current in set(State) - {State.EXPIRED}:
            for target, move in moves.items():
                cube = _in_state(alice, current)
                changes = alice.changes(limit=10_000)
                legal = target in EDGES[current] and (target is not State.ACTIVATED or current is State.ARCHIVED)
                if legal:
                    move(cube.id)
                    assert alice.get(cube.id).state is target
                    assert t.audit(since=changes[-1].seq)[-1].detail == {"former": current.value}
                else:
                    with pytest.raises(IllegalTransition):
                        move(cube.id)
                    assert (alice.get(cube.id).state, alice.changes(limit=10_000)) == (current, changes)
        all_clear(t)

    @pytest.mark.parametrize("former", sorted(set(State) - {State.EXPIRED, State.FROZEN}))
    def test_unfreezing_restores_the_former_state(self, alice: ScopedMemory, former: State) -> None:
        """And what is not frozen cannot be unfrozen."""
        cube = _in_state(alice, former)
        with pytest.raises(IllegalTransition, match="not frozen"):
            alice.unfreeze(cube.id)
        assert alice.freeze(cube.id).state is State.FROZEN
        assert alice.unfreeze(cube.id).state is former

    def test_what_is_frozen_is_not_edited(self, alice: ScopedMemory) -> None:
        """It is read and recalled, and may be forgotten."""
        cube = alice.remember("The boiler code is 4417.")
        alice.freeze(cube.id)
        with pytest.raises(IllegalTransition):
            alice.revise(cube.id, "Other.")
        with pytest.raises(IllegalTransition):
            alice.rollback(cube.id, version=1)
        assert [hit.cube.id for hit in alice.recall("boiler code")] == [cube.id]
        assert alice.get(cube.id).state is State.FROZEN
        assert alice.forget(cube.id).erased == (cube.id,)

    def test_the_archive_is_asked_by_name_and_a_use_brings_back(self, alice: ScopedMemory, t: Tercet) -> None:
        """Recall leaves it out, unless the condition names a state."""
        cube, other = alice.remember_many(["The boiler code is 4417.", "The boiler is old."])
        alice.archive(cube.id)
        assert [hit.cube.id for hit in alice.recall("boiler code")] == [other.id]
        assert alice.get(cube.id).state is State.ARCHIVED
        assert [hit.cube.id for hit in alice.recall("boiler code", where={"state": "archived"})] == [cube.id]
        t.flush_uses(t.vault.tenant("default"))
        assert alice.get(cube.id).state is State.ACTIVATED
        assert {hit.cube.id for hit in alice.recall("boiler code")} == {cube.id, other.id}

    @pytest.mark.parametrize("how", ["span", "moment", "draft"])
    def test_what_has_ended_is_not_recalled_and_is_erased(
        self, open_tercet: OpenTercet, clock: SeededClock, how: str
    ) -> None:
        """At its end recall stops giving it; the sweep erases it, with what was made from it; others stay."""
        with open_tercet(clock=clock) as t:
            alice, end = t.scope(user="alice"), clock.now + DAY
            given: dict[str, timedelta | datetime] = {"span": DAY, "moment": end}
            item = MemCube(Text("The code is 4417."), governance=Governance(expires=end)) if how == "draft" else None
            cube = alice.remember(item or "The code is 4417.", expires=given.get(how))
            product = alice.remember(derive([cube], Text("A code."), method="m"))
            other = alice.remember("The code is on the door.")
            t.work(until_idle=True)
            assert len(alice.recall("code")) == 3
            clock.advance(DAY)
            assert [hit.cube.id for hit in alice.recall("code")] == [other.id]
            t.work(until_idle=True)
            assert [one.id for one in alice.list()] == [other.id]
            for id in (cube.id, product.id):
                with pytest.raises(MissingMemory):
                    alice.get(id)
            [line] = [line for line in t.audit() if line.action == "erasure"]
            assert set(t.receipt(line.seq).erased) == {cube.id, product.id}
            all_clear(t)

    def test_an_end_that_cannot_be_is_refused(self, alice: ScopedMemory) -> None:
        """No zone, no time at all, or one that has no length."""
        for end in (datetime(2030, 1, 1), timedelta(0), -DAY, timedelta.max, "soon", 5):  # noqa: DTZ001  # that is the point
            with pytest.raises(InvalidRequest):
                alice.remember("Short-lived.", expires=end)  # type: ignore[arg-type]
        assert alice.list().total == 0

    def test_what_is_not_used_fades(self, open_tercet: OpenTercet, clock: SeededClock) -> None:
        """Below the floor it is archived, after its time there erased; uses count against it; frozen stays."""
        rules = Retention(half_life_days={"fact": 1.0}, floor=0.25, archive_timeout=10 * DAY)
        with open_tercet(clock=clock, retention=rules) as t:
            alice = t.scope(user="alice")
            idle, used, frozen, note = (
                alice.remember("An idle one."),
                alice.remember("The zebra."),
                alice.remember("As it is."),
                alice.remember("No fact.", type="note"),
            )
            alice.freeze(frozen.id)
            for _ in range(3):
                alice.recall("zebra", limit=1)
            states = []
            for days in (1.9, 0.2, 2.0, 7.5, 1.0):
                clock.advance(timedelta(days=days))
                t.work(until_idle=True)
                found = {cube.id: cube.state for cube in alice.list()}
                states.append([found.get(cube.id) for cube in (idle, used)])
            # (1 + 0 uses) · 2^-2 = 0.25 after two days; (1 + 3) · 2^-4 = 0.25 after four.
            active, archived = State.ACTIVATED, State.ARCHIVED
            assert states[:2] == [[State.GENERATED, active], [archived, active]]
            assert states[2:] == [[archived, archived], [archived, archived], [None, archived]]
            assert alice.get(frozen.id).state is State.FROZEN
            assert alice.get(note.id).state is State.GENERATED
            all_clear(t)

    def test_a_hold_outlasts_an_end(self, open_tercet: OpenTercet, clock: SeededClock) -> None:
        """Whether it is on the cube or on what was made from it; once released it ends."""
        with open_tercet(clock=clock) as t:
            alice = t.scope(user="alice")
            held, source = alice.remember("Held.", expires=DAY), alice.remember("A source.", expires=DAY)
            product = alice.remember(derive([source], Text("Made of it."), method="m"))
            free = alice.remember("Free.", expires=DAY)
            alice.hold(held.id, "case 7")
            alice.hold(product.id, "case 8")
            clock.advance(2 * DAY)
            t.work(until_idle=True)
            assert {one.id for one in alice.list()} == {held.id, source.id, product.id}
            with pytest.raises(MissingMemory):
                alice.get(free.id)
            all_clear(t)
            alice.release(held.id)
            alice.release(product.id)
            clock.advance(2 * DAY)
            t.work(until_idle=True)
            assert alice.list().total == 0

    def test_a_hold_refuses_an_erasure_unless_a_reason_is_given(self, alice: ScopedMemory, t: Tercet) -> None:
        """The hold makes a version; the reason stands in the receipt and in the journal."""
        cube = alice.remember("The code is 4417.")
        held = alice.hold(cube.id, "case 7")
        assert (held.version, held.governance.hold, held.text) == (2, "case 7", cube.text)
        assert [hit.cube for hit in alice.recall("code")] == [held]
        with pytest.raises(StaleWrite):
            alice.revise(cube.id, "Another.", expect=1)
        assert alice.rollback(cube.id, version=1).governance.hold == "case 7"
        with pytest.raises(Held, match="case 7"):
            alice.forget(cube.id)
        with pytest.raises(Held, match="case 7"):
            alice.forget(everything=True)
        for reason in ("", " ", "\0", 5):
            with pytest.raises(InvalidRequest):
                alice.forget(cube.id, despite_hold=reason)  # type: ignore[arg-type]
        receipt = alice.forget(cube.id, despite_hold="court order 7")
        assert receipt.despite_hold == "court order 7"
        [line] = [line for line in t.audit() if line.action == "erasure"]
        assert line.detail["despite_hold"] == "court order 7"
        all_clear(t)

    def test_holds_are_placed_and_released_once(self, alice: ScopedMemory) -> None:
        """A second one needs the first released; a reason is needed."""
        cube = alice.remember("One.")
        with pytest.raises(InvalidRequest, match="no hold"):
            alice.release(cube.id)
        with pytest.raises(InvalidRequest, match="reason"):
            alice.hold(cube.id, "  ")
        alice.hold(cube.id, "case 7")
        with pytest.raises(InvalidRequest, match="case 7"):
            alice.hold(cube.id, "case 8")
        assert alice.release(cube.id).governance.hold is None
        assert alice.forget(cube.id).erased == (cube.id,)

    def test_retention_is_for_what_says_nothing(self, open_tercet: OpenTercet, clock: SeededClock) -> None:
        """By type, or for any; a draft's own end goes before."""
        rules = Retention(ttl={"event": DAY, "*": 2 * DAY}, half_life_days={"*": 3.0})
        with open_tercet(clock=clock, retention=rules) as t:
            alice, now = t.scope(user="alice"), clock.now
            event, fact = alice.remember("An event.", type="event"), alice.remember("A fact.")
            own = alice.remember("Its own.", expires=now + 9 * DAY)
            ends = [cube.governance.expires for cube in (event, fact, own)]
            assert ends[2] == now + 9 * DAY
            assert [round((end - now) / DAY) for end in ends[:2] if end is not None] == [1, 2]
            assert fact.governance.half_life_days == 3.0

    def test_a_clock_that_goes_back_does_no_harm(self, open_tercet: OpenTercet, clock: SeededClock) -> None:
        """Nothing ends early, nothing is lost, and what is due later still comes."""
        with open_tercet(clock=clock, retention=Retention(half_life_days={"*": 1.0})) as t:
            alice = t.scope(user="alice")
            cube = alice.remember("One.", expires=5 * DAY)
            clock.advance(-30 * DAY)
            other = alice.remember("Two.")
            t.work(until_idle=True)
            assert {one.id for one in alice.list()} == {cube.id, other.id}
            clock.advance(30 * DAY)
            t.work(until_idle=True)
            assert alice.get(other.id).state is State.ARCHIVED
            assert alice.get(cube.id).state is State.GENERATED
            clock.advance(6 * DAY)
            t.work(until_idle=True)
            assert [one.id for one in alice.list()] == [other.id]
            all_clear(t)


def _in_state(alice: ScopedMemory, state: State) -> MemCube:
    draft = MemCube(Text("The boiler code is 4417."))
    if state is not State.FROZEN:
        return alice.remember(replace(draft, behavioural=replace(draft.behavioural, state=state)))
    return alice.freeze(alice.remember(draft).id)
