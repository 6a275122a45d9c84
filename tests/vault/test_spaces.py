"""T12: another embedding model breaks nothing: the vault moves to its space while it answers, and ids stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tercet import EmbeddingFailed, InvalidRequest, Tercet, Unsupported
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.narrow import narrow
from tercet.text.embed import fill as filling
from tercet.text.embed.base import Embedding
from tercet.vault import spaces

OLD, NEW = "fake/32", "other/24"
COUNT = 30


class Breaking(FakeEmbedder):
    """Fails for good after some texts."""

    def __init__(self, texts: int) -> None:
        super().__init__(24, space=NEW)
        self.left = texts

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        if self.left < len(texts):
            raise KeyboardInterrupt
        self.left -= len(texts)
        return super().embed(texts)


def new() -> FakeEmbedder:
    return FakeEmbedder(24, space=NEW)


def held(t: Tercet) -> dict[str, int]:
    found = t.stats()["tenants"]["default"]["spaces"]
    return {name: one["vectors"] for name, one in found.items()}


def ids(t: Tercet) -> list[str]:
    return [cube.id for cube in t.scope(user="alice").list(limit=1000)]


def by(t: Tercet, question: str) -> dict[str, Any]:
    return {hit.cube.text: hit.why["by"] for hit in t.scope(user="alice").recall(question, limit=100)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        t.scope(user="alice").remember_many([f"Note {i} says word{i}." for i in range(COUNT)])
    return tmp_path


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH", 4)
    monkeypatch.setattr(spaces, "BATCH", 4)


@pytest.fixture
def half(folder: Path, small_batches: None) -> Path:  # noqa: ARG001  # a fixture for its effect
    """A vault whose move was interrupted after 12 of its vectors."""
    with Tercet.open(folder, embedder=Breaking(12)) as t, pytest.raises(KeyboardInterrupt):
        t.work(until_idle=True)
    return folder


def test_work_moves_a_vault_and_ids_stay(folder: Path) -> None:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        before = ids(t)
    with Tercet.open(folder, embedder=new()) as t:
        assert t.work(until_idle=True) == 1
        assert held(t) == {NEW: COUNT}
        assert ids(t) == before
        assert set(by(t, "word7").values()) == {"words and vectors"}
        assert t.scope(user="alice").recall("word7", limit=1)[0].cube.text == "Note 7 says word7."
        assert t.work(until_idle=True) == 0
        all_clear(t)


def test_a_move_goes_on_where_it_was(half: Path) -> None:
    with Tercet.open(half, embedder=new()) as t:
        assert held(t) == {OLD: COUNT, NEW: 12}
        all_clear(t)
        with t.vault.tenant("default").maintaining() as connection:
            connection.execute("UPDATE jobs SET lease = NULL")  # the lease of the worker that was interrupted ends
        t.work(until_idle=True)
        assert held(t) == {NEW: COUNT}
        assert len(t.embedder.asked) == COUNT - 12  # type: ignore[union-attr]  # ours
        all_clear(t)


def test_while_it_moves_the_former_embedder_answers_for_the_rest(half: Path) -> None:
    """Every row is found by a vector, and by that of the space it has one in: scores show it."""
    with Tercet.open(half, embedder=new(), former=FakeEmbedder()) as t:
        found = by(t, "word5 word25")
        assert len(found) == COUNT
        assert set(found.values()) == {"words and vectors"}
        hits = t.scope(user="alice").recall("Note 25 says word25.", policy="vectors", limit=1)
        assert hits[0].cube.text == "Note 25 says word25."
        assert float(hits[0].why["cosine"]) > 0
        fresh = t.scope(user="alice").remember("Something new about zebras.")  # in the new space alone
        hits = t.scope(user="alice").recall("Something new about zebras.", policy="vectors", limit=2)
        assert hits[0].cube == fresh
        assert by(t, "zebras")[fresh.text] == "words and vectors"


def test_without_the_former_embedder_words_answer_for_the_rest_and_why_says_so(half: Path) -> None:
    with Tercet.open(half, embedder=new()) as t:
        found = by(t, "word5 word25")
        assert found["Note 5 says word5."] == "words and vectors"
        assert found["Note 25 says word25."] == "words (its vector is not made yet)"
        assert sum(why == "words and vectors" for why in found.values()) == 12


def test_a_former_embedder_of_another_space_is_not_asked(half: Path) -> None:
    with Tercet.open(half, embedder=new(), former=FakeEmbedder(16)) as t:
        assert by(t, "word25")["Note 25 says word25."] == "words (its vector is not made yet)"


def test_what_is_kept_stays_and_is_not_asked(folder: Path) -> None:
    former = FakeEmbedder()
    steps: list[tuple[int, int]] = []
    with Tercet.open(folder, embedder=new(), former=former) as t:
        assert t.reembed(keep=True, progress=lambda done, total: steps.append((done, total))) == COUNT
        assert held(t) == {OLD: COUNT, NEW: COUNT}
        assert steps[-1] == (COUNT, COUNT)
        assert t.stats()["tenants"]["default"]["jobs"] == {}
        assert set(by(t, "word7").values()) == {"words and vectors"}
        assert former.asked == []
        t.work(until_idle=True)
        assert held(t) == {OLD: COUNT, NEW: COUNT}
        all_clear(t)
        assert t.reembed() == 0  # now they may go
        assert held(t) == {NEW: COUNT}


def test_the_old_embedder_does_not_move_it_back(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two applications with two embedders on one vault: it is moved once, not to and fro."""
    with Tercet.open(folder, embedder=new()) as t:
        t.work(until_idle=True)
    with Tercet.open(folder, embedder=FakeEmbedder()) as late, caplog.at_level(logging.WARNING):
        cube = late.scope(user="alice").remember("Written by the old one.")
        assert late.scope(user="alice").recall("old one", limit=1)[0].cube == cube  # by words
        late.work(until_idle=True)
        assert "reembed" in caplog.text
        assert held(late) == {NEW: COUNT}
        all_clear(late)
    with Tercet.open(folder, embedder=new()) as t:
        t.work(until_idle=True)
        assert held(t) == {NEW: COUNT + 1}
    with Tercet.open(folder, embedder=FakeEmbedder()) as back:  # unless it is asked for
        assert back.reembed() == COUNT + 1
        assert held(back) == {OLD: COUNT + 1}


def test_an_embedder_that_nobody_asked_for_moves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tercet worker` on a vault with an embedder of its own must not throw its vectors away."""
    with Tercet.open(folder, embedder="auto") as t:
        monkeypatch.setattr(t, "_embedder", new())
        monkeypatch.setattr(t, "_looked", True)
        t.work(until_idle=True)
        assert held(t) == {OLD: COUNT}


def test_a_text_that_cannot_be_embedded_keeps_the_old_vectors(folder: Path) -> None:
    def picky(texts: Sequence[str]) -> list[list[float]]:
        if any("word3." in text for text in texts):
            raise ValueError("not this one")
        return [[1.0, float(len(text))] for text in texts]

    with Tercet.open(folder, embedder=picky) as t:
        with pytest.raises(EmbeddingFailed, match="not this one"):
            t.reembed()
        assert sorted(held(t).values()) == [COUNT - 1, COUNT]
        all_clear(t)


def test_another_dimension_under_one_name_is_another_space(tmp_path: Path) -> None:
    """The dimension of a function's, or an endpoint's, vectors is part of the space's name: nothing is refused."""
    width = 3

    def embedder(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0 + len(text)] * width for text in texts]

    with Tercet.open(tmp_path, embedder=embedder) as t:
        t.scope().remember("One.")
    width = 5
    with Tercet.open(tmp_path, embedder=embedder) as t:
        t.scope().remember("Two.")
        t.work(until_idle=True)
        assert list(held(t).values()) == [2]
        assert {one["dim"] for one in t.stats()["tenants"]["default"]["spaces"].values()} == {5}


def test_a_name_that_was_given_twice_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=FakeEmbedder(8, space="mine")) as t:
        cube = t.scope().remember("One.")
    with Tercet.open(tmp_path, embedder=FakeEmbedder(9, space="mine")) as t:
        with pytest.raises(InvalidRequest, match="another space name"):
            t.scope().remember("Two.")
        assert t.scope().list() == [cube]


def test_without_an_embedder_there_is_nowhere_to_move(folder: Path) -> None:
    with Tercet.open(folder, embedder=None) as t, pytest.raises(Unsupported, match="no embedder"):
        t.reembed()


@pytest.fixture
def wide_limits() -> Iterator[None]:
    with narrow():
        yield


@pytest.mark.usefixtures("wide_limits")
def test_a_large_vault_moves_with_its_segments(folder: Path, small_batches: None) -> None:  # noqa: ARG001
    segments = folder / "segments" / "default"
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        t.vault.tenant("default").index()
        assert [path.name for path in segments.iterdir()] == ["vectors-1-1.lvq"]
    with Tercet.open(folder, embedder=Breaking(12)) as t, pytest.raises(KeyboardInterrupt):
        t.work()
    with Tercet.open(folder, embedder=new(), former=FakeEmbedder()) as t:
        assert set(by(t, "word5 word25").values()) == {"words and vectors"}
        hits = t.scope(user="alice").recall("Note 25 says word25.", policy="vectors", limit=1)
        assert hits[0].cube.text == "Note 25 says word25."
        t.reembed()
        t.vault.tenant("default").index()
        assert held(t) == {NEW: COUNT}
        assert [path.name for path in segments.iterdir()] == ["vectors-2-1.lvq"]
        all_clear(t)


def test_older_versions_keep_their_vectors_in_the_new_space(folder: Path) -> None:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        cube = t.scope(user="alice").revise(ids(t)[0], "Another text.")
        with t.vault.tenant("default").maintaining() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO old_vectors SELECT cube, 1, space, vectors, states FROM vectors WHERE cube = 1"
            )
    with Tercet.open(folder, embedder=new()) as t:
        t.work(until_idle=True)
        with t.vault.tenant("default").maintaining() as connection:
            rows = connection.execute("SELECT cube, version, length(vectors) FROM old_vectors").fetchall()
            assert rows == [(1, 1, 2 * 24)]
            blob = connection.execute("SELECT vectors FROM old_vectors").get
        assert blob == _packed("Note 0 says word0.")
        assert t.scope(user="alice").get(cube.id) == cube


def _packed(text: str) -> bytes:
    from tercet.vault.search.vectors import pack

    return pack(new().vector(text), 24)
