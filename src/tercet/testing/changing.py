"""The contract of `revise`, `rollback`, `history` and derived cubes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tercet.cube import Text, derive
from tercet.errors import InvalidRequest, MissingMemory, StaleWrite
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, all_clear


class ChangeTests(Contract):
    """A change makes a version, and no version is ever lost but by erasure."""

    def test_revise_makes_the_next_version(self, alice: ScopedMemory) -> None:
        """Same id, version 2, its parent version 1; what is left out stays."""
        cube = alice.remember("I moved to Oslo in May.", tags=["home"], metadata={"n": 1}, ref="r", type="event")
        new = alice.revise(cube.id, "I moved to Bergen in June.")
        assert (new.id, new.version, new.behavioural.parent) == (cube.id, 2, 1)
        assert alice.get(cube.id) == new
        assert (new.tags, dict(new.metadata), new.ref, new.descriptive.type) == (("home",), {"n": 1}, "r", "event")
        newer = alice.revise(cube.id, "I moved.", tags=[], metadata={"n": 2})
        assert (newer.version, newer.tags, dict(newer.metadata)) == (3, (), {"n": 2})

    def test_history_keeps_every_version_as_it_was(self, alice: ScopedMemory) -> None:
        """Oldest first; an old version does not change when a new one is written."""
        cube = alice.remember("One.", tags=["a"])
        two = alice.revise(cube.id, "Two.", tags=["b"])
        three = alice.revise(cube.id, "Three.")
        assert alice.history(cube.id) == [cube, two, three]

    def test_an_old_text_is_found_no_more(self, alice: ScopedMemory) -> None:
        """Recall and filters answer by the newest version only."""
        cube = alice.remember("The boiler code is 4417.", tags=["old"], metadata={"n": 1})
        alice.revise(cube.id, "The heating is off.", tags=["new"], metadata={"m": 1})
        assert alice.recall("heating?")[0].cube.text == "The heating is off."
        assert not [hit for hit in alice.recall("boiler 4417") if hit.cube.text != "The heating is off."]
        assert [alice.list(where=where).total for where in ({"tags": "old"}, {"n": 1}, {"tags": "new"}, {"m": 1})] == [
            0, 0, 1, 1,
        ]  # fmt: skip

    def test_expect_guards_against_a_lost_update(self, alice: ScopedMemory) -> None:
        """A write that expected another version fails, says which it found, and changes nothing."""
        cube = alice.remember("One.")
        alice.revise(cube.id, "Two.", expect=1)
        before = alice.changes()
        with pytest.raises(StaleWrite) as caught:
            alice.revise(cube.id, "Also two.", expect=1)
        assert (caught.value.id, caught.value.expected, caught.value.found) == (cube.id, 1, 2)
        assert (alice.get(cube.id).text, alice.changes()) == ("Two.", before)

    def test_a_bad_revision_changes_nothing(self, alice: ScopedMemory) -> None:
        """An unusable text leaves the cube and the journal as they were."""
        cube = alice.remember("One.")
        before = alice.changes()
        for text in ("", " \n", "a\0b", "\ud800", None, b"x"):
            with pytest.raises(InvalidRequest):
                alice.revise(cube.id, text)  # type: ignore[arg-type]
        assert (alice.history(cube.id), alice.changes()) == ([cube], before)

    def test_rollback_makes_an_old_version_the_newest(self, alice: ScopedMemory) -> None:
        """As a new version, with the old one's text, tags and times; the versions between stay."""
        cube = alice.remember("One.", tags=["a"], at="2024-05-01T12:00:00Z")
        alice.revise(cube.id, "Two.", tags=["b"])
        back = alice.rollback(cube.id, version=1)
        assert (back.text, back.tags, back.observed, back.version) == ("One.", ("a",), cube.observed, 3)
        assert [kept.text for kept in alice.history(cube.id)] == ["One.", "Two.", "One."]
        assert alice.recall("one")[0].cube == alice.get(cube.id)

    def test_each_version_was_recorded_when_it_was_written(self, alice: ScopedMemory) -> None:
        """`recorded` never runs backwards along a history; a rollback is recorded now, not then."""
        cube = alice.remember("One.")
        alice.revise(cube.id, "Two.")
        alice.rollback(cube.id, version=1)
        recorded = [kept.descriptive.recorded for kept in alice.history(cube.id)]
        assert None not in recorded
        assert len(set(recorded)) == 3
        assert recorded == sorted(recorded, key=str)

    def test_rollback_wants_a_version_that_was(self, alice: ScopedMemory) -> None:
        """A version there never was is refused and the range is named."""
        cube = alice.remember("One.")
        for version in (0, 2, -1):
            with pytest.raises(InvalidRequest, match="version"):
                alice.rollback(cube.id, version=version)
        assert alice.history(cube.id) == [cube]

    def test_a_derived_cube_names_its_sources(self, alice: ScopedMemory) -> None:
        """It is kept with the exact versions it was made from."""
        one, two = alice.remember_many(["The boiler code is 4417.", "The boiler is in the cellar."])
        product = alice.remember(derive([one, two], Text("Boiler: 4417, cellar."), method="summary/v1"))
        kept = alice.get(product.id)
        assert [(link.id, link.version) for link in kept.behavioural.derivations] == [(one.id, 1), (two.id, 1)]
        assert kept.behavioural.method == "summary/v1"

    def test_a_source_must_be_there(self, alice: ScopedMemory, bob: ScopedMemory, t: Tercet) -> None:
        """A product of a cube that is erased, foreign or of a version that never was is not taken in."""
        mine, gone, his = alice.remember("Mine."), alice.remember("Gone."), bob.remember("His.")
        alice.forget(gone.id)
        never = replace(mine, behavioural=replace(mine.behavioural, version=2))
        sources = [gone, replace(his, governance=mine.governance), never]
        for source in sources:
            with pytest.raises(MissingMemory):
                alice.remember(derive([source], Text("Made of it."), method="m"))
        assert list(alice.list()) == [mine]
        all_clear(t)
