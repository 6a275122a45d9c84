"""The contract of ends, holds and states where they meet branches, snapshots and looks into the past."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tercet.cube import Behavioural, Governance, MemCube, Text, derive
from tercet.errors import Held, IllegalTransition, MissingMemory
from tercet.govern.retention import Retention
from tercet.kernel import Tercet
from tercet.lifecycle import State
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet, all_clear
from tercet.testing.seeded import SeededClock
from tercet.testing.travelling import found, line, texts

DAY = timedelta(days=1)


class LastingTests(Contract):
    """What has ended, ended on every branch and in every past; what is held or frozen on one branch stays on all."""

    @pytest.fixture
    def time(self) -> SeededClock:
        """Which the test lets pass."""
        return SeededClock()

    @pytest.fixture
    def timed(self, open_tercet: OpenTercet, time: SeededClock) -> Iterator[Tercet]:
        """A vault on that clock; what fades is archived after a few days, and stays there for ever."""
        with open_tercet(clock=time, retention=Retention(floor=0.25, archive_timeout=None)) as t:
            yield t

    def test_an_end_holds_on_every_branch(self, timed: Tercet, time: SeededClock) -> None:
        """What is on a branch alone is swept, too, with what was made from it; what has no end stays."""
        alice = timed.scope(user="alice")
        both = alice.remember("On both, for a day.", expires=DAY)
        timed.branch("b")
        b = timed.scope(user="alice", branch="b")
        b.revise(both.id, "On both, changed on b.")
        only = b.remember("On b alone, for a day.", expires=DAY)
        product = b.remember(derive([only], Text("Made on b."), method="m"))
        b.remember("On b, and stays.")
        alice.remember("On main, and stays.")
        time.advance(2 * DAY)
        assert found(b, "on both alone made changed stays") == {"On b, and stays."}
        timed.work(until_idle=True)
        assert (texts(b), texts(alice)) == ({"On b, and stays."}, {"On main, and stays."})
        for id in (both.id, only.id, product.id):
            with pytest.raises(MissingMemory):
                b.get(id)
        all_clear(timed)

    def test_an_end_holds_for_what_is_hidden(self, timed: Tercet, time: SeededClock) -> None:
        """A restore that undoes the one that hid it brings nothing back whose end has come."""
        alice = timed.scope(user="alice")
        alice.remember("Stays.")
        timed.snapshot("s")
        gone = alice.remember("Hidden, for a day.", expires=DAY)
        undo = timed.restore("s").undo
        time.advance(2 * DAY)
        timed.work(until_idle=True)
        back = timed.restore(undo)
        assert (back.shown, texts(alice)) == ((), {"Stays."})
        assert timed.receipt([one for one in timed.audit() if one.action == "erasure"][-1].seq).erased == (gone.id,)
        all_clear(timed)

    def test_the_past_keeps_no_longer_than_the_present(self, timed: Tercet, time: SeededClock) -> None:
        """Recall in the past leaves out what has ended since; once it is swept it is in no snapshot either."""
        alice = timed.scope(user="alice")
        cube = alice.remember("The code is 4417.", expires=DAY)
        then = line(alice)
        alice.revise(cube.id, "The code is 9921.")
        timed.snapshot("s")
        assert found(alice.as_of(known=then), "code") == {"The code is 4417."}
        time.advance(2 * DAY)
        assert found(alice.as_of(known=then), "code") == set()
        timed.work(until_idle=True)
        past = alice.as_of(known=then)
        assert (past.list().total, timed.restore("s").revised, alice.list().total) == (0, (), 0)
        with pytest.raises(MissingMemory):
            past.history(cube.id)
        all_clear(timed)

    def test_a_hold_on_a_branch_holds_everywhere(self, timed: Tercet, time: SeededClock) -> None:
        """Neither an erasure on the main line, nor the sweep, nor dropping the branch takes what is held there."""
        alice = timed.scope(user="alice")
        cube = alice.remember("The code is 4417.", expires=DAY)
        timed.branch("b")
        b = timed.scope(user="alice", branch="b")
        held = b.hold(cube.id, "case 7")
        assert (held.version, alice.get(cube.id).governance.hold) == (2, None)
        assert found(b, "code 4417") == {"The code is 4417."}
        with pytest.raises(Held, match="case 7"):
            alice.forget(cube.id)
        time.advance(2 * DAY)
        timed.work(until_idle=True)
        assert (alice.list().total, b.list().total) == (1, 1)
        with pytest.raises(Held, match="case 7"):
            timed.drop("b")
        b.release(cube.id)
        time.advance(2 * DAY)
        timed.work(until_idle=True)
        assert (alice.list().total, b.list().total) == (0, 0)
        all_clear(timed)

    def test_what_is_frozen_on_a_branch(self, timed: Tercet, time: SeededClock) -> None:
        """No end takes it from under the branch; whoever forgets it, does."""
        alice = timed.scope(user="alice")
        one, two = (alice.remember(f"Number {i}.", expires=DAY) for i in (1, 2))
        timed.branch("b")
        b = timed.scope(user="alice", branch="b")
        b.revise(one.id, "Number 1 on b.")
        assert b.freeze(one.id).state is State.FROZEN
        assert alice.get(one.id).state is State.GENERATED
        with pytest.raises(IllegalTransition, match="unfreeze"):
            b.revise(one.id, "Again.")
        time.advance(2 * DAY)
        timed.work(until_idle=True)
        assert {cube.id for cube in alice.list()} == {one.id}
        assert texts(b) == {"Number 1 on b."}
        assert alice.forget(one.id).erased == (one.id,)
        assert (alice.list().total, b.list().total) == (0, 0)
        with pytest.raises(MissingMemory):
            alice.get(two.id)
        all_clear(timed)

    def test_a_restored_state_brings_no_end_of_its_own(self, timed: Tercet, time: SeededClock) -> None:
        """What a restore puts back into the archive waits there as the policy says, whenever it would have faded."""
        alice = timed.scope(user="alice")
        cube = alice.remember(MemCube(Text("The code is 4417."), governance=Governance(half_life_days=1.0)))
        alice.archive(cube.id)
        timed.snapshot("s")
        alice.unarchive(cube.id)
        assert timed.restore("s").moved == (cube.id,)
        assert alice.get(cube.id).state is State.ARCHIVED
        for _ in range(5):
            time.advance(5 * DAY)
            timed.work(until_idle=True)
        assert alice.get(cube.id).state is State.ARCHIVED
        alice.unarchive(cube.id)
        time.advance(20 * DAY)
        timed.work(until_idle=True)
        assert alice.get(cube.id).state is State.ARCHIVED
        all_clear(timed)

    def test_a_hold_keeps_the_vectors_of_the_version_before(self, alice: ScopedMemory, t: Tercet) -> None:
        """A look at the day before finds as it did then: the version that a hold makes takes nothing from it."""
        cubes = alice.remember_many(["The boiler is in the cellar.", "Pears are ripe.", "The bike is blue."])
        then, day = line(alice), alice.recall("where is the boiler?")
        held = alice.hold(cubes[0].id, "case 7")
        again = alice.as_of(known=then).recall("where is the boiler?")
        assert [(hit.cube, hit.score, hit.why) for hit in again] == [(hit.cube, hit.score, hit.why) for hit in day]
        now = alice.recall("where is the boiler?")
        assert [(hit.cube.id, hit.score) for hit in now] == [(hit.cube.id, hit.score) for hit in day]
        assert held in [hit.cube for hit in now]
        alice.release(cubes[0].id)
        all_clear(t)

    def test_erased_from_below(self, alice: ScopedMemory, t: Tercet) -> None:
        """What a branch of a branch has of a memory goes with it, and so does what was made there from it."""
        one, two = alice.remember_many(["One.", "Two."])
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "One on b.")
        t.branch("c", from_="b")
        c = t.scope(user="alice", branch="c")
        c.revise(one.id, "One on c.")
        product = c.remember(derive([c.get(one.id)], Text("Made on c."), method="m"))
        t.snapshot("of c", branch="c")
        then = c.changes(limit=1000)[-1].seq
        assert set(alice.forget(one.id).erased) == {one.id, product.id}
        t.restore("of c")
        for view in (alice, b, c, c.as_of(known=then)):
            assert texts(view) == {two.text}
            assert found(view, "One made on b and c.") <= {two.text}
        all_clear(t)

    def test_a_merged_head_and_its_inputs_in_the_past(self, alice: ScopedMemory, t: Tercet) -> None:
        """States that a cube came with are of the past, too."""
        draft = MemCube(Text("The boiler code is 4417."))
        cube = alice.remember(replace(draft, behavioural=Behavioural(state=State.MERGED)))
        then = line(alice)
        alice.archive(cube.id)
        t.branch("b")
        assert alice.as_of(known=then).get(cube.id).state is State.MERGED
        assert t.scope(user="alice", branch="b").get(cube.id).state is State.ARCHIVED
        assert found(alice.as_of(known=then), "boiler") == {cube.text}
        assert found(alice, "boiler") == set()
