"""Exact similarity over fp16 rows, with a SIMD kernel. Nothing here knows what a row stands for."""

from __future__ import annotations

import numkong
import numpy as np
from numpy.typing import NDArray

from tercet.errors import EmbeddingFailed

Half = NDArray[np.float16]
Floats = NDArray[np.float32]
_LOW_SCALE = 2048.0  # lifts the low half of a query out of fp16's subnormal range


def pack(vectors: NDArray[np.floating], dim: int) -> bytes:
    """The bytes a row keeps: fp16, little endian, (windows, dim).

    Raises
    ------
    EmbeddingFailed
        If the shape is wrong, a value is not finite, or a vector is zero.
    """
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    if rows.ndim != 2 or rows.shape[1] != dim or not rows.shape[0]:
        raise EmbeddingFailed(f"The embedder gave shape {rows.shape}; this space has {dim} dimensions.")
    norms = np.linalg.norm(rows, axis=1)
    if not np.isfinite(norms).all() or not norms.all():
        raise EmbeddingFailed("The embedder gave a vector that is zero or not finite.")
    return bytes((rows / norms[:, None]).astype("<f2").tobytes())


def unpack(blob: bytes, dim: int) -> Half:
    """(windows, dim) fp16, read-only."""
    return np.frombuffer(blob, dtype="<f2").reshape(-1, dim)


def dots(rows: Half, query: NDArray[np.floating]) -> Floats:
    """Inner products of every row with a float32 query, as exact as fp16 rows allow.

    The kernel wants both sides in one type, so the query goes in as the sum of two fp16 vectors: rounding it to one
    would change ranks among near ties.

    Parameters
    ----------
    rows
        (n, dim) fp16, C-contiguous.
    query
        (dim,) float32.

    Returns
    -------
    (n,) float32.
    """
    if not len(rows):
        return np.zeros(0, dtype=np.float32)
    exact = np.asarray(query, dtype=np.float32)
    high = exact.astype(np.float16)
    low = ((exact - high.astype(np.float32)) * _LOW_SCALE).astype(np.float16)
    packed = numkong.dots_pack(np.stack([high, low]), dtype="f16")
    both = np.asarray(numkong.dots_packed(rows, packed))
    return np.asarray(both[:, 0] + both[:, 1] / np.float32(_LOW_SCALE), dtype=np.float32)
