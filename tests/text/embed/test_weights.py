from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest

from tercet.errors import EmbeddingFailed
from tercet.text.embed import weights
from tercet.text.embed.minilm import MiniLM
from tercet.text.embed.weights import Weights


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "a_package_that_nobody_has")


def test_the_package_is_found_without_importing_it(files: Weights) -> None:
    package = importlib.util.find_spec(weights.PACKAGE)
    assert package is not None
    assert package.submodule_search_locations is not None
    assert files.model.is_relative_to(next(iter(package.submodule_search_locations)))
    assert weights.PACKAGE not in sys.modules


@pytest.mark.usefixtures("nothing_installed")
def test_no_weights_is_none(tmp_path: Path) -> None:
    assert weights.find(cache=tmp_path) is None
    assert MiniLM.find(cache=tmp_path) is None


@pytest.mark.usefixtures("nothing_installed")
def test_the_cache_is_looked_at(tmp_path: Path, files: Weights) -> None:
    home = tmp_path / weights.MODEL
    home.mkdir()
    for file in (files.model, files.tokenizer):
        (home / file.name).symlink_to(file)
    assert weights.find(cache=tmp_path) == Weights(home / "model.safetensors", home / "tokenizer.json")


def test_a_path_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingFailed, match=r"does not hold model\.safetensors"):
        weights.find(tmp_path, cache=tmp_path)


def test_a_wrong_hash_is_an_error(tmp_path: Path, files: Weights) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    shutil.copy(files.tokenizer, tmp_path)
    with pytest.raises(EmbeddingFailed, match=r"model\.safetensors is not the published file.*sha256"):
        weights.find(tmp_path, cache=tmp_path / "cache")


def test_a_file_that_changed_is_hashed_again(tmp_path: Path, files: Weights) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "model.safetensors").symlink_to(files.model)
    shutil.copy(files.tokenizer, home)
    assert weights.find(home, cache=tmp_path / "cache") is not None
    (home / "tokenizer.json").write_text("{}")
    with pytest.raises(EmbeddingFailed, match=r"tokenizer\.json"):
        weights.find(home, cache=tmp_path / "cache")


def test_a_known_file_is_not_hashed_again(tmp_path: Path, files: Weights) -> None:
    weights.find(files.model.parent, cache=tmp_path)
    for note in (tmp_path / "verified").iterdir():
        known = json.loads(note.read_bytes())
        note.write_text(json.dumps(known | {"sha256": "remembered"}))
    with pytest.raises(EmbeddingFailed, match="sha256 is remembered"):
        weights.find(files.model.parent, cache=tmp_path)


def test_a_torn_note_is_written_anew(tmp_path: Path, files: Weights) -> None:
    weights.find(files.model.parent, cache=tmp_path)
    notes = list((tmp_path / "verified").iterdir())
    for note in notes:
        note.write_text('{"stamp')
    assert weights.find(files.model.parent, cache=tmp_path) is not None
    assert all("sha256" in json.loads(note.read_bytes()) for note in notes)


def test_only_the_known_name_can_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingFailed, match="all-MiniLM-L6-v2"):
        weights.fetch("some-other-model", cache=tmp_path)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    contents = [bytes([i]) * 200_000 for i in range(4)]
    weights.write_atomically(target, contents[0])
    seen: set[bytes] = set()

    def write(content: bytes) -> None:
        for _ in range(5):
            weights.write_atomically(target, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(target.read_bytes())
    for writer in writers:
        writer.join()
    assert seen <= set(contents)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
