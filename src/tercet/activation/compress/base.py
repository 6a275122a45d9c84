"""What a compressor of KV caches sees and promises, and the arithmetic that several share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerView:
    """What a compressor sees of one attention layer of T tokens; all tensors on the CPU, none may be written to.

    keys, values: (H, T, d), keys after RoPE at positions 0..T-1. queries: (G * H, T, d), after RoPE, head h belonging
    to key/value head h // G; None unless the compressor asked for them. scaling: what q . k is multiplied by before the
    softmax. turn: rotates rows (..., n, d) by positions (n,), negative ones back. layer, layers: which one of how many.
    """

    layer: int
    layers: int
    keys: Tensor
    values: Tensor
    scaling: float
    queries: Tensor | None = None
    turn: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.keys.shape[1])

    @property
    def groups(self) -> int:
        """G, query heads a key/value head."""
        return 1 if self.queries is None else int(self.queries.shape[0] // self.keys.shape[0])


class Compressor(Protocol):
    """A published method: its fields are its hyper-parameters."""

    sees_queries: ClassVar[bool]
    """Whether `LayerView.queries` must be there: the text is then prefilled once more for them."""

    def budgets(self, layers: Sequence[LayerView], budget: int) -> list[int]:
        """How many rows each layer may keep, where `budget` is the mean over layers. Sums to at most its multiple."""

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """Rows to keep: (H, n) int64, rising along each head, -1 behind where a head keeps fewer; all for budget >= T.

        n is the budget, unless the method always keeps more (its window, its first tokens).
        """


class Uniform:
    """For methods that give every layer the same budget."""

    sees_queries: ClassVar[bool] = False

    def budgets(self, layers: Sequence[LayerView], budget: int) -> list[int]:
        """The same for each."""
        return [budget] * len(layers)


def highest(scores: Tensor, budget: int, forced: Tensor | None = None) -> Tensor:
    """(H, n) rows of the greatest scores (H, T), rising; `forced` (T,) marks rows that stay whatever their score."""
    heads, tokens = scores.shape
    if forced is not None:
        scores = scores.masked_fill(forced, torch.inf)
        budget = max(budget, int(forced.sum()))
    if budget >= tokens:
        return torch.arange(tokens).expand(heads, tokens)
    # A stable sort, so that of equal scores the earlier row stays, on any machine.
    order = scores.sort(dim=1, descending=True, stable=True).indices
    return order[:, :budget].sort(dim=1).values


def edges(tokens: int, first: int = 0, last: int = 0) -> Tensor:
    """(T,) bool: the first and last few."""
    at = torch.arange(tokens)
    return (at < first) | (at >= tokens - last)


def window_attention(layer: LayerView, window: int) -> Tensor:
    """(G * H, w, T) attention of the last w = min(window, T) tokens, each over the tokens up to itself."""
    logits = window_logits(layer, window)
    return logits.softmax(dim=-1)


def window_logits(layer: LayerView, window: int) -> Tensor:
    """(G * H, w, T) scaled q . k of the last tokens in float32; minus infinity for what a token cannot see."""
    assert layer.queries is not None, "this compressor declares sees_queries"  # noqa: S101  # our own caller
    wide = min(window, layer.tokens)
    keys = layer.keys.float().repeat_interleave(layer.groups, dim=0)
    logits: Tensor = layer.queries[:, -wide:].float() @ keys.transpose(1, 2) * layer.scaling
    hidden = torch.arange(layer.tokens) > torch.arange(layer.tokens - wide, layer.tokens)[:, None]
    return logits.masked_fill(hidden, -torch.inf)


def by_head(values: Tensor, groups: int) -> Tensor:
    """(G * H, ...) to (H, ...): the mean over the query heads of each key/value head."""
    mean: Tensor = values.view(-1, groups, *values.shape[1:]).mean(dim=1)
    return mean


def smooth(scores: Tensor, kernel: int) -> Tensor:
    """(H, T) the mean over `kernel` neighbours (odd), those that there are."""
    pooled: Tensor = torch.nn.functional.avg_pool1d(
        scores[:, None], kernel, stride=1, padding=kernel // 2, count_include_pad=False
    )
    return pooled[:, 0]
