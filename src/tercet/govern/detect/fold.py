"""A text as a reader sees it: without what has no width, and with look-alikes as the letters they pass for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# What has no width, other scripts' look-alikes, full-width and mathematical forms, odd spaces and dashes, tags.
_ODD = re.compile(
    "[\u00a0\u00ad\u034f\u0370-\u03ff\u0400-\u04ff\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u2000-\u2015\u202f"
    "\u205f-\u2064\u2100-\u214f\u2212\u2460-\u24ff\u3000\u3164\ufe00-\ufe0f\ufeff\uff01-\uffee"
    "\U0001d400-\U0001d7ff\U000e0000-\U000e01ef]"
)
_LATIN = str.maketrans(
    "АВЕЗКМНОРСТУХЅІЈԌԚԜаеорсухѕіјԁһӏԛԝկΑΒΕΖΗΙΚΜΝΟΡΤΥΧαονρικυχ",
    "ABE3KMHOPCTYXSIJGQWaeopcyxsijdhlqwkABEZHIKMNOPTYXaovpikyx",
)
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"))
_TAGS = range(0xE0020, 0xE007F)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text as it is searched; `places[i]` is where its character `i` stands in the original (None: at `i`)."""

    text: str
    places: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where a span of `text` stands in the original, with whatever has no width inside it."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1


def fold(text: str) -> Folded:
    """What to search instead of `text`; itself, if nothing in it is odd."""
    if text.isascii() or _ODD.search(text) is None:
        return Folded(text)
    letters, places = list[str](), list[int]()
    for place, character in enumerate(text):
        seen = plain(character)
        letters.append(seen)
        places += [place] * len(seen)
    return Folded("".join(letters), places)


def plain(character: str) -> str:
    """The character or characters that one passes for; empty for one without width."""
    if character.isascii():
        return character
    if ord(character) in _TAGS:  # invisible twins of ASCII, read by models and by nobody else
        return chr(ord(character) - 0xE0000)
    if (
        unicodedata.category(character) == "Cf"
        or "\ufe00" <= character <= "\ufe0f"
        or character in "\u034f\u115f\u1160"
    ):
        return ""
    if unicodedata.category(character) == "Zs":
        return " "
    return unicodedata.normalize("NFKC", character).translate(_DASHES).translate(_LATIN)
