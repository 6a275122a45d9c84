"""The contract of `remember` and `remember_many`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings

from tercet.cube import MAX_TEXT, Kind, MemCube, Origin, Scalar, Source, Text
from tercet.errors import InvalidRequest
from tercet.kernel import Tercet
from tercet.lifecycle import State
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet
from tercet.testing.strategies import metadata, moments, tags, texts
from tercet.text.read.message import Message

KEPT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
OSLO = timezone(timedelta(hours=2))


class RememberTests(Contract):
    """What goes in comes out, verbatim, once, under one id."""

    def test_remember_gives_the_first_version_of_a_cube(self, alice: ScopedMemory) -> None:
        """The cube that is returned is the one that is kept: an id, version 1, generated, in the scope."""
        cube = alice.remember("I moved to Oslo in May.")
        assert (cube.text, cube.version, cube.state, cube.kind) == (
            "I moved to Oslo in May.", 1, State.GENERATED, Kind.TEXT,
        )  # fmt: skip
        assert cube.scope == alice.scope
        assert alice.get(cube.id) == cube

    def test_a_memory_is_there_after_reopening(self, open_tercet: OpenTercet) -> None:
        """Nothing is kept in the process alone."""
        with open_tercet() as t:
            cube = t.scope(user="alice").remember("The boiler code is 4417.", tags=["home"], metadata={"n": 1})
        with open_tercet() as t:
            assert t.scope(user="alice").get(cube.id) == cube

    def test_everything_given_is_kept(self, alice: ScopedMemory) -> None:
        """Time, tags, metadata, ref and type come back as they were given."""
        at = datetime(2024, 5, 1, 9, 30, tzinfo=OSLO)
        given_metadata: dict[str, Scalar] = {"n": 1, "x": 0.5, "done": False, "city": "Oslo", "none": None}
        cube = alice.remember(
            "Soup.", at=at, tags=["food", "a b"], metadata=given_metadata, ref="msg-17", type="preference"
        )
        kept = alice.get(cube.id)
        assert (kept.observed, kept.tags, kept.ref, kept.descriptive.type) == (
            at,
            ("food", "a b"),
            "msg-17",
            "preference",
        )
        assert kept.observed is not None
        assert kept.observed.utcoffset() == at.utcoffset()
        assert dict(kept.metadata) == given_metadata
        assert {key: type(value) for key, value in kept.metadata.items()} == {
            key: type(value) for key, value in given_metadata.items()
        }

    @KEPT
    @given(text=texts(), at=moments(), metadata=metadata(), tags=tags())
    def test_any_text_is_kept_verbatim(
        self, alice: ScopedMemory, text: str, at: datetime, metadata: dict[str, str], tags: list[str]
    ) -> None:
        """No character is lost, folded or normalised; neither are labels."""
        cube = alice.remember(text, at=at, metadata=metadata, tags=tags)
        kept = alice.get(cube.id)
        assert (kept.text, kept.observed, dict(kept.metadata), kept.tags) == (text, at, metadata, tuple(tags))

    def test_the_longest_text_is_kept_whole(self, alice: ScopedMemory) -> None:
        """Up to the limit; one character more is refused with what to do instead."""
        cube = alice.remember("word " * (MAX_TEXT // 5))
        assert len(alice.get(cube.id).text) == MAX_TEXT
        with pytest.raises(InvalidRequest, match="document"):
            alice.remember("a" * (MAX_TEXT + 1))

    def test_the_same_ref_twice_is_once(self, alice: ScopedMemory) -> None:
        """The second call gives the cube that is there, and writes nothing."""
        first = alice.remember("The boiler code is 4417.", ref="msg-17")
        before = alice.changes()
        assert alice.remember("The boiler code is 4417.", ref="msg-17") == first
        assert alice.remember_many([Message("The boiler code is 4417.", ref="msg-17")] * 2) == [first, first]
        assert (alice.list().total, alice.changes()) == (1, before)

    def test_a_ref_names_one_text(self, alice: ScopedMemory) -> None:
        """The same ref for another text is refused, and neither text is lost or doubled."""
        alice.remember("The boiler code is 4417.", ref="msg-17")
        with pytest.raises(InvalidRequest, match="msg-17"):
            alice.remember("Something else.", ref="msg-17")
        with pytest.raises(InvalidRequest, match="x-1"):
            alice.remember_many([Message("One.", ref="x-1"), Message("Two.", ref="x-1")])
        assert [cube.text for cube in alice.list()] == ["The boiler code is 4417."]

    def test_a_ref_still_names_what_was_revised_since(self, alice: ScopedMemory) -> None:
        """An import that runs again after an edit neither fails nor undoes the edit."""
        cube = alice.remember("The code is 4417.", ref="msg-17")
        revised = alice.revise(cube.id, "The code is 9921.")
        assert alice.remember("The code is 4417.", ref="msg-17") == revised
        assert [kept.text for kept in alice.list()] == ["The code is 9921."]

    def test_a_ref_is_of_its_scope(self, t: Tercet, alice: ScopedMemory, bob: ScopedMemory) -> None:
        """Two users, or two sessions of one, may use the same ref for different things."""
        texts = ["Hers.", "His.", "In a session."]
        scopes = [alice, bob, t.scope(user="alice", session="s")]
        cubes = [scope.remember(text, ref="1") for scope, text in zip(scopes, texts, strict=True)]
        assert len({cube.id for cube in cubes}) == 3
        assert [cube.text for cube in cubes] == texts

    def test_many_are_kept_in_order(self, alice: ScopedMemory) -> None:
        """Strings, messages, mappings and drafts, in one call and in the order given."""
        at = datetime(2024, 5, 1, 9, 30, tzinfo=UTC)
        draft = MemCube(Text("A draft."))
        cubes = alice.remember_many(
            [
                "A string.",
                Message("A message.", name="Ann", at=at),
                {"role": "assistant", "content": "A mapping."},
                draft,
            ]
        )
        assert [cube.text for cube in cubes] == ["A string.", "A message.", "A mapping.", "A draft."]
        assert (cubes[1].speaker, cubes[1].observed) == ("Ann", at)
        assert cubes[2].descriptive.origin.source is Source.MODEL
        assert list(alice.list()) == cubes
        assert alice.remember_many([]) == []

    def test_many_are_all_or_none(self, alice: ScopedMemory) -> None:
        """One item that cannot be kept keeps the others out."""
        for bad in ("", {"content": "x", "colour": "red"}, Message("x", at=datetime(2024, 5, 1)), 17):  # noqa: DTZ001
            with pytest.raises(InvalidRequest):
                alice.remember_many(["Good.", bad, "Also good."])  # type: ignore[list-item]  # on purpose
        assert (alice.list().total, list(alice.changes())) == (0, [])

    def test_ids_are_unique_and_in_order_of_writing(self, alice: ScopedMemory) -> None:
        """A later cube's id sorts after an earlier one's."""
        cubes = [alice.remember("One."), *alice.remember_many(["Two."] * 50), alice.remember("Three.")]
        ids = [cube.id for cube in cubes]
        assert sorted(set(ids)) == ids

    def test_the_episode_holds_what_was_said(self, alice: ScopedMemory) -> None:
        """Cubes of one call quote one episode, each its own span of it."""
        one, two = alice.remember_many(["First.", "Second."])
        first, second = one.descriptive.origin, two.descriptive.origin
        assert first.episode is not None
        assert first.episode == second.episode
        assert first.span == (0, 6)
        assert second.span is not None
        assert second.span[0] >= 6
        assert second.span[1] - second.span[0] == len("Second.")

    def test_a_draft_keeps_its_whole_header(self, alice: ScopedMemory, full_draft: MemCube) -> None:
        """No field of a header is dropped or turned into its default on the way to the disk and back."""
        cube = alice.remember(full_draft)
        kept = alice.get(cube.id)
        assert kept == cube
        assert kept.governance == replace(full_draft.governance, scope=alice.scope)
        wanted, found = full_draft.descriptive, kept.descriptive
        for name in ("type", "slot", "happened", "observed", "tags", "metadata"):
            assert getattr(found, name) == getattr(wanted, name), name
        assert found.origin == Origin(
            Source.IMPORT, found.origin.episode, found.origin.span, "Ann", "tool", "r-1", "by hand"
        )
        for name in ("valid_from", "valid_to", "method", "superseded_by"):
            assert getattr(kept.behavioural, name) == getattr(full_draft.behavioural, name), name
