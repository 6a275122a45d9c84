"""A decoder cut in two, so that what adapters in the upper layers leave alone is computed once.

Imported only once a model is loaded.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Halves:
    """The layers below a cut and those from it on. They are the model's own modules, hooks and all, not copies."""

    lower: Any
    upper: Any

    def below(self, ids: Tensor) -> Tensor:
        """What the lower layers make of tokens (B, T), before the upper ones: (B, T, width), without gradients."""
        with torch.no_grad():
            return self.lower(input_ids=ids, use_cache=False).last_hidden_state

    def above(self, states: Tensor) -> Tensor:
        """The decoder's last states, (B, T, width), from those at the cut; gradients flow."""
        return self.upper(inputs_embeds=states, use_cache=False).last_hidden_state


def cut(model: Any, layer: int) -> Halves:  # noqa: ANN401  # a causal decoder of transformers
    """Cut a model's decoder before a layer."""
    decoder = model.get_decoder()
    lower = _part(decoder, slice(0, layer))
    lower._modules["norm"] = torch.nn.Identity()  # noqa: SLF001  # it belongs after the last layer
    return Halves(lower, _part(decoder, slice(layer, None)))


def _part(decoder: Any, where: slice) -> Any:  # noqa: ANN401  # modules of transformers
    """A decoder of some of the layers, which shares them; the given one keeps all of its own."""
    part = copy.copy(decoder)
    part._modules = {**decoder._modules, "layers": decoder.layers[where]}  # noqa: SLF001  # a view, not a rebuilt model
    part.config = copy.copy(decoder.config)
    part.config.num_hidden_layers = len(part.layers)
    if getattr(decoder.config, "layer_types", None):
        part.config.layer_types = decoder.config.layer_types[where]
    return part
