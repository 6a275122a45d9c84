"""Token states of 128 bits."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.text.recall.late import BYTES, Coder, Codes, similarity

DIM = 16


def coder(rng: np.random.Generator, dim: int = DIM) -> Coder:
    return Coder(
        mean=rng.normal(size=dim).astype(np.float32),
        axes=rng.normal(size=(dim, 128)).astype(np.float32),
        dropped=np.array([1, 2], np.int32),
        asked=np.array([7], np.int32),
    )


def naive(question: np.ndarray, texts: list[np.ndarray]) -> np.ndarray:
    """The same from signs in float, one token at a time."""
    found = np.zeros((len(question), len(texts)))
    for i, asked in enumerate(question):
        for j, text in enumerate(texts):
            found[i, j] = max([0.0, *(float((asked == token).mean() * 2 - 1) for token in text)])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_similarity_equals_the_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coding = coder(rng)
    texts = [rng.normal(size=(n, DIM)).astype(np.float32) for n in (3, 0, 1, 5)]
    question = rng.normal(size=(4, DIM)).astype(np.float32)
    blobs = [coding.encode(states, np.full(len(states), 50, np.int32)) for states in texts]
    ends = np.cumsum([len(blob) for blob in blobs])
    codes = Codes.read(np.frombuffer(b"".join(blobs), np.uint8), ends - [len(blob) for blob in blobs], ends)
    signs = [(states - coding.mean) @ coding.axes > 0 for states in [question, *texts]]
    asked = coding.question(question, np.full(4, 50, np.int32))
    np.testing.assert_allclose(similarity(asked, codes), naive(signs[0], signs[1:]), atol=1e-6)


def test_rows_may_be_read_in_any_selection() -> None:
    coding = coder(np.random.default_rng(0))
    states = np.random.default_rng(1).normal(size=(9, DIM)).astype(np.float32)
    ids = np.full(9, 50, np.int32)
    blobs = [coding.encode(states[a:b], ids[a:b]) for a, b in ((0, 2), (2, 5), (5, 5), (5, 9))]
    ends = np.cumsum([len(blob) for blob in blobs])
    starts = ends - [len(blob) for blob in blobs]
    asked = coding.question(states[:3], ids[:3])
    whole = similarity(asked, Codes.read(np.frombuffer(b"".join(blobs), np.uint8), starts, ends))
    for chosen in ([0, 3], [1, 2], [2], [3], []):
        part = Codes.read(np.frombuffer(b"".join(blobs), np.uint8), starts[chosen], ends[chosen])
        np.testing.assert_array_equal(similarity(asked, part), whole[:, chosen])


def test_a_token_is_one_with_itself_and_none_with_its_opposite() -> None:
    coding = coder(np.random.default_rng(0))
    state = np.random.default_rng(1).normal(size=(1, DIM)).astype(np.float32)
    ids = np.array([50], np.int32)
    blobs = [coding.encode(state, ids), coding.encode(2 * coding.mean - state, ids)]
    codes = Codes.read(np.frombuffer(b"".join(blobs), np.uint8), np.array([0, BYTES]), np.array([BYTES, 2 * BYTES]))
    assert similarity(coding.question(state, ids), codes).tolist() == [[1.0, 0.0]]


def test_dropped_tokens_cost_nothing_and_asking_words_are_not_asked_for() -> None:
    coding = coder(np.random.default_rng(0))
    states = np.ones((4, DIM), np.float32)
    ids = np.array([1, 50, 7, 30_000], np.int32)
    assert len(coding.encode(states, ids)) == 3 * BYTES
    assert len(coding.question(states, ids)) == 2
    assert len(coding.question(states[:3], np.array([1, 2, 7], np.int32))) == 3  # nothing else to ask for


def test_the_shipped_axes_fit_minilm() -> None:
    coding = Coder.load()
    assert coding.mean.shape == (384,)
    assert coding.axes.shape == (384, 128)
    np.testing.assert_allclose(coding.axes.T @ coding.axes, np.eye(128), atol=2e-3)
    assert 1012 in coding.dropped  # a full stop
    assert not set(coding.asked) & set(coding.dropped)
