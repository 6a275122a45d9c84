"""A decoder cut in two computes what it computes whole, wherever it is cut, and is left as it was."""

from __future__ import annotations

import pytest
import torch

from tercet.engine.halves import cut
from tercet.testing.tiny import tiny_engine


@pytest.mark.parametrize("kind", ["llama", "qwen", "gemma"])
def test_the_halves_are_the_whole(kind: str) -> None:
    engine = tiny_engine(kind)
    ids = torch.arange(40)[None] % engine.vocabulary
    whole = engine.read(ids)
    for layer in range(1, engine.config.num_hidden_layers):
        halves = cut(engine.model, layer)
        assert torch.equal(halves.above(halves.below(ids)), whole), layer
    assert torch.equal(engine.read(ids), whole)
    assert len(engine.model.get_decoder().layers) == engine.config.num_hidden_layers
