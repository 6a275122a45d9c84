"""Files: bytes as text, and the reader for each suffix."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.text.read.documents import read_docx, read_pdf
from tercet.text.read.exports import read_export
from tercet.text.read.markdown import read_markdown
from tercet.text.read.message import Conversation, Document
from tercet.text.read.plain import read_plain
from tercet.text.read.transcript import is_transcript, read_transcript

MAX_BYTES = 2**30
"""Bytes a file may have; it is read into memory whole."""
Content: TypeAlias = Document | list[Conversation]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_file(path: str | Path, *, format: str | None = None) -> list[MemCube] | list[Conversation]:
    """Read a file: passages of a document as drafts, or the conversations of a chat export.

    Parameters
    ----------
    format
        A key of `READERS`; left out, the file's suffix.

    Raises
    ------
    InvalidRequest
        If the file is not there, too large, empty, damaged, in another encoding, or of no known format.
    Unsupported
        If its format needs packages that are not installed.
    """
    content = open_file(path, format=format)
    return list(content.cubes) if isinstance(content, Document) else content


def open_file(path: str | Path, *, format: str | None = None) -> Content:
    """As `read_file`, but a document comes whole: its text (the episode that the passages quote), title and notes."""
    path = Path(path)
    name = (format or path.suffix or "(none)").lower()
    reader = READERS.get(name) or READERS.get(f".{name}")
    if reader is None:
        raise InvalidRequest(f"{path.name}: no reader for {name!r}; there are {', '.join(READERS)}.")
    if not path.is_file():
        raise InvalidRequest(f"{path} is no file.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InvalidRequest(f"{path.name} has {size:,} bytes and {MAX_BYTES:,} are read at once; split it.")
    try:
        return reader(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except InvalidRequest as error:
        if path.name in str(error):
            raise
        raise InvalidRequest(f"{path.name}: {error}") from error


def decode(data: bytes, name: str = "The text") -> str:
    """Bytes as text: UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is dropped. Line ends stay as they are.

    Raises
    ------
    InvalidRequest
        If it is none of these; the message has the offset of the first wrong byte, and how to convert.
    """
    mark, encoding = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        place = error.start + len(mark)
        raise InvalidRequest(
            f"{name} is not {encoding.upper()}: byte {place:,} is 0x{data[place]:02x}. Convert it, e.g. "
            "`iconv -f WINDOWS-1252 -t UTF-8 old > new` (the first name is the encoding it has)."
        ) from None


def parse_json(text: str, name: str = "The text") -> object:
    """The value of a JSON text.

    Raises
    ------
    InvalidRequest
        If it is not JSON, or nested too deeply; the message says where.
    """
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{name} is not JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from None
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise InvalidRequest(f"{name} is not JSON that can be read: {error}.") from None
    return value


def _text(path: Path) -> Content:
    text = decode(path.read_bytes(), path.name)
    if is_transcript(text):
        return read_transcript(text, session=path.stem)
    return Document(text, tuple(read_plain(text, title=path.stem)), path.stem)


def _markdown(path: Path) -> Content:
    text = decode(path.read_bytes(), path.name)
    cubes = tuple(read_markdown(text))
    if "title" in cubes[0].metadata:
        return Document(text, cubes, str(cubes[0].metadata["title"]))
    return Document(text, tuple(read_markdown(text, title=path.stem)), path.stem)


def _json(path: Path) -> Content:
    return read_export(parse_json(decode(path.read_bytes(), path.name), path.name), session=path.stem)


def _json_lines(path: Path) -> Content:
    # Not splitlines(): U+2028 may stand inside a JSON string.
    lines = enumerate(decode(path.read_bytes(), path.name).split("\n"), 1)
    return read_export([parse_json(line, f"Line {n}") for n, line in lines if line.strip()], session=path.stem)


READERS: Mapping[str, Callable[[Path], Content]] = {
    ".txt": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".json": _json,
    ".jsonl": _json_lines,
}
"""Suffix -> reader."""
