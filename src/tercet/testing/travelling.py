"""The contract of `as_of`, snapshots, branches, `diff` and `restore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tercet.cube import Governance, MemCube, Text, derive
from tercet.errors import Held, InvalidRequest, MissingBranch, MissingMemory
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet, all_clear
from tercet.testing.seeded import SeededClock


def texts(memory: ScopedMemory) -> set[str]:
    """What a scope lists."""
    return {cube.text for cube in memory.list(limit=1000)}


def found(memory: ScopedMemory, question: str) -> set[str]:
    """What a scope recalls."""
    return {hit.cube.text for hit in memory.recall(question, limit=100)}


def line(memory: ScopedMemory) -> int:
    """The newest line of the journal on a scope's cubes."""
    return memory.changes(limit=10_000)[-1].seq


class TimeTests(Contract):
    """The past can be read, compared with and gone back to; a branch is written to without touching its parent."""

    def test_as_of_shows_what_was_known(self, alice: ScopedMemory) -> None:
        """By list, get, history, filter and recall: the version, tags and state of then."""
        one = alice.remember("The boiler code is 4417.", tags=["old"])
        then, before = line(alice), list(alice.list())
        alice.revise(one.id, "The heating is off.", tags=["new"])
        alice.remember("I moved to Oslo.")
        past = alice.as_of(known=then)
        assert list(past.list()) == before
        assert (past.get(one.id), past.history(one.id)) == (one, [one])
        assert (past.list(where={"tags": "old"}).total, past.list(where={"tags": "new"}).total) == (1, 0)
        assert found(past, "boiler code 4417") == {"The boiler code is 4417."}
        assert found(past, "heating") <= {"The boiler code is 4417."}
        assert "4417" in past.context("boiler code")
        assert texts(alice) == {"The heating is off.", "I moved to Oslo."}

    def test_as_of_ranks_as_it_did(self, alice: ScopedMemory) -> None:
        """The same hits with the same scores as on that day, by words and by vectors, neighbours included."""
        cubes = alice.remember_many(
            [f"The {thing} is in the cellar, said Ann." for thing in ("boiler", "bike", "wine")]
        )
        day, then = alice.recall("where is the boiler?"), line(alice)
        alice.revise(cubes[0].id, "Pears are ripe.")
        alice.remember_many(["More of the boiler, boiler, boiler.", "And the cellar."])
        alice.recall("pears")
        again = alice.as_of(known=then).recall("where is the boiler?")
        assert [(hit.cube, hit.score, hit.why) for hit in again] == [(hit.cube, hit.score, hit.why) for hit in day]
        assert again.total == day.total

    def test_the_past_is_only_read(self, alice: ScopedMemory) -> None:
        """Every write to it is refused, and nothing changes."""
        cube = alice.remember("One.")
        past, before = alice.as_of(known=line(alice)), alice.changes()
        calls: list[Callable[[], object]] = [
            lambda: past.remember("Two."),
            lambda: past.remember_many(["Two."]),
            lambda: past.revise(cube.id, "Two."),
            lambda: past.rollback(cube.id, version=1),
            lambda: past.forget(cube.id),
        ]
        for call in calls:
            with pytest.raises(InvalidRequest, match="past"):
                call()
        past.recall("one")
        assert (alice.changes(), alice.get(cube.id)) == (before, cube)

    def test_times_before_after_and_without_a_zone(self, open_tercet: OpenTercet) -> None:
        """Before the first line: nothing. In the future: now. Without a zone, or no line there could be: refused."""
        clock = SeededClock()
        with open_tercet(clock=clock) as t:
            alice, start = t.scope(user="alice"), clock.now
            cube = alice.remember("One.")
            assert alice.as_of(known=start - timedelta(days=1)).list().total == 0
            assert list(alice.as_of(known=start - timedelta(days=1)).recall("one")) == []
            with pytest.raises(MissingMemory):
                alice.as_of(known=0).get(cube.id)
            assert list(alice.as_of(known=clock.now + timedelta(days=9)).list()) == [cube]
            assert list(alice.as_of(known=10**9).list()) == [cube]
            for known in (datetime(2024, 5, 1), "2024-05-01T09:00:00", "soon", -1, True):  # noqa: DTZ001
                with pytest.raises(InvalidRequest):
                    alice.as_of(known=known).list()

    def test_a_clock_that_goes_back(self, open_tercet: OpenTercet) -> None:
        """The journal's order decides: what was written after a later line is not known before it."""
        clock = SeededClock(step=timedelta(0))
        with open_tercet(clock=clock) as t:
            alice, noon = t.scope(user="alice"), clock.now
            alice.remember("At noon.")
            clock.advance(timedelta(hours=2))
            alice.remember("At two.")
            clock.advance(timedelta(hours=-1))
            alice.remember("At one, after two.")
            known = {hours: texts(alice.as_of(known=noon + timedelta(hours=hours))) for hours in (0, 1, 2)}
        assert known[0] == known[1] == {"At noon."}
        assert known[2] == {"At noon.", "At two.", "At one, after two."}

    def test_erased_content_is_in_no_past(self, alice: ScopedMemory, t: Tercet) -> None:
        """Not by id, list or recall, at any line, nor in a snapshot of then."""
        cube, kept = alice.remember_many(["The boiler code is 4417.", "Oslo."])
        alice.revise(cube.id, "The boiler code is 9921.")
        t.snapshot("s")
        newest = line(alice)
        alice.forget(cube.id)
        for known in range(newest + 1):
            past = alice.as_of(known=known)
            assert texts(past) <= {kept.text}
            assert found(past, "boiler code 4417 9921") <= {kept.text}
            with pytest.raises(MissingMemory):
                past.get(cube.id)
        t.restore("s")
        assert texts(alice) == {"Oslo."}
        all_clear(t)

    def test_another_scope_sees_no_past_of_ours(self, alice: ScopedMemory, bob: ScopedMemory, t: Tercet) -> None:
        """Neither by as_of nor on a branch."""
        cube = alice.remember("The boiler code is 4417.")
        then = line(alice)
        alice.revise(cube.id, "Changed.")
        t.branch("b")
        for view in (bob.as_of(known=then), t.scope(user="bob", branch="b")):
            assert (view.list().total, list(view.recall("boiler code 4417"))) == (0, [])
            with pytest.raises(MissingMemory):
                view.get(cube.id)

    def test_a_branch_is_written_to_alone(self, alice: ScopedMemory, t: Tercet) -> None:
        """It begins as its parent; from then on neither sees what the other writes."""
        one, two = alice.remember_many(["The boiler code is 4417.", "I moved to Oslo."])
        made = t.branch("b")
        b = t.scope(user="alice", branch="b")
        assert (made.name, made.parent, made.memories) == ("b", "main", 0)
        assert list(b.list()) == list(alice.list())
        new = b.revise(one.id, "The heating is off.", expect=1)
        b.remember("Only on b.")
        alice.revise(two.id, "I moved to Bergen.")
        alice.remember("Only on main.")
        assert texts(b) == {"The heating is off.", "I moved to Oslo.", "Only on b."}
        assert texts(alice) == {"The boiler code is 4417.", "I moved to Bergen.", "Only on main."}
        assert (b.get(one.id), new.version, new.behavioural.parent) == (new, 2, 1)
        assert [kept.text for kept in b.history(one.id)] == ["The boiler code is 4417.", "The heating is off."]
        assert alice.history(one.id) == [one]
        assert found(b, "boiler heating Oslo Bergen main only") == texts(b)
        assert found(alice, "boiler heating Oslo Bergen b only") == texts(alice)
        assert [change.action for change in b.changes()].count("revise") == 1
        assert b.rollback(one.id, version=1).text == one.text
        all_clear(t)

    def test_a_branch_of_a_branch(self, alice: ScopedMemory, t: Tercet) -> None:
        """It shows its parent as of its beginning, over the parent's own; erasing from it reaches all the way down."""
        one, two = alice.remember_many(["One.", "Two."])
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "One on b.")
        t.branch("c", from_="b")
        c = t.scope(user="alice", branch="c")
        b.revise(one.id, "One on b, later.")
        c.revise(two.id, "Two on c.")
        assert (texts(c), texts(b)) == ({"One on b.", "Two on c."}, {"One on b, later.", "Two."})
        assert [kept.text for kept in c.history(one.id)] == ["One.", "One on b."]
        product = c.remember(derive([c.get(one.id)], Text("Made on c."), method="m"))
        assert set(c.forget(one.id).erased) == {one.id, product.id}
        assert (texts(alice), texts(b), texts(c)) == ({"Two."}, {"Two."}, {"Two on c."})
        all_clear(t)

    def test_a_ref_names_one_cube_a_branch(self, alice: ScopedMemory, t: Tercet) -> None:
        """What the parent had is known by its ref; a new ref is the branch's own."""
        one = alice.remember("One.", ref="r")
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        assert b.remember("One.", ref="r") == one
        assert b.remember("Two.", ref="s").id != alice.remember("Another.", ref="s").id
        all_clear(t)

    def test_a_branch_copies_nothing(self, alice: ScopedMemory, t: Tercet) -> None:
        """However much there is, a branch is one row, and the line of the journal that says so."""
        alice.remember_many([f"Memory {i}." for i in range(300)])

        def counts() -> dict[str, int]:
            found = t.stats()["tenants"]["default"]
            return {name: found[name] for name in ("cubes", "versions", "postings", "old_vectors", "bytes")}

        t.branch("first")
        before = counts()
        for name in ("b", "c", "d"):
            t.branch(name, from_="b" if name == "d" else None)
        after = counts()
        assert {**before, "bytes": 0} == {**after, "bytes": 0}
        assert after["bytes"] - before["bytes"] <= 4096

    def test_names(self, alice: ScopedMemory, t: Tercet) -> None:
        """Taken, reserved and unusable ones are refused; missing ones are said to be missing."""
        alice.remember("One.")
        t.snapshot("s")
        t.branch("b")
        for name in ("s", "b", "now", "main", "", " ", "a\nb", "x" * 201, None):
            with pytest.raises(InvalidRequest):
                t.snapshot(name)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest):
                t.branch(name)  # type: ignore[arg-type]
        calls: list[Callable[[], object]] = [
            lambda: t.scope(branch="x").list(),
            lambda: t.scope(branch="x").remember("Two."),
            lambda: t.snapshot("y", branch="x"),
            lambda: t.branch("y", from_="x"),
            lambda: t.diff("x"),
            lambda: t.restore("x"),
            lambda: t.drop("x"),
        ]
        for call in calls:
            with pytest.raises(MissingBranch):
                call()
        assert ([one.name for one in t.snapshots()], [one.name for one in t.branches()]) == (["s"], ["b"])
        assert t.scope(branch="main").list().total == 1

    def test_diff_and_restore(self, alice: ScopedMemory, bob: ScopedMemory, t: Tercet) -> None:
        """Added, removed, revised; back to the snapshot, and by its undo forth again."""
        one, two = alice.remember_many(["One.", "Two."])
        t.snapshot("s")
        alice.revise(one.id, "One, changed.")
        three = bob.remember("Three.", ref="r")
        said = t.diff("s")
        assert [(d.id, d.before, d.after) for d in said.added] == [(three.id, None, 1)]
        assert [(d.id, d.before, d.after) for d in said.revised] == [(one.id, 1, 2)]
        assert [d.id for d in t.diff("now", "s").removed] == [three.id]
        done = t.restore("s")
        assert (done.revised, done.hidden) == ((one.id,), (three.id,))
        assert (texts(alice), texts(bob)) == ({"One.", "Two."}, set())
        assert found(alice, "one changed two") == {"One.", "Two."}
        assert (alice.get(one.id).version, [kept.text for kept in alice.history(one.id)]) == (
            3, ["One.", "One, changed.", "One."],
        )  # fmt: skip
        for call in (bob.get, bob.history):
            with pytest.raises(MissingMemory):
                call(three.id)
        assert (list(bob.recall("three")), bob.list().total) == ([], 0)
        nothing = t.diff("s")
        assert (nothing.added, nothing.removed, nothing.revised) == ((), (), ())
        all_clear(t)
        undone = t.restore(done.undo)
        assert (undone.revised, undone.shown) == ((one.id,), (three.id,))
        assert (texts(alice), texts(bob)) == ({"One, changed.", "Two."}, {"Three."})
        assert bob.get(three.id) == three
        assert two == alice.get(two.id)
        all_clear(t)

    def test_forgetting_reaches_what_is_hidden_or_on_a_branch(
        self, alice: ScopedMemory, bob: ScopedMemory, t: Tercet
    ) -> None:
        """By id and by condition; another scope's stays out of reach, and a branch erases what it shows."""
        kept = alice.remember("Kept.", tags=["x"])
        t.snapshot("s")
        first, second = alice.remember_many(["Made.", "Made too."])
        undo = t.restore("s").undo
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        only = b.remember("Only on b.", tags=["b"])
        later = alice.remember("Only on main.", tags=["b"])
        with pytest.raises(MissingMemory):
            bob.forget(first.id)
        assert alice.forget(first.id).erased == (first.id,)
        assert set(b.forget(where={"tags": "b"}).erased) == {only.id}
        assert set(alice.forget(where={"type": "fact"}).erased) == {kept.id, second.id, later.id}
        t.restore(undo)
        assert (alice.list().total, b.list().total) == (0, 0)
        all_clear(t)

    def test_a_ref_is_free_while_its_cube_is_hidden(self, alice: ScopedMemory, t: Tercet) -> None:
        """And the cube that took it gives way when the other comes back."""
        alice.remember("Zero.")
        t.snapshot("s")
        alice.remember("One.", ref="r")
        undo = t.restore("s").undo
        assert alice.remember("Two.", ref="r").text == "Two."
        t.restore(undo)
        assert texts(alice) == {"Zero.", "One."}
        assert alice.remember("One.", ref="r").text == "One."
        all_clear(t)

    def test_a_restore_lifts_no_hold(self, alice: ScopedMemory, t: Tercet) -> None:
        """The rules that stand now stay; only content comes back."""
        free = alice.remember("Free.")
        held = alice.remember(MemCube(Text("Held."), governance=Governance(hold="case 7")))
        t.snapshot("s")
        alice.revise(held.id, "Held, changed.")
        t.restore("s")
        with pytest.raises(Held):
            alice.forget(held.id)
        assert texts(alice) == {free.text, "Held."}

    def test_restoring_a_branch(self, alice: ScopedMemory, t: Tercet) -> None:
        """A snapshot of a branch is of that branch: its parent stays, and so do its parent's cubes."""
        one, two = alice.remember_many(["One.", "Two."])
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "One on b.")
        t.snapshot("s", branch="b")
        b.revise(one.id, "One, later.")
        b.revise(two.id, "Two on b.")
        b.remember("Three.")
        said = t.diff("s", "b")
        assert ({d.id for d in said.revised}, len(said.added)) == ({one.id, two.id}, 1)
        t.restore("s")
        assert (texts(b), texts(alice)) == ({"One on b.", "Two."}, {"One.", "Two."})
        assert t.diff("s", "b").revised == ()
        all_clear(t)

    def test_dropping(self, alice: ScopedMemory, t: Tercet) -> None:
        """A branch goes with its own rows, unless another begins on it; a snapshot takes nothing with it."""
        one = alice.remember("One.")
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "One on b.")
        only = b.remember("Only on b.")
        t.scope(user="carol", branch="b").remember("Of somebody who is only on b.")
        t.snapshot("s", branch="b")
        t.branch("c", from_="s")
        with pytest.raises(InvalidRequest, match="'b': c"):
            t.drop("b")
        assert (t.drop("c"), t.drop("b")) == (0, 3)
        assert (texts(alice), t.branches(), t.snapshots()) == ({"One."}, [], [])
        assert alice.history(one.id) == [one]
        t.branch("b")
        assert texts(t.scope(user="alice", branch="b")) == {"One."}
        with pytest.raises(InvalidRequest, match="erased"):
            alice.remember(replace(only, descriptive=replace(only.descriptive, commitment=None)))
        with pytest.raises(InvalidRequest):
            t.drop("main")
        all_clear(t)

    def test_a_held_branch_is_not_dropped(self, alice: ScopedMemory, t: Tercet) -> None:
        """A hold on what only it holds keeps all of it."""
        alice.remember("One.")
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.remember_many(["Two.", MemCube(Text("Held."), governance=Governance(hold="case 7"))])
        with pytest.raises(Held, match="case 7"):
            t.drop("b")
        assert texts(b) == {"One.", "Two.", "Held."}

    def test_backup_and_reopening_keep_it_all(self, alice: ScopedMemory, t: Tercet, open_tercet: OpenTercet) -> None:
        """Branches, snapshots, hidden cubes and old versions are in the file."""
        one = alice.remember("One.")
        t.snapshot("s")
        alice.revise(one.id, "One, changed.")
        alice.remember("Two.")
        t.branch("b")
        t.scope(user="alice", branch="b").remember("On b.")
        t.restore("s")
        with open_tercet() as other:
            assert texts(other.scope(user="alice")) == {"One."}
            assert texts(other.scope(user="alice", branch="b")) == {"One, changed.", "Two.", "On b."}
            assert other.snapshots() == t.snapshots()
            all_clear(other)

    def test_states_of_the_past(self, alice: ScopedMemory, t: Tercet) -> None:
        """A first use moves a cube; looking back shows it unmoved, and looking moves nothing."""
        cube = alice.remember("The boiler code is 4417.")
        then = line(alice)
        alice.recall("boiler")
        t.flush_uses(t.vault.tenant("default"))
        assert (alice.get(cube.id).state, alice.as_of(known=then).get(cube.id).state) == ("activated", "generated")
        t.branch("b")
        seen: Sequence[MemCube] = t.scope(user="alice", branch="b").list()
        assert [one.state for one in seen] == ["activated"]

    def test_as_of_on_a_branch(self, alice: ScopedMemory, t: Tercet) -> None:
        """Before it began a branch is its parent, as it was."""
        one = alice.remember("One.")
        then = line(alice)
        alice.revise(one.id, "One, changed.")
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "One on b.")
        assert texts(b.as_of(known=then)) == {"One."}
        assert texts(b.as_of(known=then + 1)) == {"One, changed."}
        assert texts(b.as_of(known=datetime(2100, 1, 1, tzinfo=UTC))) == {"One on b."}
