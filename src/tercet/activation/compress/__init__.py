"""Compressors of KV caches: each says which rows of a layer to keep. One mechanism, one file, one line in the table.

The seam, for whoever adds one:

    @dataclass(frozen=True, slots=True)
    class KNorm:
        needs: ClassVar[frozenset[Need]] = frozenset()

        def keep(self, layer: LayerView, budget: int) -> Tensor: ...

`keep` gets one `kv` entry of a cache of T tokens and answers with the rows to keep: (H, n) int64, rising along each head,
with -1 behind where a head keeps fewer than another, n <= max(budget, what it must keep). The same answer for all heads
may be (n,). A budget of T or more must give all rows. `compress` (activation/compress/apply.py) asks it layer by layer,
gathers the rows and writes `Entry.rows`; a wrapper that shares a budget out over layers or heads calls `keep` of the
one it wraps with another budget, or overrides which budget `compress` gives.

What a mechanism needs beyond keys and values it declares in `needs`, and the engine's `observe` collects it in one
prefill: "queries" (the queries of the last `window` tokens, after RoPE), "hidden" (the layer's input states).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["queries", "hidden"]


@dataclass(frozen=True, slots=True)
class LayerView:
    """What a compressor sees of one attention layer of T tokens; all tensors on the CPU, none may be written to.

    keys, values: (H, T, d), keys after RoPE. queries: (G * H, w, d), after RoPE, of the last w tokens, head h belonging
    to key/value head h // G. hidden: (T, width), the input of the layer's attention after its norm. scaling: what
    q · k is multiplied by before the softmax. layer, layers: which one of how many.
    """

    layer: int
    layers: int
    keys: Tensor
    values: Tensor
    scaling: float
    queries: Tensor | None = None
    hidden: Tensor | None = None


class Compressor(Protocol):
    """Says which rows of a layer to keep."""

    needs: ClassVar[frozenset[Need]]

    def keep(self, layer: LayerView, budget: int) -> Tensor:
        """Rows to keep: (H, n) int64 rising along each head (-1 behind: fewer), or (n,) for all heads alike."""


COMPRESSORS: Mapping[str, Compressor] = {}
"""Name -> compressor with its published hyper-parameters."""
