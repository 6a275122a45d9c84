"""A whole cache through a compressor: each layer's rows chosen, gathered and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tercet.activation.compress.base import Compressor, LayerView
from tercet.engine.cache import Entry, EntryKind, KVCache
from tercet.errors import InvalidRequest


def compress(cache: KVCache, views: Sequence[LayerView], how: Compressor, *, share: float) -> KVCache:
    """The cache with about `share` (0 to 1] of the rows of its full-attention layers; others stay as they are.

    `views` are those layers, in order. The cache given is not changed.

    Raises
    ------
    InvalidRequest
        For a share out of range, or a cache that is compressed already.
    """
    if not 0 < share <= 1:
        raise InvalidRequest(f"The share to keep is above 0 and at most 1, not {share!r}.")
    if cache.compressed:
        raise InvalidRequest("This cache is compressed already; compress the whole one.")
    full = [entry for entry in cache.entries if entry.kind is EntryKind.KV]
    if len(views) != len(full):
        raise InvalidRequest(f"The cache has {len(full)} layers of full attention, not {len(views)}.")
    budgets = how.budgets(views, max(1, round(share * len(cache.tokens))))
    if share == 1:
        return cache
    kept = {
        entry.layer: _gathered(entry, how.keep(view, budget))
        for entry, view, budget in zip(full, views, budgets, strict=True)
    }
    entries = (kept[one.layer] if one.kind is EntryKind.KV else one for one in cache.entries)
    return replace(cache, entries=tuple(entries))


def _gathered(entry: Entry, rows: torch.Tensor) -> Entry:
    at = rows.clamp(min=0)[..., None]
    empty = (rows < 0)[..., None]
    tensors = {
        name: tensor.gather(1, at.expand(-1, -1, tensor.shape[-1])).masked_fill(empty, 0)
        for name, tensor in entry.tensors.items()
    }
    return replace(entry, tensors=tensors, rows=rows.int())
