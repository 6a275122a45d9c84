"""APOLLO: the raw gradient, scaled by what Adam would do in a small projection (Zhu et al. 2025, arXiv 2412.05270).

Written from the paper's equations; the authors' code is under a non-commercial licence and was not used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tercet.parametric.optim.base import Named, ProjectedOptimizer, adam, positive, seed_of

TINY = 1e-8


@dataclass(frozen=True)
class Apollo:
    """For a matrix G of gradients (m x n, m <= n; else transposed): R = P G, N = Adam(R), W -= lr * sqrt(scale) * G s.

    s_j = |N_j| / |R_j| for each column j ("channel"), or |N| / |R| once ("tensor"). P (rank x m) has independent normal
    entries of variance 1 / rank; it is drawn from the parameter's name every `gap` steps and never kept. A limiter lets
    the norm of the scaled gradient grow by `growth` a step at most; None turns it off. Bias is corrected before the
    limiter looks: the other order makes the first steps dip to half their size.

    Attributes
    ----------
    thin:
        A matrix whose lesser side is below `thin` ranks is left to plain Adam, as are all that are no matrix.
    """

    lr: float = 0.01
    rank: int = 192
    scale: float = 1.0
    per: Literal["channel", "tensor"] = "channel"
    gap: int = 200
    growth: float | None = 1.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    thin: float = 2.0

    def optimizer(self, named: Named) -> ApolloOptimizer:
        """The optimiser over these parameters. Raises InvalidRequest for a rank, gap or scale that is not above 0."""
        for what in ("rank", "gap", "scale"):
            positive(what, getattr(self, what))
        return ApolloOptimizer(named, asdict(self))


@dataclass(frozen=True)
class ApolloMini(Apollo):
    """APOLLO with one row of projection and one factor a matrix: about the state of plain SGD without momentum."""

    rank: int = 1
    scale: float = 128.0
    per: Literal["channel", "tensor"] = "tensor"


class ApolloOptimizer(ProjectedOptimizer):
    """See `Apollo`."""

    def within(self, name: str, state: dict[str, Any], wide: Tensor, options: dict[str, Any]) -> Tensor:
        """sqrt(scale) * G s, limited."""
        drawn = self.projection(name, state.get("step", 0) // options["gap"], options["rank"], wide)
        small = drawn @ wide
        inner = adam(state, small, options["betas"], options["eps"])
        across = 0 if options["per"] == "channel" else None
        factor = torch.linalg.vector_norm(inner, dim=across) / (torch.linalg.vector_norm(small, dim=across) + TINY)
        scaled: Tensor = _limited(wide * factor, state, options["growth"]) * options["scale"] ** 0.5
        return scaled

    def projection(self, name: str, period: int, rank: int, wide: Tensor) -> Tensor:
        """(rank, m), the same on every machine: drawn in double precision on the CPU."""
        draw = torch.Generator().manual_seed(seed_of(name, period))
        normal: Tensor = torch.randn(rank, len(wide), generator=draw, dtype=torch.float64) / rank**0.5
        return normal.to(wide)


def _limited(scaled: Tensor, state: dict[str, Any], growth: float | None) -> Tensor:
    """The norm-growth limiter of Fira (Chen et al. 2024): |U_t| <= growth * |U_t-1|.

    A norm of zero is not kept: it would hold a tensor down for hundreds of steps whose first gradient is zero, as that
    of LoRA's A is.
    """
    if growth is None:
        return scaled
    norm = float(torch.linalg.vector_norm(scaled))
    before = state.get("norm", 0.0)
    if before > 0 and norm > growth * before:
        scaled, norm = scaled * (growth * before / norm), growth * before
    if norm > 0:
        state["norm"] = norm
    return scaled
