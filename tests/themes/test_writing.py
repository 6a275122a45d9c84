"""T3, T8, T9, T13: writes are quick, nothing is lost, what was written is read at once, and no lock is in the way."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tercet import EmbeddingFailed, InvalidRequest, Tercet, VaultError
from tercet.testing import BrokenEmbedder, FakeEmbedder, Scripted, SeededClock
from tercet.testing.base import all_clear
from tercet.testing.processes import finish, start
from tercet.text.embed.base import Embedding


def tenant_stats(t: Tercet) -> dict[str, Any]:
    stats: dict[str, Any] = t.stats()["tenants"]["default"]
    return stats


class Blocked(FakeEmbedder):
    """An embedder that answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted, self.go = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        self.wanted.set()
        assert self.go.wait(60)
        return super().embed(texts)


class Wrong(FakeEmbedder):
    """Answers with whatever it is told to; None: as it should."""

    def __init__(self, answer: Any) -> None:  # noqa: ANN401  # that is the point
        super().__init__()
        self.answer = answer

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        if self.answer is None:
            return super().embed(texts)
        answer: Any = [Embedding(self.answer)] * len(texts) if isinstance(self.answer, np.ndarray) else self.answer
        made: list[Embedding] = answer
        return made


class Picky(FakeEmbedder):
    """Fails on one text, as an endpoint does that filters what it is sent."""

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        if any("poison" in text for text in texts):
            raise EmbeddingFailed("it is poison")
        return super().embed(texts)


class TestQuickWrites:
    """T3: a write is durable when it returns, and no model holds up the vault."""

    def test_a_write_without_an_embedder_asks_no_model(self, tmp_path: Path) -> None:
        """A handle for the request path, and a worker with the model beside it."""
        model = FakeEmbedder()
        with Tercet.open(tmp_path, embedder=None) as front, Tercet.open(tmp_path, embedder=model) as worker:
            cube = front.scope(user="alice").remember("The boiler code is 4417.")
            assert model.asked == []
            assert worker.scope(user="alice").get(cube.id) == cube
            worker.work(until_idle=True)
            assert model.asked == ["The boiler code is 4417."]
            assert worker.scope(user="alice").recall("boiler")[0].why["by"] == "words and vectors"

    def test_a_slow_embedder_holds_no_lock(self, tmp_path: Path) -> None:
        """While one call waits for its vectors, others write and read, by the same handle too."""
        model = Blocked()
        with Tercet.open(tmp_path, embedder=model) as t, Tercet.open(tmp_path, embedder=None) as other:
            slow = threading.Thread(target=lambda: t.scope(user="alice").remember("Slow."))
            slow.start()
            try:
                assert model.wanted.wait(60)
                assert other.scope(user="bob").remember("Quick.").version == 1
                assert t.scope(user="bob").list().total == 1
                assert t.scope(user="alice").list().total == 0
            finally:
                model.go.set()
                slow.join()
            assert [cube.text for cube in t.scope(user="alice").list()] == ["Slow."]

    def test_a_very_long_text_waits_for_no_model(self, tmp_path: Path) -> None:
        model = FakeEmbedder()
        with Tercet.open(tmp_path, embedder=model) as t:
            cube = t.scope().remember("boiler " * 20_000)
            assert model.asked == []
            assert t.scope().recall("boiler")[0].cube.id == cube.id
            assert t.work(until_idle=True) == 1
            assert tenant_stats(t)["without_vector"] == 0


WRONG = {
    "dim": np.ones((1, 31), np.float32),
    "nan": np.full((1, 32), math.nan, np.float32),
    "infinite": np.full((1, 32), np.inf, np.float32),
    "zero": np.zeros((1, 32), np.float32),
    "no window": np.zeros((0, 32), np.float32),
    "no answer": [],
    "text": "text",
    "number": 17,
    "nothing": [None],
}


class TestNothingLost:
    """T8: a model that fails, in whatever way, loses nothing and hides nothing."""

    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_answer_keeps_the_text(self, tmp_path: Path, name: str) -> None:
        embedder = Wrong(WRONG[name])
        clock = SeededClock()
        with Tercet.open(tmp_path, embedder=embedder, clock=clock) as t:
            alice = t.scope(user="alice")
            cubes = alice.remember_many(["The boiler code is 4417.", "I moved to Oslo."])
            alice.revise(cubes[1].id, "I moved to Bergen.")
            assert [cube.text for cube in alice.list()] == ["The boiler code is 4417.", "I moved to Bergen."]
            assert (tenant_stats(t)["without_vector"], tenant_stats(t)["jobs"]) == (2, {"embed": 1})
            assert alice.recall("boiler")[0].cube.text == "The boiler code is 4417."
            embedder.answer = None
            t.work(until_idle=True)
            assert (tenant_stats(t)["without_vector"], tenant_stats(t)["jobs"]) == (0, {})
            all_clear(t)

    @pytest.mark.parametrize("error", [EmbeddingFailed("no power"), ValueError("odd"), RuntimeError(), MemoryError()])
    def test_an_embedder_that_raises_keeps_the_text(self, tmp_path: Path, error: Exception) -> None:
        with Tercet.open(tmp_path, embedder=BrokenEmbedder(error)) as t:
            alice = t.scope(user="alice")
            alice.remember("The boiler code is 4417.")
            assert alice.recall("boiler")[0].cube.text == "The boiler code is 4417."
            assert str(alice.recall("boiler")[0].why["by"]).startswith("words (")
            assert t.work(until_idle=True) == 0
            assert tenant_stats(t)["jobs"] == {"embed": 1}

    def test_a_callable_that_raises_keeps_the_text(self, tmp_path: Path) -> None:
        """Also where its dimension is not known yet, and is asked of it in vain."""

        def unreachable(texts: list[str]) -> object:
            raise ConnectionError(f"no route for {len(texts)} texts")

        with Tercet.open(tmp_path, embedder=unreachable) as t:
            alice = t.scope(user="alice")
            cube = alice.remember("The boiler code is 4417.")
            alice.revise(cube.id, "The boiler code is 9921.")
            assert alice.recall("boiler")[0].cube.text == "The boiler code is 9921."
            assert tenant_stats(t)["jobs"] == {"embed": 1}
            t.work(until_idle=True)
            assert tenant_stats(t)["jobs"] == {"embed": 1}

    def test_a_callable_with_an_unplanned_answer_keeps_the_text(self, tmp_path: Path) -> None:
        unit = [[1.0, 0.0]]
        script = Scripted(unit, [[1.0, 0.0, 0.0]], unit)  # the dimension, the text, the text again
        with Tercet.open(tmp_path, embedder=script) as t:
            t.scope().remember("The boiler code is 4417.")
            assert tenant_stats(t)["jobs"] == {"embed": 1}
            t.work(until_idle=True)
            assert tenant_stats(t)["without_vector"] == 0
        assert script.prompts[1:] == [["The boiler code is 4417."]] * 2

    def test_one_text_that_cannot_be_embedded_holds_up_no_other(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            t.scope().remember_many(["poison", *[f"Number {i}." for i in range(300)], "poison, too"])
        with Tercet.open(tmp_path, embedder=Picky()) as t:
            t.work(until_idle=True)
            assert (tenant_stats(t)["without_vector"], tenant_stats(t)["jobs"]) == (2, {"embed": 1})
            assert "poison" in {hit.cube.text for hit in t.scope().recall("poison")}


READER = """
import sys
from tercet import Tercet
with Tercet.open(sys.argv[1], embedder=None) as t:
    alice = t.scope(user='alice')
    for line in sys.stdin:
        hits = alice.recall(line)
        print(hits[0].cube.id if hits else '-', flush=True)
"""


class TestReadYourWrites:
    """T9: what was written is read at once, under the id it was given, everywhere."""

    def test_ids_are_stable_through_every_change(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            cube = t.scope(user="alice").remember("One.")
            t.scope(user="alice").revise(cube.id, "Two.")
            t.scope(user="alice").rollback(cube.id, version=1)
        with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
            t.work(until_idle=True)
            t.doctor(repair=True)
            alice = t.scope(user="alice")
            assert alice.recall("one")[0].cube.id == cube.id
            assert [one.id for one in alice.list()] == [cube.id]
            assert [one.id for one in alice.history(cube.id)] == [cube.id] * 3

    def test_another_process_reads_each_write_at_once(self, tmp_path: Path) -> None:
        """A process that has been reading all along sees additions, revisions and erasures as they return."""
        reader = start(READER, tmp_path)
        stdin, stdout = reader.stdin, reader.stdout
        assert stdin is not None
        assert stdout is not None

        def seen(question: str) -> str:
            stdin.write(question + "\n")
            stdin.flush()
            return stdout.readline().strip()

        with Tercet.open(tmp_path, embedder=None) as t:
            alice = t.scope(user="alice")
            assert seen("anything") == "-"
            cubes = [alice.remember(f"Number m{i}.") for i in range(5)]
            assert [seen(f"m{i}") for i in range(5)] == [cube.id for cube in cubes]
            alice.revise(cubes[0].id, "Now it is zebra.")
            assert seen("zebra") == cubes[0].id
            alice.forget([cube.id for cube in cubes])
            assert seen("zebra") == "-"
        finish(reader)


class TestLocks:
    """T13: no "database is locked", no silent read-only, no half commits. tests/vault/test_durability.py has more."""

    def test_a_folder_that_cannot_be_made_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(VaultError, match="cannot be made"):
            Tercet.open(tmp_path / "file" / "vault", embedder=None)

    def test_a_file_that_cannot_be_written_says_so(self, tmp_path: Path) -> None:
        """Told by SQLite itself, since file modes do not stop an administrator; reading goes on."""
        with Tercet.open(tmp_path, embedder=None) as t:
            alice = t.scope(user="alice")
            cube = alice.remember("One.")
            with t.vault.tenant("default").maintaining() as connection:
                connection.pragma("query_only", "ON")
            with pytest.raises(VaultError, match="cannot be written"):
                alice.remember("Two.")
            assert [one.id for one in alice.list()] == [cube.id]

    def test_a_full_disk_says_so_and_keeps_what_was(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            alice = t.scope(user="alice")
            cube = alice.remember("One.")
            with t.vault.tenant("default").maintaining() as connection:
                connection.pragma("max_page_count", connection.pragma("page_count"))
            with pytest.raises(VaultError, match="disk is full"):
                alice.remember("word " * 100_000)
            assert [one.id for one in alice.list()] == [cube.id]
            all_clear(t)

    def test_the_file_is_kept_as_it_should_be(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            t.scope().remember("One.")
            with t.vault.tenant("default").maintaining() as connection:
                modes = [connection.pragma(name) for name in ("journal_mode", "synchronous", "secure_delete")]
            assert modes == ["wal", 2, 1]


def test_a_caller_may_choose_not_to_wait_for_a_slow_embedder(tmp_path: Path) -> None:
    """T3: the text is durable and found by words without one call to the embedder; a job makes the vectors."""
    asked: list[int] = []

    def slow(texts: Sequence[str]) -> list[list[float]]:
        asked.append(len(texts))
        return [[1.0, float(len(text))] for text in texts]

    with Tercet.open(tmp_path, embedder=slow) as t:
        alice = t.scope(user="alice")
        alice.remember("The boiler code is 4417.", wait_for="words")
        alice.remember_many(["Lunch was soup."], wait_for="words")
        assert asked == []
        assert alice.recall("boiler code", policy="words")[0].cube.text == "The boiler code is 4417."
        assert t.stats()["tenants"]["default"]["jobs"] == {"embed": 1}
        assert t.work(until_idle=True) == 1
        assert t.stats()["tenants"]["default"]["without_vector"] == 0
        with pytest.raises(InvalidRequest, match="wait_for"):
            alice.remember("Nothing.", wait_for="miracles")  # type: ignore[arg-type]
