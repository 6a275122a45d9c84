"""A cache being worked on with a transformers model. Imported only once a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tercet.engine import attention
from tercet.engine.attention import EnoughError, Rows
from tercet.engine.cache import ATTENTION, KVCache
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.engine.transformers import TransformersEngine


class ModelRun:
    """See `tercet.engine.base.Run`."""

    def __init__(self, engine: TransformersEngine, past: KVCache | None, *, room: int) -> None:
        self.engine, self.adapters = engine, engine.adapters.active
        self.identity = engine.identity
        self.rows = Rows(engine.windows)
        self._tokens: list[int] = []
        if past is not None:
            if any(entry.kind not in ATTENTION for entry in past.entries):
                raise InvalidRequest("This engine goes on from attention layers only; the cache has other states.")
            self._tokens = list(past.tokens)
            self.rows.load(past.entries, engine.dtype, length=len(past.tokens), room=room)
        self._compressed = past is not None and past.compressed

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose rows it holds."""
        return tuple(self._tokens)

    def extend(self, tokens: Sequence[int], *, again: Sequence[int] = (), every: bool = False) -> Tensor:
        """See `Run.extend`."""
        if not tokens:
            raise InvalidRequest("There is no token to go on with.")
        hidden = self._forward(tokens, again)[0, len(again) :]
        with torch.inference_mode():
            return self.engine.head(hidden if every else hidden[-1:]).float()[0 if not every else slice(None)]

    def deviations(self, again: Sequence[int], *, layer: int = 1) -> Tensor:
        """How far the values of rows move at a layer when they are computed anew up to there: (n,), and they are.

        The values of the layers up to `layer` are written; those above it are as they were.
        """
        self.rows.stop = layer
        try:
            self._forward((), again)
        except EnoughError:
            return self.rows.moved[layer]
        finally:
            self.rows.stop = None
        raise InvalidRequest(f"The model has no layer {layer}.")

    def sizes(self, layer: int) -> Tensor:
        """The squared norm of each row's values in a layer, over heads and channels: (T,)."""
        held = self.rows.layers[layer]
        assert held.values is not None  # noqa: S101  # a run that is asked has rows
        return held.values[0, :, : held.used].float().square().sum((0, 2))

    def attention(self, tokens: Sequence[int]) -> Tensor:
        """How much `tokens`, put behind, would look at each row: (T,) float32, summed over layers, heads and tokens.

        The run is as it was afterwards.
        """
        held, asked = len(self._tokens), dict[int, Tensor]()
        self.rows.watch = lambda layer, _, queries: asked.update({layer: queries})
        try:
            self._forward(tokens, ())
            total = torch.zeros(held)
            for layer, queries in asked.items():
                total += attention.mass(self.rows, layer, queries, self.engine.scaling(layer))[:held]
        finally:
            self.rows.watch = None
            self.rows.cut(len(self._tokens) - held)
            del self._tokens[held:]
        return total

    def cache(self) -> KVCache:
        """What is held now: views of the run's own buffers."""
        return KVCache(self.identity, self.tokens, attention.entries(self.rows))

    def pieces(self, scores: Tensor, *, max_tokens: int) -> Iterator[str]:
        """Generate greedily: text as it comes. A piece ends where the tokenizer's bytes make whole characters."""
        made: list[int] = []
        shown = ""
        for step in range(max_tokens):
            token = int(scores.argmax())
            if token in self.engine.ends:
                break
            made.append(token)
            text = self.engine.decode(made)
            if not text.endswith("\ufffd") and len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
            if step + 1 < max_tokens:
                if len(self._tokens) >= self.engine.context:
                    break
                scores = self.extend([token])
        rest = self.engine.decode(made)[len(shown) :]
        if rest:
            yield rest

    def _forward(self, tokens: Sequence[int], again: Sequence[int]) -> Tensor:
        """States of the last layer, (1, len(again) + len(tokens), width)."""
        held = len(self._tokens)
        if held + len(tokens) > self.engine.context:
            raise InvalidRequest(
                f"{held + len(tokens):,} tokens are more than {self.engine.identity.name} takes "
                f"({self.engine.context:,}); use fewer or shorter memories."
            )
        if any(not 0 <= token < self.engine.vocabulary for token in tokens):
            raise InvalidRequest(f"Token ids run from 0 to {self.engine.vocabulary - 1} in this model.")
        if list(again) != sorted(set(again)) or (again and not 0 <= again[0] <= again[-1] < held):
            raise InvalidRequest(f"Rows to compute anew must rise and lie below {held}.")
        if again and self._compressed:
            raise InvalidRequest("Rows of a compressed cache cannot be computed anew.")
        ids = [self._tokens[row] for row in again] + list(tokens)
        if not ids:
            raise InvalidRequest("There is no token to compute.")
        positions = self.rows.begin(len(tokens), again)
        self._tokens.extend(tokens)
        # A run keeps to the adapters that it began with, whatever the thread has come to use since.
        with self.engine.adapters.using(self.adapters), torch.inference_mode():
            return self.engine.states(torch.tensor([ids]), positions.unsqueeze(0), self.rows)
