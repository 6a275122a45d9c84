"""Locally-adaptive vector quantisation: a few bits a dimension, with bounds of each vector's own.

With mu the mean of all vectors and y = x - mu, a vector keeps lo = min y, delta = (max y - lo) / (2^B - 1) and

    c_j = floor((y_j - lo) / delta + 1/2),        Q(y)_j = delta c_j + lo

so no component is off by more than delta / 2. A second level codes what is left, r = y - Q(y), which lies in
[-delta/2, delta/2], with B2 bits on just that interval, and so needs no constants of its own:

    r^_j = delta2 c2_j - delta/2,                 delta2 = delta / (2^B2 - 1)

(Aguerrebere et al. 2023, arXiv 2304.04759.) The constants are rounded to half precision before any code is computed, so
that what is stored is what was coded with.

A symmetric coder takes lo = -2^(B - 1) delta with delta = max |y| / (2^(B - 1) - 1) instead: a step that is a little
longer buys codes that are the vector but for a factor, which is what a graph over codes wants (see `graph`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest
from tercet.vault.search.lvq_layout import Bytes, pack, unpack, width

Floats = NDArray[np.float32]
Half = NDArray[np.float16]
Rows = NDArray[np.floating]
"""(n, dim) vectors in any floating type; they are worked on in float32."""

_SMALLEST_NORMAL = np.float32(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True, eq=False)
class Codes:
    """Coded vectors.

    Attributes
    ----------
    dim:
        Dimensions of a vector.
    primary:
        uint8 (n, width(dim, bits)): the first level, in sequential order.
    residual:
        uint8 (n, width(dim, residual)): the second level; no columns where there is none.
    delta, lo:
        float16 (n,): step and lower bound of each vector.
    """

    dim: int
    primary: Bytes
    residual: Bytes
    delta: Half
    lo: Half

    def __len__(self) -> int:
        return len(self.delta)

    def take(self, rows: NDArray[np.int64] | slice) -> Codes:
        """The codes of some rows, in that order."""
        return Codes(self.dim, self.primary[rows], self.residual[rows], self.delta[rows], self.lo[rows])


@dataclass(frozen=True)
class LVQ:
    """A coder of vectors.

    Attributes
    ----------
    bits:
        Bits a dimension of the first level, which is scanned: 4 or 8.
    residual:
        Bits a dimension of the second level, which only reranks: 0, 4 or 8.
    symmetric:
        Whether bounds are alike on both sides of the mean.

    Raises
    ------
    InvalidRequest
        For other numbers of bits.
    """

    bits: int = 8
    residual: int = 0
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.residual not in (0, 4, 8):
            raise InvalidRequest(f"LVQ has 4 or 8 bits and 0, 4 or 8 more, not {self.bits} and {self.residual}.")

    def __str__(self) -> str:
        return f"LVQ{self.bits}" + (f"x{self.residual}" if self.residual else "")

    def encode(self, vectors: Rows, mean: Floats) -> Codes:
        """Code vectors (n, dim) around a mean (dim,), see `mean_of`.

        Raises
        ------
        InvalidRequest
            If the shape does not fit, or a value is not finite or beyond half precision (65,504) after centring.
        """
        y = centred(vectors, mean)
        lo, delta = _mirrored(y, self.bits) if self.symmetric else _bounds(y, (1 << self.bits) - 1)
        low, step = lo.astype(np.float32)[:, None], delta.astype(np.float32)[:, None]
        y -= low
        first = _levels(y, step, self.bits)
        if not self.residual:
            second = np.zeros((len(y), 0), np.uint8)
        else:
            y -= first * step
            y += step / 2
            second = _levels(y, step / np.float32((1 << self.residual) - 1), self.residual)
        return Codes(y.shape[1], pack(first, self.bits), pack(second, self.residual), delta, lo)

    def decode(self, codes: Codes, mean: Floats, *, both: bool = True) -> Floats:
        """float32 (n, dim): what the codes stand for; of the first level alone unless `both`."""
        return np.asarray(self.decode_centred(codes, both=both) + mean, np.float32)

    def decode_centred(self, codes: Codes, *, both: bool = True) -> Floats:
        """As `decode`, the mean not added."""
        step, low = codes.delta.astype(np.float32)[:, None], codes.lo.astype(np.float32)[:, None]
        y = unpack(codes.primary, self.bits, codes.dim).astype(np.float32)
        y *= step
        y += low
        if both and self.residual:
            rest = unpack(codes.residual, self.residual, codes.dim).astype(np.float32)
            rest *= step / ((1 << self.residual) - 1)
            rest -= step / 2
            y += rest
        return y

    def footprint(self, dim: int, padding: int = 32) -> int:
        """Bytes of one vector's first level with its constants, filled up to a multiple of `padding` bytes.

        This is what a hop of a graph fetches. A padding of 32 is half a cache line; 1 gives what is stored here.
        """
        bits = dim * self.bits + 2 * 16
        return -(-bits // (8 * padding)) * padding

    def size(self, dim: int, padding: int = 32) -> int:
        """Bytes of one vector: its `footprint` and its second level."""
        return self.footprint(dim, padding) + width(dim, self.residual)


def mean_of(blocks: Iterable[Rows], dim: int) -> Floats:
    """The mean (dim,) of vectors that come in blocks (n, dim), summed in float64; zero if there are none."""
    total, count = np.zeros(dim, np.float64), 0
    for block in blocks:
        total += np.asarray(block).sum(axis=0, dtype=np.float64)
        count += len(block)
    return (total / max(count, 1)).astype(np.float32)


def centred(vectors: Rows, mean: Floats) -> Floats:
    """Vectors less the mean, as a new float32 (n, dim). Raises InvalidRequest on a wrong shape, or if not finite."""
    rows = np.asarray(vectors)
    if rows.ndim != 2 or mean.shape != rows.shape[1:]:
        raise InvalidRequest(f"Vectors of shape {rows.shape} cannot be coded around a mean of shape {mean.shape}.")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, and is refused below
        y = np.asarray(rows, np.float32) - mean
    if not np.isfinite(y).all():
        raise InvalidRequest("A vector that is not finite cannot be coded.")
    return y


def _bounds(y: Floats, steps: int) -> tuple[Half, Half]:
    """Lower bound and step of each row, as they are stored."""
    if not y.size:
        return np.zeros(len(y), np.float16), np.zeros(len(y), np.float16)
    least, most = y.min(axis=1), y.max(axis=1)
    if max(float(most.max()), -float(least.min())) > float(np.finfo(np.float16).max):
        raise InvalidRequest("A vector has a component beyond 65,504, which half precision cannot hold.")
    lo = least.astype(np.float16)
    exact = np.maximum((most - lo.astype(np.float32)) / np.float32(steps), np.float32(0))
    exact[most == least] = 0
    return lo, _steps(exact)


def _mirrored(y: Floats, bits: int) -> tuple[Half, Half]:
    """As `_bounds`, for a symmetric coder."""
    half = 1 << (bits - 1)
    most = np.abs(y).max(axis=1, initial=0)
    delta = _steps(most / np.float32(half - 1))
    lo = lower(delta, bits)
    if not np.isfinite(lo).all():
        raise InvalidRequest("A vector has a component near or beyond 65,504, which half precision cannot hold.")
    return lo, delta


def lower(delta: Half, bits: int) -> Half:
    """The lower bounds that go with steps of a symmetric coder; exact, since half precision is binary."""
    with np.errstate(over="ignore"):
        return np.asarray(delta * np.float16(-(1 << (bits - 1))), np.float16)


def _steps(exact: Floats) -> Half:
    """Steps in half precision."""
    with np.errstate(over="ignore"):
        delta = exact.astype(np.float16)
    # Among the subnormals a step rounded down would be too short by up to all of it: nearly constant vectors, whose
    # upper components would be cut off. There it is rounded up; a little coarser, but nothing lies outside.
    short = (exact < _SMALLEST_NORMAL) & (delta.astype(np.float32) < exact)
    delta[short] = np.nextafter(delta[short], np.float16(np.inf))
    return delta


def _levels(offset: Floats, step: Floats, bits: int) -> Bytes:
    """The level nearest to each offset from the bottom; level 0 where a step is zero."""
    scaled = np.divide(offset, step, out=np.zeros_like(offset), where=step > 0)
    scaled += np.float32(0.5)
    np.floor(scaled, out=scaled)
    return np.clip(scaled, 0, (1 << bits) - 1, out=scaled).astype(np.uint8)
