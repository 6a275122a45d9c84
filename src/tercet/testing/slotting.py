"""The contract of facts with a slot: superseded, never overwritten, and contradictions shown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tercet.cube import Descriptive, Governance, MemCube, Slot, Text, Trust
from tercet.errors import InvalidRequest
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, all_clear

CITY = ("alice", "city")
OSLO, BERGEN, ROME = ("I live in Oslo, my city.", "I live in Bergen, my city.", "I live in Rome, my city.")


def city(memory: ScopedMemory, text: str, year: int, **more: str) -> MemCube:
    """Remember where somebody lives since the first day of a year."""
    return memory.remember(text, slot=CITY, valid_from=f"{year}-01-01T00:00:00Z", **more)  # type: ignore[arg-type]


def intervals(memory: ScopedMemory) -> Mapping[str, tuple[int | None, int | None]]:
    """From which to which year each fact holds."""
    found = {}
    for cube in memory.list():
        start, end = cube.behavioural.valid_from, cube.behavioural.valid_to
        found[cube.text] = (start.year if start else None, end.year if end else None)
    return found


class SlotTests(Contract):
    """A newer fact ends the older one's time, and no more than that."""

    def test_a_newer_fact_supersedes(self, alice: ScopedMemory, t: Tercet) -> None:
        """The older gets a version with its end and what came after; its words stay, in history too."""
        old, new = city(alice, OSLO, 2020), city(alice, BERGEN, 2023)
        assert intervals(alice) == {OSLO: (2020, 2023), BERGEN: (2023, None)}
        ended = alice.get(old.id)
        assert (ended.version, ended.text, ended.behavioural.superseded_by) == (2, OSLO, new.id)
        assert alice.history(old.id)[0] == old
        assert [change.action for change in alice.changes()].count("supersede") == 1
        all_clear(t)

    def test_a_late_arrival_is_filed_into_the_past(self, alice: ScopedMemory, t: Tercet) -> None:
        """It takes its place between the others; the present stays."""
        city(alice, OSLO, 2020)
        now = city(alice, BERGEN, 2023)
        late = city(alice, ROME, 2022)
        assert intervals(alice) == {OSLO: (2020, 2022), ROME: (2022, 2023), BERGEN: (2023, None)}
        assert (late, late.behavioural.superseded_by) == (alice.get(late.id), now.id)
        assert alice.get(now.id) == now
        all_clear(t)

    def test_recall_shows_the_winner_once_with_the_others(self, alice: ScopedMemory) -> None:
        """At the time asked about; each other value with its interval and the rule."""
        for text, year in ((OSLO, 2020), (BERGEN, 2023), (ROME, 2022)):
            city(alice, text, year)
        alice.remember("My favourite city is Paris.")
        for valid, wanted, rules in (
            (None, BERGEN, {ROME: "later valid_from", OSLO: "later valid_from"}),
            ("2022-06-01T00:00:00Z", ROME, {BERGEN: "the other begins later", OSLO: "later valid_from"}),
            ("2021-06-01T00:00:00Z", OSLO, {BERGEN: "the other begins later", ROME: "the other begins later"}),
        ):
            hits = alice.as_of(valid=valid).recall("In which city do I live?", limit=2)
            assert {hit.cube.text for hit in hits} == {wanted, "My favourite city is Paris."}
            [hit] = [hit for hit in hits if hit.cube.descriptive.slot]
            assert {other.cube.text: other.rule for other in hit.contradictions} == rules
            assert all(other.valid_from.month == 1 for other in hit.contradictions)

    def test_a_fact_that_says_the_same_is_no_contradiction(self, alice: ScopedMemory) -> None:
        """The same words twice are one value."""
        city(alice, OSLO, 2020)
        city(alice, OSLO, 2021)
        [hit] = alice.recall("city Oslo")
        assert hit.contradictions == ()

    def test_equal_times_are_decided(self, alice: ScopedMemory) -> None:
        """By when it was observed, then by trust, then by id; the rule says which."""
        start = "2020-01-01T00:00:00Z"
        city(alice, OSLO, 2020, at=start)
        city(alice, BERGEN, 2020, at="2021-01-01T00:00:00Z")
        [hit] = alice.recall("which city?")
        assert (hit.cube.text, [one.rule for one in hit.contradictions]) == (BERGEN, ["later observed"])
        other = alice.scope.within(agent="x").agent
        drafts = [
            MemCube(Text(text), Descriptive(slot=Slot("alice", "pet")), Governance(trust=trust))
            for text, trust in (("A cat, my pet.", Trust.CONFIRMED), ("A dog, my pet.", Trust.OBSERVED))
        ]
        agent = alice.tercet.scope(user="alice", agent=other)
        agent.remember_many(drafts, at=start)
        [hit] = agent.recall("which pet?")
        assert (hit.cube.text, [one.rule for one in hit.contradictions]) == ("A cat, my pet.", ["higher trust"])

    def test_only_the_same_slot_of_the_same_owner(self, alice: ScopedMemory, bob: ScopedMemory, t: Tercet) -> None:
        """Another user, agent, subject, attribute, or text without a slot: nothing is superseded."""
        old = city(alice, OSLO, 2020)
        bob.remember(BERGEN, slot=CITY)
        t.scope(user="alice", agent="a").remember(BERGEN, slot=CITY)
        t.scope(user="alice", tenant="other").remember(BERGEN, slot=CITY)
        alice.remember(BERGEN, slot=("bob", "city"))
        alice.remember(BERGEN, slot=("alice", "country"))
        alice.remember(BERGEN)
        assert alice.get(old.id) == old
        assert all(not hit.contradictions for hit in [*alice.recall("city"), *bob.recall("city")])
        # A session is a part of one's own: what is said in another one counts.
        t.scope(user="alice", session="s").remember(ROME, slot=CITY)
        assert alice.get(old.id).version == 2

    def test_quarantined_facts_supersede_nothing(self, alice: ScopedMemory) -> None:
        """What is not to be believed does not end what is."""
        old = city(alice, OSLO, 2020)
        bad = Governance(trust=Trust.QUARANTINED)
        alice.remember(MemCube(Text(ROME), Descriptive(slot=Slot(*CITY)), bad))
        assert alice.get(old.id) == old

    def test_forgetting_the_winner_gives_the_slot_back(self, alice: ScopedMemory, t: Tercet) -> None:
        """To the one before it, until its own end if it has one."""
        first = alice.remember(OSLO, slot=CITY, valid_from="2020-01-01T00:00:00Z", valid_to="2030-01-01T00:00:00Z")
        second, third = city(alice, ROME, 2022), city(alice, BERGEN, 2023)
        alice.forget(second.id)
        assert intervals(alice) == {OSLO: (2020, 2023), BERGEN: (2023, None)}
        assert alice.get(first.id).behavioural.superseded_by == third.id
        alice.forget(third.id)
        assert intervals(alice) == {OSLO: (2020, 2030)}
        assert alice.recall("which city?")[0].contradictions == ()
        all_clear(t)

    def test_the_past_and_branches_have_slots_of_their_own(self, alice: ScopedMemory, t: Tercet) -> None:
        """What was not known then supersedes nothing then; a branch leaves its parent's facts alone."""
        old = city(alice, OSLO, 2020)
        then = alice.changes()[-1].seq
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        city(b, ROME, 2021)
        city(alice, BERGEN, 2023)
        for view, wanted in ((alice, BERGEN), (b, ROME), (alice.as_of(known=then), OSLO)):
            [hit] = view.recall("which city?")
            assert hit.cube.text == wanted
        assert (len(alice.history(old.id)), len(b.history(old.id))) == (2, 2)
        assert intervals(b) == {OSLO: (2020, 2021), ROME: (2021, None)}
        all_clear(t)

    def test_forgetting_on_a_branch_gives_its_slot_back(self, alice: ScopedMemory, t: Tercet) -> None:
        """To what the branch has there, never to what was erased with it."""
        city(alice, OSLO, 2020)
        second, third = city(alice, ROME, 2022), city(alice, BERGEN, 2023)
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        city(b, "I live in Lom, my city.", 2021)
        alice.revise(second.id, "I live in Roma, my city.")
        alice.revise(third.id, "I live in Bergen now, my city.")
        b.forget([second.id, third.id])
        assert [hit.cube.text for hit in b.recall("which city?")] == ["I live in Lom, my city."]
        assert intervals(b) == {OSLO: (2020, 2021), "I live in Lom, my city.": (2021, None)}
        assert [(hit.cube.text, hit.contradictions) for hit in alice.recall("which city?")] == [(OSLO, ())]
        all_clear(t)

    def test_a_filter_is_kept(self, alice: ScopedMemory) -> None:
        """Where only the older fact meets it, that one is shown, and the newer is named beside it."""
        alice.remember(OSLO, slot=CITY, valid_from="2020-01-01T00:00:00Z", tags=["a"])
        city(alice, BERGEN, 2023)
        [hit] = alice.recall("which city?", where={"tags": "a"})
        assert (hit.cube.text, [one.cube.text for one in hit.contradictions]) == (OSLO, [BERGEN])

    def test_bad_slots(self, alice: ScopedMemory) -> None:
        """A slot is two names; an end comes after its beginning; times have a zone."""
        for slot in ("city", ("alice",), ("alice", ""), ("alice", "b", "c"), ("alice", 3), ("a\0", "b")):
            with pytest.raises(InvalidRequest):
                alice.remember(OSLO, slot=slot)  # type: ignore[arg-type]
        for start, end in (("2020-01-01T00:00:00", None), ("2021-01-01T00:00:00Z", "2020-01-01T00:00:00Z")):
            with pytest.raises(InvalidRequest):
                alice.remember(OSLO, slot=CITY, valid_from=start, valid_to=end)
        assert alice.list().total == 0
