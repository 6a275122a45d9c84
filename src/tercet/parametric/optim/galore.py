"""GaLore: Adam's moments in a low-rank subspace of the gradient (Zhao et al. 2024, arXiv 2403.03507)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tercet.errors import InvalidRequest
from tercet.parametric.optim.base import Named, ProjectedOptimizer, adam, positive, seed_of

OVERSAMPLE, POWERS = 8, 2


@dataclass(frozen=True)
class GaLore:
    """For a matrix G of gradients (m x n, m <= n; else transposed): R = P'G, N = Adam(R), W -= lr * scale * P N.

    P (m x rank) holds the leading left singular vectors of G, taken anew every `gap` steps, each matrix at a step of
    its own (by its name) so that no step pays for all. Moments are neither turned nor reset when P changes.

    Attributes
    ----------
    scale:
        alpha of the paper; 0.25 for pre-training, 4 for its fine-tuning on GLUE.
    thin:
        A matrix whose lesser side is below `thin` ranks is left to plain Adam, as are all that are no matrix.
    svd:
        "random": a randomised decomposition with 8 more columns and 2 power iterations; "exact".
    record:
        Keep what each subspace has moved, so that `export` can give the whole change as a LoRA.
    """

    lr: float = 0.01
    rank: int = 128
    gap: int = 200
    scale: float = 0.25
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    thin: float = 2.0
    svd: Literal["random", "exact"] = "random"
    record: bool = False

    def optimizer(self, named: Named) -> GaLoreOptimizer:
        """The optimiser over these parameters. Raises InvalidRequest for a rank or gap below 1, or a recorded decay."""
        positive("rank", self.rank)
        positive("gap", self.gap)
        if self.record and self.weight_decay:
            raise InvalidRequest("A change with weight decay in it is no low-rank sum: record without weight_decay.")
        return GaLoreOptimizer(named, asdict(self))


class GaLoreOptimizer(ProjectedOptimizer):
    """See `GaLore`."""

    def within(self, name: str, state: dict[str, Any], wide: Tensor, options: dict[str, Any]) -> Tensor | None:
        """`scale` * P N."""
        if not self._projected(name, state, wide, options):
            return None
        basis = state["basis"]
        inner = adam(state, basis.T @ wide, options["betas"], options["eps"]) * options["scale"]
        if options["record"]:
            state["moved"][-1].add_(inner, alpha=-options["lr"])
        change: Tensor = basis @ inner
        return change

    def export(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """(B, A) with B A equal to all that a recorded matrix has moved: rank * refreshes columns of B.

        Raises InvalidRequest if the parameter was not recorded.
        """
        state = self.state.get(parameter, {})
        if "moved" not in state:
            raise InvalidRequest("This parameter's moves were not recorded: use GaLore(record=True), on a wide matrix.")
        bases, moved = torch.cat(state["bases"], dim=1), torch.cat(state["moved"])
        return (moved.T, bases.T) if parameter.shape[0] > parameter.shape[1] else (bases, moved)

    def _projected(self, name: str, state: dict[str, Any], wide: Tensor, options: dict[str, Any]) -> bool:
        """Take the subspace anew where it is due; False while there is none, since no gradient had a direction yet."""
        step, known = state.get("step", 0), "basis" in state
        if known and (step == 0 or (step + seed_of(name)) % options["gap"]):
            return True
        if not wide.any():
            return known
        rank = min(options["rank"], len(wide))
        state["basis"] = leading(wide, rank, exact=options["svd"] == "exact", seed=seed_of(name, step))
        if options["record"]:
            state.setdefault("bases", []).append(state["basis"])
            state.setdefault("moved", []).append(wide.new_zeros(rank, wide.shape[1]))
        return True


def leading(matrix: Tensor, rank: int, *, exact: bool, seed: int = 0) -> Tensor:
    """(m, rank) orthonormal columns that span the leading left singular subspace of (m, n).

    The randomised way is Halko, Martinsson and Tropp's (2011) with power iterations; it draws from `seed` alone.
    """
    full = matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
    width = min(rank + OVERSAMPLE, *full.shape)
    if exact or width == min(full.shape):
        basis: Tensor = torch.linalg.svd(full, full_matrices=False).U[:, :rank]
    else:
        draw = torch.Generator().manual_seed(seed)
        sketch = torch.randn(full.shape[1], width, generator=draw, dtype=torch.float64).to(full)
        span = torch.linalg.qr(full @ sketch).Q
        for _ in range(POWERS):
            span = torch.linalg.qr(full @ torch.linalg.qr(full.T @ span).Q).Q
        basis = span @ torch.linalg.svd(span.T @ full, full_matrices=False).U[:, :rank]
        basis = torch.linalg.qr(basis).Q
    return basis.to(matrix.dtype).contiguous()
