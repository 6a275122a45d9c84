"""Texts to vectors: the embedder protocol, MiniLM on ONNX Runtime, and whatever the user brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tercet.errors import InvalidRequest
from tercet.text.embed.base import Embedder


def find_embedder(wanted: Embedder | Callable[..., Any] | str | None) -> Embedder | None:
    """The embedder that was asked for: "auto" looks for MiniLM's weights on this machine, a callable is wrapped.

    Raises
    ------
    InvalidRequest
        For a name that is not known.
    """
    if wanted is None:
        return None
    if wanted == "auto":
        from tercet.text.embed.minilm import MiniLM

        return MiniLM.find()
    if isinstance(wanted, str):
        raise InvalidRequest(f"Unknown embedder {wanted!r}: use 'auto', None, an Embedder or a callable.")
    if not callable(wanted):
        return wanted
    from tercet.text.embed.remote import FromCallable

    return FromCallable(wanted)
