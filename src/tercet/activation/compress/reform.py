"""REFORM: find the tokens that a question is about by the model's own states, and compute only those anew
(Song et al. 2025, arXiv 2506.01215).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tercet.activation.compress.base import LayerView, edges, highest
from tercet.errors import InvalidRequest

Head = tuple[int, int, Literal["key", "value"]]
"""Layer, key/value head, and which state of it."""


@dataclass(frozen=True)
class Reform:
    """e_t = states of a few heads at t, each of norm one, side by side; r_t = max over the question of cos(e_t, e_q).

    r is spread to `reach` neighbours on either side by its maximum; the `budget` best tokens are kept, and always the
    first and last `ends`. Keys are compared before RoPE, so that where a token stood does not count. A stored KV cache
    has all that is needed: no text is read again to find the tokens.
    """

    heads: tuple[Head, ...]
    reach: int = 64
    ends: int = 256

    def embed(self, layers: Sequence[LayerView]) -> Tensor:
        """(T, heads * d) float32. Raises InvalidRequest for a head that the model does not have."""
        parts = [self._states(layers, head) for head in self.heads]
        return torch.cat([torch.nn.functional.normalize(part.float(), dim=-1) for part in parts], dim=-1)

    def gather(self, context: Tensor, question: Tensor, budget: int) -> Tensor:
        """(n,) tokens of the context to keep, rising, n = min(budget, T), or what `ends` alone make."""
        near = torch.nn.functional.normalize(context, dim=-1) @ torch.nn.functional.normalize(question, dim=-1).T
        spread = spread_maximum(near.max(dim=1).values, self.reach)
        ends = min(self.ends, budget // 4)
        return highest(spread[None], budget, edges(len(spread), first=ends, last=ends))[0]

    def _states(self, layers: Sequence[LayerView], head: Head) -> Tensor:
        layer, number, kind = head
        view = next((one for one in layers if one.layer == layer), None)
        if view is None or not 0 <= number < len(view.keys):
            raise InvalidRequest(f"The model has no head {number} in layer {layer} that sees all tokens.")
        if kind == "value":
            return view.values[number]
        if view.turn is None:
            raise InvalidRequest("Keys are compared before RoPE: the view must know how to turn them back.")
        return view.turn(view.keys[number].float(), -torch.arange(view.tokens))


def spread_maximum(values: Tensor, reach: int) -> Tensor:
    """(T,) the maximum over the neighbours up to `reach` away."""
    pooled: Tensor = torch.nn.functional.max_pool1d(values[None, None], 2 * reach + 1, stride=1, padding=reach)
    return pooled[0, 0]


def mean_normalised_rank(scores: Tensor, wanted: Tensor) -> float:
    """In [0, 1]: how far down the ranking (T,) the wanted tokens stand in the mean; 0 if they come first.

    By this the heads of `Reform` are chosen: those of least mean over samples whose answers are known.
    """
    ranks = scores.sort(descending=True, stable=True).indices.argsort()
    return float(ranks[wanted].double().mean() / max(len(scores) - 1, 1))
