"""The working rows of a run, and attention over them by position. Imported only once a model is loaded.

Transformers hands each layer's new keys and values to `Rows.update` and attends through `attend`, which takes its mask
from the rows themselves: a query at position p sees the keys at positions <= p (and > p - w in a window of w tokens),
whatever order they were computed in. So appending, computing chosen rows anew and going on from a compressed cache are
one path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tercet.engine.cache import Entry, EntryKind

NAME = "tercet"
"""What `attend` is called among the attention functions of transformers."""
FEW = 64
"""Queries up to which a group of heads is packed into one; above, keys and values are repeated instead."""
Watch = Callable[[int, str, Tensor], None]
"""Told (layer, "queries", (Hq, q, d)) while a run goes on."""


class EnoughError(Exception):
    """The layers that were asked for have been computed."""


@dataclass
class Layer:
    """One layer's buffers: keys and values (1, H, capacity, d), of which the first `used` rows are in use.

    Row r is at position `first + r`, or at `at[:, r]` (H, R) where rows were left out (-1: none).
    """

    window: int | None
    keys: Tensor | None = None
    values: Tensor | None = None
    used: int = 0
    first: int = 0
    at: Tensor | None = None


class Rows:
    """What transformers takes for its cache: it appends new rows, or writes them over chosen ones.

    `stop` is the layer after whose keys and values the pass ends (EnoughError). `moved` gets, by layer, how far the
    values of the rows that were there changed: (n,) squared distances, summed over heads and channels.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.layers = [Layer(window) for window in windows]
        self.room = 0
        self.length = 0
        self.positions = torch.empty(0, dtype=torch.long)
        self.old = 0
        self.stop: int | None = None
        self.moved: dict[int, Tensor] = {}
        self.watch: Watch | None = None
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def load(self, entries: Sequence[Entry], dtype: torch.dtype, *, length: int, room: int) -> None:
        """Copy a cache's entries in, with space for `room` rows more."""
        self.length, self.room = length, room
        for entry in entries:
            layer, keys, values = self.layers[entry.layer], entry.tensors["k"], entry.tensors["v"]
            heads, rows, width = keys.shape
            layer.keys = torch.empty((1, heads, rows + room, width), dtype=dtype)
            layer.values = torch.empty((1, heads, rows + room, values.shape[2]), dtype=dtype)
            layer.keys[0, :, :rows], layer.values[0, :, :rows] = keys, values
            layer.used, layer.first = rows, entry.first
            layer.at = None if entry.rows is None else entry.rows.long()

    def begin(self, count: int, again: Sequence[int]) -> Tensor:
        """Prepare a pass over the rows `again` and `count` new ones; returns their positions."""
        new = torch.arange(self.length, self.length + count)
        self.positions = torch.cat([torch.tensor(again, dtype=torch.long), new]) if again else new
        self.old, self.length = len(again), self.length + count
        self._masks.clear()
        self.moved.clear()
        return self.positions

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Take in new rows (1, H, q, d) and return all that the queries may see."""
        layer, old = self.layers[layer_idx], self.old
        used, count = layer.used, keys.shape[2] - old
        if layer.keys is None and not self.room:
            layer.keys, layer.values, layer.used = keys, values, count  # a whole prompt: nothing to copy
            self._enough(layer_idx)
            return keys, values
        self._grow(layer, keys, values, used + count)
        assert layer.keys is not None  # noqa: S101  # made just now
        assert layer.values is not None  # noqa: S101
        if old:
            at = self.positions[:old] - layer.first
            before = layer.values[0, :, at]
            self.moved[layer_idx] = (values[0, :, :old].float() - before.float()).square().sum((0, 2))
            layer.keys[0, :, at], layer.values[0, :, at] = keys[0, :, :old], values[0, :, :old]
        layer.keys[:, :, used : used + count] = keys[:, :, old:]
        layer.values[:, :, used : used + count] = values[:, :, old:]
        layer.used = used + count
        if layer.at is not None:
            layer.at = torch.cat([layer.at, self.positions[old:].expand(layer.at.shape[0], -1)], 1)
        self._enough(layer_idx)
        return layer.keys[:, :, : layer.used], layer.values[:, :, : layer.used]

    def mask(self, layer_idx: int, queries: int) -> Tensor | None:
        """Which rows each query sees: (q, R) or (H, q, R) bool; None: a whole prompt (causal), or all of them."""
        layer = self.layers[layer_idx]
        whole = layer.first == 0 and layer.at is None
        seen = layer.window is None or layer.used <= layer.window
        if whole and seen and not self.old and (queries == 1 or queries == layer.used):
            return None
        key = (layer.window, layer.first, layer.used, None if layer.at is None else layer_idx)
        if key not in self._masks:
            at = torch.arange(layer.first, layer.first + layer.used) if layer.at is None else layer.at.unsqueeze(-2)
            asks = self.positions.unsqueeze(-1)
            mask = (at <= asks) & (at >= 0)
            self._masks[key] = mask if layer.window is None else mask & (at > asks - layer.window)
        return self._masks[key]

    def cut(self, count: int) -> None:
        """Drop the last rows, which were appended by the last pass."""
        self.length -= count
        for layer in self.layers:
            layer.used -= count
            if layer.at is not None:
                layer.at = layer.at[:, : layer.at.shape[1] - count]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows in use; transformers asks."""
        return self.layers[layer_idx].used

    def _enough(self, layer_idx: int) -> None:
        if self.stop is not None and layer_idx >= self.stop:
            raise EnoughError

    def _grow(self, layer: Layer, keys: Tensor, values: Tensor, wanted: int) -> None:
        held = 0 if layer.keys is None else layer.keys.shape[2]
        if wanted <= held:
            return
        capacity = max(wanted + max(self.room, 32), held + held // 4)

        def grown(old: Tensor | None, like: Tensor) -> Tensor:
            new = torch.empty((1, like.shape[1], capacity, like.shape[3]), dtype=like.dtype)
            if old is not None:
                new[:, :, : layer.used] = old[:, :, : layer.used]
            return new

        layer.keys, layer.values = grown(layer.keys, keys), grown(layer.values, values)


def attend(  # the signature is transformers'
    module: Any,  # noqa: ANN401  # an attention layer of any architecture
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float | None = None,
    rows: Rows | None = None,
    seen: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of (1, Hq, q, d) over (1, H, R, d) by the mask of the rows; returns (1, q, Hq, d).

    Without rows: of a batch, by `seen` (B, 1, q, R), or causally, the last query at the last key.
    """
    queries, group = query.shape[2], query.shape[1] // key.shape[1]
    if rows is None:
        return _plain(module, query, key, value, scaling, seen), None
    if rows.watch is not None:
        rows.watch(module.layer_idx, "queries", query[0])
    mask = rows.mask(module.layer_idx, queries)
    if mask is not None and mask.dim() == 2:
        mask = mask.unsqueeze(0)  # (1 or H, q, R)
    if queries <= FEW and not (mask is None and queries > 1):
        packed = query.reshape(1, key.shape[1], group * queries, query.shape[3])
        tiled = None if mask is None else mask.repeat(1, group, 1).unsqueeze(0)
        out = scaled_dot_product_attention(packed, key, value, attn_mask=tiled, scale=scaling)
        out = out.reshape(1, query.shape[1], queries, value.shape[3])
    else:
        wide = None if mask is None else mask.repeat_interleave(group, 0) if mask.shape[0] > 1 else mask
        out = scaled_dot_product_attention(
            query,
            key.repeat_interleave(group, 1),
            value.repeat_interleave(group, 1),
            attn_mask=None if wide is None else wide.unsqueeze(0),
            is_causal=mask is None and queries > 1,
            scale=scaling,
        )
    return out.transpose(1, 2).contiguous(), None


def _plain(
    module: Any,  # noqa: ANN401  # an attention layer of any architecture
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    mask: Tensor | None,
) -> Tensor:
    """(B, q, Hq, d) of texts of equal length, or padded behind, which no token before the padding sees."""
    queries, keys, group = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    window = getattr(module, "sliding_window", None)
    if mask is None and (queries not in {1, keys} or (window is not None and keys > window)):
        at, asks = torch.arange(keys), torch.arange(keys - queries, keys)[:, None]
        mask = (at <= asks) & (at > asks - (window or keys + 1))
    out = scaled_dot_product_attention(
        query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), attn_mask=mask,
        is_causal=mask is None and queries > 1, scale=scaling,
    )  # fmt: skip
    return out.transpose(1, 2).contiguous()


def mass(rows: Rows, layer_idx: int, queries: Tensor, scaling: float) -> Tensor:
    """The attention that each row of a layer gets from queries (Hq, q, d), summed over heads and queries: (R,)."""
    layer = rows.layers[layer_idx]
    assert layer.keys is not None  # noqa: S101  # the queries came from a pass over it
    keys = layer.keys[0, :, : layer.used].repeat_interleave(queries.shape[0] // layer.keys.shape[1], 0)
    scores = (queries @ keys.transpose(1, 2)).float() * scaling
    mask = rows.mask(layer_idx, queries.shape[1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1).sum((0, 1))


def entries(rows: Rows) -> tuple[Entry, ...]:
    """What the layers hold, as views; a window's layer gives only the rows that later tokens can see."""
    made = []
    for index, layer in enumerate(rows.layers):
        assert layer.keys is not None  # noqa: S101  # a run that was extended has rows
        assert layer.values is not None  # noqa: S101
        keys, values = layer.keys[0, :, : layer.used], layer.values[0, :, : layer.used]
        kind, first, at = EntryKind.KV, layer.first, layer.at
        if layer.window is not None:
            kind, cut = EntryKind.WINDOW_KV, max(0, layer.used - (layer.window - 1))
            keys, values, first = keys[:, cut:], values[:, cut:], first + cut
            at = None if at is None else at[:, cut:]
        made.append(Entry(index, kind, {"k": keys, "v": values}, first, None if at is None else at.int()))
    return tuple(made)
