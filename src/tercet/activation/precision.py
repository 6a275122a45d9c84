"""How keys and values are kept: in full, or in fewer bits. Packed once, never again.

Keys have channels that are large in every token, so their scale goes by channel, over blocks of `block` tokens; values
go by token. The first `sinks` tokens, which models use as a place to look at when there is nothing to see and whose
values are far out, stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, dtype


class Precision(Protocol):
    """Packs keys and values (H, R, d) into named tensors, and unpacks them."""

    def pack(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Named tensors that keep them."""

    def unpack(self, held: Mapping[str, Tensor], kind: dtype) -> tuple[Tensor, Tensor]:
        """Keys and values again, in a dtype; views of what is held where it is that already."""


@dataclass(frozen=True, slots=True)
class Float:
    """As they are, in a floating-point type: "float32" or "bfloat16"."""

    name: str

    def pack(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """See `Precision.pack`."""
        import torch

        kind = getattr(torch, self.name)
        return {"k": keys.to(kind).contiguous(), "v": values.to(kind).contiguous()}

    def unpack(self, held: Mapping[str, Tensor], kind: dtype) -> tuple[Tensor, Tensor]:
        """See `Precision.unpack`."""
        return held["k"].to(kind), held["v"].to(kind)


@dataclass(frozen=True, slots=True)
class Int8:
    """8 bits, symmetric: x ~ q s with s = max|x| / 127 in float16, by channel for keys and by token for values.

    Bits a number, d = 64, block = 64: 8.25.
    """

    block: int = 64
    sinks: int = 4

    def pack(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """See `Precision.pack`."""
        import torch

        rest = keys[:, self.sinks :].float()
        k_scale = _by_block(rest.abs(), self.block).amax(2).div(127).clamp_min(1e-7).to(torch.float16)
        k = (rest / _spread(k_scale, self.block, rest.shape[1])).round().clamp(-127, 127).to(torch.int8)
        tail = values[:, self.sinks :].float()
        v_scale = tail.abs().amax(2).div(127).clamp_min(1e-7).to(torch.float16)
        v = (tail / v_scale.float().unsqueeze(2)).round().clamp(-127, 127).to(torch.int8)
        return {"k": k, "v": v, "k.scale": k_scale, "v.scale": v_scale, **_sinks(keys, values, self.sinks)}

    def unpack(self, held: Mapping[str, Tensor], kind: dtype) -> tuple[Tensor, Tensor]:
        """See `Precision.unpack`."""
        k = _scaled(held["k"].float(), held["k.scale"], self.block)
        v = held["v"].float().mul_(held["v.scale"].float().unsqueeze(2))
        return _behind(held["k.sink"], k, kind), _behind(held["v.sink"], v, kind)


@dataclass(frozen=True, slots=True)
class Int4:
    """4 bits, asymmetric: x ~ m + q s with s = (max - min) / 15, two to a byte, the lower one first.

    Keys by channel over `block` tokens, values by token over groups of up to 64 channels; s and m in float16. Bits a
    number, d = 64, block = 32: keys 5, values 4.5.
    """

    block: int = 32
    group: int = 64
    sinks: int = 4

    def pack(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """See `Precision.pack`."""
        import torch

        rest = keys[:, self.sinks :].float()
        count = rest.shape[1]
        low = _by_block(rest, self.block, torch.inf).amin(2).to(torch.float16)
        high = _by_block(rest, self.block, -torch.inf).amax(2)
        step = ((high - low.float()) / 15).clamp_min(1e-6).to(torch.float16)
        k = (rest - _spread(low, self.block, count)) / _spread(step, self.block, count)
        tail = values[:, self.sinks :].float().unflatten(2, (-1, self._group(values)))
        v_low = tail.amin(3).to(torch.float16)
        v_step = ((tail.amax(3) - v_low.float()) / 15).clamp_min(1e-6).to(torch.float16)
        v = (tail - v_low.float().unsqueeze(3)) / v_step.float().unsqueeze(3)
        return {
            "k": _nibbles(k), "v": _nibbles(v.flatten(2)),
            "k.scale": step, "k.low": low, "v.scale": v_step, "v.low": v_low, **_sinks(keys, values, self.sinks),
        }  # fmt: skip

    def unpack(self, held: Mapping[str, Tensor], kind: dtype) -> tuple[Tensor, Tensor]:
        """See `Precision.unpack`."""
        k = _scaled(_numbers(held["k"]), held["k.scale"], self.block)
        k += _spread(held["k.low"], self.block, k.shape[1])
        v = _numbers(held["v"]).unflatten(2, (held["v.scale"].shape[2], -1))
        v = v.mul_(held["v.scale"].float().unsqueeze(3)).add_(held["v.low"].float().unsqueeze(3))
        return _behind(held["k.sink"], k, kind), _behind(held["v.sink"], v.flatten(2), kind)

    def _group(self, values: Tensor) -> int:
        width = int(values.shape[2])
        return self.group if width % self.group == 0 else width


PRECISIONS: Mapping[str, Precision] = {
    "fp32": Float("float32"),
    "bf16": Float("bfloat16"),
    "int8": Int8(),
    "int4": Int4(),
}
"""Name -> how keys and values are kept. An odd head width cannot be kept in int4."""


def _by_block(x: Tensor, block: int, fill: float = 0.0) -> Tensor:
    """(H, R, d) as (H, blocks, block, d), the last block filled up."""
    from torch.nn.functional import pad

    return pad(x, (0, 0, 0, -x.shape[1] % block), value=fill).unflatten(1, (-1, block))


def _spread(scale: Tensor, block: int, rows: int) -> Tensor:
    """(H, blocks, d) as (H, rows, d) float32."""
    return scale.float().repeat_interleave(block, 1)[:, :rows]


def _scaled(x: Tensor, scale: Tensor, block: int) -> Tensor:
    """Multiply (H, R, d) in place by the scale of each block."""
    whole = x.shape[1] // block * block
    if whole:
        x[:, :whole].unflatten(1, (-1, block)).mul_(scale[:, : whole // block].float().unsqueeze(2))
    if whole < x.shape[1]:
        x[:, whole:].mul_(scale[:, -1:].float())
    return x


def _sinks(keys: Tensor, values: Tensor, count: int) -> dict[str, Tensor]:
    return {"k.sink": keys[:, :count].float().contiguous(), "v.sink": values[:, :count].float().contiguous()}


def _behind(sinks: Tensor, rest: Tensor, kind: dtype) -> Tensor:
    import torch

    return torch.cat([sinks.to(kind), rest.to(kind)], 1)


def _nibbles(x: Tensor) -> Tensor:
    import torch

    q = x.round().clamp(0, 15).to(torch.uint8).unflatten(2, (-1, 2))
    return (q[..., 0] | (q[..., 1] << 4)).contiguous()


def _numbers(packed: Tensor) -> Tensor:
    import torch

    return torch.stack([packed & 15, packed >> 4], -1).flatten(2).float()
