"""How codes lie in bytes: in order, or interleaved so that a wide register unpacks them with a shift and a mask.

Sequential, 4 bits: byte j holds dimension 2j in its low half and 2j + 1 in its high half. Turbo: the dimensions are cut
into blocks of 16 lanes by 8 codes (4 bits) or by 4 codes (8 bits); lane L of a block is one 32-bit word, little endian,
that holds dimensions L, L + 16, L + 32, ... of the block, the first in its lowest bits. (Aguerrebere et al. 2024,
arXiv 2402.02044.) The last block is allocated whole and its empty places are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

LANES = 16


def width(dim: int, bits: int) -> int:
    """Bytes of one vector's codes in sequential order; `bits` is 0, 4 or 8."""
    return (dim * bits + 7) // 8


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes (n, dim), each below 2^bits, as bytes (n, width(dim, bits)) in sequential order."""
    if bits == 8:
        return codes
    n, dim = codes.shape
    even = codes if dim % 2 == 0 else np.concatenate([codes, np.zeros((n, 1), np.uint8)], axis=1)
    return np.ascontiguousarray(even[:, 0::2] | (even[:, 1::2] << np.uint8(4)))


def unpack(packed: Bytes, bits: int, dim: int) -> Bytes:
    """The codes (n, dim) that `pack` was given."""
    if bits == 8:
        return packed
    codes = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    np.bitwise_and(packed, np.uint8(15), out=codes[:, 0::2])
    np.right_shift(packed, np.uint8(4), out=codes[:, 1::2])
    return codes[:, :dim]


def turbo_width(dim: int, bits: int) -> int:
    """Bytes of one vector's codes in Turbo order: whole blocks of 64 bytes."""
    return -(-dim // _block(bits)) * LANES * 4


def turbo_pack(codes: Bytes, bits: int) -> Bytes:
    """Codes (n, dim) as bytes (n, turbo_width(dim, bits)) in Turbo order; `bits` is 4 or 8."""
    n, dim = codes.shape
    block = _block(bits)
    whole = np.zeros((n, -(-dim // block) * block), np.uint8)
    whole[:, :dim] = codes
    lanes = whole.reshape(n, -1, block // LANES, LANES).transpose(0, 1, 3, 2)  # (n, blocks, lanes, codes of a lane)
    return pack(np.ascontiguousarray(lanes).reshape(n, -1), bits)


def turbo_unpack(packed: Bytes, bits: int, dim: int) -> Bytes:
    """The codes (n, dim) that `turbo_pack` was given."""
    n, block = len(packed), _block(bits)
    lanes = unpack(packed, bits, packed.shape[1] * 8 // bits).reshape(n, -1, LANES, block // LANES)
    return np.ascontiguousarray(lanes.transpose(0, 1, 3, 2)).reshape(n, -1)[:, :dim]


def _block(bits: int) -> int:
    return LANES * 32 // bits
