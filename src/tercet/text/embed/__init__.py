"""Texts to vectors: the embedder protocol, MiniLM on ONNX Runtime, and whatever the user brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tercet.errors import InvalidRequest
from tercet.text.embed.base import Embedder


def find_embedder(wanted: Embedder | Callable[..., Any] | str | None) -> Embedder | None:
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
