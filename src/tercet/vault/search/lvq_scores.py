"""Similarity to coded vectors, in the compressed domain: exact for a few, rough for all.

Exact, with a query q that stays in floats (s = sum of q_j):

    inner product    <q, x> = <q, mu> + delta <q, c> + lo s                       (+ delta2 <q, c2> - delta/2 s)
    L2               |q - x|^2 = sum over j of ((q_j - mu_j) - (delta c_j + lo))^2
    cosine           the inner product of normalised vectors

Rough, to choose whom to score exactly: <q, c> is taken in integers, of a query rounded to one byte a dimension, by a
SIMD kernel that runs at the speed of memory. The rounding moves a score by about as much as coding with 8 bits did, so
the few nearest are among somewhat more of the roughly nearest.

Every kernel sums a row for itself: a vector's score is the same bits in any company.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numkong
import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest
from tercet.vault.search.lvq import LVQ, Codes, Floats, Half, Rows, lower
from tercet.vault.search.lvq_layout import Bytes, pack, unpack

Metric = Literal["ip", "l2", "cosine"]

LIMIT = {8: 127, 4: 119}
"""The largest integer of a rounded query: a byte, or what two half bytes 16 h + l can say, each from -8 to 7."""


@dataclass(frozen=True, eq=False)
class Query:
    """A query made ready for vectors coded around one mean.

    Attributes
    ----------
    vector:
        float32 (dim,): the query; normalised for cosine, less the mean for L2.
    base:
        <q, mu>, or |q - mu|^2 for L2.
    total:
        The sum of `vector`.
    """

    metric: Metric
    vector: Floats
    base: float
    total: float

    @classmethod
    def make(cls, vector: NDArray[np.floating], mean: Floats, metric: Metric) -> Query:
        """Raises InvalidRequest on a wrong shape, an unknown metric, or what is not finite."""
        exact = np.asarray(vector, np.float64)
        if exact.shape != mean.shape or not np.isfinite(exact).all():
            raise InvalidRequest(f"A query must be {len(mean)} finite numbers, not an array of shape {exact.shape}.")
        if metric == "l2":
            exact = exact - mean
            base = float(exact @ exact)
        elif metric in get_args(Metric):
            if metric == "cosine":
                exact = exact / (np.linalg.norm(exact) or 1.0)
            base = float(exact @ mean.astype(np.float64))
        else:
            raise InvalidRequest(f"No metric {metric!r}; known: {', '.join(get_args(Metric))}.")
        return cls(metric, np.ascontiguousarray(exact, np.float32), base, float(exact.sum()))


def normalised(vectors: Rows) -> Floats:
    """Vectors (n, dim) of length one, as float32; a zero vector stays zero, and so has cosine 0 with any other."""
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)


def exact(lvq: LVQ, codes: Codes, query: Query, *, both: bool = True) -> Floats:
    """float32 (n,): the score of each coded vector, larger is nearer; -|q - x|^2 for L2.

    With `both` levels if there are two. Takes about 10 bytes a dimension of each vector while it runs.
    """
    if not len(codes):
        return np.zeros(0, np.float32)
    if query.metric == "l2":
        y = lvq.decode_centred(codes, both=both)
        return np.asarray(-_pairs(query.vector, y, "sqeuclidean"), np.float32)
    step, low = codes.delta.astype(np.float64), codes.lo.astype(np.float64)
    levels = unpack(codes.primary, lvq.bits, codes.dim).astype(np.float32)
    if both and lvq.residual:  # both levels as one of finer steps: delta c + delta2 c2 = delta2 (m c + c2)
        m = (1 << lvq.residual) - 1
        levels *= np.float32(m)
        levels += unpack(codes.residual, lvq.residual, codes.dim)
        low -= step / 2
        step /= m
    return np.asarray(query.base + step * _pairs(query.vector, levels, "dot") + low * query.total, np.float32)


def _pairs(vector: Floats, rows: Floats, metric: Literal["dot", "sqeuclidean"]) -> NDArray[np.float64]:
    found = np.asarray(numkong.cdist(vector[None], np.ascontiguousarray(rows), metric=metric))
    return np.asarray(found[0], np.float64)


@dataclass(frozen=True, eq=False)
class Scan:
    """First-level codes in the form that the integer kernel reads: signed, c - 2^(bits - 1).

    Attributes
    ----------
    bits:
        4 or 8.
    signed:
        uint8 (n, width(dim, bits)), the bytes of two's complement numbers.
    delta, lo:
        float16 (n,): the constants; no `lo` where it follows from `delta` (`LVQ.symmetric`).
    norms:
        float32 (n,), |Q(y)|^2 of the first level; only L2 wants it.
    """

    bits: int
    signed: Bytes
    delta: Half
    lo: Half | None
    norms: Floats | None = None

    @classmethod
    def make(cls, lvq: LVQ, codes: Codes, metric: Metric) -> Scan:
        """The scan of codes; a copy of their first level."""
        norms = None
        if metric == "l2":
            norms = np.empty(len(codes), np.float32)
            for start in range(0, len(codes), 4096):
                block = slice(start, start + 4096)
                norms[block] = np.square(lvq.decode_centred(codes.take(block), both=False)).sum(axis=1)
        signed = flip(codes.primary, lvq.bits)
        return cls(lvq.bits, signed, codes.delta, None if lvq.symmetric else codes.lo, norms)

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in (self.signed, self.delta, self.lo, self.norms) if array is not None)

    def take(self, rows: NDArray[np.int64] | slice) -> Scan:
        """The scan of some rows, in that order."""
        lo = None if self.lo is None else self.lo[rows]
        norms = None if self.norms is None else self.norms[rows]
        return Scan(self.bits, self.signed[rows], self.delta[rows], lo, norms)

    def codes(self, dim: int, residual: Bytes) -> Codes:
        """What the scan was made of; `residual` is (n, width) or has no columns."""
        lo = lower(self.delta, self.bits) if self.lo is None else self.lo
        return Codes(dim, flip(self.signed, self.bits), residual, self.delta, lo)

    def rough(self, query: Query) -> Floats:
        """float32 (n,): about what `exact` gives with one level."""
        score = _kernel(self, query)
        if self.lo is not None:
            score += np.float32((1 << self.bits - 1) * query.total)
        score *= self.delta.astype(np.float32)
        if self.lo is not None:
            score += self.lo.astype(np.float32) * np.float32(query.total)
        if self.norms is not None:
            score *= 2
            score -= self.norms
            score -= np.float32(query.base)
        else:
            score += np.float32(query.base)
        return score


def _kernel(scan: Scan, query: Query) -> Floats:
    """float32 (n,): <q, c'> with a scan's rows, c' being the signed codes."""
    if not len(scan):
        return np.zeros(0, np.float32)
    scale = np.float32(float(np.abs(query.vector).max(initial=0)) / LIMIT[scan.bits])
    whole = np.rint(query.vector / (scale or np.float32(1))).astype(np.int32)
    if scan.bits == 8:
        kind: Literal["int8", "int4"] = "int8"
        packed = whole.astype(np.int8).view(np.uint8)[None]
    else:
        high = (whole + 8) >> 4
        kind, packed = "int4", _nibbles(np.stack([high, whole - 16 * high]))
    # float32 holds these integers as they are up to about 1,000 dimensions, and more of them closely enough.
    found = np.asarray(numkong.cdist(packed, scan.signed, metric="dot", dtype=kind)).astype(np.float32)
    products: Floats = found[-1]
    if len(found) > 1:
        products += np.float32(16) * found[0]
    products *= scale
    return products


def flip(packed: Bytes, bits: int) -> Bytes:
    """Unsigned codes as signed ones, or back: the top bit of each is turned."""
    return packed ^ np.uint8(0x80 if bits == 8 else 0x88)


def _nibbles(values: NDArray[np.int32]) -> Bytes:
    """Signed numbers (n, dim) from -8 to 7 as two's complement half bytes, the first in the low half."""
    return pack((values & 15).astype(np.uint8), 4)
