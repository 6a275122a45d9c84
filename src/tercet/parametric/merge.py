"""Several adapters as one. Only `concatenated` is the exact weighted sum; the others say what they are instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from tercet.errors import InvalidRequest
from tercet.parametric.adapter import Adapter, Pair

Weighted = Sequence[tuple[Adapter, float]]
Deltas = Callable[[Sequence[Tensor]], Tensor]


def concatenated(parts: Weighted) -> Adapter:
    """sum_i w_i delta_i, exactly: A's stacked, B's side by side; ranks add up. Weights may be negative."""
    return Adapter({module: _stacked(pairs) for module, pairs in _by_module(parts).items()})


def truncated(parts: Weighted, *, rank: int) -> tuple[Adapter, float]:
    """The best rank-`rank` approximation of the sum in each module, and the Frobenius norm of all that is left out.

    By QR of the stacked sides and a decomposition of the small core; out x in is never formed.
    """
    if rank < 1:
        raise InvalidRequest(f"A merge keeps at least rank 1, not {rank}.")
    made, lost = {}, 0.0
    for module, pairs in _by_module(parts).items():
        whole = _stacked(pairs)
        left, right = torch.linalg.qr(whole.b.double()), torch.linalg.qr(whole.a.double().T)
        u, singular, v = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
        made[module] = _balanced(left.Q @ u, singular, v @ right.Q.T, rank)
        lost += float(singular[rank:].square().sum())
    return Adapter(made), lost**0.5


def linear(parts: Weighted) -> Adapter:
    """A = sum sqrt(|w_i s_i|) A_i, B likewise with the sign: NOT the sum, since its product has cross terms.

    For adapters that began alike and share a subspace. Raises InvalidRequest for different ranks.
    """
    made = {}
    for module, pairs in _by_module(parts).items():
        if len({pair.rank for pair, _ in pairs}) > 1:
            raise InvalidRequest(f"linear adds A to A and B to B: {module} has different ranks; concatenate instead.")
        weights = [(pair, weight * pair.scale) for pair, weight in pairs]
        a = sum(abs(w) ** 0.5 * pair.a.float() for pair, w in weights)
        b = sum((-1 if w < 0 else 1) * abs(w) ** 0.5 * pair.b.float() for pair, w in weights)
        made[module] = Pair(torch.as_tensor(a), torch.as_tensor(b))
    return Adapter(made)


def ties(parts: Weighted, *, rank: int, density: float = 0.2, scale: float = 1.0) -> Adapter:
    """TIES (Yadav et al. 2023, 2306.01708) over deltas: trim each to its greatest entries, elect a sign, average those.

    A mean, not a sum: of tasks that agree with the sign of the summed trimmed values and are not zero there.
    """
    _share("density", density)

    def merged(deltas: Sequence[Tensor]) -> Tensor:
        return scale * elected([trimmed(delta, density) for delta in deltas])

    return _over_deltas(parts, merged, rank)


def dare(parts: Weighted, *, rank: int, density: float = 0.5, seed: int = 0) -> Adapter:
    """DARE (Yu et al. 2024, 2311.03099) over deltas: entries kept with probability `density` and divided by it, summed.

    Its expectation is the sum. Random from `seed` alone.
    """
    _share("density", density)
    draw = torch.Generator().manual_seed(seed)

    def merged(deltas: Sequence[Tensor]) -> Tensor:
        return torch.stack([dropped(delta, density, draw) for delta in deltas]).sum(dim=0)

    return _over_deltas(parts, merged, rank)


MERGES: Mapping[str, Callable[..., Adapter]] = MappingProxyType(
    {
        "concatenate": concatenated,
        "svd": lambda parts, *, rank: truncated(parts, rank=rank)[0],
        "linear": linear,
        "ties": ties,
        "dare": dare,
    }
)
"""Name -> merge of (adapter, weight) pairs."""


def trimmed(delta: Tensor, density: float) -> Tensor:
    """The share `density` of entries that are greatest in magnitude, the others zero; of equals the earlier stays."""
    keep = max(1, round(density * delta.numel()))
    order = delta.abs().flatten().sort(descending=True, stable=True).indices[:keep]
    return torch.zeros_like(delta).flatten().index_copy(0, order, delta.flatten()[order]).view_as(delta)


def elected(deltas: Sequence[Tensor]) -> Tensor:
    """At each entry the mean of those that are not zero and have the sign of the sum of all."""
    stacked = torch.stack(list(deltas))
    agree = (stacked.sign() == stacked.sum(dim=0).sign()) & (stacked != 0)
    return (stacked * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def dropped(delta: Tensor, density: float, draw: torch.Generator) -> Tensor:
    """Entries kept with probability `density`, divided by it."""
    return delta * (torch.rand(delta.shape, generator=draw) < density) / density


def _over_deltas(parts: Weighted, merged: Deltas, rank: int) -> Adapter:
    made = {}
    for module, pairs in _by_module(parts).items():
        delta = merged([weight * pair.delta() for pair, weight in pairs])
        u, singular, v = torch.linalg.svd(delta.double(), full_matrices=False)
        made[module] = _balanced(u, singular, v, rank)
    return Adapter(made)


def _balanced(u: Tensor, singular: Tensor, v: Tensor, rank: int) -> Pair:
    root = singular[:rank].sqrt()
    return Pair((root[:, None] * v[:rank]).float(), (u[:, :rank] * root).float())


def _stacked(pairs: Sequence[tuple[Pair, float]]) -> Pair:
    a = torch.cat([weight * pair.scale * pair.a.float() for pair, weight in pairs])
    return Pair(a, torch.cat([pair.b.float() for pair, _ in pairs], dim=1))


def _by_module(parts: Weighted) -> dict[str, list[tuple[Pair, float]]]:
    """Each module's pairs; an adapter without a module adds nothing there. Raises InvalidRequest for other shapes."""
    if not parts:
        raise InvalidRequest("There is nothing to merge.")
    found: dict[str, list[tuple[Pair, float]]] = {}
    for adapter, weight in parts:
        for module, pair in adapter.modules.items():
            found.setdefault(module, []).append((pair, weight))
    for module, pairs in found.items():
        if len({(len(pair.b), pair.a.shape[1]) for pair, _ in pairs}) > 1:
            raise InvalidRequest(f"The adapters are for different bases: {module} has different shapes.")
    return dict(sorted(found.items()))


def _share(what: str, value: float) -> None:
    if not 0 < value <= 1:
        raise InvalidRequest(f"{what} is above 0 and at most 1, not {value!r}.")
