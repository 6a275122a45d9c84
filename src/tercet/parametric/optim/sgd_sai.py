"""SGD-SaI: SGD with momentum and one step size a tensor, set by the first gradient (Xu et al. 2024, 2412.11768)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tercet.errors import InvalidRequest
from tercet.parametric.optim.base import Named, NamedOptimizer

TINY = 1e-8
CAP = 10.0
"""A scale above this many times sqrt(N) comes from entries that are all alike, not from a signal."""


@dataclass(frozen=True)
class SgdSai:
    """g_snr = |g| / (std(g) + 1e-8) at a tensor's first gradient that is not zero; b <- mu b + (1 - mu) g, b_0 = g;
    W <- W (1 - lr * weight_decay) - lr * g_snr * b.

    Of N entries with mean 0, g_snr is sqrt(N - 1): in effect the learning rate grows with the root of a tensor's size.
    It departs from the authors' code where that breaks: the scale is measured when there is a gradient to measure
    (theirs leaves LoRA's A untrained, whose first gradient is zero), is 1 for a single entry, at most 10 sqrt(N), and
    is kept in the state.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01

    def optimizer(self, named: Named) -> SgdSaiOptimizer:
        """The optimiser over these parameters. Raises InvalidRequest for a momentum outside [0, 1)."""
        if not 0 <= self.momentum < 1:
            raise InvalidRequest(f"momentum must be at least 0 and below 1, not {self.momentum!r}.")
        return SgdSaiOptimizer(named, asdict(self))


class SgdSaiOptimizer(NamedOptimizer):
    """See `SgdSai`."""

    decay_first = True

    def direction(self, name: str, parameter: Tensor, gradient: Tensor, options: dict[str, Any]) -> Tensor | None:  # noqa: ARG002  # the base's shape
        """g_snr * b."""
        state = self.state[parameter]
        if "scale" not in state:
            if not gradient.any():
                return None
            state["scale"], state["momentum"] = signal_to_noise(gradient), gradient.clone()
        state["momentum"].lerp_(gradient, 1 - options["momentum"])
        change: Tensor = state["momentum"] * state["scale"]
        return change


def signal_to_noise(gradient: Tensor) -> float:
    """|g| / (std(g) + 1e-8), the deviation unbiased, over all entries; at most 10 sqrt(N), and 1 for one entry."""
    count = gradient.numel()
    if count == 1:
        return 1.0
    exact = gradient.double()
    found = float(torch.linalg.vector_norm(exact) / (exact.std() + TINY))
    return min(found, CAP * math.sqrt(count))
