"""SnapKV: what the last tokens attend to (Li et al. 2024, arXiv 2404.14469)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tercet.activation.compress.base import LayerView, Uniform, by_head, edges, highest, smooth, window_attention


@dataclass(frozen=True)
class SnapKV(Uniform):
    """score_t = mean over the last `window` queries of their attention to t, smoothed over `kernel` neighbours.

    The window itself always stays.
    """

    window: int = 64
    kernel: int = 5

    sees_queries: ClassVar[bool] = True

    def scores(self, layer: LayerView) -> Tensor:
        """(H, T)."""
        return by_head(smooth(window_attention(layer, self.window).mean(dim=1), self.kernel), layer.groups)

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        return highest(self.scores(layer), budget, edges(layer.tokens, last=self.window))
