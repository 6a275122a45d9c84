"""SeedLM against its golden vectors, and what any coder owes: exact packing, determinism, no worse with more seeds."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import InvalidRequest, VaultDamaged
from tercet.parametric.quant.seedlm import TAPS, Coded, Floats, SeedLM, bases, register

SMALL = SeedLM(bits=8, block=4, coefficients=2)
W = np.array([0.05, -0.02, 0.03, 0.01])


def coded(coder: SeedLM, block: Floats) -> tuple[int, int, list[int], float]:
    """Seed, exponent, mantissas and squared error of one block, no scale before it."""
    seeds, exponents, mantissas = coder._search(block[None])
    back = coder.decode(Coded(seeds, exponents, mantissas, block.shape, 1.0))
    return int(seeds[0]), int(exponents[0]), mantissas[0].tolist(), float(np.square(block - back).sum())


def exhaustive(coder: SeedLM, block: Floats) -> float:
    """The least error over every seed, without any shortcut."""
    least = np.inf
    for basis in bases(coder.bits, coder.block, coder.coefficients):
        t = np.linalg.pinv(basis) @ block
        e = np.clip(np.ceil(np.log2(max(np.abs(t).max(), 2.0**-40) / 7.5)), -8, 7)
        c = np.clip(np.rint(t / 2**e), -8, 7)
        least = min(least, float(np.square(block - basis @ c * 2**e).sum()))
    return least


@pytest.mark.parametrize(
    ("bits", "seed", "states"),
    [
        (4, 1, [8, 4, 2, 9, 12, 6, 11, 5, 10, 13, 14, 15, 7, 3, 1]),
        (8, 1, [128, 64, 32, 16, 136, 196, 226, 113]),
        (16, 1, [32768, 16384, 8192, 4096, 34816, 17408]),
        (16, 0xACE1, [54896, 60216, 62876, 31438]),
        (3, 4, [2, 5, 6, 7, 3, 1, 4, 2]),
    ],
)
def test_the_register_gives_the_golden_states(bits: int, seed: int, states: list[int]) -> None:
    assert register(bits, np.array([seed]), len(states))[0].tolist() == states


@pytest.mark.parametrize("bits", TAPS)
def test_the_register_visits_every_state(bits: int) -> None:
    period = (1 << bits) - 1
    assert set(register(bits, np.array([1]), period)[0].tolist()) == set(range(1, period + 1))


@pytest.mark.parametrize(
    ("bits", "seed", "exponent", "mantissas", "error"),
    [(4, 6, -6, [5, -3], 3.409279e-4), (8, 198, -7, [2, 5], 1.879390e-5)],
)
def test_a_block_is_coded_as_in_the_golden_example(
    bits: int, seed: int, exponent: int, mantissas: list[int], error: float
) -> None:
    found = coded(SeedLM(bits=bits, block=4, coefficients=2), W)
    assert found[:3] == (seed, exponent, mantissas)
    assert found[3] == pytest.approx(error, rel=1e-5)


def test_the_pruned_search_finds_what_an_exhaustive_one_finds() -> None:
    for block in np.random.default_rng(1).normal(0, 0.05, (50, 4)):
        assert coded(SMALL, block)[3] == pytest.approx(exhaustive(SMALL, block), rel=1e-5, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("coder", "low", "high"), [(SeedLM(), 0.115, 0.128), (SeedLM(16, 12, 4), 0.218, 0.232)])
def test_the_error_on_gaussian_weights_is_that_of_the_sheet(coder: SeedLM, low: float, high: float) -> None:
    weights = np.random.default_rng(0).normal(0, 0.02, 200 * coder.block)
    back = coder.decode(coder.encode(weights))
    assert low <= np.linalg.norm(weights - back) / np.linalg.norm(weights) <= high


def test_a_block_within_a_span_is_coded_exactly() -> None:
    for seed in (1, 77, 200):
        block = bases(8, 4, 2)[seed - 1] @ np.array([5, -3]) * 2.0**-4
        assert coded(SMALL, block)[3] < 1e-12


def test_scaling_by_powers_of_two_moves_the_exponent_alone() -> None:
    seed, exponent, mantissas, _ = coded(SMALL, W)
    assert coded(SMALL, W * 8)[:3] == (seed, exponent + 3, mantissas)
    weights = np.random.default_rng(2).normal(0, 1e-6, 64)
    whole, scaled = SMALL.encode(weights), SMALL.encode(weights * 2.0**20)
    assert np.array_equal(whole.seeds, scaled.seeds)
    assert scaled.scale == whole.scale * 2**20


def test_more_seeds_are_never_worse() -> None:
    blocks = np.random.default_rng(3).normal(0, 0.05, (20, 4))
    for block in blocks:  # the states of a shorter register are not those of a longer one: compare within one
        errors = [exhaustive_up_to(block, upto) for upto in (15, 63, 255)]
        assert errors == sorted(errors, reverse=True)
        assert coded(SMALL, block)[3] <= errors[-1] * (1 + 1e-5)  # decoded in float32


def exhaustive_up_to(block: Floats, upto: int) -> float:
    """The least error over the first seeds."""
    errors = []
    for basis in bases(8, 4, 2)[:upto]:
        t = np.linalg.pinv(basis) @ block
        e = np.clip(np.ceil(np.log2(np.abs(t).max() / 7.5)), -8, 7)
        errors.append(float(np.square(block - basis @ np.clip(np.rint(t / 2**e), -8, 7) * 2**e).sum()))
    return min(errors)


@pytest.mark.parametrize(
    "coder", [SMALL, SeedLM(bits=8, block=5, coefficients=3), SeedLM(bits=9, block=6, coefficients=4)]
)
@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (64,)])
def test_what_is_packed_comes_back_bit_by_bit(coder: SeedLM, shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(4).normal(0, 0.3, shape)
    whole = coder.encode(weights)
    packed = coder.pack(whole)
    blocks = -(-weights.size // coder.block)
    assert len(packed) == -(-blocks * (coder.bits + 4 + 4 * coder.coefficients) // 8)
    again = coder.unpack(packed, whole.shape, whole.scale)
    for name in ("seeds", "exponents", "mantissas"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))
    assert np.array_equal(coder.decode(whole), coder.decode(again))
    assert coder.decode(again).shape == shape


def test_a_block_is_coded_alike_in_any_company() -> None:
    weights = np.random.default_rng(5).normal(0, 0.2, (40, 4))
    together = SMALL._search(weights)
    alone = [SMALL._search(block[None]) for block in weights]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(part, np.concatenate(parts))


def test_zeros_stay_zeros() -> None:
    whole = SMALL.encode(np.zeros((3, 4)))
    assert whole.seeds.tolist() == [1, 1, 1]
    assert not SMALL.decode(whole).any()


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="finite"):
        SMALL.encode(np.array([1.0, np.nan]))
    with pytest.raises(InvalidRequest, match="bits"):
        SeedLM(bits=17)
    packed = SMALL.pack(SMALL.encode(W))
    with pytest.raises(VaultDamaged, match="bytes"):
        SMALL.unpack(packed[:-1], (4,), 1.0)
    with pytest.raises(VaultDamaged, match="zero"):
        SMALL.unpack(b"\0" * len(packed), (4,), 1.0)
