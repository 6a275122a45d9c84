"""Expected attention: what queries still to come would attend to, if they are like those seen (arXiv 2510.00636)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tercet.activation.compress.base import LayerView, Uniform, by_head, edges, highest


@dataclass(frozen=True)
class ExpectedAttention(Uniform):
    """score_t = softmax_t(c k_t.Rm + c^2 k_t'RSR'k_t / 2) |v_t|, mean over the query heads of a key/value head.

    m and S are mean and covariance of the queries before RoPE, the first `sinks` left out; R is the mean rotation over
    the next `ahead` positions; c is the attention's scaling. The first `sinks` rows always stay.
    """

    sinks: int = 4
    ahead: int = 512

    sees_queries: ClassVar[bool] = True

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        return highest(self.scores(layer), budget, edges(layer.tokens, first=self.sinks))

    def scores(self, layer: LayerView) -> Tensor:
        """(H, T)."""
        assert layer.queries is not None, "declared in sees_queries"  # noqa: S101  # our own caller
        assert layer.turn is not None, "comes with queries"  # noqa: S101
        width = layer.queries.shape[-1]
        plain = layer.turn(layer.queries.float(), -torch.arange(layer.tokens))[:, min(self.sinks, layer.tokens - 1) :]
        mean = plain.mean(dim=1)
        apart = plain - mean[:, None]
        spread = apart.transpose(1, 2) @ apart / max(plain.shape[1] - 1, 1)
        coming = torch.arange(layer.tokens, layer.tokens + self.ahead)
        # Rows of the identity, each at every coming position: their mean is R' (a row vector is turned by it).
        turned = layer.turn(torch.eye(width)[:, None].expand(-1, self.ahead, -1), coming).mean(dim=1)
        mean, spread = mean @ turned, turned.T @ spread @ turned
        keys = layer.keys.float().repeat_interleave(layer.groups, dim=0)
        linear = (keys @ mean[:, :, None])[..., 0] * layer.scaling
        square = ((keys @ spread) * keys).sum(dim=-1) * layer.scaling**2 / 2
        expected = by_head((linear + square).softmax(dim=-1), layer.groups)
        weighed: Tensor = expected * torch.linalg.vector_norm(layer.values.float(), dim=-1)
        return weighed
