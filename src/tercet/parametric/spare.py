"""Directions that general text hardly uses: what is taught is held to them, so that little else moves.

AlphaEdit (Fang et al. 2024, 2410.02355) projects a finished edit onto the null space of what is to be preserved. Here
the projection is soft and stands while an adapter is trained: a pair's first matrix is A = A' P, where

    P = lambda (C + lambda I)^-1,  C = mean of x x^T over a module's inputs x on general text,
    lambda = strength * median of C's diagonal,

so that a direction of variance v there keeps the share lambda / (lambda + v). A' is what the optimiser has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tercet.parametric.examples import Example, Read

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine
    from tercet.parametric.adapter import Pair


class Spared:
    """The pairs in training whose first matrix is A' P: gradients are drawn from A to A', values put from A' into A.

    Without shades all of it does nothing, and A' is A.
    """

    def __init__(self, pairs: Mapping[str, Pair], shades: Mapping[str, Tensor]) -> None:
        self._shaded = {name: (torch.nn.Parameter(pairs[name].a.detach().clone()), pairs[name].a, shade)
                        for name, shade in shades.items()}  # fmt: skip
        self._pairs = pairs
        self.put()

    @property
    def named(self) -> list[tuple[str, Tensor]]:
        """What the optimiser has, module by module: A' and B."""
        first = {name: free for name, (free, _, _) in self._shaded.items()}
        return [one for name, pair in self._pairs.items()
                for one in ((f"{name}.A", first.get(name, pair.a)), (f"{name}.B", pair.b))]  # fmt: skip

    def draw(self) -> None:
        """dL/dA' = dL/dA P, and A's own gradient is gone."""
        for free, a, shade in self._shaded.values():
            free.grad, a.grad = None if a.grad is None else a.grad @ shade, None

    def put(self) -> None:
        """A = A' P."""
        with torch.no_grad():
            for free, a, shade in self._shaded.values():
                torch.mm(free, shade, out=a.data)


def shades(
    engine: AdapterEngine, modules: Collection[str], general: Sequence[Example], read: Read, strength: float
) -> dict[str, Tensor]:
    """P of each module, (in, in) float32, from general text as the base reads it; those of one input share theirs."""
    found = moments(engine, modules, general, read)
    made = {id(c): _shade(c, strength) for c in {id(c): c for c in found.values()}.values()}
    return {name: made[id(c)] for name, c in found.items()}


def moments(
    engine: AdapterEngine, modules: Collection[str], general: Sequence[Example], read: Read
) -> dict[str, Tensor]:  # fmt: skip
    """C of each module, (in, in) float32. Modules that are given the same tensor have the same one."""
    sums, leader = dict[str, Tensor](), dict[str, str]()
    last: tuple[Tensor | None, str] = (None, "")

    def seen(name: str, x: Tensor) -> None:
        nonlocal last
        if x is last[0]:
            leader[name] = last[1]
            return
        last = (x, name)
        rows = x.reshape(-1, x.shape[-1]).float()
        sums[name] = sums[name].addmm_(rows.T, rows) if name in sums else rows.T @ rows

    with engine.adapters.watching(modules, seen), torch.no_grad():
        for one in general:
            read([one])
    count = sum(len(one.tokens) for one in general)
    means = {name: total / count for name, total in sums.items()}
    return {name: means[leader.get(name, name)] for name in modules}


def _shade(c: Tensor, strength: float) -> Tensor:
    ridge = strength * c.diagonal().median().clamp_min(torch.finfo(c.dtype).tiny)
    whole = c + ridge * torch.eye(len(c))
    return ridge * torch.cholesky_inverse(torch.linalg.cholesky(whole))
