"""What compressors see of a cache that an engine has made, and the way from a text to its compressed cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tercet.activation.compress import COMPRESSORS
from tercet.activation.compress.apply import compress
from tercet.activation.compress.base import Compressor, LayerView
from tercet.engine.cache import EntryKind, KVCache
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.engine.base import CacheEngine


def views(engine: CacheEngine, cache: KVCache, queries: Mapping[int, Tensor]) -> list[LayerView]:
    """The layers of a whole cache that see all tokens, in order, with the queries that `observe` gave (or none)."""

    def turn(layer: int, rows: Tensor, positions: Tensor) -> Tensor:
        return engine.rotated(rows, layer, positions)

    return [
        LayerView(
            layer=one.layer, layers=len(cache.entries), keys=one.tensors["k"], values=one.tensors["v"],
            scaling=engine.scaling(one.layer), queries=queries.get(one.layer), turn=partial(turn, one.layer),
        )
        for one in cache.entries
        if one.kind is EntryKind.KV
    ]  # fmt: skip


def prefill(engine: CacheEngine, tokens: Sequence[int], how: Compressor, share: float) -> KVCache:
    """The cache of `tokens` with about `share` of its rows; one prefill.

    Raises
    ------
    InvalidRequest
        If the share is not above 0 and at most 1, the context is too long, or no layer sees all tokens.
    Unsupported
        If the compressor moves keys, and the model's rope depends on the length.
    """
    if not 0 < share <= 1:
        raise InvalidRequest(f"The share to keep is above 0 and at most 1, not {share!r}.")
    cache, queries = engine.observe(tokens) if how.sees_queries else (engine.prefill(tokens), {})
    seen = views(engine, cache, queries)
    if not seen:
        raise InvalidRequest(
            f"All layers of {engine.identity.name} have a window: there is nothing to compress; promote it as it is."
        )
    return compress(cache, seen, how, share=share)


def named(name: str) -> Compressor:
    """A compressor by its name. Raises InvalidRequest, with those that there are."""
    if name not in COMPRESSORS:
        raise InvalidRequest(f"A compressor is one of {', '.join(COMPRESSORS)}, not {name!r}.")
    return COMPRESSORS[name]
