"""A vault equals a plain dict under any sequence of calls, reopening included."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tercet.cube import MemCube, Scalar, Text, derive
from tercet.errors import InvalidRequest, MissingMemory, StaleWrite
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import OpenTercet, all_clear
from tercet.testing.strategies import metadata, tags, texts
from tercet.text.read.message import Message

USERS = st.sampled_from(["alice", "bob"])
REFS = st.none() | st.sampled_from(["r1", "r2", "r3"])
PICKS = st.integers(0, 999)


@dataclass
class Kept:
    """What the dict knows of one cube."""

    user: str
    ref: str | None
    versions: list[tuple[str, tuple[str, ...], dict[str, Scalar]]]
    sources: set[str] = field(default_factory=set)


class VaultMachine(RuleBasedStateMachine):
    """Run it with `run_state_machine_as_test(lambda: VaultMachine(open_tercet))`, each time on an empty vault."""

    def __init__(self, open_tercet: OpenTercet) -> None:
        super().__init__()
        self.open_tercet = open_tercet
        self.model: dict[str, Kept] = {}
        self.erased: dict[str, MemCube] = {}

    @initialize()
    def begin(self) -> None:
        """Two handles, as two processes would have."""
        self.t, self.other = self.open_tercet(), self.open_tercet()

    def at(self, user: str, t: Tercet | None = None) -> ScopedMemory:
        """One user's memories."""
        return (t or self.t).scope(user=user)

    def picked(self, pick: int) -> tuple[str, Kept]:
        """One of the cubes there are."""
        return list(self.model.items())[pick % len(self.model)]

    @rule(user=USERS, text=texts(), tags=tags(), metadata=metadata(), ref=REFS)
    def remember(self, user: str, text: str, tags: list[str], metadata: dict[str, Scalar], ref: str | None) -> None:
        """One at a time."""
        twin = next((id for id, kept in self.model.items() if ref and (kept.user, kept.ref) == (user, ref)), None)
        if twin is not None and text not in [old for old, _, _ in self.model[twin].versions]:
            try:
                self.at(user).remember(text, tags=tags, metadata=metadata, ref=ref)
            except InvalidRequest:
                return
            raise AssertionError(f"ref {ref!r} was taken for a second text")
        cube = self.at(user).remember(text, tags=tags, metadata=metadata, ref=ref)
        if twin is not None:
            assert cube.id == twin
            return
        assert cube.id not in self.model
        self.model[cube.id] = Kept(user, ref, [(text, tuple(tags), metadata)])

    @rule(user=USERS, many=st.lists(st.tuples(texts(), tags()), max_size=4), bad=st.booleans())
    def remember_many(self, *, user: str, many: list[tuple[str, list[str]]], bad: bool) -> None:
        """All or none."""
        items = [Message(text, tags=tuple(tags)) for text, tags in many]
        if bad:
            try:
                self.at(user).remember_many([*items, Message("\0")])
            except InvalidRequest:
                return
            raise AssertionError("a NUL was taken in")
        for cube, (text, labels) in zip(self.at(user).remember_many(items), many, strict=True):
            self.model[cube.id] = Kept(user, None, [(text, tuple(labels), {})])

    @precondition(lambda self: self.model)
    @rule(pick=PICKS, text=texts(), tags=st.none() | tags(), stale=st.booleans(), other=st.booleans())
    def revise(self, *, pick: int, text: str, tags: list[str] | None, stale: bool, other: bool) -> None:
        """From either handle; with a stale expectation nothing changes."""
        id, kept = self.picked(pick)
        scope = self.at(kept.user, self.other if other else self.t)
        newest = len(kept.versions)
        if stale:
            try:
                scope.revise(id, text, expect=newest + 1, tags=tags)
            except StaleWrite:
                return
            raise AssertionError("a stale write went through")
        assert scope.revise(id, text, expect=newest, tags=tags).version == newest + 1
        _, old_tags, old_metadata = kept.versions[-1]
        kept.versions.append((text, old_tags if tags is None else tuple(tags), old_metadata))

    @precondition(lambda self: self.model)
    @rule(pick=PICKS, which=PICKS)
    def rollback(self, pick: int, which: int) -> None:
        """To any version."""
        id, kept = self.picked(pick)
        version = which % len(kept.versions) + 1
        assert self.at(kept.user).rollback(id, version=version).version == len(kept.versions) + 1
        kept.versions.append(kept.versions[version - 1])

    @precondition(lambda self: self.model)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), text=texts())
    def derive(self, picks: list[int], text: str) -> None:
        """From cubes of one user."""
        user = self.picked(picks[0])[1].user
        ids = {id for id, kept in map(self.picked, picks) if kept.user == user}
        draft = derive([self.at(user).get(id) for id in sorted(ids)], Text(text), method="m")
        cube = self.at(user).remember(draft)
        self.model[cube.id] = Kept(user, None, [(text, (), {})], ids)

    @precondition(lambda self: self.model)
    @rule(pick=PICKS, other=st.booleans())
    def forget(self, *, pick: int, other: bool) -> None:
        """With everything made from it."""
        id, kept = self.picked(pick)
        gone = {id}
        while more := {product for product, held in self.model.items() if held.sources & gone} - gone:
            gone |= more
        for one in gone:
            self.erased[one] = self.at(kept.user).get(one)
        receipt = self.at(kept.user, self.other if other else self.t).forget(id)
        assert set(receipt.erased) == gone
        for one in gone:
            del self.model[one]

    @precondition(lambda self: self.erased)
    @rule(pick=PICKS)
    def bring_back(self, pick: int) -> None:
        """What was erased is refused."""
        cube = list(self.erased.values())[pick % len(self.erased)]
        try:
            self.at(cube.scope.user or "").remember(cube)
        except (InvalidRequest, MissingMemory):  # missing: a product whose sources went too
            return
        raise AssertionError(f"{cube.id} came back")

    @rule(user=USERS, question=texts(), limit=st.integers(1, 5))
    def recall(self, user: str, question: str, limit: int) -> None:
        """Only what is there, as it is now, each once, no more than asked for."""
        hits = self.at(user).recall(question, limit=limit)
        ids = [hit.cube.id for hit in hits]
        assert len(set(ids)) == len(ids) <= limit
        for hit in hits:
            kept = self.model[hit.cube.id]
            assert (kept.user, kept.versions[-1][0]) == (user, hit.cube.text)

    @precondition(lambda self: self.model)
    @rule(pick=PICKS)
    def found_by_its_own_text(self, pick: int) -> None:
        """A cube that shares every word with the question is among the hits if the limit allows for all."""
        id, kept = self.picked(pick)
        mine = [one for one in self.model.values() if one.user == kept.user]
        hits = self.at(kept.user).recall(kept.versions[-1][0], limit=len(mine))
        if any(character.isalnum() for character in kept.versions[-1][0]):
            assert id in {hit.cube.id for hit in hits}

    @rule()
    def reopen(self) -> None:
        """Close, open, and prove that every index equals its rows."""
        self.t.close()
        self.t = self.open_tercet()
        all_clear(self.t)

    @rule()
    def work(self) -> None:
        """Run what is due."""
        self.t.work(until_idle=True)

    @invariant()
    def holds_the_same_memories(self) -> None:
        """Both handles list what the dict holds, in order of arrival."""
        for t in (self.t, self.other):
            for user in ("alice", "bob"):
                wanted = [(id, kept.versions[-1]) for id, kept in self.model.items() if kept.user == user]
                page = self.at(user, t).list(limit=10_000)
                assert [(cube.id, (cube.text, cube.tags, dict(cube.metadata))) for cube in page] == wanted
                assert page.total == len(wanted)

    def teardown(self) -> None:
        """Every version is still there, every erased cube is not, and doctor finds nothing."""
        if not hasattr(self, "t"):
            return
        for id, kept in self.model.items():
            history = self.at(kept.user).history(id)
            assert [(cube.text, cube.tags, dict(cube.metadata)) for cube in history] == kept.versions
        for id, cube in self.erased.items():
            try:
                self.at(cube.scope.user or "").get(id)
            except MissingMemory:
                continue
            raise AssertionError(f"{id} was erased and is there")
        all_clear(self.t)
        self.t.close()
        self.other.close()
