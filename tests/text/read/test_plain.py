from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.cube import MemCube, Source
from tercet.errors import InvalidRequest
from tercet.text.read.markdown import read_markdown
from tercet.text.read.plain import PROSE, read_plain, spans

LETTERS = "ab. \n\t#|-`>é\u0301。\r\f!Z\u200d👩"
TEXTS = st.one_of(
    st.text(st.sampled_from(LETTERS), max_size=300), st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
).map(lambda text: text.replace("\0", ""))


def covered(text: str, cubes: list[MemCube]) -> None:
    """Spans are in order, quote the text, leave out nothing but white space, and neither begin nor end with it."""
    here = 0
    for cube in cubes:
        span = cube.descriptive.origin.span
        assert span is not None
        assert text[slice(*span)] == cube.text == cube.text.strip() != ""
        assert span[0] >= here
        assert not text[here : span[0]].strip()
        here = span[1]
    assert not text[here:].strip()


@given(TEXTS.filter(str.strip), st.integers(1, 60))
def test_spans_and_white_space_give_back_the_document(text: str, size: int) -> None:
    cubes = read_plain(text, size=size)
    covered(text, cubes)
    assert max(len(cube.text) for cube in cubes) <= size


@given(TEXTS.filter(str.strip), st.integers(1, 60))
def test_markdown_covers_all_too(text: str, size: int) -> None:
    covered(text, read_markdown(text, size=size))


@pytest.mark.parametrize("read", [read_plain, read_markdown])
@pytest.mark.parametrize(
    ("piece", "length"),
    [
        ("The boiler drips. It is old, and has been for a long time.\n", 10_000_000),
        # Quick only because the time is linear: each of these would make a careless pattern quadratic.
        *((piece, 500_000) for piece in ("x", "\n\n", "# a\n", "|a|b|\n", "`", "e\u0301", "```\nx\n", "# ", ". ")),
    ],
)
def test_large_documents(read: object, piece: str, length: int) -> None:
    text = "Start: " + piece * (length // len(piece)) + " end"
    cubes = read_plain(text) if read is read_plain else read_markdown(text)
    covered(text, cubes)


def test_drafts_are_of_type_document() -> None:
    (cube,) = read_plain("Short.", title="Notes")
    assert (cube.text, cube.descriptive.type, cube.metadata, cube.version) == (
        "Short.",
        "document",
        {"title": "Notes"},
        0,
    )
    assert cube.descriptive.origin.source is Source.IMPORT
    assert read_plain("Short.")[0].metadata == {}


@pytest.mark.parametrize(
    ("text", "size", "passages"),
    [
        ("One two.\n\nThree four.\n\nFive six.", 24, ["One two.\n\nThree four.", "Five six."]),
        ("It rains. We stay in. It stops. We go.", 24, ["It rains. We stay in.", "It stops. We go."]),
        ("I saw Dr. Moe. He is well. Bye now then.", 20, ["I saw Dr. Moe.", "He is well.", "Bye now then."]),
        ("one two three four five", 12, ["one two", "three four", "five"]),
        ("x" * 25, 10, ["x" * 10, "x" * 10, "x" * 5]),
        ("一二三四。五六七八。九十", 8, ["一二三四。", "五六七八。九十"]),
        ("line one\nline two\nline three", 20, ["line one\nline two", "line three"]),
    ],
)
def test_passages_end_where_a_reader_pauses(text: str, size: int, passages: list[str]) -> None:
    assert [text[slice(*span)] for span in spans(text, size)] == passages


def test_a_hard_cut_keeps_accents_with_their_letters() -> None:
    text = "e\u0301" * 30
    assert all(text[start] == "e" for start, _ in spans(text, 9))


def test_a_break_is_tried_in_the_order_given() -> None:
    text = "aa bb\ncc dd ee ff gg"
    first = [text[slice(*next(spans(text, 12, breaks=breaks)))] for breaks in (PROSE, PROSE[-1:])]
    assert first == ["aa bb", "aa bb\ncc dd"]


@pytest.mark.parametrize("read", [read_plain, read_markdown])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \r\n\t\u2003", "empty"),
        ("ab\0c", "NUL at character 2"),
        ("a\ud800", "not valid Unicode at character 1"),
        (b"bytes", "must be a string, not bytes"),
    ],
)
def test_bad_text_is_refused(read: object, text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_plain(text) if read is read_plain else read_markdown(text)


@pytest.mark.parametrize("size", [0, -1, 1_000_001])
def test_bad_sizes_are_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match="A passage has 1 to"):
        read_plain("words", size=size)


def test_control_characters_emoji_and_right_to_left_are_kept() -> None:
    text = "\x01\x07 שלום 👩‍👩‍👧 \u202eabc\u202c"
    assert read_plain(text)[0].text == text
