"""Grants against a plain model: whoever reads, however often, whenever they end, through two handles on one vault."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tercet import Caller, MissingMemory, Refused, ScopedMemory, Tercet
from tercet.govern.rules import Rule

ROOT, ALICE = Caller("root"), Caller("alice")
TAGS = ("trip", "home")
PURPOSES = (None, "trip")


@dataclass
class Given:
    """A grant as the model knows it: ids or a tag, and its terms."""

    id: str
    ids: set[str]
    tag: str | None
    purpose: str | None
    reads: int | None
    until: datetime | None
    revoked: bool = False
    used: int = 0


@dataclass
class Model:
    """Alice's memories with their tags, and what she granted to Bob."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    cubes: dict[str, str | None] = field(default_factory=dict)
    grants: list[Given] = field(default_factory=list)

    def live(self, purpose: str | None) -> list[Given]:
        found = [
            one
            for one in self.grants
            if not one.revoked
            and one.purpose in (None, purpose)
            and (one.reads is None or one.used < one.reads)
            and (one.until is None or self.now < one.until)
        ]
        return sorted(found, key=lambda one: (one.reads is not None, int(one.id[1:])))

    def meets(self, grant: Given, id: str) -> bool:
        return id in grant.ids or (grant.tag is not None and self.cubes[id] == grant.tag)

    def seen(self, purpose: str | None) -> set[str]:
        live = self.live(purpose)
        return {id for id in self.cubes if any(self.meets(one, id) for one in live)}

    def read(self, purpose: str | None, ids: set[str]) -> None:
        left = set(ids)
        for one in self.live(purpose):
            met = {id for id in left if self.meets(one, id)}
            if met and one.reads is not None:
                one.used += 1
            left -= met


class Sharing(RuleBasedStateMachine):
    """Alice shares and takes back; Bob, who has no rule of his own, reads."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.folder = Path(tempfile.mkdtemp(prefix="tercet-sharing-"))
        self.handles = [Tercet.open(self.folder, embedder=None, clock=lambda: self.model.now) for _ in range(2)]
        hers = {"read", "write", "revise", "forget", "share"}
        for one in (Rule("allow", "root", {"administer"}), Rule("allow", "alice", hers)):
            self.handles[0].admin(by=ROOT).add_rule(one)

    def teardown(self) -> None:
        assert self.handles[0].doctor(by=ROOT) == {"default": []}
        assert self.handles[0].verify_audit(by=ROOT).passed
        for one in self.handles:
            one.close()
        shutil.rmtree(self.folder)

    def alice(self, which: int) -> ScopedMemory:
        return self.handles[which].scope(user="alice", by=ALICE)

    def bob(self, which: int, purpose: str | None) -> ScopedMemory:
        return self.handles[which].scope(by=Caller("bob", purpose=purpose))

    @rule(which=st.integers(0, 1), tag=st.sampled_from((None, *TAGS)))
    def remember(self, which: int, tag: str | None) -> None:
        cube = self.alice(which).remember(f"The boiler, note {len(self.model.cubes)}.", tags=[tag] if tag else [])
        self.model.cubes[cube.id] = tag

    @precondition(lambda self: self.model.cubes)
    @rule(which=st.integers(0, 1), data=st.data(), tag=st.sampled_from((None, *TAGS)))
    def relabel(self, which: int, data: st.DataObject, tag: str | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.cubes)))
        self.alice(which).revise(id, "The boiler, again.", tags=[tag] if tag else [])
        self.model.cubes[id] = tag

    @precondition(lambda self: self.model.cubes)
    @rule(which=st.integers(0, 1), data=st.data())
    def forget(self, which: int, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.cubes)))
        receipt = self.alice(which).forget(id, probe=False)
        del self.model.cubes[id]
        before = len(self.model.grants)
        for one in self.model.grants:
            one.ids.discard(id)
        kept = [one for one in self.model.grants if one.ids or (one.tag is not None and self.model.cubes)]
        self.model.grants = kept
        assert receipt.rows.get("shares", 0) == before - len(kept)

    @precondition(lambda self: self.model.cubes)
    @rule(
        which=st.integers(0, 1),
        data=st.data(),
        tag=st.sampled_from((None, *TAGS)),
        purpose=st.sampled_from(PURPOSES),
        reads=st.sampled_from((1, 2, None)),
        minutes=st.sampled_from((None, 1, 10)),
    )
    def share(  # one rule takes what a grant may say
        self,
        which: int,
        data: st.DataObject,
        tag: str | None,
        purpose: str | None,
        reads: int | None,
        minutes: int | None,
    ) -> None:
        ids = set() if tag else data.draw(st.sets(st.sampled_from(sorted(self.model.cubes)), min_size=1, max_size=3))
        until = None if minutes is None else self.model.now + timedelta(minutes=minutes)
        made = self.alice(which).share(
            sorted(ids) or None,
            where={"tags": tag} if tag else None,
            with_="bob",
            purpose=purpose,
            reads=reads,
            until=until,
        )
        self.model.grants.append(Given(made.id, ids, tag, purpose, reads, until))

    @precondition(lambda self: self.model.grants)
    @rule(which=st.integers(0, 1), data=st.data())
    def revoke(self, which: int, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.model.grants))
        self.alice(which).revoke(one.id)
        one.revoked = True

    @rule(seconds=st.sampled_from((1, 59, 60, 600)))
    def wait(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.model.cubes)
    @rule(which=st.integers(0, 1), data=st.data(), purpose=st.sampled_from(PURPOSES))
    def get(self, which: int, data: st.DataObject, purpose: str | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.cubes)))
        seen, live = self.model.seen(purpose), self.model.live(purpose)
        try:
            assert self.bob(which, purpose).get(id).id == id
        except MissingMemory:
            assert live
            assert id not in seen
        except Refused:
            assert not live
        else:
            assert id in seen
            self.model.read(purpose, {id})

    @precondition(lambda self: self.model.grants)
    @rule(purpose=st.sampled_from(PURPOSES))
    def until_it_is_used_up(self, purpose: str | None) -> None:
        """Both handles in turn, once more than any grant counts."""
        for turn in range(4):
            self.all_of_them(turn % 2, purpose, "list")

    @rule(which=st.integers(0, 1), purpose=st.sampled_from(PURPOSES), how=st.sampled_from(("list", "recall")))
    def all_of_them(self, which: int, purpose: str | None, how: str) -> None:
        seen, live, view = self.model.seen(purpose), self.model.live(purpose), self.bob(which, purpose)
        try:
            cubes = view.list() if how == "list" else [hit.cube for hit in view.recall("boiler", limit=100)]
        except Refused:
            assert not live
            return
        assert live
        assert {cube.id for cube in cubes} == seen
        self.model.read(purpose, seen)

    @invariant()
    def what_is_left_is_told(self) -> None:
        told = {one.id: (one.used, one.revoked is not None, set(one.cubes)) for one in self.alice(0).grants()}
        assert told == {one.id: (one.used, one.revoked, one.ids) for one in self.model.grants}


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
