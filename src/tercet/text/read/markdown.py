"""Markdown as passages that follow the headings; code and tables stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from tercet.cube import MAX_TEXT, MemCube, Scalar
from tercet.text.read.plain import LINES, PROSE, SIZE, check_document, check_size, passage, spans

HUGE = 4
"""A code block or table is torn (between its lines) only if it is longer than this many passages."""
MAX_LABEL = 120
"""Characters of a heading that go into the metadata of its passages; the passage itself quotes all of it."""

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?=\s|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t\r]*$")
_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(\S.*)$", re.MULTILINE)
_KEY = re.compile(r"[\w-]+[ \t]*[:=]")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document that belongs together: `text[start:end]`.

    `level` 1 to 6 is a heading that says `label`; 0 is body. `whole`: do not tear it.
    """

    start: int
    end: int
    level: int = 0
    label: str = ""
    whole: bool = False


def read_markdown(
    text: str, *, title: str | None = None, size: int = SIZE, observed: datetime | None = None
) -> list[MemCube]:
    """Read Markdown into drafts of type "document", one a passage, in order.

    No passage crosses a heading. Metadata: `heading` is the path to it ("Garden > Roses"), `title` the title given, or
    that of the front matter, or the first top heading; `part` is "front matter" for that. Spans as in `read_plain`.

    Raises
    ------
    InvalidRequest
        As `read_plain`.
    """
    check_document(text)
    check_size(size)
    head = _front_matter(text)
    found = list(blocks(text, head))
    if title is None and (named := _TITLE.search(text, 0, head)):
        title = named[1].strip().strip("\"'")
    if title is None:
        title = next((block.label for block in found if block.level == 1), None)
    named_so: dict[str, Scalar] = {} if title is None else {"title": title}
    cubes = [passage(text, span, {"part": "front matter", **named_so}, observed) for span in spans(text, size, 0, head)]
    for span, path in pack(text, found, size):
        cubes.append(passage(text, span, {**({"heading": path} if path else {}), **named_so}, observed))
    return cubes


def blocks(text: str, start: int = 0) -> Iterator[Block]:
    """The headings, code blocks, tables and paragraphs of Markdown, in order."""
    lines = [found.span() for found in _LINE.finditer(text, start)]
    place = 0
    while place < len(lines):
        begin, stop = lines[place]
        line = text[begin:stop].rstrip("\r\n")
        if not line.strip():
            place += 1
        elif fence := _FENCE.match(line):
            place = _past_fence(text, lines, place + 1, fence[1])
            yield Block(begin, lines[place - 1][1], whole=True)
        elif heading := _HEADING.match(line):
            place += 1
            yield Block(begin, stop, level=len(heading[1]), label=_label(line[heading.end() :]))
        elif _opens_table(text, lines, place):
            place = _past(text, lines, place, table=True)
            yield Block(begin, lines[place - 1][1], whole=True)
        elif place + 1 < len(lines) and (under := _UNDERLINE.match(text[slice(*lines[place + 1])].rstrip("\n"))):
            place += 2
            yield Block(begin, lines[place - 1][1], level=1 if under[1][0] == "=" else 2, label=_label(line))
        else:
            place = _past(text, lines, place, table=False)
            yield Block(begin, lines[place - 1][1])


@dataclass(slots=True)
class _Open:
    """The passage being filled, and the headings it stands under."""

    start: int | None = None
    end: int = 0
    body: bool = False
    path: list[tuple[int, str]] = field(default_factory=list)

    def close(self) -> Iterator[tuple[int, int]]:
        if self.start is not None:
            yield self.start, self.end
        self.start, self.body = None, False

    def add(self, block: Block) -> None:
        self.start = block.start if self.start is None else self.start
        self.end, self.body = block.end, self.body or not block.level
        if block.level:
            self.path = [step for step in self.path if step[0] < block.level] + [(block.level, block.label)]

    def trail(self) -> str:
        return " > ".join(label for _, label in self.path if label)


def pack(text: str, found: Iterable[Block], size: int) -> Iterator[tuple[tuple[int, int], str]]:
    """Fill passages of about `size` characters with blocks: (span, heading path) in order.

    A heading closes the passage before it and opens the next one, together with the headings right above it.
    """
    held = _Open()
    for block in found:
        grown = block.end - (block.start if held.start is None else held.start)
        if (held.body and block.level) or (grown > size and (held.body or (block.level and held.start is not None))):
            yield from ((_trim(text, span), held.trail()) for span in held.close())
        held.add(block)
        start = block.start if held.start is None else held.start
        if held.end - start > (min(HUGE * size, MAX_TEXT) if block.whole else size):
            trail, breaks = held.trail(), LINES if block.whole else PROSE
            yield from ((piece, trail) for piece in spans(text, size, start, held.end, breaks=breaks))
            held.start, held.body = None, False
    yield from ((_trim(text, span), held.trail()) for span in held.close())


def _trim(text: str, span: tuple[int, int]) -> tuple[int, int]:
    quoted = text[slice(*span)]
    return span[1] - len(quoted.lstrip()), span[0] + len(quoted.rstrip())


def _front_matter(text: str) -> int:
    """Where the front matter ends: 0 if there is none."""
    mark = text[:3]
    if mark not in {"---", "+++"} or text[3:5].strip(" \r")[:1] != "\n":
        return 0
    first = text.index("\n") + 1
    close = re.compile(rf"^(?:{re.escape(mark)}|\.\.\.)[ \t]*\r?$", re.MULTILINE).search(text, first)
    return close.end() if close and _KEY.match(text, first) else 0


def _past_fence(text: str, lines: list[tuple[int, int]], place: int, fence: str) -> int:
    while place < len(lines):
        line = text[slice(*lines[place])].strip()
        place += 1
        if len(line) >= len(fence) and not line.strip(fence[0]):
            break
    return place  # an unclosed fence runs to the end, as Markdown has it


def _opens_table(text: str, lines: list[tuple[int, int]], place: int) -> bool:
    if place + 1 >= len(lines) or "|" not in text[slice(*lines[place])]:
        return False
    rule = text[slice(*lines[place + 1])].strip()
    return "-" in rule and "|" in rule and set(rule) <= set("|-: \t")


def _past(text: str, lines: list[tuple[int, int]], place: int, *, table: bool) -> int:
    """The line after the table or paragraph that begins at `place`."""
    place += 1
    while place < len(lines):
        line = text[slice(*lines[place])].rstrip("\r\n")
        if not line.strip() or _HEADING.match(line) or _FENCE.match(line):
            break
        if "|" not in line if table else _opens_table(text, lines, place):
            break
        place += 1
    return place


def _label(line: str) -> str:
    """What a heading says, without the closing marks of the "## so ##" kind."""
    label = line.strip()
    bare = label.rstrip("#")
    if bare != label and (not bare or bare[-1].isspace()):
        label = bare.rstrip()
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
