"""What a KV cache is, for everything that builds, keeps, joins or compresses one.

A `KVCache` holds what a decoder made of T tokens, batch dimension left out, on the CPU:

    tokens      (T,) int32       the token ids, in order; their positions are 0 .. T-1
    entries     one `Entry` a layer; hybrid layers may have two (a convolution's and a recurrence's state)

    kind          tensors of the entry (torch)
    kv            k, v: (H, R, d)   R = T rows, or fewer once compressed
    window_kv     k, v: (H, R, d)   a layer with a sliding window of w tokens: the last R = min(T, w - 1) rows only
    conv_state    state: any shape  what a convolution remembers after all T tokens; cannot be cut shorter
    ssm_state     state: any shape  what a recurrence remembers after all T tokens; cannot be cut shorter

H is the number of key/value heads and d a head's width. Keys are **after** RoPE, at the positions that `rows` names.
Row r of an entry is token `first + r`, unless `rows` is there: (H, R) int32, in rising order, -1 where a head keeps
fewer rows than another (such rows stand at the end, are zero, and nothing attends to them).

Tensors may be views of a mapped file, or shared with other users: **nobody writes into them**. A run copies first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.cube import ModelIdentity


class EntryKind(StrEnum):
    """What a layer keeps."""

    KV = "kv"
    WINDOW_KV = "window_kv"
    CONV_STATE = "conv_state"
    SSM_STATE = "ssm_state"


ATTENTION = frozenset({EntryKind.KV, EntryKind.WINDOW_KV})
"""Entries that have rows; the others are one state after all tokens."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one layer keeps: see the module's table for the tensors and shapes of each kind."""

    layer: int
    kind: EntryKind
    tensors: Mapping[str, Tensor]
    first: int = 0
    rows: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, as they are in memory."""
        return sum(int(one.numel()) * int(one.element_size()) for one in self.tensors.values())


@dataclass(frozen=True, slots=True)
class KVCache:
    """The cache of `tokens` under one model. `compressed` says whether rows were left out on purpose."""

    model: ModelIdentity
    tokens: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def compressed(self) -> bool:
        """Whether some rows were left out, so that a run on it is an approximation and it cannot be cut."""
        return any(entry.rows is not None for entry in self.entries)

    @property
    def divisible(self) -> bool:
        """Whether the first n < T tokens of it can be used alone: every layer has a row for every token."""
        return all(entry.kind in ATTENTION and entry.rows is None and entry.first == 0 for entry in self.entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as they are in memory."""
        return sum(entry.nbytes for entry in self.entries)

    def prefix(self, n: int) -> KVCache:
        """The cache of the first `n` tokens, as views. Raises InvalidRequest if it cannot be cut there."""
        if n == len(self.tokens):
            return self
        if not 0 <= n < len(self.tokens) or not self.divisible:
            raise InvalidRequest(
                f"This cache of {len(self.tokens)} tokens cannot be cut to {n}: "
                "a window, a state or a compression has left earlier rows out."
            )
        entries = tuple(
            Entry(one.layer, one.kind, {name: tensor[:, :n] for name, tensor in one.tensors.items()})
            for one in self.entries
        )
        return KVCache(self.model, self.tokens[:n], entries)
