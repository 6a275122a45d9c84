"""Texts to vectors: the embedder protocol, MiniLM on ONNX Runtime, and whatever the user brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tercet.errors import InvalidRequest
from tercet.text.embed.base import Embedder

Wanted: TypeAlias = Embedder | Callable[..., Any] | str | None
"""What `Tercet.open` takes for an embedder."""


def find_embedder(wanted: Wanted) -> Embedder | None:
    """The embedder that was asked for.

    "auto" looks for MiniLM's weights on this machine and downloads nothing; its name, "all-MiniLM-L6-v2", downloads
    them if they are not here; a callable is wrapped; None stays None.

    Raises
    ------
    InvalidRequest
        For a name that is not known.
    EmbeddingFailed
        If the download fails, or gives other bytes than it should.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str):
        from tercet.text.embed.minilm import MiniLM
        from tercet.text.embed.weights import MODEL

        if wanted not in {"auto", MODEL}:
            raise InvalidRequest(
                f"Unknown embedder {wanted!r}: use 'auto', {MODEL!r}, None, an Embedder or a callable."
            )
        return MiniLM.find() or (MiniLM.fetch(MODEL) if wanted == MODEL else None)
    if not callable(wanted):
        return wanted
    from tercet.text.embed.remote import FromCallable

    return FromCallable(wanted)


def built_in(space: str) -> bool:
    """Whether a space is one of the built-in embedder's, in this or another build."""
    from tercet.text.embed.weights import MODEL

    return space.startswith(f"{MODEL}/")


def find_embedder_of(space: str, former: Wanted) -> Embedder | None:
    """The embedder that gives vectors in a space: the former one if it does, or the built-in; downloads nothing."""
    found = find_embedder(former)
    if found is None and built_in(space):
        found = find_embedder("auto")
    return found if found is not None and found.space == space else None
