"""PDF and Word files as documents, through pypdf and python-docx (extra `documents`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from tercet.cube import Scalar
from tercet.errors import InvalidRequest, Unsupported
from tercet.text.read.markdown import Block, pack
from tercet.text.read.message import Document
from tercet.text.read.plain import SIZE, check_document, check_size, passage, spans

if TYPE_CHECKING:
    from pypdf import PdfReader

Node: TypeAlias = Any  # an lxml element or a python-docx object; neither is typed

MAX_CHARACTERS = 64 * 2**20
"""Text that one document may hold; more is a bomb, or a library that should come in volumes."""
MAX_UNPACKED = 256 * 2**20
"""Bytes that the XML of a Word file may unpack to."""

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # what an encrypted .docx and an old .doc begin with
_LEVEL = re.compile(r"heading ([1-9])$", re.IGNORECASE)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_P, _TABLE = _W + "p", _W + "tbl"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # says a text box a second time
_DROPPED = frozenset({_W + "del", _W + "moveFrom", _W + "pPr", _FALLBACK})  # tracked deletions are not the text's words
_NOTES = ("footnotes+xml", "endnotes+xml")
_SIGNS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}


def read_pdf(path: Path, *, size: int = SIZE) -> Document:
    """Read a PDF: no passage crosses a page, metadata `{"page": 1..n, "title": ...}`. Pages are parted by form feeds.

    Raises
    ------
    InvalidRequest
        If the file is damaged, needs a password, unpacks to more than `MAX_CHARACTERS`, or has no text (a scan).
    Unsupported
        If pypdf is not installed.
    """
    check_size(size)
    pages, title = _pages(path)
    empty = [number for number, page in enumerate(pages, 1) if not page.strip()]
    if len(empty) == len(pages):
        raise InvalidRequest(
            f"{path.name} has {len(pages)} pages and no text: it was scanned. "
            "Run text recognition first, e.g. `ocrmypdf in.pdf out.pdf`."
        )
    text = check_document("\f".join(pages))
    title = title or path.stem
    cubes, start = [], 0
    for number, page in enumerate(pages, 1):
        metadata: dict[str, Scalar] = {"page": number, "title": title}
        cubes += [passage(text, span, metadata) for span in spans(text, size, start, start + len(page))]
        start += len(page) + 1
    return Document(text, tuple(cubes), title, tuple(f"Page {number} has no text." for number in empty))


def read_docx(path: Path, *, size: int = SIZE) -> Document:
    """Read a Word file: headings, paragraphs, tables (one row a line, cells parted by " | ") and footnotes.

    Passages follow the headings as in Markdown, metadata `{"heading": "A > B", "title": ...}`. Running headers,
    comments and tracked deletions are left out.

    Raises
    ------
    InvalidRequest
        If the file is damaged, encrypted, no Word file, has no text, or unpacks to more than `MAX_UNPACKED` bytes.
    Unsupported
        If python-docx is not installed.
    """
    check_size(size)
    docx = _library("docx")
    _check_archive(path)
    try:
        opened = docx.Document(str(path))
        pieces = list(_pieces(opened))
        title = (opened.core_properties.title or "").strip()
    except Exception as error:  # a damaged file fails inside zlib, lxml or the package's parts; whatever it is, say so
        raise InvalidRequest(f"{path.name} is no Word file that can be read ({_first_line(error)}).") from error
    if not pieces:
        raise InvalidRequest(f"{path.name} has no text.")
    lines: list[str] = []
    found: list[Block] = []
    start = 0
    for words, level, whole in pieces:
        found.append(Block(start, start + len(words), level, " ".join(words.split())[:120], whole))
        lines.append(words)
        start += len(words) + 2
    text = check_document("\n\n".join(lines))
    title = title or next((block.label for block in found if block.level == 1), path.stem)
    cubes = [
        passage(text, span, {"title": title, **({"heading": trail} if trail else {})})
        for span, trail in pack(text, found, size)
    ]
    return Document(text, tuple(cubes), title)


def _library(name: str) -> ModuleType:
    """pypdf or docx, imported now."""
    try:
        return import_module(name)
    except ImportError:
        raise Unsupported("Reading PDF and Word files needs more packages: pip install 'tercet[documents]'") from None


def _pages(path: Path) -> tuple[list[str], str]:
    pypdf = _library("pypdf")
    refused = f"{path.name} needs a password; save a copy without one."
    pages: list[str] = []
    try:
        reader: PdfReader = pypdf.PdfReader(str(path))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidRequest(refused)
        total = 0
        for page in reader.pages:
            # A font table that lies gives NULs and halves of surrogate pairs; there is no character to keep.
            words = page.extract_text().replace("\0", "").replace("\f", "\n")
            pages.append(words.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            total += len(words)
            if total > MAX_CHARACTERS:
                raise InvalidRequest(f"{path.name} unpacks to more than {MAX_CHARACTERS:,} characters; split it.")
        found = reader.metadata.title if reader.metadata else None
    except InvalidRequest:
        raise
    except pypdf.errors.DependencyError as error:
        raise Unsupported(f"{path.name} is encrypted with AES: pip install 'pypdf[crypto]', or {error}") from error
    except pypdf.errors.LimitReachedError as error:
        raise InvalidRequest(f"{path.name} unpacks to far more than it should ({_first_line(error)}).") from error
    except Exception as error:  # pypdf meets damage with many built-in errors (KeyError, RecursionError ...)
        raise InvalidRequest(f"{path.name} is no PDF that can be read ({_first_line(error)}).") from error
    return pages, (found or "").strip() if isinstance(found, str) else ""


def _check_archive(path: Path) -> None:
    import zipfile

    with path.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            raise InvalidRequest(f"{path.name} is encrypted, or an old .doc; save it as a .docx without a password.")
    try:
        with zipfile.ZipFile(path) as archive:
            # The sizes can be believed: zipfile never unpacks an entry beyond what its header says.
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidRequest(f"{path.name} is no Word file that can be read ({_first_line(error)}).") from error
    if unpacked > MAX_UNPACKED:
        raise InvalidRequest(f"{path.name} unpacks to {unpacked:,} bytes, more than the {MAX_UNPACKED:,} allowed.")


def _pieces(opened: Node) -> Iterator[tuple[str, int, bool]]:
    """(words, heading level or 0, whether it is a table) of the body in order, then of the footnotes."""
    from docx.oxml import parse_xml

    levels = {}
    for style in opened.styles:
        if named := _LEVEL.match(style.name or ""):
            levels[style.style_id] = min(int(named[1]), 6)
        elif style.name == "Title":
            levels[style.style_id] = 1
    notes = [part.blob for part in opened.part.package.iter_parts() if part.content_type.endswith(_NOTES)]
    bodies = [opened.element.body, *map(parse_xml, notes)]
    for body in bodies:
        for element in _below(body, frozenset({_P, _TABLE})):
            whole = element.tag == _TABLE
            words = (_table(element) if whole else _words(element)).strip()
            if words:
                yield words, 0 if whole else levels.get(_style(element), 0), whole


def _below(element: Node, tags: frozenset[str]) -> Iterator[Node]:
    """The nearest descendants with one of `tags`: content controls and the like are looked into, finds are not."""
    for child in element.iterchildren():
        if child.tag in tags:
            yield child
        elif child.tag not in _DROPPED:
            yield from _below(child, tags)


def _style(paragraph: Node) -> str:
    found = paragraph.find(f"{_W}pPr/{_W}pStyle")
    return "" if found is None else str(found.get(_W + "val", ""))


def _words(element: Node) -> str:
    written = []
    for child in element.iterchildren():
        if child.tag == _W + "t":
            written.append(child.text or "")
        elif child.tag in _SIGNS:
            written.append(_SIGNS[child.tag])
        elif child.tag not in _DROPPED:
            written.append(_words(child))
    return "".join(written)


def _table(element: Node) -> str:
    rows = []
    for row in _below(element, frozenset({_W + "tr"})):
        cells = [" ".join(" ".join(map(_words, cell.iter(_P))).split()) for cell in _below(row, frozenset({_W + "tc"}))]
        rows.append(" | ".join(cells) if any(cells) else "")
    return "\n".join(filter(None, rows))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
