"""What a command answers, and how it is printed: one JSON document, or lines that cannot drive the terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from tercet.cube import MemCube
    from tercet.scoped import Progress


class Span(NamedTuple):
    """Words with a style: a key of `STYLES`."""

    text: str
    style: str


Line = str | Sequence[str | Span]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found or did: the document that `--json` prints, and lines for a person.

    Lines hold memories verbatim: whatever prints them takes the terminal's controls out of them.
    """

    document: Mapping[str, Any]
    lines: Sequence[Line] = ()
    code: int = 0


STYLES: Mapping[str, str] = {"strong": "1", "faint": "2", "good": "32", "bad": "31", "name": "36"}
# Controls of both blocks but the tab, line separators, the marks that turn the direction of writing, and what is left
# of bytes that were not UTF-8.
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """The text with every character that could drive a terminal, or hide something in it, written out as `\\x1b`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer on stdout."""
    if as_json:
        print_json(answer.document)
        return
    colour = has_colour(sys.stdout)
    write = _writer(sys.stdout)
    for line in answer.lines:
        write(rendered(line, colour=colour) + "\n")


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout. Controls in its strings are escaped, those of the second block, too."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    text = json.dumps(document, ensure_ascii=plain, allow_nan=False)
    # All of these can only stand inside strings here, where \uXXXX means the same.
    _writer(sys.stdout)(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def complain(error: BaseException, *, as_json: bool) -> None:
    """Print an error as a line on stderr and, with `--json`, as a document on stdout."""
    message = error_message(error)
    _writer(sys.stderr)(f"tercet: {escape(message)}\n")
    if as_json:
        print_json({"error": type(error).__name__, "message": message})


def error_message(error: BaseException) -> str:
    """What went wrong, for a person."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def rendered(line: Line, *, colour: bool) -> str:
    """A line as it is written, without its end."""
    parts = [line] if isinstance(line, str) else line
    return "".join(_styled(part, colour=colour) for part in parts)


def has_colour(stream: TextIO) -> bool:
    """Whether colours may be written: to a terminal, unless NO_COLOR is set or it is a dumb one."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def one_line(text: str, width: int | None = None) -> str:
    """The text on one line; with `width`, cut to so many columns."""
    text = " ".join(text.split())
    if width is None or columns(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += columns(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def columns(text: str) -> int:
    """How many columns a text takes in a terminal, escaped."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in escape(text)
    )


def terminal_width() -> int | None:
    """Columns of the terminal; None where stdout is a file or a pipe, which want whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def block(text: str, indent: str = "    ") -> list[Line]:
    """A text of several lines, indented."""
    return [f"{indent}{line}" for line in text.replace("\r\n", "\n").split("\n")]


def day_and_time(when: datetime | None) -> str:
    """`Fri 3 May 2024 09:30`, in the zone it was given with."""
    return f"{when:%a} {when.day} {when:%b %Y %H:%M}" if when else "–"


def count(number: int, thing: str) -> str:
    """`1 memory`, `2 memories`."""
    if number != 1:
        thing = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{number:,} {thing}"


def told_of(cube: MemCube) -> str:
    """What the words of a memory that name a time mean: `'last Friday' is Fri 1 Mar 2024`; empty if there are none."""
    happened = cube.descriptive.happened
    if happened is None or happened.span is None:
        return ""
    start, last = happened.start, happened.end - timedelta(microseconds=1)
    days = f"{start:%a} {start.day} {start:%b %Y}"
    if (last - start).days == 0 and start.date() != last.date():
        days = day_and_time(start)
    elif last.date() != start.date():
        days = f"{start.day} {start:%b %Y} to {last.day} {last:%b %Y}"
    return f"{cube.text[slice(*happened.span)]!r} is {days}"


def heading(cube: MemCube) -> str:
    """When it was said, and by whom."""
    return day_and_time(cube.observed) + (f" · {cube.speaker}" if cube.speaker else "")


def words(cube: MemCube) -> str:
    """Its text; of a tensor, which has none, what it is and what it was made from."""
    if cube.kind == "text":
        return cube.text
    tokens: int | None = getattr(cube.payload, "tokens", None)
    size = "" if tokens is None else f", {count(tokens, 'token')}"
    return f"({cube.kind}{size}, made from {', '.join(link.id for link in cube.behavioural.derivations)})"


def marked(cube: MemCube) -> str:
    """What stands before a memory that is in quarantine."""
    return "[quarantined] " if cube.governance.trust == 0 else ""


@contextmanager
def progress(what: str, unit: str) -> Iterator[Progress | None]:
    """A bar on stderr for long work, moved by calling what is yielded with (done, total); None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, leave=False, file=sys.stderr, delay=0.3) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


def _styled(part: str | Span, *, colour: bool) -> str:
    if isinstance(part, str):
        return escape(part)
    return f"\x1b[{STYLES[part.style]}m{escape(part.text)}\x1b[0m" if colour else escape(part.text)


def _writer(stream: TextIO) -> Callable[[str], object]:
    # A terminal or file that knows no "é" gets it written out rather than an error half-way.
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream.write
