from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tercet.errors import InvalidRequest
from tercet.text.read.exports import EXPORTS, detect, read_export
from tercet.text.read.message import Message

Raw: TypeAlias = Any  # parsed JSON
FIXTURES = Path(__file__).parents[2] / "fixtures" / "read"


def load(name: str) -> Raw:
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["openai", "claude", "locomo"])
def test_formats_are_detected(name: str) -> None:
    assert detect(load(name)) == name
    assert detect(load(name)[0]) == name


@pytest.mark.parametrize(
    "data", [["a"], [{"role": "user", "content": "a"}], {"messages": []}, [{"messages": [{"content": "a"}]}]]
)
def test_messages_are_detected(data: object) -> None:
    assert detect(data) == "messages"


@pytest.mark.parametrize("data", [{}, [], [[]], {"a": 1}, 7, None, "just text"])
def test_what_is_no_export(data: object) -> None:
    with pytest.raises(InvalidRequest, match=r"no chat export|no transcript"):
        detect(data)


def test_openai_follows_the_branch_last_seen() -> None:
    first, second = read_export(load("openai"))
    assert (first.session, first.title, second.session, second.title) == ("c-1", "Boiler trouble", "c-2", None)
    assert [(m.role, m.content, m.ref) for m in first.messages] == [
        ("user", "[image]\nWhy does my boiler drip?", "m1"),
        ("assistant", "pressure(2.5)", "m3"),
        ("tool", "2.5 bar", "m4"),
        ("assistant", "The pressure is too high: 2.5 bar.", "m5"),
    ]
    assert [dict(m.metadata) for m in first.messages] == [
        {},
        {"model": "model-x", "recipient": "python"},
        {"tool": "python"},
        {"model": "model-x"},
    ]


def test_openai_times_are_taken_from_the_conversation_where_a_message_has_none() -> None:
    first = read_export(load("openai"))[0].messages
    assert first[0].at == datetime(2024, 5, 1, 9, 30, tzinfo=UTC)
    assert first[1].at == datetime(2024, 5, 1, 9, 31, 0, 500_000, tzinfo=UTC)


def test_openai_without_a_current_node_takes_the_newest_leaf_and_keeps_what_it_does_not_know() -> None:
    second = read_export(load("openai"))[1]
    assert [m.ref for m in second.messages] == ["a1", "c1"]
    assert second.messages[1].content == '[novelty: {"content_type": "novelty", "payload": "newer"}]'


def test_openai_with_a_circle_is_refused() -> None:
    data = load("openai")
    data[0]["mapping"]["root"]["parent"] = "n5"
    with pytest.raises(InvalidRequest, match="Conversation 1: its tree has a circle"):
        read_export(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"content_type": "thoughts", "thoughts": [{"summary": "Sum", "content": "Con"}]}, "[thinking: Sum: Con]"),
        ({"content_type": "tether_quote", "text": "quoted", "url": "http://x"}, "quoted\n[source: http://x]"),
        ({"content_type": "tether_browsing_display", "result": "L0: found"}, "L0: found"),
        ({"content_type": "reasoning_recap", "content": "Thought for 9 s"}, "Thought for 9 s"),
        ({"content_type": "multimodal_text", "parts": [{"content_type": "audio_transcription", "text": "hi"}]}, "hi"),
        (
            {"parts": [{"content_type": "image_asset_pointer", "metadata": {"dalle": {"prompt": "a fox"}}}]},
            "[image: a fox]",
        ),
    ],
)
def test_openai_content_types(content: object, words: str) -> None:
    data = load("openai")[1]
    data["mapping"]["c"]["message"]["content"] = content
    assert read_export(data)[0].messages[1].content == words


def test_claude() -> None:
    (plan,) = read_export(load("claude"))
    assert (plan.session, plan.title) == ("k-1", "Garden plan")
    asked, attached, answered, thanked = plan.messages
    assert asked.content == "Where do roses go?\n[file: photo.heic]\n[file: bed.jpg]"
    assert (asked.role, asked.ref, asked.at) == ("user", "q1", datetime(2024, 5, 1, 9, 30, 5, 250_000, tzinfo=UTC))
    assert attached.content == "South bed: sun until six.\n\nNorth bed: shade."
    assert (attached.ref, attached.metadata) == ("q1#file1.1", {"attachment": "plan.txt"})
    assert answered.content == (
        '[thinking: Roses like sun.]\n[call sun({"bed": "south"})]\n8 h\n[token_budget: {"type": "token_budget"}]\n'
        "In the south bed."
    )
    assert (answered.role, thanked.content) == ("assistant", "Thanks 🌹")


def test_messages_are_parted_by_session() -> None:
    data = [{"content": "a"}, {"content": "b", "session": "s"}, {"content": "c"}]
    assert [(c.session, [m.content for m in c.messages]) for c in read_export(data, session="x")] == [
        ("x", ["a", "c"]),
        ("s", ["b"]),
    ]


def test_lists_of_messages() -> None:
    data = [{"messages": ["a"], "title": "T"}, {"messages": ["b"], "id": "mine"}]
    found = read_export(data, session="x")
    assert [(c.session, c.title) for c in found] == [("x-1", "T"), ("mine", None)]
    assert found[0].messages == (Message("a", session="x-1"),)
    assert read_export({"messages": ["a"]}, session="x")[0].session == "x"


def test_a_transcript_is_an_export_too() -> None:
    assert read_export("[2024-05-01 09:30] Ana: a", session="x")[0].messages[0].name == "Ana"


@pytest.mark.parametrize(
    ("data", "format", "says"),
    [
        ([{"mapping": 7}], None, "Conversation 1 has not the form expected"),
        ([{"mapping": {"a": {"message": {"content": {"parts": ["x"]}}}}}], None, "Conversation 1 has not the form"),
        ([{"chat_messages": [{"sender": "human"}]}], None, "no message in it"),
        ([{"chat_messages": [{"sender": "owl", "text": "hu"}]}], None, "Conversation 1: Message 1: role 'owl'"),
        ([{"chat_messages": [{"sender": "human", "text": "a\0"}]}], None, "NUL"),
        ([{"chat_messages": [{"sender": "human", "text": "a", "created_at": "2024-05-01T09:30"}]}], None, "time zone"),
        (["a", 7], None, "Message 2"),
        ([{"messages": ["a"]}, {"content": "b"}], None, "mixed"),
        ([{"messages": [{"content": ""}]}], None, "Conversation 1: Message 1: The text is empty"),
        ([7], "openai", "Conversation 1 has not the form expected"),
        ({"messages": []}, None, "no message in it"),
        (["a"], "telegram", "No chat format 'telegram'; there are openai"),
        (7, "transcript", "A transcript is text"),
    ],
)
def test_bad_exports_are_refused(data: object, format: str | None, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_export(data, format=format)


def test_every_format_has_a_reader() -> None:
    assert list(EXPORTS) == ["openai", "claude", "locomo", "messages", "transcript"]
