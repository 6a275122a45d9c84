"""A scoped or filtered search by vectors is exact: it gives what a brute-force comparison of all rows would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tercet import Tercet
from tercet.text.embed.base import Embedding
from tercet.vault.search.ragged import Ragged
from tercet.vault.search.vectors import dots

DIM = 16


def vectors_of(text: str) -> NDArray[np.float32]:
    """One to three unit windows, by the number in the text."""
    seed = int("".join(c for c in text if c.isdigit()) or "0")
    rows = np.random.default_rng(seed).normal(size=(1 + seed % 3, DIM))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Windows:
    """An embedder that reads some texts in several windows."""

    space, dim = "windows", DIM

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        return [Embedding(vectors_of(text)) for text in texts]


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Tercet:
    t = Tercet.open(tmp_path_factory.mktemp("vault"), embedder=Windows())
    for user in ("alice", "bob"):
        for session in ("one", "two"):
            items = [
                {"role": "user", "content": f"{user} {session} note {1000 * len(user) + 7 * i}", "tags": [f"t{i % 3}"]}
                for i in range(40)
            ]
            t.scope(user=user, session=session).remember_many(items)
    return t


@given(
    question=st.integers(0, 500),
    user=st.sampled_from([None, "alice", "bob"]),
    session=st.sampled_from([None, "one", "two"]),
    tag=st.sampled_from([None, "t0", "t2"]),
)
@settings(max_examples=60, deadline=None)
def test_equals_brute_force(t: Tercet, question: int, user: str | None, session: str | None, tag: str | None) -> None:
    scope = t.scope(user=user, session=session)
    where = {"tags": tag} if tag else None
    hits = scope.recall(f"what of {question}?", limit=10, where=where, policy="vectors")
    query = vectors_of(str(question))[0]
    rows = scope.list(limit=1000, where=where)
    best = {cube.id: (vectors_of(cube.text).astype(np.float16).astype(np.float64) @ query).max() for cube in rows}
    expected = sorted(best.values(), reverse=True)[:10]
    assert hits.total == len(rows)
    np.testing.assert_allclose([best[hit.cube.id] for hit in hits], expected, atol=2e-4)


def test_a_row_counts_by_its_best_window() -> None:
    none = np.zeros((0, 2), np.float16)
    rows = Ragged.of([np.array([[1, 0], [0, 1]], np.float16), none, np.array([[-1, 0]], np.float16)], none)
    found = rows.greatest(dots(rows.values, np.array([0, 1], np.float32)))
    np.testing.assert_allclose(found, [1, np.nan, 0], atol=1e-6)


def test_kernel_equals_numpy_to_the_precision_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 384)).astype(np.float16)
    query = rng.normal(size=384).astype(np.float32)
    exact = rows.astype(np.float64) @ query.astype(np.float64)
    np.testing.assert_allclose(dots(rows, query), exact, rtol=1e-4, atol=1e-3)


def test_rows_are_kept_through_a_folder_and_back(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=Windows()) as first:
        made = first.scope(user="alice").remember("note 5")  # three windows
    with Tercet.open(tmp_path, embedder=Windows()) as again:
        hit = again.scope(user="alice").recall("5", policy="vectors")[0]
        assert hit.cube.id == made.id
        assert hit.why["by"] == "vectors"
