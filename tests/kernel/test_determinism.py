"""The same write log gives the same ids, the same index and the same ranking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet import InvalidRequest, Text, derive
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing import FakeEmbedder, SeededClock, SeededEntropy, texts
from tercet.testing.dump import dump
from tercet.text.read.message import Message
from tercet.vault import journal
from tercet.vault.ids import RandomIds, ReplayedIds


def write(scope: ScopedMemory) -> None:
    """A log with every kind of write in it."""
    one = scope.remember("The boiler code is 4417.", tags=["home"], metadata={"n": 1}, ref="r")
    many = scope.remember_many([Message(f"Oslo has {i} boilers.", name="Ann") for i in range(20)])
    scope.revise(one.id, "The boiler code is 9921.")
    scope.rollback(one.id, version=1)
    scope.remember(derive(many[:3], Text("Boilers of Oslo."), method="m"))
    scope.forget(many[7].id)
    scope.remember_many(["北京很冷。", "Soup."])


def told(scope: ScopedMemory) -> list[tuple[str, float, dict[str, float | str]]]:
    """Ids, scores and reasons."""
    questions = ("What is the boiler code?", "Oslo boilers", "北京", "soup")
    return [
        (hit.cube.id, hit.score, dict(hit.why)) for question in questions for hit in scope.recall(question, limit=50)
    ]


@pytest.mark.parametrize("embedder", [None, FakeEmbedder()], ids=["words", "vectors"])
def test_the_same_calls_give_the_same_vault(tmp_path: Path, embedder: FakeEmbedder | None) -> None:
    """Every row of every table, and every hit, bit for bit."""
    vaults = []
    for name in ("one", "two"):
        with Tercet.open(tmp_path / name, embedder=embedder, clock=SeededClock(), entropy=SeededEntropy(7)) as t:
            write(t.scope(user="alice"))
            vaults.append((dump(t), told(t.scope(user="alice"))))
    assert vaults[0] == vaults[1]


def test_another_seed_gives_other_ids(tmp_path: Path) -> None:
    ids = []
    for seed in (1, 2):
        with Tercet.open(tmp_path / str(seed), embedder=None, clock=SeededClock(), entropy=SeededEntropy(seed)) as t:
            write(t.scope(user="alice"))
            ids.append({cube.id for cube in t.scope(user="alice").list()})
    assert not ids[0] & ids[1]


def test_logged_ids_replay(tmp_path: Path) -> None:
    """A vault written with a system's clock and entropy is written again with the same ids from its journal alone."""
    with Tercet.open(tmp_path / "one", embedder=None) as t:
        write(t.scope(user="alice"))
        with t.vault.tenant("default").reading() as reader:
            logged = list(journal.logged_ids(reader.connection))
        wanted = [(cube.id, cube.text, cube.descriptive.origin.episode) for cube in t.scope(user="alice").list()]
    with Tercet.open(tmp_path / "two", embedder=None, ids=ReplayedIds(logged)) as t:
        alice = t.scope(user="alice")
        write(alice)
        assert [(cube.id, cube.text, cube.descriptive.origin.episode) for cube in alice.list()] == wanted
        before = dump(t)
        with pytest.raises(InvalidRequest, match="used up"):
            alice.remember("One more than was logged.")
        assert dump(t) == before


def test_cold_and_warm_answers_are_the_same(tmp_path: Path) -> None:
    """Columns that were brought up to date call by call equal columns that were read at once."""
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=SeededClock(), entropy=SeededEntropy()) as t:
        alice = t.scope(user="alice")
        told(alice)
        write(alice)
        warm = told(alice)
        t.vault.tenant("default").forget_cache()
        assert told(alice) == warm


def test_the_order_of_batches_changes_no_ranking(tmp_path: Path) -> None:
    """The same texts one at a time or in one batch give the same vectors, postings and scores."""
    lines = [
        Message(f"Oslo has {i} boilers.", at=datetime(2024, 5, 1, 12, i, tzinfo=UTC), session="s") for i in range(20)
    ]
    scores = []
    for name in ("one", "many"):
        with Tercet.open(tmp_path / name, embedder=FakeEmbedder(), clock=SeededClock()) as t:
            alice = t.scope(user="alice")
            if name == "many":
                alice.remember_many(lines)
            else:
                for line in lines:
                    alice.remember(line)
            hits = alice.recall("How many boilers has Oslo?", limit=50)
            scores.append([(hit.cube.text, hit.score, dict(hit.why)) for hit in hits])
    assert scores[0] == scores[1]


@given(st.lists(st.sampled_from([-5, -1, 0, 0, 0, 1, 7]), min_size=2, max_size=40))
def test_ids_never_run_backwards(steps: list[int]) -> None:
    """Whatever the clock does, and however many are wanted within a millisecond."""
    source, at = RandomIds(SeededEntropy()), 1_700_000_000_000
    ids = []
    for step in steps:
        at += step
        ids.append(source(datetime.fromtimestamp(at / 1000, UTC)))
    assert ids == sorted(set(ids))
    assert {id[14] for id in ids} == {"7"}
    assert {id[19] for id in ids} <= set("89ab")


def test_ten_thousand_ids_of_one_moment_are_unique_and_in_order() -> None:
    source, at = RandomIds(SeededEntropy()), datetime(2024, 5, 1, tzinfo=UTC)
    ids = [source(at) for _ in range(10_000)]  # more than a millisecond's counter holds
    assert ids == sorted(set(ids))


@pytest.mark.slow
@settings(max_examples=10)
@given(lines=st.lists(texts(30), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_a_texts_vector_does_not_depend_on_its_batch(lines: Sequence[str], seed: int) -> None:
    """The real model, bit for bit: alone, among others, in another order, beside a long one."""
    from tercet.text.embed.minilm import MiniLM

    model = MiniLM.find()
    assert model is not None, "the weights are part of the test environment"
    alone = [model.embed([line])[0].vectors for line in lines]
    order = np.random.default_rng(seed).permutation(len(lines))
    mixed = model.embed([*(lines[i] for i in order), "A long one. " * 60])
    for place, i in enumerate(order):
        np.testing.assert_array_equal(mixed[place].vectors, alone[i])
