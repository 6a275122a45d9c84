"""Adapters in fewer bytes: int8 by row and NF4 by block, decoded whole when an adapter is mounted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from tercet.errors import InvalidRequest, VaultDamaged

Parts = dict[str, Tensor]
"""What a tensor became: tensors of a safetensors file, by the ending of their names."""

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, ends and zero exact (Dettmers et al. 2023, arXiv 2305.14314)."""


class Codec(Protocol):
    """A way to keep a float tensor."""

    def encode(self, values: Tensor) -> Parts:
        """Raises InvalidRequest for values that are not finite."""

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """(shape) float32. Raises VaultDamaged for parts that cannot be of that shape."""

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[str, list[int]]]:
        """What a tensor of that shape becomes: by its ending, a part's dtype in safetensors' word, and its shape."""


@dataclass(frozen=True)
class Int8:
    """q = round(127 x / max|row|), one fp16 scale a row: 8 bits a weight and 16 a row."""

    def encode(self, values: Tensor) -> Parts:
        """See `Codec.encode`."""
        rows = _rows(values)
        scale = (rows.abs().amax(dim=1) / 127).half().clamp(min=torch.finfo(torch.float16).tiny)
        return {"q": (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), "scale": scale}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """See `Codec.decode`."""
        found = _part(parts, "q").float() * _part(parts, "scale").float()[:, None]
        return _shaped(found, shape)

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[str, list[int]]]:
        """See `Codec.parts`."""
        rows = shape[0] if shape else 1
        return {"q": ("I8", [rows, _count(shape[1:])]), "scale": ("F16", [rows])}


@dataclass(frozen=True)
class NormalFloat4:
    """The nearest of 16 levels times the greatest absolute value of a block: 4 bits a weight and 16 a block.

    The scale is rounded to fp16 before codes are taken, so that what is kept and what was coded agree.
    """

    block: int = 64

    def encode(self, values: Tensor) -> Parts:
        """See `Codec.encode`."""
        flat = _rows(values).flatten()
        blocks = torch.nn.functional.pad(flat, (0, -len(flat) % self.block)).view(-1, self.block)
        scale = blocks.abs().amax(dim=1).half().clamp(min=torch.finfo(torch.float16).tiny)
        levels = torch.tensor(NF4)
        between = (levels[1:] + levels[:-1]) / 2
        codes = torch.bucketize(blocks / scale.float()[:, None], between).to(torch.uint8).flatten()
        codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
        return {"q": codes[::2] | codes[1::2] << 4, "scale": scale}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """See `Codec.decode`."""
        packed, scale = _part(parts, "q"), _part(parts, "scale").float()
        codes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[: len(scale) * self.block].long()
        if len(codes) < len(scale) * self.block:
            raise VaultDamaged("There are fewer codes than the scales are for.")
        values = torch.tensor(NF4)[codes].view(-1, self.block) * scale[:, None]
        return _shaped(values.flatten()[: _count(shape)], shape)

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[str, list[int]]]:
        """See `Codec.parts`."""
        blocks = -(-_count(shape) // self.block)
        return {"q": ("U8", [-(-blocks * self.block // 2)]), "scale": ("F16", [blocks])}


CODECS: Mapping[str, Codec] = MappingProxyType({"int8": Int8(), "nf4": NormalFloat4()})
"""Name -> codec of adapters' tensors."""


def _rows(values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise InvalidRequest("Weights that are not finite cannot be kept.")
    return values.detach().float().reshape(values.shape[0] if values.ndim else 1, -1)


def _part(parts: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in parts:
        raise VaultDamaged(f"The part {name!r} of a coded tensor is missing.")
    return parts[name]


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _shaped(found: Tensor, shape: tuple[int, ...]) -> Tensor:
    if found.numel() != _count(shape):
        raise VaultDamaged(f"{found.numel():,} values do not make a tensor of shape {shape}.")
    return found.reshape(shape)
