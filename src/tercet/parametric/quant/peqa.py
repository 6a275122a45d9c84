"""PEQA: only the scales of a frozen integer model are trained; a memory is a set of scales (Kim et al. 2023,
arXiv 2305.14152).

The integers are shared by every memory of a base. One memory is mounted at a time, by overwriting its scales
(0.3 to 3 MB of a model of 135M). Scales of groups of 64 hold facts too: a few were recalled whole, at a price in
general text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tercet.errors import InvalidRequest, VaultDamaged

SHRINKS = tuple(1 - step / 100 for step in range(51))
"""Parts of a group's range that are tried, 1.00 down to 0.50; the one of least squared error is taken."""
FLOOR = 1e-8
FORMAT = "peqa/1"
LEAST = 0.05
"""Of 1 + u: a scale that crossed zero would turn the sign of a whole row."""


@dataclass(frozen=True, eq=False)
class Quantised:
    """W ~ scale * (codes - zeros): codes (out, in) uint8; zeros and scales (out, groups)."""

    codes: Tensor
    zeros: Tensor
    scales: Tensor

    def weight(self) -> Tensor:
        """(out, in) float32."""
        return _weight(self.scales, self.codes, self.zeros)


@dataclass(frozen=True)
class Peqa:
    """q = clamp(round(W / s0) + z, 0, 2^bits - 1), frozen with z; trained is u in W^ = s0 (1 + u) (q - z), from u = 0.

    The paper trains s itself; relative to s0 one learning rate (1e-3 to 3e-3) fits all layers.

    Attributes
    ----------
    group:
        Consecutive inputs of a row that share a scale; None: the whole row.
    """

    bits: int = 4
    group: int | None = 64

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InvalidRequest(f"PEQA takes 1 to 8 bits, not {self.bits}.")

    def quantise(self, weight: Tensor) -> Quantised:
        """Codes of (out, in), by the least squared error a group among shrunken ranges.

        Raises InvalidRequest if the group does not divide the width, or a value is not finite.
        """
        rows, width = weight.shape
        group = self.group or width
        if width % group or not torch.isfinite(weight).all():
            raise InvalidRequest(f"{width} inputs, all finite, are cut in groups that divide it: not {group}.")
        values, top = weight.detach().float().view(rows, -1, group), 2**self.bits - 1
        low, high = values.amin(dim=-1).clamp(max=0), values.amax(dim=-1).clamp(min=0)
        best = torch.full_like(low, torch.inf)
        scales, zeros = torch.ones_like(low), torch.zeros_like(low)
        for part in SHRINKS:
            scale = ((high - low) * part / top).clamp(min=FLOOR)
            zero = (-low * part / scale).round().clamp(0, top)
            codes = _codes(values, scale, zero, top)
            error = ((codes - zero[..., None]) * scale[..., None] - values).square().sum(dim=-1)
            better = error < best
            best = torch.where(better, error, best)
            scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
        codes = _codes(values, scales, zeros, top).to(torch.uint8).view(rows, width)
        return Quantised(codes, zeros, scales)

    def attach(self, model: nn.Module, names: Sequence[str]) -> dict[str, ScaledLinear]:
        """Put quantised layers in the place of linear ones, freeze all else, and return them by name.

        Raises InvalidRequest if a name is no linear layer of the model; nothing is changed then.
        """
        found = {name: _linear(model, name) for name in names}
        made = {name: ScaledLinear(self.quantise(layer.weight), layer.bias) for name, layer in found.items()}
        model.requires_grad_(requires_grad=False)
        for name, layer in made.items():
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer)
            layer.relative.requires_grad_()
        return made


class ScaledLinear(nn.Module):  # type: ignore[misc, unused-ignore]
    """y = x W^' + b with W^ = s0 (1 + u) (q - z); `relative` is u (out, groups), the only parameter."""

    def __init__(self, quantised: Quantised, bias: Tensor | None) -> None:
        super().__init__()
        self.codes: Tensor
        self.zeros: Tensor
        self.scales: Tensor
        self.bias: Tensor | None
        self.register_buffer("codes", quantised.codes)
        self.register_buffer("zeros", quantised.zeros)
        self.register_buffer("scales", quantised.scales)
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.relative = nn.Parameter(torch.zeros_like(quantised.scales))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        scales = self.scales * (1 + self.relative).clamp(min=LEAST)
        y: Tensor = cast("Tensor", _Scaled.apply(x, scales, self.codes, self.zeros))  # type: ignore[no-untyped-call, unused-ignore]
        return y if self.bias is None else y + self.bias

    @property
    def fingerprint(self) -> str:
        """SHA-256 of codes, zeros and first scales: what a set of relative scales was trained for."""
        digest = hashlib.sha256()
        for part in (self.codes, self.zeros, self.scales):
            digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def mount(layers: Mapping[str, ScaledLinear], memory: Mapping[str, Tensor], fingerprints: Mapping[str, str]) -> None:
    """Overwrite the scales of layers by a memory's; all of them, or none.

    Raises
    ------
    InvalidRequest
        If the memory names other layers, was trained over other integers, or has a value that no scale can have.
    """
    if memory.keys() != layers.keys():
        raise InvalidRequest("These scales belong to other layers than this model's.")
    for name, layer in layers.items():
        if fingerprints.get(name) != layer.fingerprint:
            raise InvalidRequest(f"The scales of {name} were trained over other integers than this model has.")
        held = memory[name]
        if held.shape != layer.relative.shape or not torch.isfinite(held).all() or (1 + held <= 0).any():
            raise InvalidRequest(f"The scales of {name} have another shape, or are not finite and positive.")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.relative.copy_(memory[name])


def save(layers: Mapping[str, ScaledLinear], path: Path) -> int:
    """Keep the scales of layers as a memory: safetensors, u in fp16, and what integers they fit; returns its bytes.

    fp16 is fine enough for u, which is near zero, though not for the scales themselves.
    """
    told = {name: layer.fingerprint for name, layer in layers.items()}
    scales = {name: layer.relative.detach().half().contiguous() for name, layer in layers.items()}
    save_file(scales, path, metadata={"format": FORMAT, "fingerprints": json.dumps(told)})
    return path.stat().st_size


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A memory as `save` kept it, and its fingerprints: what `mount` takes. Raises VaultDamaged for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            prints = json.loads(told["fingerprints"])
            scales = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise VaultDamaged(f"{path.name} holds no set of scales: {error}.") from error
    if told.get("format") != FORMAT or not isinstance(prints, dict):
        raise VaultDamaged(f"{path.name} is no set of scales of the form {FORMAT}.")
    return scales, prints


class _Scaled(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Keeps x and the codes only: dL/ds of a group is the sum over it of dL/dW (q - z), the weight is made again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, codes: Tensor, zeros: Tensor) -> Tensor:  # noqa: ANN401  # torch's
        ctx.save_for_backward(x, scales, codes, zeros)
        return x @ _weight(scales, codes, zeros).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401  # torch's
        x, scales, codes, zeros = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        change = _centred(codes, zeros).mul_(outer.view(*scales.shape, -1)).sum(dim=-1)
        return gradient @ _weight(scales, codes, zeros), change, None, None


def _weight(scales: Tensor, codes: Tensor, zeros: Tensor) -> Tensor:
    return _centred(codes, zeros).mul_(scales[..., None]).view(codes.shape)


def _centred(codes: Tensor, zeros: Tensor) -> Tensor:
    """q - z, (out, groups, group)."""
    return codes.view(*zeros.shape, -1).to(zeros).sub_(zeros[..., None])


def _codes(values: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    return ((values / scale[..., None]).round() + zero[..., None]).clamp(0, top)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise InvalidRequest(f"{name!r} is no linear layer of this model.")
    return layer
