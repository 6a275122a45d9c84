from __future__ import annotations

import sys
import zipfile
import zlib
from pathlib import Path

import docx
import pypdf
import pytest

from tercet.errors import InvalidRequest, Unsupported
from tercet.text.read import documents
from tercet.text.read.documents import read_docx, read_pdf
from tercet.text.read.files import open_file, read_file
from tercet.text.read.message import Document


def pdf(path: Path, pages: list[bytes], title: str = "") -> Path:
    """Write a PDF by hand: each page's content stream shows the lines given."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, stream in enumerate(pages):
        packed = zlib.compress(stream)
        parts += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * n} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode(),
            f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode() + packed + b"\nendstream",
        ]
    parts.append(f"<< /Title ({title}) >>".encode())
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + part + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    out += f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}".encode()
    out += f"trailer\n<< /Size {len(parts) + 1} /Root 1 0 R /Info {len(parts)} 0 R >>\n".encode()
    path.write_bytes(bytes(out) + f"startxref\n{out.rindex(b'xref')}\n%%EOF\n".encode())
    return path


def shows(*lines: str) -> bytes:
    return b"BT /F1 12 Tf 50 700 Td 14 TL " + b" ".join(f"({line}) Tj T*".encode() for line in lines) + b" ET"


def quoted(document: Document) -> None:
    here = 0
    for cube in document.cubes:
        span = cube.descriptive.origin.span
        assert span is not None
        assert document.text[slice(*span)] == cube.text
        assert not document.text[here : span[0]].strip()
        here = span[1]
    assert not document.text[here:].strip()


def test_pdf_pages(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", [shows("The boiler drips.", "It is old."), b"", shows("Page three.")], "Manual")
    found = read_pdf(path)
    assert [(cube.text, dict(cube.metadata)) for cube in found.cubes] == [
        ("The boiler drips.\nIt is old.", {"page": 1, "title": "Manual"}),
        ("Page three.", {"page": 3, "title": "Manual"}),
    ]
    assert found.notes == ("Page 2 has no text.",)
    quoted(found)
    assert read_file(path) == list(found.cubes)


def test_pdf_passages_have_a_size(tmp_path: Path) -> None:
    found = read_pdf(pdf(tmp_path / "a.pdf", [shows(*["It rains. We stay in."] * 40)] * 2), size=100)
    assert len(found.cubes) > 10
    assert max(len(cube.text) for cube in found.cubes) <= 100
    assert (found.title, {cube.metadata["page"] for cube in found.cubes}) == ("a", {1, 2})
    quoted(found)


def test_a_scanned_pdf(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"a\.pdf has 2 pages and no text: it was scanned\. Run text recognition"):
        read_pdf(pdf(tmp_path / "a.pdf", [b"", b"0 0 m 9 9 l S"]))


@pytest.mark.parametrize("password", ["", "secret"])
def test_an_encrypted_pdf(tmp_path: Path, password: str) -> None:
    writer = pypdf.PdfWriter(clone_from=pdf(tmp_path / "plain.pdf", [shows("Hidden words.")]))
    writer.encrypt(password, owner_password="owner", algorithm="RC4-128")  # noqa: S106
    writer.write(tmp_path / "a.pdf")
    if not password:
        assert read_pdf(tmp_path / "a.pdf").cubes[0].text == "Hidden words."
    else:
        with pytest.raises(InvalidRequest, match=r"a\.pdf needs a password; save a copy without one"):
            read_pdf(tmp_path / "a.pdf")


@pytest.mark.parametrize("data", [b"", b"words", b"%PDF-1.7\n", b"%PDF-1.7\n" + bytes(range(256)) * 9])
@pytest.mark.filterwarnings("ignore::pypdf.errors.PdfReadWarning")
def test_a_file_that_is_no_pdf(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(data)
    with pytest.raises(InvalidRequest, match=r"a\.pdf is no PDF that can be read"):
        read_pdf(tmp_path / "a.pdf")


def test_a_pdf_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    whole = pdf(tmp_path / "whole.pdf", [shows("The boiler drips."), shows("It is old.")]).read_bytes()
    refused = 0
    for end in range(0, len(whole), 37):
        (tmp_path / "a.pdf").write_bytes(whole[:end])
        try:
            found = read_pdf(tmp_path / "a.pdf")
        except InvalidRequest:
            refused += 1
        else:
            quoted(found)
    assert refused > 5


def test_a_pdf_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pdf(tmp_path / "a.pdf", [b" " * 100_000_000 + shows("end")])
    assert path.stat().st_size < 200_000
    with pytest.raises(InvalidRequest, match=r"a\.pdf unpacks to far more than it should"):
        read_pdf(path)
    monkeypatch.setattr(documents, "MAX_CHARACTERS", 20)
    with pytest.raises(InvalidRequest, match="unpacks to more than 20 characters"):
        read_pdf(pdf(tmp_path / "b.pdf", [shows("Fifteen letters")] * 2))


@pytest.fixture
def word(tmp_path: Path) -> Path:
    made = docx.Document()
    made.core_properties.title = "House book"
    made.add_heading("Heating", 1)
    made.add_paragraph("The boiler drips.")
    made.add_heading("Pressure", 2)
    table = made.add_table(rows=2, cols=2)
    for cell, words in zip(
        [c for row in table.rows for c in row.cells], ["bar", "state", "2.5", "too\nhigh"], strict=True
    ):
        cell.text = words
    made.add_paragraph("After the table.")
    made.add_paragraph("   ")
    path = tmp_path / "book.docx"
    made.save(str(path))
    return path


def test_docx(word: Path) -> None:
    found = read_docx(word)
    assert [(cube.text, dict(cube.metadata)) for cube in found.cubes] == [
        ("Heating\n\nThe boiler drips.", {"title": "House book", "heading": "Heating"}),
        (
            "Pressure\n\nbar | state\n2.5 | too high\n\nAfter the table.",
            {"title": "House book", "heading": "Heating > Pressure"},
        ),
    ]
    quoted(found)
    content = open_file(word)
    assert isinstance(content, Document)
    assert content == found


def test_docx_nested_tables_are_said_once(tmp_path: Path) -> None:
    made = docx.Document()
    inner = made.add_table(rows=1, cols=1).cell(0, 0)
    inner.text = "outer"
    inner.add_table(rows=1, cols=1).cell(0, 0).text = "inner"
    made.save(str(tmp_path / "a.docx"))
    assert read_docx(tmp_path / "a.docx").text == "outer inner"


def rewritten(path: Path, change: dict[str, bytes]) -> Path:
    """The same archive with some members replaced."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()} | change
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return path


def test_docx_tracked_changes_and_controls(word: Path) -> None:
    with zipfile.ZipFile(word) as archive:
        body = archive.read("word/document.xml")
    changed = (
        b"<w:sdt><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        b"<w:p><w:del><w:r><w:delText>gone</w:delText><w:t>gone</w:t></w:r></w:del>"
        b"<w:ins><w:r><w:t>new</w:t><w:tab/><w:t>words</w:t></w:r></w:ins></w:p>"
    )
    path = rewritten(word, {"word/document.xml": body.replace(b"<w:body>", b"<w:body>" + changed)})
    assert read_docx(path).text.startswith("In a control.\n\nnew\twords\n\nHeating")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is no Word file that can be read"),
        (b"words", "is no Word file that can be read"),
        (b"PK\x03\x04" + b"\0" * 40, "is no Word file that can be read"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600, "is encrypted, or an old .doc"),
    ],
)
def test_a_file_that_is_no_docx(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.docx").write_bytes(data)
    with pytest.raises(InvalidRequest, match=f"a.docx {says}"):
        read_docx(tmp_path / "a.docx")


@pytest.mark.parametrize(
    "change", [{"word/document.xml": b"<broken"}, {"[Content_Types].xml": b"<Types/>"}, {"_rels/.rels": b""}]
)
def test_a_damaged_docx(word: Path, change: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match=r"book\.docx is no Word file that can be read"):
        read_docx(rewritten(word, change))


def test_a_docx_without_words(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "a.docx"))
    with pytest.raises(InvalidRequest, match=r"a\.docx has no text"):
        read_docx(tmp_path / "a.docx")


def test_a_zip_bomb(word: Path) -> None:
    path = rewritten(word, {"word/media/a.bin": bytes(300_000_000)})
    assert path.stat().st_size < 2_000_000
    with pytest.raises(InvalidRequest, match=r"unpacks to 300,.* bytes, more than the 268,435,456 allowed"):
        read_docx(path)


@pytest.mark.parametrize(("library", "name"), [("pypdf", "a.pdf"), ("docx", "a.docx")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(Unsupported, match=r"pip install 'tercet\[documents\]'"):
        read_file(tmp_path / name)
