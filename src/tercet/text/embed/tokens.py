"""Texts to the token ids of a BERT vocabulary, as the `tokenizers` library has them, but quicker on plain English."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tercet.text.embed.base import Ints

PIECE = 1 << 16  # characters handed on at once, so that a huge text needs no huge encoding
WORDS = 1 << 16  # words whose ids are remembered
_WORD = re.compile(r"[a-z0-9]+|[^a-z0-9 ]")  # what the library calls a word, in lower-case ASCII


class WordPieces:
    """The tokenizer of a `tokenizer.json`; never truncates, never pads, adds no special tokens."""

    def __init__(self, file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._known = lru_cache(WORDS)(self._encoded)

    def ids(self, text: str) -> Ints:
        """The ids of a text, int32 (tokens,); none for an empty one. A lone surrogate counts as U+FFFD."""
        ids = array("i")
        for piece in _pieces(text if text.isascii() else text.encode("utf-8", "replace").decode()):
            if piece.isascii() and piece.isprintable() and "[" not in piece:  # with "[" it may name a special token
                for word in _WORD.findall(piece.lower()):
                    ids.extend(self._known(word))
            else:
                ids.extend(self._encoded(piece))
        return np.frombuffer(ids, np.int32) if ids else np.empty(0, np.int32)

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _pieces(text: str) -> Iterator[str]:
    """Cut a huge text where there is a space, so that its pieces have the tokens that the whole has."""
    start = 0
    while len(text) - start > PIECE:
        space = text.rfind(" ", start, start + PIECE)
        end = space if space > start else start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]
