"""SeedLM: weights as seeds of a shift register and a few coefficients (Shafipour et al. 2024, arXiv 2410.10714).

Data-free and four or three bits a weight, at the price of a long search. At these sizes block formats such as nf4 keep
more of a model, so it serves for archives that must need no calibration, not as a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest, VaultDamaged

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TAPS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        2: (0, 1), 3: (0, 1), 4: (0, 1), 5: (0, 2), 6: (0, 1), 7: (0, 1), 8: (0, 2, 3, 4), 9: (0, 4), 10: (0, 3),
        11: (0, 2), 12: (0, 1, 2, 8), 13: (0, 1, 2, 5), 14: (0, 1, 2, 12), 15: (0, 1), 16: (0, 1, 3, 12),
    }
)  # fmt: skip
"""Length of the register in bits -> the bits whose sum is shifted in; each gives the full period, 2^bits - 1."""
LEAST, MOST = -8, 7
"""Of mantissas and of exponents: four bits, two's complement."""
AT_ONCE = 32
"""Blocks whose bounds are worked out together: 32 x 65,535 seeds x 3 coefficients are 50 MB."""
SHORTLIST = 256
"""Seeds tried at a time, those of the least bound first."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A coded tensor: (blocks,) seeds and exponents, (blocks, coefficients) mantissas; `scale` a power of two."""

    seeds: Ints
    exponents: Ints
    mantissas: Ints
    shape: tuple[int, ...]
    scale: float


@dataclass(frozen=True)
class SeedLM:
    """w ~ U(s) t, t = c 2^e: the seed s whose basis, with coefficients rounded to four bits, is nearest to the block.

    U(s) (block x coefficients) holds the register's next states row by row, mapped to [-1, 1]:
    (v - 2^(bits-1)) / (2^(bits-1) - 1). t = pinv(U) w; e = ceil(log2(max|t| / 7.5)), for the rule as printed in the
    paper uses five of sixteen mantissas. Ties go to the smallest seed. (bits + 4 + 4 coefficients) / block bits a
    weight: 4 with the defaults, 3 with block=12, coefficients=4.
    """

    bits: int = 16
    block: int = 8
    coefficients: int = 3

    def __post_init__(self) -> None:
        if self.bits not in TAPS or not 1 <= self.coefficients <= self.block:
            raise InvalidRequest(f"{self} cannot code: bits are {min(TAPS)} to {max(TAPS)}, coefficients 1 to block.")

    @property
    def bits_per_weight(self) -> float:
        """Without the one scale a tensor has."""
        return (self.bits + 4 + 4 * self.coefficients) / self.block

    def encode(self, weights: NDArray[np.floating], *, progress: Callable[[int, int], None] | None = None) -> Coded:
        """Search the seeds of every block; some milliseconds a block with 16 bits.

        Raises InvalidRequest for values that are not finite.
        """
        flat = np.asarray(weights, np.float64).ravel()
        if not np.isfinite(flat).all():
            raise InvalidRequest("Weights that are not finite cannot be coded.")
        spread = float(np.sqrt(np.square(flat).sum() / max(len(flat), 1)))
        scale = 2.0 ** round(np.log2(spread / 0.2)) if spread else 1.0
        padded = np.zeros(-(-len(flat) // self.block) * self.block)
        padded[: len(flat)] = flat / scale
        blocks = padded.reshape(-1, self.block)
        found = []
        for start in range(0, len(blocks), AT_ONCE):
            found.append(self._search(blocks[start : start + AT_ONCE]))
            if progress is not None:
                progress(min(start + AT_ONCE, len(blocks)), len(blocks))
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, self.coefficients), np.int64))
        seeds, exponents, mantissas = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
        return Coded(seeds, exponents, mantissas, tuple(np.shape(weights)), scale)

    def decode(self, coded: Coded) -> NDArray[np.float32]:
        """The weights, in their shape."""
        basis = bases(self.bits, self.block, self.coefficients)[coded.seeds - 1]
        values = np.einsum("ncp,np->nc", basis, coded.mantissas * np.exp2(coded.exponents)[:, None])
        flat = values.ravel()[: int(np.prod(coded.shape))] * coded.scale
        return np.asarray(flat.reshape(coded.shape), np.float32)

    def pack(self, coded: Coded) -> bytes:
        """Seed, exponent and mantissas of each block, one after the other without gaps, high bits first."""
        fields = [(coded.seeds, self.bits), (coded.exponents & 15, 4), *((m & 15, 4) for m in coded.mantissas.T)]
        columns = [((values[:, None] >> np.arange(width - 1, -1, -1)) & 1) for values, width in fields]
        return np.packbits(np.concatenate(columns, axis=1).astype(np.uint8)).tobytes()

    def unpack(self, packed: bytes, shape: tuple[int, ...], scale: float) -> Coded:
        """What `pack` packed. Raises VaultDamaged for too few bytes or a seed of zero, which no register has."""
        blocks, width = -(-int(np.prod(shape)) // self.block), self.bits + 4 + 4 * self.coefficients
        if len(packed) != -(-blocks * width // 8):
            raise VaultDamaged(f"{len(packed)} bytes do not hold {blocks} blocks of {width} bits.")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8))[: blocks * width].reshape(blocks, width).astype(np.int64)

        def number(start: int, count: int) -> Ints:
            return np.asarray(bits[:, start : start + count] @ (1 << np.arange(count - 1, -1, -1)), np.int64)

        seeds = number(0, self.bits)
        if (seeds == 0).any():
            raise VaultDamaged("A seed is zero; these bytes are not what was packed.")
        signed = [(number(self.bits + 4 * i, 4) ^ 8) - 8 for i in range(1 + self.coefficients)]
        return Coded(seeds, signed[0], np.stack(signed[1:], axis=1), shape, scale)

    def _search(self, blocks: Floats) -> tuple[Ints, Ints, Ints]:
        spans, inverses, basis = _tables(self.bits, self.block, self.coefficients)
        whole = np.square(blocks).sum(axis=1)
        # What no rounding can better: the part of a block that its seed's basis does not span.
        inside = np.square((blocks @ spans).reshape(len(blocks), self.coefficients, -1)).sum(axis=1)
        bounds = whole[:, None] - inside
        seeds = np.ones(len(blocks), np.int64)
        exponents = np.full(len(blocks), LEAST)
        mantissas = np.zeros((len(blocks), self.coefficients), np.int64)
        for i in np.flatnonzero(whole):
            seeds[i], exponents[i], mantissas[i] = _nearest(blocks[i], bounds[i], inverses, basis)
        return seeds, exponents, mantissas


def _nearest(block: Floats, bounds: Floats, inverses: Floats, basis: Floats) -> tuple[int, int, Ints]:
    """Seed, exponent and mantissas of the least error; seeds are tried some at a time, those of the least bounds first.

    All but the first few are sorted only once most are out of the question: to sort them all took two thirds of it.
    """
    few = min(SHORTLIST, len(bounds))
    tried, rest = np.argpartition(bounds, few - 1)[:few], None
    best, found = (np.inf, 0), (1, LEAST, np.zeros(basis.shape[2], np.int64))
    while len(tried) and bounds[tried].min() <= best[0]:
        e, c = _rounded(inverses[tried] @ block)
        errors = np.square(block - np.einsum("scp,sp->sc", basis[tried], c * np.exp2(e)[:, None])).sum(axis=1)
        at = np.lexsort((tried, errors))[0]
        if (errors[at], tried[at]) < best:
            best, found = (float(errors[at]), int(tried[at])), (int(tried[at]) + 1, int(e[at]), c[at])
        if rest is None:
            rest = np.setdiff1d(np.flatnonzero(bounds <= best[0]), tried, assume_unique=True)
            rest = rest[np.argsort(bounds[rest], kind="stable")]
        tried, rest = rest[:SHORTLIST], rest[SHORTLIST:]
    return found


def register(bits: int, seeds: Ints, count: int) -> Ints:
    """(seeds, count) states of a Fibonacci register that shifts right, each as it is after a shift."""
    state, states = np.asarray(seeds, np.int64), np.empty((len(seeds), count), np.int64)
    for step in range(count):
        into = np.bitwise_xor.reduce([(state >> tap) & 1 for tap in TAPS[bits]])
        state = (state >> 1) | (into << (bits - 1))
        states[:, step] = state
    return states


@cache
def bases(bits: int, block: int, coefficients: int) -> Floats:
    """(seeds, block, coefficients): U of every seed from 1 on."""
    states = register(bits, np.arange(1, 1 << bits), block * coefficients).reshape(-1, block, coefficients)
    half = 1 << (bits - 1)
    return np.asarray((states - half) / max(half - 1, 1), np.float64)


@cache
def _tables(bits: int, block: int, coefficients: int) -> tuple[Floats, Floats, Floats]:
    """Of every seed: an orthonormal basis of its span, (block, coefficients * seeds); its pseudo-inverse; U."""
    basis = bases(bits, block, coefficients)
    left, singular, right = np.linalg.svd(basis, full_matrices=False)
    kept = singular > 1e-12 * singular[:, :1]
    left = left * kept[:, None, :]
    weights = np.where(kept, 1 / np.where(kept, singular, 1), 0)
    inverse = np.einsum("spk,sck->spc", np.swapaxes(right, 1, 2) * weights[:, None], left)
    return np.ascontiguousarray(left.transpose(1, 2, 0).reshape(block, -1)), inverse, basis


def _rounded(t: Floats) -> tuple[Ints, Ints]:
    """Exponents (n,) and mantissas (n, coefficients) of coefficients."""
    most = np.abs(t).max(axis=1)
    exponents = np.clip(np.ceil(np.log2(np.maximum(most, 2.0**-40) / 7.5)), LEAST, MOST).astype(np.int64)
    mantissas = np.clip(np.rint(t / np.exp2(exponents)[:, None]), LEAST, MOST).astype(np.int64)
    return exponents, mantissas
