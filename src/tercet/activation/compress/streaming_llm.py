"""StreamingLLM: the first tokens, which soak up attention, and the newest (Xiao et al. 2024, arXiv 2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tercet.activation.compress.base import LayerView, Uniform, edges, highest


@dataclass(frozen=True)
class StreamingLLM(Uniform):
    """Keep the first `sinks` rows and the newest."""

    sinks: int = 4

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        ages = edges(layer.tokens, last=max(budget - self.sinks, 0)).float()
        return highest(ages.expand(len(layer.keys), -1), budget, edges(layer.tokens, first=self.sinks))
