from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.text.read import files
from tercet.text.read.files import READERS, decode, open_file, read_file
from tercet.text.read.message import Conversation, Document

FIXTURES = Path(__file__).parents[2] / "fixtures" / "read"


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def cubes(path: Path) -> list[MemCube]:
    return [item for item in read_file(path) if isinstance(item, MemCube)]


def conversations(path: Path) -> list[Conversation]:
    return [item for item in read_file(path) if isinstance(item, Conversation)]


def test_plain_text(tmp_path: Path) -> None:
    (cube,) = cubes(write(tmp_path, "note.txt", "Grüße\r\n"))
    assert (cube.text, cube.metadata) == ("Grüße", {"title": "note"})


def test_a_text_file_with_turns_is_a_conversation(tmp_path: Path) -> None:
    (run,) = conversations(write(tmp_path, "walk.txt", "[2024-05-01 09:30] Ana: a"))
    assert (run.session, run.messages[0].content) == ("walk", "a")


@pytest.mark.parametrize("name", ["a.md", "a.markdown", "a.MD"])
def test_markdown(tmp_path: Path, name: str) -> None:
    assert cubes(write(tmp_path, name, "# T\n\nwords"))[0].metadata == {"heading": "T", "title": "T"}
    assert cubes(write(tmp_path, name, "## H\n\nwords"))[0].metadata == {"heading": "H", "title": "a"}


@pytest.mark.parametrize(("name", "count"), [("openai", 2), ("claude", 1), ("locomo", 2)])
def test_exports(name: str, count: int) -> None:
    assert len(conversations(FIXTURES / f"{name}.json")) == count


def test_json_lines(tmp_path: Path) -> None:
    words = ["a\u2028b", "c"]
    lines = "\r\n\n".join(json.dumps({"role": "user", "content": word}, ensure_ascii=False) for word in words)
    (run,) = conversations(write(tmp_path, "chat.jsonl", lines))
    assert (run.session, [m.content for m in run.messages]) == ("chat", words)


def test_a_document_comes_whole(tmp_path: Path) -> None:
    content = open_file(write(tmp_path, "note.txt", "one\n\n" + "two " * 500))
    assert isinstance(content, Document)
    assert len(content.cubes) > 1
    for cube in content.cubes:
        assert cube.descriptive.origin.span is not None
        assert content.text[slice(*cube.descriptive.origin.span)] == cube.text


@pytest.mark.parametrize("format", ["md", ".md", "MD"])
def test_the_format_can_be_told(tmp_path: Path, format: str) -> None:
    (cube,) = read_file(write(tmp_path, "README", "# T\n\nwords"), format=format)
    assert isinstance(cube, MemCube)
    assert cube.metadata["heading"] == "T"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"caf\xe9", r"a.txt is not UTF-8: byte 3 is 0xe9. Convert it, e.g. `iconv"),
        ("a.txt", b"\xff\xfea", "is not UTF-16-LE: byte 2 is 0x61"),
        ("a.txt", codecs.BOM_UTF8 + b"ab\xff", "byte 5 is 0xff"),
        ("a.txt", b"", "a.txt: The document is empty"),
        ("a.txt", codecs.BOM_UTF8, "empty"),
        ("a.txt", b"a\0b", "NUL at character 1"),
        ("a.md", b"\n\n", "empty"),
        ("a.json", b"", "a.json is not JSON: Expecting value, line 1, column 1"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 200_000, "a.json is not JSON"),
        ("a.json", b"9" * 5000, "a.json is not JSON"),
        ("a.json", b"{}", "a.json: This is no chat export"),
        ("a.json", b'[{"content": "\\ud83d"}]', "Message 1: The text is not valid Unicode"),
        ("a.jsonl", b'{"content": "a"}\n\n{"content"}\n', "a.jsonl: Line 3 is not JSON"),
        ("a.jsonl", b'{"content": "a"}\n[1]', "Message 2: expected a string"),
        ("a.jsonl", b"\n", "no chat export"),
        ("a.exe", b"MZ", "a.exe: no reader for '.exe'; there are .txt, .md"),
        ("a", b"a", "no reader for '.none.'"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_file(write(tmp_path, name, data))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no file"):
        read_file(tmp_path / "a.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InvalidRequest, match="is no file"):
        read_file(tmp_path / "folder.txt")


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 3)
    with pytest.raises(InvalidRequest, match="has 4 bytes and 3 are read at once"):
        read_file(write(tmp_path, "a.txt", "abcd"))


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith("\ufeff")))
def test_every_unicode_encoding_with_a_mark_is_read(text: str) -> None:
    encodings = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    encodings |= {"utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE}
    if text.startswith("\0"):  # then a UTF-16 mark looks like a UTF-32 one
        del encodings["utf-16-le"]
    assert {name: decode(mark + text.encode(name)) for name, mark in encodings.items()} == dict.fromkeys(
        encodings, text
    )


@given(st.binary(max_size=40))
def test_bytes_are_read_or_refused_at_a_place(data: bytes) -> None:
    said, text = "", None
    try:
        text = decode(data)
    except InvalidRequest as error:
        said = str(error)
    assert "byte " in said if text is None else len(text.encode()) <= 2 * len(data)


def test_every_suffix_has_a_reader() -> None:
    assert list(READERS) == [".txt", ".md", ".markdown", ".pdf", ".docx", ".json", ".jsonl"]
