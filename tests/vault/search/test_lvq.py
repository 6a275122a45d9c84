"""LVQ against what is published of it: error bounds, golden numbers, footprints, layouts, scores."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tercet
from tercet.errors import InvalidRequest
from tercet.vault.search.lvq import LVQ, Codes, Floats, Rows, mean_of
from tercet.vault.search.lvq_layout import pack, turbo_pack, turbo_unpack, turbo_width, unpack, width
from tercet.vault.search.lvq_scores import Metric, Query, Scan, exact, flip, normalised

CODERS = [LVQ(4), LVQ(8), LVQ(4, 4), LVQ(4, 8), LVQ(8, 4), LVQ(8, 8)]
MIRRORED = [LVQ(8, symmetric=True), LVQ(8, 4, symmetric=True), LVQ(4, 8, symmetric=True)]
METRICS: list[Metric] = ["ip", "l2", "cosine"]


def gaussian(n: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def recall(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, nearest, strict=True)]))


class Published:
    """10,000 Gaussian vectors of 128 dimensions and 500 queries: the set that the golden numbers were taken on."""

    def __init__(self) -> None:
        self.vectors = np.random.RandomState(1234).normal(size=(10_000, 128)).astype(np.float32)
        self.queries = np.random.RandomState(5678).normal(size=(500, 128)).astype(np.float32)
        self.mean = mean_of([self.vectors], 128)
        squares = (self.vectors.astype(np.float64) ** 2).sum(axis=1)
        self.nearest = np.argsort(squares - 2 * self.queries @ self.vectors.T, axis=1, kind="stable")[:, :10]

    def recalls(self, lvq: LVQ) -> tuple[float, float, float]:
        """Of ten: by the first level, by both of the first level's twenty, by both."""
        codes = lvq.encode(self.vectors, self.mean)
        found: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
        for vector in self.queries:
            query = Query.make(vector, self.mean, "l2")
            first, both = exact(lvq, codes, query, both=False), exact(lvq, codes, query)
            twenty = np.argsort(-first, kind="stable")[:20]
            found[0].append(twenty[:10])
            found[1].append(twenty[np.argsort(-both[twenty], kind="stable")[:10]])
            found[2].append(np.argsort(-both, kind="stable")[:10])
        first_level, reranked, all_levels = (recall(np.stack(each), self.nearest) for each in found)
        return first_level, reranked, all_levels


@pytest.fixture(scope="module")
def published() -> Published:
    return Published()


@pytest.mark.parametrize(
    ("lvq", "rms", "first", "reranked", "both"),
    [
        (LVQ(4), 0.0998, 0.842, 0.842, 0.842),
        (LVQ(8), 0.00587, 0.988, 0.988, 0.988),
        (LVQ(4, 4), 0.0068, 0.842, 0.979, 0.984),
        (LVQ(4, 8), 0.00039, 0.842, 0.991, 0.999),
    ],
    ids=str,
)
def test_golden_numbers(published: Published, lvq: LVQ, rms: float, first: float, reranked: float, both: float) -> None:
    codes = lvq.encode(published.vectors, published.mean)
    error = lvq.decode(codes, published.mean).astype(np.float64) - published.vectors
    assert np.sqrt(np.square(error).mean()) == pytest.approx(rms, rel=0.015)
    found = published.recalls(lvq)
    assert found == pytest.approx((first, reranked, both), abs=0.001)
    assert found[0] <= found[1] <= found[2]


@pytest.mark.parametrize(("bits", "delta"), [(4, 0.3463), (8, 0.02037)])
def test_golden_steps(published: Published, bits: int, delta: float) -> None:
    codes = LVQ(bits).encode(published.vectors, published.mean)
    steps = codes.delta.astype(np.float64)
    assert steps.mean() == pytest.approx(delta, rel=0.0003)
    error = LVQ(bits).decode(codes, published.mean).astype(np.float64) - published.vectors
    assert np.sqrt(np.square(error).mean()) == pytest.approx(np.sqrt(np.square(steps).mean() / 12), rel=0.02)


@pytest.mark.parametrize(
    ("lvq", "dim", "padding", "size"),
    [(LVQ(8), 96, 32, 128), (LVQ(4), 128, 32, 96), (LVQ(4), 960, 32, 512), (LVQ(8), 384, 1, 388), (LVQ(4), 3, 1, 6)],
)
def test_footprint_of_the_first_level(lvq: LVQ, dim: int, padding: int, size: int) -> None:
    assert lvq.footprint(dim, padding) == size


@pytest.mark.parametrize(
    ("lvq", "small", "large"),
    [(LVQ(8), 160, 800), (LVQ(4), 96, 416), (LVQ(4, 4), 160, 800), (LVQ(4, 8), 224, 1184)],
    ids=str,
)
def test_size_of_both_levels(lvq: LVQ, small: int, large: int) -> None:
    assert (lvq.size(128), lvq.size(768)) == (small, large)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 40),
    scale=st.sampled_from([1e-7, 1e-5, 1e-3, 1.0, 300.0]),
    shift=st.sampled_from([0.0, 0.25, -3.0]),
    lvq=st.sampled_from(CODERS),
)
def test_no_component_is_off_by_more_than_half_a_step(
    seed: int, dim: int, scale: float, shift: float, lvq: LVQ
) -> None:
    vectors = (np.random.default_rng(seed).normal(size=(7, dim)) * scale + shift).astype(np.float32)
    mean = np.zeros(dim, np.float32)
    codes = lvq.encode(vectors, mean)
    step, lo = codes.delta.astype(np.float64)[:, None], codes.lo.astype(np.float64)[:, None]
    if lvq.residual:
        step = step / ((1 << lvq.residual) - 1)
    # Slack: the lower bound was rounded to half precision, and what lay below it is lifted to it.
    slack = np.abs(lo - vectors.min(axis=1, keepdims=True)) + 1e-6 * np.abs(vectors).max()
    assert (np.abs(lvq.decode(codes, mean) - vectors) <= step / 2 + slack).all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 40),
    scale=st.sampled_from([1e-7, 1e-5, 1e-3, 1.0, 300.0]),
    lvq=st.sampled_from(MIRRORED),
)
def test_a_symmetric_code_is_its_vector_but_for_a_factor(seed: int, dim: int, scale: float, lvq: LVQ) -> None:
    vectors = (np.random.default_rng(seed).normal(size=(7, dim)) * scale).astype(np.float32)
    mean = np.zeros(dim, np.float32)
    codes = lvq.encode(vectors, mean)
    step = codes.delta.astype(np.float64)[:, None]
    half = 1 << (lvq.bits - 1)
    assert (codes.lo.astype(np.float64)[:, None] == -half * step).all()
    signed = unpack(codes.primary, lvq.bits, dim).astype(np.int64) - half
    assert (np.abs(signed) < half).all()
    slack = 2e-3 * np.abs(vectors).max(axis=1, keepdims=True) / half  # the step was rounded to half precision
    assert (np.abs(step * signed - vectors) <= step / 2 + slack).all()
    fine = step / ((1 << lvq.residual) - 1) if lvq.residual else step
    assert (np.abs(lvq.decode(codes, mean) - vectors) <= fine / 2 + slack * half).all()


def test_a_symmetric_coder_refuses_what_its_bound_cannot_hold() -> None:
    with pytest.raises(InvalidRequest, match="65,504"):
        LVQ(8, symmetric=True).encode(np.full((1, 4), 65_400, np.float32), np.zeros(4, np.float32))


@pytest.mark.parametrize("value", [0.0, 0.1, -2.5, 1000.3, 6e-8])
@pytest.mark.parametrize("lvq", CODERS, ids=str)
def test_a_constant_vector_decodes_to_its_value_in_half_precision(lvq: LVQ, value: float) -> None:
    vectors = np.full((2, 9), value, np.float32)
    decoded = lvq.decode(lvq.encode(vectors, np.zeros(9, np.float32)), np.zeros(9, np.float32))
    assert (decoded == np.float32(np.float16(value))).all()


def test_vectors_below_the_mean_everywhere_are_bounded_from_above() -> None:
    vectors = -1 - np.random.default_rng(3).random((5, 32), np.float32)
    codes = LVQ(8).encode(vectors, np.zeros(32, np.float32))
    assert np.abs(LVQ(8).decode(codes, np.zeros(32, np.float32)) - vectors).max() < 0.003


def test_an_outlier_widens_its_own_vector_only() -> None:
    vectors = gaussian(4, 64)
    mean = np.zeros(64, np.float32)
    before = LVQ(8).decode(LVQ(8).encode(vectors, mean), mean)
    vectors[2, 5] = 500
    after = LVQ(8).decode(LVQ(8).encode(vectors, mean), mean)
    assert (after[[0, 1, 3]] == before[[0, 1, 3]]).all()
    assert np.abs(after[2] - vectors[2]).max() > 10 * np.abs(after[0] - vectors[0]).max()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 7, 64, 129])
@pytest.mark.parametrize("lvq", [*CODERS, *MIRRORED], ids=str)
def test_scores_of_codes_equal_those_of_what_they_decode_to(lvq: LVQ, dim: int, metric: Metric) -> None:
    vectors = gaussian(50, dim) + 0.5
    if metric == "cosine":
        vectors = normalised(vectors)
    mean = mean_of([vectors], dim)
    codes = lvq.encode(vectors, mean)
    asked = gaussian(1, dim, seed=1)[0]
    unit = asked / np.linalg.norm(asked) if metric == "cosine" else asked
    for both in (False, True):
        decoded = lvq.decode(codes, mean, both=both).astype(np.float64)
        wanted = -np.square(unit - decoded).sum(axis=1) if metric == "l2" else decoded @ unit
        found = exact(lvq, codes, Query.make(asked, mean, metric), both=both)
        size = np.abs(wanted) if metric == "l2" else np.linalg.norm(decoded, axis=1) * np.linalg.norm(unit)
        assert (np.abs(found - wanted) <= 1e-4 * size).all()


@pytest.mark.parametrize("lvq", [*CODERS, *MIRRORED], ids=str)
def test_a_score_does_not_depend_on_the_company(lvq: LVQ) -> None:
    vectors = gaussian(200, 61)
    mean = mean_of([vectors], 61)
    codes = lvq.encode(vectors, mean)
    query = Query.make(gaussian(1, 61, seed=2)[0], mean, "cosine")
    rows = np.array([150, 3, 77])
    assert (exact(lvq, codes, query)[rows] == exact(lvq, codes.take(rows), query)).all()
    scan = Scan.make(lvq, codes, "cosine")
    assert (scan.rough(query)[rows] == scan.take(rows).rough(query)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dim", [5, 64, 129])
def test_rough_scores_are_off_by_the_rounding_of_the_query_only(bits: int, dim: int, metric: Metric) -> None:
    vectors, lvq = gaussian(300, dim) + 0.2, LVQ(bits)
    mean = mean_of([vectors], dim)
    codes = lvq.encode(vectors, mean)
    query = Query.make(gaussian(1, dim, seed=4)[0], mean, metric)
    rough = Scan.make(lvq, codes, metric).rough(query)
    step = np.abs(query.vector).max() / (127 if bits == 8 else 119)
    # <q - q', y> with |q_j - q'_j| <= step / 2, where the codes are shifted by half their range.
    shifted = lvq.decode_centred(codes) - codes.lo.astype(np.float32)[:, None]
    shifted -= codes.delta.astype(np.float32)[:, None] * (1 << bits - 1)
    bound = step / 2 * np.abs(shifted).sum(axis=1) * (2 if metric == "l2" else 1)
    assert (np.abs(rough - exact(lvq, codes, query)) <= bound + 1e-3).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_and_turbo_packing_are_undone(bits: int) -> None:
    for dim in range(1, 301):
        codes = np.random.default_rng(dim).integers(0, 1 << bits, (3, dim)).astype(np.uint8)
        packed, turbo = pack(codes, bits), turbo_pack(codes, bits)
        assert packed.shape == (3, width(dim, bits))
        assert turbo.shape == (3, turbo_width(dim, bits))
        assert (unpack(packed, bits, dim) == codes).all()
        assert (turbo_unpack(turbo, bits, dim) == codes).all()
        assert (flip(flip(packed, bits), bits) == packed).all()


def test_a_lane_of_turbo_holds_every_sixteenth_dimension() -> None:
    codes = (np.arange(256) // 16 % 8 + 1).astype(np.uint8)[None]  # each dimension says its group, from 1
    codes[0, 35] = 15  # block 0, lane 3, group 2
    words = turbo_pack(codes, 4).view("<u4")[0]
    assert words.shape == (32,)
    assert words[0] == 0x87654321
    assert words[3] == 0x87654F21
    eight = turbo_pack(np.arange(64, dtype=np.uint8)[None], 8).view("<u4")[0]
    assert eight[1] == 1 | 17 << 8 | 33 << 16 | 49 << 24
    assert [int(word) & 255 for word in eight] == list(range(16))


def test_the_mean_is_summed_in_float64() -> None:
    blocks: list[Rows] = [np.full((50_000, 2), 1000.1, np.float16), np.full((50_000, 2), 0.001, np.float32)]
    wanted = (float(np.float16(1000.1)) + float(np.float32(0.001))) / 2
    assert mean_of(blocks, 2) == pytest.approx(wanted, rel=1e-7)
    assert (mean_of([], 3) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_what_cannot_be_coded_is_refused(bad: float) -> None:
    vectors = gaussian(3, 8)
    vectors[1, 2] = bad
    with pytest.raises(InvalidRequest):
        LVQ(8).encode(vectors, np.zeros(8, np.float32))


@pytest.mark.parametrize("shape", [(3, 7), (8,), (2, 2, 8)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="shape"):
        LVQ(8).encode(np.zeros(shape, np.float32), np.zeros(8, np.float32))


@pytest.mark.parametrize(("bits", "residual"), [(5, 0), (8, 1), (0, 8), (4, -4)])
def test_other_bits_are_refused(bits: int, residual: int) -> None:
    with pytest.raises(InvalidRequest):
        LVQ(bits, residual)


@pytest.mark.parametrize("query", [np.zeros(7), np.full(8, np.nan), np.zeros((1, 8))])
def test_a_query_that_does_not_fit_is_refused(query: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidRequest):
        Query.make(query, np.zeros(8, np.float32), "ip")


def test_a_zero_query_or_vector_has_cosine_zero() -> None:
    vectors = normalised(np.concatenate([np.zeros((1, 16), np.float32), gaussian(3, 16)]))
    mean = np.zeros(16, np.float32)
    codes = LVQ(8).encode(vectors, mean)
    assert (exact(LVQ(8), codes, Query.make(np.zeros(16), mean, "cosine")) == 0).all()
    assert exact(LVQ(8), codes, Query.make(vectors[1], mean, "cosine"))[0] == 0
    assert (
        Scan.make(LVQ(4), LVQ(4).encode(vectors, mean), "cosine").rough(Query.make(np.zeros(16), mean, "ip")) == 0
    ).all()


def test_nothing_is_nothing() -> None:
    codes: Codes = LVQ(4, 8).encode(np.zeros((0, 5), np.float32), np.zeros(5, np.float32))
    query = Query.make(np.ones(5), np.zeros(5, np.float32), "ip")
    assert len(codes) == len(exact(LVQ(4, 8), codes, query)) == len(Scan.make(LVQ(4, 8), codes, "ip").rough(query)) == 0


def test_the_package_that_ends_the_process_on_other_processors_is_never_imported() -> None:
    # scalable-vs builds LVQ on one maker's processors only, and elsewhere exits without an exception.
    for path in (Path(tercet.__file__).parent).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not {"svs", "scalable_vs"} & {name.partition(".")[0] for name in [*named, module or ""]}, path
