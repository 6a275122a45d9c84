"""T5, T6, T18: nothing is destroyed by a change, contradictions are shown, no other subject is invalidated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet import Tercet
from tercet.testing import FakeEmbedder, SeededClock
from tercet.testing.base import all_clear

CITY = ("alice", "city")


@pytest.fixture
def t(tmp_path: Path) -> Tercet:
    return Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=SeededClock())


def test_superseding_destroys_nothing_and_one_call_undoes_it(t: Tercet) -> None:
    """T5: the text, the header and the first version of the older fact are all still there."""
    alice = t.scope(user="alice")
    old = alice.remember("I live in Oslo.", slot=CITY, tags=["home"], metadata={"n": 1}, ref="r")
    t.snapshot("before")
    new = alice.remember("I live in Bergen.", slot=CITY)
    ended = alice.get(old.id)
    assert alice.history(old.id) == [alice.history(old.id)[0], ended]
    assert [cube.text for cube in alice.history(old.id)] == ["I live in Oslo.", "I live in Oslo."]
    assert (ended.tags, dict(ended.metadata), ended.ref) == (("home",), {"n": 1}, "r")
    assert old.id in {hit.cube.id for hit in alice.as_of(known=2).recall("Oslo")}
    t.restore("before")
    back = alice.get(old.id)
    assert (back.behavioural.valid_to, back.behavioural.superseded_by) == (None, None)
    assert [hit.cube.text for hit in alice.recall("Where do I live?")] == ["I live in Oslo."]
    assert new.id not in {cube.id for cube in alice.list()}
    all_clear(t)


def test_a_bulk_of_wrong_changes_is_undone_in_one_call(t: Tercet) -> None:
    """T5: after an agent has rewritten and added at will, the day before is one restore away, and back."""
    alice = t.scope(user="alice")
    cubes = alice.remember_many([f"Fact {i}." for i in range(50)])
    t.snapshot("yesterday")
    for cube in cubes[::2]:
        alice.revise(cube.id, "Something wrong.")
    alice.remember_many([f"Made up {i}." for i in range(20)])
    wrong = [cube.text for cube in alice.list(limit=1000)]
    undo = t.restore("yesterday").undo
    assert [cube.text for cube in alice.list()] == [cube.text for cube in cubes]
    t.restore(undo)
    assert [cube.text for cube in alice.list(limit=1000)] == wrong


def test_a_contradiction_is_surfaced_with_its_interval_and_rule(t: Tercet) -> None:
    """T6: both values come back, decided by a rule that is named, and the same way every time."""
    alice = t.scope(user="alice")
    alice.remember("I live in Oslo.", slot=CITY, valid_from="2020-01-01T00:00:00Z")
    alice.remember("I live in Bergen.", slot=CITY, valid_from="2023-01-01T00:00:00Z")
    for _ in range(3):
        [hit] = alice.recall("Where do I live?")
        [other] = hit.contradictions
        assert (hit.cube.text, other.cube.text, other.rule) == (
            "I live in Bergen.", "I live in Oslo.", "later valid_from",
        )  # fmt: skip
        assert (other.valid_from.year, other.valid_to and other.valid_to.year) == (2020, 2023)


def test_nothing_is_invalidated_across_subjects_owners_or_by_likeness(t: Tercet) -> None:
    """T18: near copies about others, or without a slot, leave a fact as it is."""
    alice = t.scope(user="alice")
    fact = alice.remember("Ann lives in Oslo.", slot=("Ann", "city"))
    alice.remember("Anna lives in Bergen.", slot=("Anna", "city"))
    alice.remember("Ann works in Bergen.", slot=("Ann", "workplace"))
    alice.remember("Ann lives in Bergen.")
    t.scope(user="bob").remember("Ann lives in Rome.", slot=("Ann", "city"))
    assert alice.get(fact.id) == fact
    assert all(hit.contradictions == () for hit in alice.recall("Where does Ann live?"))


def test_a_hundred_facts_of_many_subjects_end_only_their_own(t: Tercet) -> None:
    """T18: of twenty subjects with five values each, every value but the last is ended by the next of its subject."""
    alice = t.scope(user="alice")
    for year in range(2020, 2025):
        for who in range(20):
            start = f"{year}-01-01T00:00:00Z"
            alice.remember(f"Person {who} lives in town {year}.", slot=(f"person {who}", "city"), valid_from=start)
    cubes = {cube.id: cube for cube in alice.list(limit=1000)}
    for cube in cubes.values():
        follower, slot = cube.behavioural.superseded_by, cube.descriptive.slot
        assert (follower is None) == ("2024" in cube.text)
        if follower is not None:
            assert cubes[follower].descriptive.slot == slot
            assert cubes[follower].behavioural.valid_from == cube.behavioural.valid_to
    all_clear(t)
