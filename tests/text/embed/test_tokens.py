from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tercet.text.embed.tokens import PIECE, WordPieces
from tercet.text.embed.weights import Weights

ASCII = st.text(st.characters(max_codepoint=127), max_size=60)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def pieces(files: Weights) -> WordPieces:
    return WordPieces(files.tokenizer)


@pytest.fixture(scope="module")
def library(files: Weights) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@settings(deadline=None, max_examples=300)
@given(text=st.one_of(ASCII, ANY))
def test_ids_are_those_of_the_library(text: str, pieces: WordPieces, library: Tokenizer) -> None:
    assert pieces.ids(text).tolist() == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[SEP] and [MASK]",
        "don't_stop-9.5%",
        "Tabs\tand\nlines",
        "ZÜRICH été",
        "今天",
        "x" * 101,
        "x" * 100,
        "a  b",
        "\x00\x7f",
    ],
)
def test_ids_of_awkward_texts_are_those_of_the_library(text: str, pieces: WordPieces, library: Tokenizer) -> None:
    assert pieces.ids(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_a_huge_text_has_the_ids_of_the_whole(pieces: WordPieces, library: Tokenizer) -> None:
    text = "Größe and naïve cafés, "[:-1] * (3 * PIECE // 22)
    assert len(text) > 2 * PIECE
    assert pieces.ids(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_a_lone_surrogate_is_replaced(pieces: WordPieces) -> None:
    assert pieces.ids("a \ud800 b").tolist() == pieces.ids("a ? b").tolist()
