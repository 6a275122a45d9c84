"""What every compressor of KV caches promises, as a test class: subclass it and give `compressor`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tercet.activation.compress.base import Compressor, LayerView


def rotate(rows: Tensor, positions: Tensor) -> Tensor:
    """RoPE as Llama has it: halves of each row (..., n, d) turned by position * 10000^(-2i/d)."""
    half = rows.shape[-1] // 2
    angles = positions[:, None].to(rows) * 10_000.0 ** (-torch.arange(half).to(rows) / half)
    cos, sin = angles.cos(), angles.sin()
    first, second = rows[..., :half], rows[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def layers_of(tokens: int, *, layers: int = 3, heads: int = 2, groups: int = 3, width: int = 8) -> list[LayerView]:
    """Seeded views of a small model's layers."""
    draw = torch.Generator().manual_seed(tokens)

    def some(count: int) -> Tensor:
        return torch.randn(count, tokens, width, generator=draw)

    at = torch.arange(tokens)
    return [
        LayerView(
            i, layers, rotate(some(heads), at), some(heads), width**-0.5, rotate(some(heads * groups), at), rotate
        )
        for i in range(layers)
    ]


class CompressorTests:
    """Rows that exist, rise and number what was asked for; nothing written to; the same answer twice."""

    @pytest.fixture
    def compressor(self) -> Compressor:
        """The compressor under test."""
        raise NotImplementedError

    def least(self, compressor: Compressor, layer: LayerView) -> int:
        """How many rows it keeps whatever the budget."""
        return int((compressor.keep(layer, 1) >= 0).sum(dim=1).max())

    @pytest.mark.parametrize("tokens", [1, 3, 40, 300])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_rows_are_there_rise_and_number_the_budget(self, compressor: Compressor, tokens: int, share: float) -> None:
        """H * budget rows in all, unless some must stay anyway."""
        layer = layers_of(tokens)[1]
        budget = max(1, int(share * tokens))
        rows = compressor.keep(layer, budget)
        assert rows.dtype == torch.int64
        kept = [head[head >= 0] for head in rows]
        assert all((head[1:] > head[:-1]).all() and head.max() < tokens for head in kept)
        assert all((head[len(one) :] == -1).all() for head, one in zip(rows, kept, strict=True))
        wanted = max(budget, self.least(compressor, layer))
        assert sum(map(len, kept)) == len(layer.keys) * wanted

    @pytest.mark.parametrize("budget", [40, 41, 1000])
    def test_a_budget_for_all_keeps_all(self, compressor: Compressor, budget: int) -> None:
        """The identity, so that a cache that fits is never touched."""
        rows = compressor.keep(layers_of(40)[0], budget)
        assert torch.equal(rows, torch.arange(40).expand(2, -1))

    def test_budgets_share_out_what_there_is(self, compressor: Compressor) -> None:
        """Over all layers no more rows than a uniform budget has, and none of a layer negative."""
        layers = layers_of(120, layers=5)
        for budget in (1, 17, 60, 120, 500):
            given = compressor.budgets(layers, budget)
            assert len(given) == 5
            assert min(given) >= 0
            assert sum(given) <= 5 * budget

    def test_nothing_that_is_seen_is_changed(self, compressor: Compressor) -> None:
        """The stored cache may be a view of a file."""
        [layer] = layers_of(60, layers=1)
        before = [tensor.clone() for tensor in (layer.keys, layer.values, layer.queries) if tensor is not None]
        first = compressor.keep(layer, 20)
        after = [tensor for tensor in (layer.keys, layer.values, layer.queries) if tensor is not None]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        assert torch.equal(first, compressor.keep(layer, 20))

    def test_it_asks_for_the_queries_it_reads(self, compressor: Compressor) -> None:
        """One that says it needs none works without any."""
        [layer] = layers_of(60, layers=1)
        if not compressor.sees_queries:
            without = replace(layer, queries=None, turn=None)
            assert torch.equal(compressor.keep(layer, 20), compressor.keep(without, 20))
        else:
            with pytest.raises(AssertionError):
                compressor.keep(replace(layer, queries=None, turn=None), 20)
