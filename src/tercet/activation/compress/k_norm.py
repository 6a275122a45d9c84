"""KNorm: keys of small norm draw attention, so they stay (Devoto et al. 2024, arXiv 2406.11430)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.activation.compress.base import LayerView, Uniform, highest


@dataclass(frozen=True)
class KNorm(Uniform):
    """score_t = -|k_t|."""

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """See `Compressor.keep`."""
        return highest(-torch.linalg.vector_norm(layer.keys.float(), dim=-1), budget)
