"""Branches, snapshots, restores and looks into the past equal plain copies of a dict, under any sequence of calls."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tercet.errors import MissingMemory
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import OpenTercet, all_clear
from tercet.testing.strategies import texts

PICKS = st.integers(0, 999)
USER = "alice"

View = dict[str, list[str]]
"""The texts of every version of each cube, by id."""


@dataclass
class Known:
    """What the dict knows of one branch."""

    seen: View = field(default_factory=View)
    hidden: View = field(default_factory=View)


class TimeMachine(RuleBasedStateMachine):
    """Run it as `VaultMachine`, on an empty vault each time."""

    def __init__(self, open_tercet: OpenTercet) -> None:
        super().__init__()
        self.open_tercet = open_tercet
        self.branches: dict[str | None, Known] = {None: Known()}
        self.snapshots: dict[str, tuple[str | None, View]] = {}
        self.moments: list[tuple[str | None, int, View]] = []
        self.erased: set[str] = set()
        self.names = 0

    @initialize()
    def begin(self) -> None:
        """Two handles, as two processes would have."""
        self.t, self.other = self.open_tercet(), self.open_tercet()

    def at(self, branch: str | None, t: Tercet | None = None) -> ScopedMemory:
        """The memories of a branch."""
        return (t or self.t).scope(user=USER, branch=branch)

    def branch(self, pick: int) -> str | None:
        """One of the branches there are."""
        return list(self.branches)[pick % len(self.branches)]

    def name(self) -> str:
        """One that was not used."""
        self.names += 1
        return f"name {self.names}"

    @rule(pick=PICKS, text=texts())
    def remember(self, pick: int, text: str) -> None:
        """On any branch."""
        branch = self.branch(pick)
        self.branches[branch].seen[self.at(branch).remember(text).id] = [text]

    @rule(pick=PICKS, which=PICKS, text=texts(), other=st.booleans())
    def revise(self, *, pick: int, which: int, text: str, other: bool) -> None:
        """What a branch shows, its parent's too."""
        branch = self.branch(pick)
        seen = self.branches[branch].seen
        if seen:
            id = list(seen)[which % len(seen)]
            new = self.at(branch, self.other if other else self.t).revise(id, text, expect=len(seen[id]))
            seen[id].append(text)
            assert new.version == len(seen[id])

    @rule(pick=PICKS, which=PICKS)
    def forget(self, pick: int, which: int) -> None:
        """From any branch; it is gone from all, and from every past."""
        branch = self.branch(pick)
        seen = self.branches[branch].seen
        if seen:
            id = list(seen)[which % len(seen)]
            assert self.at(branch).forget(id).erased == (id,)
            self.erased.add(id)
            views = [view for known in self.branches.values() for view in (known.seen, known.hidden)]
            for view in [*views, *(view for _, view in self.snapshots.values()), *(view for *_, view in self.moments)]:
                view.pop(id, None)

    @rule(pick=PICKS)
    def take(self, pick: int) -> None:
        """A snapshot, and a line of the journal to look back to."""
        branch, name = self.branch(pick), self.name()
        taken = self.t.snapshot(name, branch=branch)
        self.snapshots[name] = (branch, deepcopy(self.branches[branch].seen))
        self.moments.append((branch, taken.seq, deepcopy(self.branches[branch].seen)))

    @precondition(lambda self: len(self.branches) < 5)
    @rule(pick=PICKS, snapshot=st.booleans())
    def begin_branch(self, *, pick: int, snapshot: bool) -> None:
        """From a branch or a snapshot."""
        name = self.name()
        if snapshot and self.snapshots:
            source: str | None = list(self.snapshots)[pick % len(self.snapshots)]
            view = self.snapshots[str(source)][1]
        else:
            source = self.branch(pick)
            view = self.branches[source].seen
        self.t.branch(name, from_=source)
        self.branches[name] = Known(deepcopy(view))

    @precondition(lambda self: self.snapshots)
    @rule(pick=PICKS)
    def restore(self, pick: int) -> None:
        """To any snapshot; what it takes first is a snapshot like others."""
        name = list(self.snapshots)[pick % len(self.snapshots)]
        branch, view = self.snapshots[name]
        known = self.branches[branch]
        self.snapshots[self.t.restore(name).undo] = (branch, deepcopy(known.seen))
        known.hidden |= {id: known.seen.pop(id) for id in list(known.seen) if id not in view}
        for id, versions in view.items():
            held = known.seen[id] if id in known.seen else known.hidden.pop(id)
            known.seen[id] = held if held[-1] == versions[-1] else [*held, versions[-1]]
        said = self.t.diff(name, branch or "now")
        assert (said.added, said.removed, said.revised) == ((), (), ())

    @precondition(lambda self: len(self.branches) > 1)
    @rule(pick=PICKS)
    def diff(self, pick: int) -> None:
        """Of any branch with the main line: the ids that differ, and how."""
        branch = list(self.branches)[1:][pick % (len(self.branches) - 1)]
        mine, theirs = self.branches[branch].seen, self.branches[None].seen
        said = self.t.diff(str(branch), "now")
        assert {one.id for one in said.added} == theirs.keys() - mine.keys()
        assert {one.id for one in said.removed} == mine.keys() - theirs.keys()
        both = mine.keys() & theirs.keys()
        assert {one.id for one in said.revised} >= {id for id in both if mine[id][-1] != theirs[id][-1]}

    @precondition(lambda self: self.moments)
    @rule(pick=PICKS, which=PICKS)
    def look_back(self, pick: int, which: int) -> None:
        """To any line: what was listed then is listed, found by its words, and has the history it had."""
        branch, seq, view = self.moments[pick % len(self.moments)]
        if branch not in self.branches:
            return
        past = self.at(branch).as_of(known=seq)
        assert {cube.id: cube.text for cube in past.list(limit=1000)} == {id: said[-1] for id, said in view.items()}
        if view:
            id = list(view)[which % len(view)]
            assert [cube.text for cube in past.history(id)] == view[id]
            hits = past.recall(view[id][-1], limit=len(view))
            assert {hit.cube.id for hit in hits} <= view.keys()
            if any(character.isalnum() for character in view[id][-1]):
                assert id in {hit.cube.id for hit in hits}

    @rule()
    def reopen(self) -> None:
        """Close, open, and prove that every index equals its rows."""
        self.t.close()
        self.t = self.open_tercet()
        all_clear(self.t)

    @invariant()
    def shows_the_same(self) -> None:
        """Both handles list of every branch what the dict holds of it."""
        if not hasattr(self, "t"):
            return
        for branch, known in self.branches.items():
            for t in (self.t, self.other):
                page = self.at(branch, t).list(limit=1000)
                wanted = {id: (versions[-1], len(versions)) for id, versions in known.seen.items()}
                assert {cube.id: (cube.text, cube.version) for cube in page} == wanted
                assert page.total == len(wanted)

    def teardown(self) -> None:
        """Every version of what is shown is there, what is hidden or erased is not, and doctor finds nothing."""
        if not hasattr(self, "t"):
            return
        for branch, known in self.branches.items():
            memory = self.at(branch)
            for id, versions in known.seen.items():
                assert [cube.text for cube in memory.history(id)] == versions
            for id in known.hidden.keys() | self.erased:
                try:
                    memory.get(id)
                except MissingMemory:
                    continue
                raise AssertionError(f"{id} is hidden or erased and is there")
        all_clear(self.t)
        self.t.close()
        self.other.close()
