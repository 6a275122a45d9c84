"""TOVA: what the last token attends to, the same rows for all heads (Oren et al. 2024, arXiv 2401.06104)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tercet.activation.compress.base import LayerView, Uniform, edges, highest, window_attention


@dataclass(frozen=True)
class Tova(Uniform):
    """score_t = attention of the last query to t, mean over all heads. The last token always stays."""

    sees_queries: ClassVar[bool] = True

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        scores = window_attention(layer, 1)[:, 0].mean(dim=0)
        return highest(scores.expand(len(layer.keys), -1), budget, edges(layer.tokens, last=1))
