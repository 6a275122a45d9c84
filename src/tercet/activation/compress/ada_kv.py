"""AdaKV: one budget a layer, shared out over its heads by what each would lose (Feng et al. 2024, arXiv 2407.11550)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tercet.activation.compress.base import LayerView, edges
from tercet.activation.compress.snap_kv import SnapKV


@dataclass(frozen=True)
class AdaKV:
    """The rows of the H * budget greatest scores of a layer, whichever head they are of.

    Scores are `inner`'s, each head's summing to one; every head keeps at least `floor` of the budget, and the window.
    """

    inner: SnapKV = field(default_factory=SnapKV)
    floor: float = 0.2

    sees_queries: ClassVar[bool] = True

    def budgets(self, layers: Sequence[LayerView], budget: int) -> list[int]:
        """The same for each layer."""
        return self.inner.budgets(layers, budget)

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        scores = self.inner.scores(layer)
        heads, tokens = scores.shape
        window = edges(tokens, last=self.inner.window)
        budget = min(max(budget, int(window.sum())), tokens)
        scores = (scores / scores.sum(dim=1, keepdim=True)).masked_fill(window, torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True).indices
        sure = order[:, : max(int(self.floor * budget), int(window.sum()))]
        scores = scores.scatter(1, sure, torch.inf)
        kept = torch.zeros(heads * tokens, dtype=torch.bool)
        kept[scores.flatten().sort(descending=True, stable=True).indices[: heads * budget]] = True
        return _ragged(kept.view(heads, tokens))


def _ragged(kept: Tensor) -> Tensor:
    """(H, T) bool to (H, n) rows, -1 behind."""
    counts = kept.sum(dim=1)
    at = torch.arange(int(counts.max()))
    rows = kept.int().sort(dim=1, descending=True, stable=True).indices[:, : len(at)]
    return rows.masked_fill(at >= counts[:, None], -1)
