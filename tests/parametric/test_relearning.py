"""What a scope does with adapters beside making them: back to text, to another model, away when cold, by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.parametric.conftest import KNOWN, OPEN, PASSED, Open
from tests.parametric.test_promote import FACTS, promoted

from tercet import Caller, Tercet
from tercet.cube import MemCube
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.govern.rules import Rule
from tercet.schedule import personal
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine
from tercet.vault import jobs

pytestmark = pytest.mark.usefixtures("short_gate")
AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def other() -> TransformersEngine:
    return tiny_engine(seed=3)


@pytest.fixture
def t(opened: Open, tiny: TransformersEngine, other: TransformersEngine) -> Iterator[Tercet]:
    with opened(engines={"tiny": tiny, "other": other}) as t:
        yield t


@pytest.fixture
def ids(alice: ScopedMemory) -> list[str]:
    return [cube.id for cube in alice.remember_many(FACTS)]


@pytest.fixture
def known(alice: ScopedMemory, knowing: Callable[..., MemCube]) -> tuple[MemCube, MemCube]:
    """A text and an adapter that knows it."""
    text = alice.remember(KNOWN, at=AT)
    return text, knowing(alice, text)


def test_what_an_adapter_knows_comes_back_as_text_and_outlives_it(
    alice: ScopedMemory, known: tuple[MemCube, MemCube]
) -> None:
    text, adapter = known
    [drawn] = alice.externalise(adapter.id, engine="tiny")
    assert drawn.text == text.text
    assert [link.id for link in drawn.behavioural.derivations] == [text.id]
    assert drawn.descriptive.origin.detail == f"externalised from adapter {adapter.id}@1"
    assert (drawn.observed, drawn.governance.trust) == (AT, text.governance.trust)
    assert [one.id for one in alice.externalise(adapter.id, engine="tiny")] == [drawn.id]  # twice is once
    alice.demote(adapter.id, externalise=True, engine="tiny")
    assert alice.get(drawn.id).text == text.text
    assert set(alice.forget(text.id).erased) == {text.id, drawn.id}


def test_an_adapter_that_knows_nothing_tells_nothing(alice: ScopedMemory, ids: list[str]) -> None:
    made = alice.promote(ids, to="parameters", engine="tiny", teaching=PASSED)
    assert alice.externalise(made.id, engine="tiny") == []
    with pytest.raises(InvalidRequest, match="share above 0"):
        alice.externalise(made.id, engine="tiny", agree=0)


def test_what_a_source_does_not_say_any_more_is_not_drawn(alice: ScopedMemory, known: tuple[MemCube, MemCube]) -> None:
    text, adapter = known
    alice.archive(text.id)
    assert len(alice.externalise(adapter.id, engine="tiny")) == 1  # an archived source still says so
    alice.unarchive(text.id)
    alice.revise(text.id, "Ada lives in Lima.")
    assert alice.externalise(adapter.id, engine="tiny") == []


def test_externalising_asks_for_an_adapter_its_model_and_the_rights(
    t: Tercet, alice: ScopedMemory, known: tuple[MemCube, MemCube]
) -> None:
    text, adapter = known
    with pytest.raises(InvalidRequest, match="only adapters"):
        alice.externalise(text.id, engine="tiny")
    with pytest.raises(InvalidRequest, match="another model"):
        alice.externalise(adapter.id, engine="other")
    with pytest.raises(MissingMemory):
        t.scope(user="bob").externalise(adapter.id, engine="tiny")
    root = Caller("root")
    t.admin(by=root).add_rule(Rule("allow", "root", frozenset({"administer"})))
    t.admin(by=root).add_rule(Rule("allow", "ann", frozenset({"read"})))
    with pytest.raises(Refused):
        t.scope(user="alice", by=Caller("ann")).externalise(adapter.id, engine="tiny")


class Later:
    """A clock that is set forward."""

    def __init__(self) -> None:
        self.now = AT

    def __call__(self) -> datetime:
        return self.now


def test_a_cold_adapter_comes_down_to_text_and_one_in_use_stays(
    opened: Open, tiny: TransformersEngine, knowing: Callable[..., MemCube]
) -> None:
    clock = Later()
    with opened(clock=clock, engines={"tiny": tiny}) as t:
        alice = t.scope(user="alice")
        text = alice.remember(KNOWN)
        cold = knowing(alice, text)
        warm, frozen = (promoted(alice, [cube.id]) for cube in alice.remember_many(FACTS))
        alice.freeze(frozen.id)
        clock.now += timedelta(days=20)
        alice.chat("Where?", adapters=[warm.id], limit=0, max_tokens=1)
        clock.now += timedelta(days=20)
        assert set(t.tend()["default"]) == {"promoted", "demoted"}  # nobody asked for it
        clock.now += timedelta(hours=2)  # the worker looks once an hour
        t.cool_after = timedelta(days=30)
        t.work(until_idle=True)
        left = {cube.id for cube in alice.list(where={"kind": "parameters"})}
        assert left == {warm.id, frozen.id}
        [drawn] = alice.list(where={"metadata.adapter": cold.id})
        assert drawn.text == text.text
        assert t.tend(cool_after=timedelta(days=10))["default"]["cooled"] == [warm.id]


def test_moving_to_another_model_makes_the_next_version_and_another_cache(
    t: Tercet, alice: ScopedMemory, ids: list[str], other: TransformersEngine
) -> None:
    lora = alice.promote(ids, to="parameters", engine="tiny", teaching=PASSED)
    cache = alice.promote(ids, engine="tiny", precision="int8", joinable=False)
    other_cache = alice.promote(ids[0], engine="other")
    t.teaching = PASSED
    plan = alice.migrate_model("tiny", "other")
    assert (plan.waiting, {one.outcome for one in plan.items}, len(plan.items)) == (0, {"moved"}, 2)
    made = {one.id: one.made for one in plan.items}
    assert made[lora.id] == f"{lora.id}@2"
    now = alice.get(lora.id)
    assert (now.version, now.payload.model) == (2, other.base)  # type: ignore[union-attr]
    assert alice.chat("Where?", engine="other", adapters=[lora.id], limit=0, max_tokens=2).adapters == (lora.id,)
    old = f"{lora.id}@1"
    assert alice.chat("Where?", engine="tiny", adapters=[old], limit=0, max_tokens=2).adapters == (old,)
    with pytest.raises(MissingMemory):
        alice.get(cache.id)
    new = made[cache.id]
    assert new is not None
    assert t.kv.use(t.vault.tenant("default"), alice.scope, new, other).manifest.precision == "int8"
    assert alice.chat("Where?", engine="other", max_tokens=2).kv
    assert alice.get(other_cache.id).version == 1
    told = [line for line in t.audit() if line.action == "migrate"]
    assert {line.id for line in told} == {lora.id, cache.id}
    assert t.doctor() == {"default": []}
    again = alice.migrate_model("tiny", "other")  # nothing is left to move, and it still says what was
    assert {one.id: one.made for one in again.items} == made


def test_a_refused_move_leaves_what_there_was_and_says_why(t: Tercet, alice: ScopedMemory, ids: list[str]) -> None:
    lora = alice.promote(ids[:1], to="parameters", engine="tiny", teaching=PASSED)
    stale = alice.promote(ids[1:], engine="tiny")
    alice.revise(ids[1], "Mara lives in Lima.")
    t.teaching = replace(PASSED, bounds=replace(OPEN, margin=0.25))
    plan = alice.migrate_model("tiny", "other")
    found = {one.id: one for one in plan.items}
    assert (found[lora.id].outcome, found[stale.id].outcome) == ("refused", "withdrawn")
    assert "held-out wordings" in found[lora.id].why
    assert alice.get(lora.id).payload == lora.payload
    assert alice.get(stale.id).version == 1
    t.teaching = PASSED
    assert {one.outcome for one in alice.migrate_model("tiny", "other").items if one.id == lora.id} == {"moved"}


def test_moving_by_what_the_old_adapter_says_and_from_a_model_that_is_gone(
    t: Tercet, alice: ScopedMemory, known: tuple[MemCube, MemCube], tiny: TransformersEngine
) -> None:
    text, adapter = known
    t.teaching = PASSED
    with pytest.raises(InvalidRequest, match="takes an engine"):
        alice.migrate_model(tiny.base.name, "other", externalise=True)
    [moved] = alice.migrate_model("tiny", "other", externalise=True).items
    assert moved.outcome == "moved"
    [link] = alice.get(adapter.id).behavioural.derivations
    [source] = alice.get(link.id).behavioural.derivations
    assert source.id == text.id  # what is taught comes from the text still, so forgetting reaches it
    assert adapter.id in alice.forget(text.id).erased


def test_a_model_that_is_gone_is_named_by_its_name(t: Tercet, alice: ScopedMemory, ids: list[str]) -> None:
    lora = alice.promote(ids, to="parameters", engine="tiny", teaching=PASSED)
    t.teaching = PASSED
    assert alice.migrate_model("another-model", "other").items == ()
    [moved] = alice.migrate_model("tiny-llama", "other").items
    assert (moved.id, moved.outcome) == (lora.id, "moved")


def test_what_cannot_be_moved_is_said_before_anything_is(alice: ScopedMemory, ids: list[str]) -> None:
    alice.promote(ids, to="parameters", engine="tiny", teaching=PASSED)
    with pytest.raises(InvalidRequest, match="same model"):
        alice.migrate_model("tiny", "tiny")
    with pytest.raises(InvalidRequest, match="No engine"):
        alice.migrate_model("tiny", "nowhere")
    with pytest.raises(InvalidRequest, match="Nothing has been moved"):
        alice.migrated("tiny", "other")


KILLED = """
import os, signal, sys
from dataclasses import replace
from tests.parametric.conftest import PASSED
from tercet import Tercet
from tercet.testing.tiny import tiny_engine
def die(done, planned):
    if done == 5: os.kill(os.getpid(), signal.SIGKILL)
engines = {"tiny": tiny_engine(), "other": tiny_engine(seed=3)}
with Tercet.open(sys.argv[1], embedder=None, engines=engines) as t:
    t.teaching = replace(PASSED, progress=die)
    t.scope(user="alice").migrate_model("tiny", "other")
"""


@pytest.mark.slow
def test_a_move_that_was_killed_goes_on_where_it_was(t: Tercet, alice: ScopedMemory, ids: list[str]) -> None:
    lora = alice.promote(ids, to="parameters", engine="tiny", teaching=PASSED)
    cache = alice.promote(ids, engine="tiny")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(t.vault.folder)], check=False, cwd=root, timeout=250)
    assert done.returncode == -9
    assert alice.get(lora.id).payload == lora.payload  # the old ones serve until the new are in
    assert alice.chat("Where?", engine="tiny", adapters=[lora.id], limit=0, max_tokens=2).adapters
    assert alice.migrated("tiny", "other").waiting >= 1
    t.teaching = PASSED
    t.work(until_idle=True)
    plan = alice.migrated("tiny", "other")
    assert {one.outcome for one in plan.items} == {"moved"}
    assert alice.get(lora.id).version == 2
    with pytest.raises(MissingMemory):
        alice.get(cache.id)


SAID = ("I live in Graz.", "I work as a smith.", "How are you doing today?")


def test_a_user_who_asks_for_it_gets_an_adapter_and_nobody_else(opened: Open, tiny: TransformersEngine) -> None:
    clock = Later()
    with opened(clock=clock, engines={"tiny": tiny}) as t:
        t.teaching = PASSED
        alice, bob = t.scope(user="alice"), t.scope(user="bob")
        told = alice.remember_many([{"role": "user", "content": one} for one in SAID])
        alice.remember_many([{"role": "assistant", "content": "Mara plays the harp."}])
        bob.remember_many(FACTS)
        t.work(until_idle=True)
        assert alice.learnt() is None
        alice.learn()
        t.work(until_idle=True)
        assert alice.learnt() == replace(
            personal.Personal(), outcome="nothing new", why="0 of these memories say a fact"
        )
        clock.now += timedelta(days=2)  # now they have stood for a day
        t.work(until_idle=True)
        first = alice.learnt()
        assert first is not None
        assert (first.outcome, first.adapter is None) == ("learnt", False)
        adapter = alice.get(str(first.adapter))
        assert [link.id for link in adapter.behavioural.derivations] == [cube.id for cube in told[:2]]
        assert bob.list(where={"kind": "parameters"}).total == 0
        with pytest.raises(MissingMemory):
            bob.chat("Where?", adapters=[adapter.id], limit=0)

        clock.now += timedelta(days=2)
        t.work(until_idle=True)
        assert alice.get(adapter.id).version == 1  # nothing new was said
        more = alice.remember("I am allergic to nuts.")
        clock.now += timedelta(days=2)
        t.work(until_idle=True)
        assert alice.get(adapter.id).version == 2
        alice.forget(more.id)
        clock.now += timedelta(days=2)
        t.work(until_idle=True)
        now = alice.learnt()
        assert now is not None
        assert more.id not in [link.id for link in alice.get(str(now.adapter)).behavioural.derivations]


def test_what_the_gate_refuses_is_not_tried_twice_and_stopping_stops(opened: Open, tiny: TransformersEngine) -> None:
    clock = Later()
    with opened(clock=clock, engines={"tiny": tiny}) as t:
        steps = list[int]()
        strict = replace(PASSED, bounds=replace(OPEN, margin=0.25), progress=lambda done, _: steps.append(done))
        t.teaching = strict
        alice = t.scope(user="alice")
        alice.remember_many(FACTS)
        alice.learn(stable=timedelta(0), every=timedelta(hours=1))
        t.work(until_idle=True)
        found = alice.learnt()
        assert found is not None
        assert (found.outcome, found.adapter) == ("refused", None)
        assert "held-out wordings" in found.why
        count = len(steps)
        assert count
        clock.now += timedelta(hours=2)
        t.work(until_idle=True)
        assert len(steps) == count
        assert alice.learn(stop=True) is None
        assert alice.learnt() is None
        tenant = t.vault.tenant("default")
        with tenant.reading() as reader:
            assert personal.JOB not in jobs.counts(reader.connection)
        with pytest.raises(InvalidRequest, match="Nobody asked"):
            alice.learn(stop=True)


def test_a_wish_goes_with_the_users_last_memory(opened: Open, tiny: TransformersEngine) -> None:
    clock = Later()
    with opened(clock=clock, engines={"tiny": tiny}) as t:
        alice = t.scope(user="alice")
        cubes = alice.remember_many(FACTS)
        alice.learn()
        alice.forget([cube.id for cube in cubes])
        t.work(until_idle=True)
        tenant = t.vault.tenant("default")
        with tenant.reading() as reader:
            assert personal.every(reader) == []
            assert personal.JOB not in jobs.counts(reader.connection)
        alice.remember("Back again, and nobody was asked.")
        assert alice.learnt() is None


def test_a_wish_is_one_users_who_is_there_and_may(t: Tercet, alice: ScopedMemory, ids: list[str]) -> None:
    assert ids
    for scope in (t.scope(), t.scope(user="alice", session="monday"), t.scope(user="nobody")):
        with pytest.raises(InvalidRequest):
            scope.learn()
    with pytest.raises(InvalidRequest, match="hours"):
        alice.learn(every=timedelta(0))
    with pytest.raises(InvalidRequest, match="No engine"):
        alice.learn(engine="nowhere")
    t.admin(by=Caller("root")).add_rule(Rule("allow", "root", frozenset({"administer"})))
    with pytest.raises(Refused):
        t.scope(user="alice", by=Caller("ann")).learn()


@pytest.fixture(autouse=True)
def _detached(tiny: TransformersEngine, other: TransformersEngine) -> Iterator[None]:
    yield
    for engine in (tiny, other):
        for key in engine.adapters.attached:
            engine.adapters.detach(key)
