"""Documents as passages: spans of about `size` characters that end where a reader would pause.

A passage ends at the last paragraph in reach, or else at the last sentence, line or word; only a monster line is cut
hard, and then not within a letter and its accents. Every character that is not white space is in exactly one span.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from tercet.cube import MAX_TEXT, Descriptive, MemCube, Origin, Scalar, Source, Text
from tercet.errors import InvalidRequest

SIZE = 1000
"""Characters a passage aims at: about 200 words, which an embedder of 256 tokens sees whole or nearly so."""

_INK = re.compile(r"\S")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n|[\f\u2029]")
_SENTENCE = re.compile(
    r"(?<!\b[A-Z])(?<!\b(?:Dr|Mr|Ms|St|vs|cf))(?<!\b(?:Mrs|etc|e\.g|i\.e))[.!?…؟۔।][\"'”’»)\]]*(?=\s+[^\sa-z])"
    r"|[。！？｡][”’」』）]*"
)
_LINE = re.compile(r"[\n\u2028]")
_WORD = re.compile(r"\s|[、，；,;/](?=\w)")
PROSE: Sequence[re.Pattern[str]] = (_PARAGRAPH, _SENTENCE, _LINE, _WORD)
LINES: Sequence[re.Pattern[str]] = (_LINE, _WORD)
"""Where code and tables may be torn, if they must."""
_JOINERS = frozenset("\u200c\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


def read_plain(
    text: str, *, title: str | None = None, size: int = SIZE, observed: datetime | None = None
) -> list[MemCube]:
    """Read a text into drafts of type "document", one a passage, in order.

    Each has its span of the text (character offsets) as `origin.span` and `{"title": title}` as metadata. The time is
    linear in the length.

    Raises
    ------
    InvalidRequest
        If the text is blank, has NUL characters or lone surrogates, or `size` is not 1 to 1,000,000.
    """
    check_document(text)
    check_size(size)
    metadata: dict[str, Scalar] = {} if title is None else {"title": title}
    return [passage(text, span, metadata, observed) for span in spans(text, size)]


def passage(
    text: str, span: tuple[int, int], metadata: Mapping[str, Scalar], observed: datetime | None = None
) -> MemCube:
    """The draft that quotes one span of a document."""
    return MemCube(
        Text(text[span[0] : span[1]]),
        Descriptive(type="document", observed=observed, origin=Origin(Source.IMPORT, span=span), metadata=metadata),
    )


def spans(
    text: str, size: int = SIZE, start: int = 0, end: int | None = None, *, breaks: Sequence[re.Pattern[str]] = PROSE
) -> Iterator[tuple[int, int]]:
    """Cut `text[start:end]` into spans of at most `size` characters, none of which begins or ends with white space.

    `breaks` are tried in order: the last match of the first that has one in the later two thirds of the reach.
    """
    end = len(text) if end is None else end
    while ink := _INK.search(text, start, end):
        start = ink.start()
        cut = end if end - start <= size else _cut(text, start, size, breaks)
        yield start, start + len(text[start:cut].rstrip())
        start = cut


def check_document(text: str) -> str:
    """Return `text` if passages can be read from it: a string of any length with something in it.

    Raises
    ------
    InvalidRequest
        If it is no string, blank, or has NUL characters or lone surrogates; it says where.
    """
    if not isinstance(text, str):
        raise InvalidRequest(f"A document must be a string, not {type(text).__name__}; decode bytes first.")
    if not _INK.search(text):
        raise InvalidRequest("The document is empty.")
    if (place := text.find("\0")) >= 0:
        raise InvalidRequest(f"The document has a NUL at character {place:,}; remove it (is this a binary file?).")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The document is not valid Unicode at character {error.start:,}.") from None
    return text


def check_size(size: int) -> int:
    """Return `size` if a passage can have it.

    Raises
    ------
    InvalidRequest
        If it is not between 1 and `MAX_TEXT`.
    """
    if not 1 <= size <= MAX_TEXT:
        raise InvalidRequest(f"A passage has 1 to {MAX_TEXT:,} characters, not {size}.")
    return size


def _cut(text: str, start: int, size: int, breaks: Sequence[re.Pattern[str]]) -> int:
    # The first third is never searched: each passage is then long enough for the whole to stay linear.
    floor, limit = start + max(1, size // 3), start + size
    for pattern in breaks:
        ends = [found.end() for found in pattern.finditer(text, floor, limit)]
        if ends:
            return ends[-1]
    cut = limit
    while cut > floor and _clings(text[cut]):
        cut -= 1
    return cut if cut > floor else limit


def _clings(letter: str) -> bool:
    """Whether a letter belongs to the one before it, as an accent does."""
    return letter in _JOINERS or unicodedata.category(letter)[0] == "M"
