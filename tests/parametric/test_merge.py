"""Merges against the exact sum of the deltas: which ones are it, and how far the others are."""

from __future__ import annotations

import pytest
import torch

from tercet.errors import InvalidRequest
from tercet.parametric.adapter import Adapter, Pair
from tercet.parametric.merge import MERGES, Weighted, concatenated, dare, elected, linear, ties, trimmed, truncated


def one(rank: int, seed: int, scale: float = 1.0, name: str = "m") -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: Pair(torch.randn(rank, 9, generator=draw), torch.randn(7, rank, generator=draw), scale)})


def total(parts: Weighted) -> torch.Tensor:
    return torch.stack([weight * adapter.modules["m"].delta() for adapter, weight in parts]).sum(dim=0)


MIXED: Weighted = [(one(2, 0, 2.0), 0.7), (one(3, 1, 0.5), -1.3), (one(1, 2), 1.0)]


def test_concatenation_is_the_sum_with_any_ranks_scales_and_signs() -> None:
    merged = concatenated(MIXED)
    assert merged.rank == 6
    assert torch.allclose(merged.modules["m"].delta(), total(MIXED), atol=1e-5)


def test_subtracting_an_adapter_takes_it_out_again() -> None:
    a, b = one(2, 0), one(2, 1)
    back = concatenated([(concatenated([(a, 1), (b, 1)]), 1), (b, -1)])
    assert torch.allclose(back.modules["m"].delta(), a.modules["m"].delta(), atol=1e-5)


def test_a_truncation_of_full_rank_is_the_sum_and_else_says_what_it_lost() -> None:
    whole, lost = truncated(MIXED, rank=6)
    assert torch.allclose(whole.modules["m"].delta(), total(MIXED), atol=1e-5)
    assert lost < 1e-6
    for rank in (1, 2, 4):
        merged, lost = truncated(MIXED, rank=rank)
        assert merged.rank == rank
        assert float((merged.modules["m"].delta() - total(MIXED)).norm()) == pytest.approx(lost, rel=1e-4)


def test_linear_is_not_the_sum() -> None:
    parts: Weighted = [(one(2, 0), 1.0), (one(2, 1), 1.0)]
    far = float((linear(parts).modules["m"].delta() - total(parts)).norm() / total(parts).norm())
    assert far > 0.3
    alone: Weighted = [(one(2, 0, 3.0), -0.5)]
    assert torch.allclose(linear(alone).modules["m"].delta(), total(alone), atol=1e-5)
    with pytest.raises(InvalidRequest, match="ranks"):
        linear(MIXED)


def test_ties_does_as_in_the_worked_example() -> None:
    first, second = torch.tensor([1, -2, 0.1, 3]), torch.tensor([-0.5, -1, 2, 0.2])
    assert trimmed(first, 0.5).tolist() == [0, -2, 0, 3]
    assert trimmed(second, 0.5).tolist() == [0, -1, 2, 0]
    assert elected([trimmed(first, 0.5), trimmed(second, 0.5)]).tolist() == [0, -1.5, 2, 3]


def test_ties_of_one_adapter_at_full_density_is_it() -> None:
    alone: Weighted = [(one(2, 0, 2.0), 1.0)]
    assert torch.allclose(ties(alone, rank=7, density=1).modules["m"].delta(), total(alone), atol=1e-5)


def test_dare_is_the_sum_in_the_mean_and_at_full_density() -> None:
    parts: Weighted = [(one(2, 0), 1.0), (one(2, 1), 0.5)]
    assert torch.allclose(dare(parts, rank=7, density=1).modules["m"].delta(), total(parts), atol=1e-4)
    draws = torch.stack([dare(parts, rank=7, seed=seed).modules["m"].delta() for seed in range(400)])
    error = draws.std(dim=0) / 400**0.5
    assert ((draws.mean(dim=0) - total(parts)).abs() < 4.5 * error + 1e-4).all()
    again = dare(parts, rank=7, seed=3).modules["m"].delta()
    assert torch.equal(again, draws[3])


def test_modules_that_one_adapter_lacks_are_the_others() -> None:
    merged = concatenated([(one(2, 0, name="a"), 1.0), (one(2, 1, name="b"), 2.0)])
    assert set(merged.modules) == {"a", "b"}
    assert torch.allclose(merged.modules["b"].delta(), 2 * one(2, 1, name="b").modules["b"].delta(), atol=1e-5)


@pytest.mark.parametrize("name", MERGES)
def test_nothing_and_different_bases_are_refused(name: str) -> None:
    options = {"svd": {"rank": 2}, "ties": {"rank": 2}, "dare": {"rank": 2}}.get(name, {})
    with pytest.raises(InvalidRequest, match="nothing"):
        MERGES[name]([], **options)
    other = Adapter({"m": Pair(torch.zeros(2, 5), torch.zeros(7, 2))})
    with pytest.raises(InvalidRequest, match="bases"):
        MERGES[name]([(one(2, 0), 1.0), (other, 1.0)], **options)


def test_shares_out_of_range_are_refused() -> None:
    for density in (0, 1.5):
        with pytest.raises(InvalidRequest, match="density"):
            ties(MIXED, rank=2, density=density)
        with pytest.raises(InvalidRequest, match="density"):
            dare(MIXED, rank=2, density=density)
    with pytest.raises(InvalidRequest, match="rank"):
        truncated(MIXED, rank=0)
