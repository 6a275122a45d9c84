"""AdamW and Adafactor, as torch has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from tercet.parametric.optim.base import Named


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): two moments an entry."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def optimizer(self, named: Named) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        return torch.optim.AdamW(list(named), **asdict(self))


@dataclass(frozen=True)
class Adafactor:
    """The second moment as an outer product of row and column means, no first (Shazeer and Stern 2018)."""

    lr: float = 1e-2
    weight_decay: float = 0.0

    def optimizer(self, named: Named) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        return torch.optim.Adafactor(list(named), **asdict(self))
