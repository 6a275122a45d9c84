"""What an embedder is: texts in, unit vectors out, in a named space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Embedding:
    """What one text became.

    `vectors` is float32 (windows, dim), each row of unit norm; at least one row, and more than one where the text is
    longer than the embedder reads at once: overlapping windows, so that nothing is cut silently. `states` is float32
    (tokens, dim), the last hidden state of each token that is part of the text, and `token_ids` int32 (tokens,);
    both are None unless they were asked for and the embedder has them.
    """

    vectors: Floats
    states: Floats | None = None
    token_ids: Ints | None = None


class Embedder(Protocol):
    """Anything that places texts in one vector space. Vectors of different spaces must never be compared."""

    @property
    def space(self) -> str:
        """The name of the space: model, weights, coding. Stored beside every vector."""

    @property
    def dim(self) -> int:
        """The length of a vector."""

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed each text, in order; a text's result does not depend on the others. Raises `EmbeddingFailed`."""


class TokenEmbedder(Embedder, Protocol):
    """An embedder that also gives the last hidden state of each token, in the same pass.

    It says so by an attribute `gives_states` that is true; there need not be one otherwise.
    """

    gives_states: bool

    def embed(self, texts: Sequence[str], *, states: bool = False) -> list[Embedding]:
        """As `Embedder.embed`; with `states`, an `Embedding` has its states and token ids."""


def gives_states(embedder: Embedder) -> TypeGuard[TokenEmbedder]:
    """Whether an embedder declares that it gives token states."""
    return bool(getattr(embedder, "gives_states", False))
