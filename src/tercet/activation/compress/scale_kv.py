"""ScaleKV: layers that look back widely get more rows, layers that refine fewer (Li et al. 2025, arXiv 2505.19602).

Made for image models that draw ever larger maps; here the newest tokens stand for the map that is being drawn, and all
before them for the earlier maps. Nobody has published it for text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tercet.activation.compress.base import (
    LayerView,
    by_head,
    edges,
    highest,
    smooth,
    window_attention,
    window_logits,
)


@dataclass(frozen=True)
class ScaleKV:
    """A layer's selectivity = mean attention kept on the window x mean attention on the `top` tokens before it.

    The `drafters` (a share) of least z-score over layers get what is left once each other layer, a refiner, has
    `refiner` of the mean budget: the sum over layers is that of a uniform policy. Within a layer a row's score is the
    attention that the window pays it, summed, smoothed over `kernel`; the window always stays.

    Attributes
    ----------
    score:
        "softmax" is the paper's; "logit_sum" what its released code sums.
    """

    window: int = 16
    kernel: int = 5
    top: int = 16
    drafters: float = 0.1
    refiner: float = 0.8
    score: Literal["softmax", "logit_sum"] = "softmax"

    sees_queries: ClassVar[bool] = True

    def budgets(self, layers: Sequence[LayerView], budget: int) -> list[int]:
        """Refiners' and drafters' budgets; a drafter's share beyond all its rows goes back to the refiners."""
        if len(layers) < 2:
            return [budget] * len(layers)
        selectivity = torch.tensor([self.selectivity(layer) for layer in layers])
        order = z_scores(selectivity).sort(stable=True).indices.tolist()
        several = max(1, round(self.drafters * len(layers)))
        return shared_out(order, several, budget, refiner=self.refiner, most=layers[0].tokens)

    def selectivity(self, layer: LayerView) -> float:
        """The attention selectivity index, in [0, 1]."""
        wide = min(self.window, layer.tokens)
        attention = window_attention(layer, wide).mean(dim=0)
        here, before = attention[:, -wide:].sum(dim=1), attention[:, :-wide]
        past = before.topk(min(self.top, before.shape[1]), dim=1).values.sum(dim=1)
        return float(here.mean() * past.mean())

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        seen = window_logits(layer, self.window)
        seen = seen.softmax(dim=-1) if self.score == "softmax" else seen.masked_fill(seen.isinf(), 0)
        scores = by_head(smooth(seen.sum(dim=1), self.kernel), layer.groups)
        return highest(scores, budget, edges(layer.tokens, last=self.window))


def z_scores(values: Tensor) -> Tensor:
    """(L,) with mean 0 and standard deviation 1; zeros where all are alike."""
    deviation = values.std(correction=0)
    return torch.zeros_like(values) if not deviation else (values - values.mean()) / deviation


def shared_out(order: Sequence[int], drafters: int, budget: int, *, refiner: float, most: int) -> list[int]:
    """Budgets by layer that sum to layers * budget, at most `most` each; the first `drafters` of `order` get more."""
    layers = len(order)
    budget = min(budget, most)
    given = [int(refiner * budget)] * layers
    left = layers * budget - sum(given)
    for place, layer in enumerate(order):  # drafters first; whatever they cannot hold goes on to the others in order
        waiting = max(drafters - place, 1)
        more = min(most - given[layer], -(-left // waiting) if place < drafters else left)
        given[layer] += more
        left -= more
    return given
