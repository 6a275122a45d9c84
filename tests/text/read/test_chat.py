from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.cube import MAX_TEXT, Source
from tercet.errors import InvalidRequest
from tercet.scope import Scope
from tercet.text.read.chat import draft, instant, messages
from tercet.text.read.message import Message

NOON = datetime(2024, 5, 2, 12, tzinfo=UTC)
Anything: TypeAlias = Any  # what a caller may write who does not check types
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


def one(**fields: Anything) -> Message:
    (found,) = messages([{"role": "user", "content": "hello", **fields}])
    return found


def test_reads_messages_strings_and_mappings() -> None:
    given = Message("b", name="Ben", at=NOON)
    assert messages(["a", given, {"role": "assistant", "content": "c", "name": "Cy"}]) == [
        Message("a"),
        given,
        Message("c", role="assistant", name="Cy"),
    ]


@pytest.mark.parametrize("alone", ["abc", Message("abc"), {"content": "abc"}])
def test_one_item_alone_is_a_list_of_one(alone: str | Message | dict[str, object]) -> None:
    assert messages(alone) == [Message("abc")]


@given(WORDS)
def test_text_is_kept_verbatim(text: str) -> None:
    cubes = [draft(message, observed=NOON) for message in messages([text, {"role": "user", "content": text}])]
    assert [cube.text for cube in cubes] == [text, text]


@pytest.mark.parametrize(
    "text", ["\x01bell\x07\x1b[0m", "👩‍👩‍👧 ok", "שלום עולם", "  two  spaces\r\n", "\u202eright to left\u202c"]
)
def test_odd_characters_are_kept(text: str) -> None:
    assert one(content=text).content == text


@pytest.mark.parametrize("field", ["at", "created_at", "timestamp"])
@pytest.mark.parametrize(
    "written", ["2024-05-02T12:00:00Z", "2024-05-02T14:00:00+02:00", 1714651200, 1714651200.0, NOON]
)
def test_times_have_three_names_and_three_forms(field: str, written: object) -> None:
    assert one(**{field: written}).at == NOON


def test_a_zone_is_kept_for_what_is_relative_to_it() -> None:
    assert one(at="2024-05-02T14:00:00+02:00").at.utcoffset() == timedelta(hours=2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"at": "2024-05-02T12:00:00"}, "has no time zone; add one"),
        ({"at": datetime(2024, 5, 2)}, "has no time zone; add one"),  # noqa: DTZ001
        ({"at": "2024-05-02"}, "no time zone"),
        ({"at": "soon"}, "no time; write it like"),
        ({"at": 1714651200000}, "milliseconds"),
        ({"at": -1e11 + 1}, "outside the years"),
        ({"at": float("nan")}, "epoch seconds"),
        ({"at": True}, "must be a time"),
        ({"at": NOON, "timestamp": 0}, "at and timestamp say different things"),
        ({"ref": "a", "id": "b"}, "ref and id say different things"),
        ({"ref": ""}, "ref ''"),
        ({"ref": ["a"]}, "ref must be a string"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"role": "narrator"}, "role 'narrator' is not known"),
        ({"role": ["user"]}, "is not known"),
        ({"name": 7}, "name must be a string"),
        ({"name": "a\nb"}, "control character"),
        ({"session": " s"}, "white space"),
        ({"tags": "work"}, "tags must be a list"),
        ({"tags": [1]}, "tag must be a string"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {"a": {"b": 1}}}, "metadata 'a' holds a dict"),
        ({"metadata": {"a": float("inf")}}, "JSON has no such number"),
        ({"metadata": {"a": "\ud800"}}, "not valid Unicode"),
        ({"metadata": {1: "a"}}, "metadata 1"),
        ({"content": ""}, "empty"),
        ({"content": " \n"}, "empty"),
        ({"content": None}, "empty"),
        ({"content": 7}, "string or a list of parts, not int"),
        ({"content": b"bytes"}, "string or a list of parts, not bytes"),
        ({"content": "a\0b"}, "NUL"),
        ({"content": "\ud83d"}, "not valid Unicode"),
        ({"content": "x" * (MAX_TEXT + 1)}, "1,000,001 characters"),
        ({"content": "x" * 10_000_000}, "give it as a document"),
        ({"content": [{"type": "hologram"}]}, "type 'hologram' is not known"),
        ({"content": [{"type": "text"}]}, "needs a string in `text`"),
        ({"content": [7]}, "not int"),
        ({"tool_calls": "x"}, "tool_calls must be a list"),
        ({"tool_calls": [{}]}, "with a `name`"),
        ({"function_call": "x"}, "function_call must be a mapping"),
        ({"audio": "x"}, "audio must be a mapping"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        messages(["fine", {"role": "user", "content": "hello", **fields}])
    assert str(raised.value).startswith("Message 2: ")
    assert says in str(raised.value)


@pytest.mark.parametrize("item", [7, None, b"bytes", ["list"]])
def test_what_is_no_message_is_refused(item: object) -> None:
    with pytest.raises(InvalidRequest, match="Message 1: expected a string, a mapping or a Message"):
        messages([item])


@pytest.mark.parametrize("items", [7, None, b"bytes"])
def test_what_is_no_list_is_refused(items: Anything) -> None:
    with pytest.raises(InvalidRequest, match="come as a list"):
        messages(items)


def test_a_message_is_held_to_the_same_rules() -> None:
    with pytest.raises(InvalidRequest, match="time zone"):
        messages([Message("a", at=datetime(2024, 5, 2))])  # noqa: DTZ001
    with pytest.raises(InvalidRequest, match="role 'bot'"):
        messages([Message("a", role="bot")])
    assert messages([Message("a", role="developer")])[0].role == "system"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "input_text", "text": "a"}], "a"),
        ([{"type": "output_text", "text": "a"}], "a"),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        ([{"type": "image_url", "image_url": {"url": "http://x", "detail": "high"}}], "[image]"),
        ([{"type": "image_url", "image_url": {"url": "http://x", "detail": "a red boat"}}], "[image: a red boat]"),
        ([{"type": "input_image", "image_url": "http://x", "alt": "a boat"}], "[image: a boat]"),
        ([{"type": "image", "caption": "boats"}, "and words"], "[image: boats]\nand words"),
        ([{"type": "input_audio", "input_audio": {"data": "…"}}], "[audio]"),
        ([{"type": "audio", "transcript": "hm"}], "[audio: hm]"),
        ([{"type": "file", "file": {"filename": "a.pdf"}}], "[file: a.pdf]"),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "8 h"}]}], "8 h"),
    ],
)
def test_parts_become_words(content: object, words: str) -> None:
    assert one(content=content).content == words


def test_tool_calls_stay_readable() -> None:
    called, answered = messages(
        [
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": None,
                "annotations": [],
                "function_call": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "4 °C"},
        ]
    )
    assert called.content == '[call weather({"city": "Oslo"})]\n[call clock({})]'
    assert called.metadata == {"tool_call_ids": "c1 c2"}
    assert (answered.role, answered.content, answered.metadata) == ("tool", "4 °C", {"tool_call_id": "c1"})


def test_what_has_no_place_goes_to_metadata() -> None:
    cited = [{"type": "url_citation", "url": "http://x"}]
    found = one(annotations=cited, metadata={"mood": "good"}, tags=["a", "b"], id=17, session="s/1")
    assert json.loads(str(found.metadata["annotations"])) == cited
    assert (found.metadata["mood"], found.tags, found.ref, found.session) == ("good", ("a", "b"), "17", "s/1")


def test_an_old_function_call_and_a_refusal_are_words() -> None:
    assert one(content=None, function_call={"name": "f", "arguments": "{}"}).content == "[call f({})]"
    assert one(content=None, refusal="I would rather not.").content == "I would rather not."


def test_draft_fills_the_header() -> None:
    message = Message("I moved yesterday.", "assistant", "Ana", NOON, "m-1", "s1", ("a",), {"k": 1})
    cube = draft(message, observed=NOON + timedelta(days=9), scope=Scope(user="ana", session="s0"), span=(3, 21))
    origin = cube.descriptive.origin
    assert (origin.speaker, origin.role, origin.ref, origin.span) == ("Ana", "assistant", "m-1", (3, 21))
    assert (origin.source, cube.descriptive.type, cube.version) == (Source.MODEL, "message", 0)
    assert (cube.observed, cube.tags, cube.metadata) == (NOON, ("a",), {"k": 1})
    assert (cube.scope.user, cube.scope.session) == ("ana", "s1")


def test_draft_resolves_relative_dates_in_the_zone_of_the_message() -> None:
    local = datetime(2024, 5, 2, 0, 30, tzinfo=timezone(timedelta(hours=2)))  # still 1 May in UTC
    found = draft(Message("I moved yesterday."), observed=local).descriptive.happened
    assert found is not None
    assert found.start == datetime(2024, 5, 1, tzinfo=local.tzinfo)
    assert found.end == datetime(2024, 5, 2, tzinfo=local.tzinfo)
    assert found.span == (8, 17)
    assert draft(Message("I moved."), observed=local).descriptive.happened is None


def test_draft_takes_the_narrowest_date() -> None:
    text = "Last year was long, but yesterday was good."
    found = draft(Message(text), observed=NOON).descriptive.happened
    assert found is not None
    assert found.span is not None
    assert text[slice(*found.span)] == "yesterday"


def test_draft_needs_a_zone() -> None:
    with pytest.raises(InvalidRequest, match="time zone"):
        draft(Message("a"), observed=datetime(2024, 5, 2))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("role", "source"), [("user", Source.USER), ("tool", Source.RETRIEVAL), ("system", Source.USER)]
)
def test_the_role_tells_the_source(role: str, source: Source) -> None:
    assert draft(Message("a", role=role), observed=NOON).descriptive.origin.source is source
    assert (
        draft(Message("a", role=role), observed=NOON, source=Source.IMPORT).descriptive.origin.source is Source.IMPORT
    )


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.datetimes()))
def test_a_time_has_a_zone_or_is_refused(value: object) -> None:
    said, found = "", None
    try:
        found = instant(value)
    except InvalidRequest as error:
        said = str(error)
    assert said.startswith("at ") if found is None else found.utcoffset() is not None
