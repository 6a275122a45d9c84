"""The contract of `get`, `list`, `changes`, `history`, `recall` and `context`."""

from __future__ import annotations

import uuid

import pytest

from tercet.cube import MemCube
from tercet.errors import InvalidRequest, MissingMemory
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet
from tercet.text.read.message import Message

NO_LIMITS = (0, -1, 10_001, 2.0, "10", None, True)


class ReadTests(Contract):
    """Whatever is there can be found, counted and paged through."""

    def test_an_id_that_never_was_is_missing(self, alice: ScopedMemory) -> None:
        """Made up, malformed or empty: a LookupError that names the id."""
        for id in (str(uuid.uuid4()), "nonsense", "", "'; DROP TABLE cubes; --"):
            with pytest.raises(MissingMemory) as caught:
                alice.get(id)
            assert caught.value.id == id
            assert isinstance(caught.value, LookupError)

    def test_list_is_in_order_of_arrival_with_a_total(self, alice: ScopedMemory) -> None:
        """Oldest first; `total` counts all, also beyond the page."""
        cubes = alice.remember_many([f"Number {i}." for i in range(7)])
        page = alice.list(limit=3)
        assert (list(page), page.total, page.truncated) == (cubes[:3], 7, True)
        assert alice.list().total == 7
        assert (alice.list().truncated, alice.list().cursor) == (False, None)

    def test_cursors_walk_the_whole_list_once(self, alice: ScopedMemory) -> None:
        """Nothing is left out or shown twice, whatever the page's size, and the last page has no cursor."""
        cubes = alice.remember_many([f"Number {i}." for i in range(10)])
        for size in (1, 3, 5, 9, 10, 11):
            seen: list[MemCube] = []
            cursor = None
            while True:
                page = alice.list(limit=size, cursor=cursor)
                seen += page
                cursor = page.cursor
                if cursor is None:
                    break
            assert seen == cubes

    def test_what_is_written_while_paging_shifts_nothing(self, alice: ScopedMemory) -> None:
        """Cubes that come or go between two pages neither hide nor repeat others."""
        cubes = alice.remember_many([f"Number {i}." for i in range(6)])
        page = alice.list(limit=3)
        alice.forget(cubes[0].id)
        new = alice.remember("Later.")
        assert list(alice.list(cursor=page.cursor)) == [*cubes[3:], new]

    def test_a_cursor_must_be_ours(self, alice: ScopedMemory) -> None:
        """A made-up cursor is refused rather than taken for the start."""
        alice.remember("One.")
        for cursor in ("", "zzz", "💥", "bm90", "n1", "bi0x", "bjk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", 17):
            with pytest.raises(InvalidRequest, match="cursor"):
                alice.list(cursor=cursor)  # type: ignore[arg-type]

    def test_limits_are_whole_numbers_in_range(self, alice: ScopedMemory) -> None:
        """0, -1, too many and no number at all are refused by every call that has a limit."""
        alice.remember("One.")
        for limit in NO_LIMITS:
            for call in (alice.list, alice.changes):
                with pytest.raises(InvalidRequest, match="limit"):
                    call(limit=limit)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="limit"):
                alice.recall("one?", limit=limit)  # type: ignore[arg-type]

    def test_changes_tell_what_happened_in_order(self, alice: ScopedMemory) -> None:
        """Each write is a line with a growing `seq`; `since` goes on after one; nothing is told twice."""
        alice.remember("This one stays.")
        cube = alice.remember("One.")
        alice.revise(cube.id, "Two.")
        alice.rollback(cube.id, version=1)
        alice.forget(cube.id)
        told = alice.changes()[1:]
        assert [(line.action, line.version) for line in told] == [
            ("remember", 1), ("revise", 2), ("rollback", 3), ("forget", 3),
        ]  # fmt: skip
        assert {line.id for line in told} == {cube.id}
        assert [line.seq for line in told] == sorted({line.seq for line in told})
        assert list(alice.changes(since=told[1].seq)) == list(told[2:])
        assert list(alice.changes(since=told[0].seq - 1, limit=2)) == list(told[:2])
        assert list(alice.changes(since=told[-1].seq)) == []

    def test_changes_name_who(self, t: Tercet) -> None:
        """The caller stands in the journal."""
        from tercet.scope import Caller

        scope = t.scope(user="alice", by=Caller("importer"))
        scope.remember("One.")
        assert [line.by for line in scope.changes()] == ["importer"]

    def test_recall_finds_a_memory_by_its_words(self, alice: ScopedMemory) -> None:
        """The cube that holds the asked word comes first; hits are cubes as `get` gives them."""
        cubes = alice.remember_many(["The boiler code is 4417.", "I moved to Oslo in May.", "We had soup for lunch."])
        hits = alice.recall("What is the code of the boiler?")
        assert hits[0].cube.text == cubes[0].text
        assert hits[0].cube == alice.get(cubes[0].id)

    def test_hits_say_how_sure_and_why(self, alice: ScopedMemory) -> None:
        """Scores are in [0, 1] and fall; every hit has a reason; the result says how much there was."""
        alice.remember_many([f"Oslo number {i}." for i in range(12)])
        hits = alice.recall("What of Oslo?", limit=5)
        assert len(hits) == 5
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert all(hit.why.get("by") for hit in hits)
        assert (hits.total, hits.truncated) == (12, True)

    def test_recall_of_nothing_is_nothing(self, alice: ScopedMemory) -> None:
        """An empty scope answers with no hits, not with an error."""
        hits = alice.recall("Where is everybody?")
        assert (list(hits), hits.total, hits.truncated) == ([], 0, False)

    def test_recall_wants_a_question(self, alice: ScopedMemory) -> None:
        """An empty question, or one that is no text, is refused."""
        alice.remember("One.")
        for question in ("", "  \n", None, 17, b"bytes"):
            with pytest.raises(InvalidRequest):
                alice.recall(question)  # type: ignore[arg-type]

    def test_signs_in_a_question_are_only_signs(self, alice: ScopedMemory) -> None:
        """Quotes and operators of query languages neither fail nor mean anything."""
        cube = alice.remember("The boiler code is 4417.")
        alice.remember("Something else entirely.")
        for question in ('"boiler', "boiler OR", "boiler AND NOT (", "boiler*", "NEAR(boiler code)", "'; boiler --",
                         "-boiler", "boiler:4417", "^boiler", "{boiler}", "\x07boiler", "boiler\u202e"):  # fmt: skip
            assert alice.recall(question)[0].cube.id == cube.id, question

    def test_recall_takes_times_and_filters(self, alice: ScopedMemory) -> None:
        """`since` is inclusive, `until` is not, and both go with `where`."""
        messages = [
            Message(f"Oslo {day}.", at=f"2024-05-{day:02}T12:00:00Z", tags=["odd"] if day % 2 else [])  # type: ignore[arg-type]
            for day in range(1, 9)
        ]
        alice.remember_many(messages)

        def days(**options: object) -> set[str]:
            return {hit.cube.text for hit in alice.recall("Oslo", limit=100, **options)}  # type: ignore[arg-type]

        assert days(since="2024-05-07T12:00:00Z") == {"Oslo 7.", "Oslo 8."}
        assert days(until="2024-05-02T12:00:00Z") == {"Oslo 1."}
        assert days(until="2024-05-05T12:00:00Z", where={"tags": "odd"}) == {"Oslo 1.", "Oslo 3."}
        for bad in ({"since": "2024-05-07T12:00:00"}, {"until": "soon"}, {"kind": "nonsense"}, {"policy": "nonsense"}):
            with pytest.raises(InvalidRequest):
                alice.recall("Oslo", **bad)  # type: ignore[arg-type]

    def test_context_is_bounded_and_in_time_order(self, alice: ScopedMemory) -> None:
        """The passage fits the budget as counted by the caller's own tokenizer, and tells who and when."""
        alice.remember_many(
            [Message(f"Oslo is number {day}.", name="Ann", at=f"2024-05-0{day}T12:00:00Z") for day in (3, 1, 2)]  # type: ignore[arg-type]
        )
        whole = alice.context("Oslo?", tokenizer=lambda text: len(text.split()))
        assert [whole.index(f"Oslo is number {day}.") for day in (1, 2, 3)] == sorted(
            whole.index(f"Oslo is number {day}.") for day in (1, 2, 3)
        )
        assert "Ann" in whole
        assert "2024" in whole
        for budget in (1, 12, 20, 100):
            assert (
                len(alice.context("Oslo?", budget=budget, tokenizer=lambda text: len(text.split())).split()) <= budget
            )
        for bad in ({"budget": 0}, {"tokenizer": "nonsense"}):
            with pytest.raises(InvalidRequest):
                alice.context("Oslo?", **bad)

    def test_handles_read_each_others_writes(self, open_tercet: OpenTercet) -> None:
        """As soon as a write has returned, every other handle sees it, by id, by list and by recall."""
        with open_tercet() as one, open_tercet() as two:
            writer, reader = one.scope(user="alice"), two.scope(user="alice")
            reader.recall("anything?")
            cube = writer.remember("The boiler code is 4417.")
            assert reader.get(cube.id) == cube
            assert list(reader.list()) == [cube]
            assert [hit.cube.id for hit in reader.recall("boiler code?")] == [cube.id]
            writer.revise(cube.id, "The heating is off.")
            assert [hit.cube.text for hit in reader.recall("heating?")] == ["The heating is off."]
            writer.forget(cube.id)
            assert list(reader.recall("heating?")) == []
