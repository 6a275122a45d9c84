"""From draft cubes to entries: words counted, vectors made, all of it before any transaction begins."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from tercet.cube import Kind, MemCube
from tercet.errors import EmbeddingFailed
from tercet.text.embed.base import Embedder, gives_states
from tercet.text.recall.late import Coder
from tercet.text.recall.query import marks
from tercet.vault.search import vectors, words
from tercet.vault.spaces import Space
from tercet.vault.writer import Entry

AT_ONCE = 50_000
"""Characters up to which a text is embedded within the call; a longer one is found by words until its job has run."""

STATES_AT_ONCE = 256
"""Texts whose token states are held at the same time; they are float32 and large."""

log = logging.getLogger(__name__)


def space_of(embedder: Embedder | None) -> Space | None:
    """The space an embedder's vectors live in."""
    return Space(embedder.space, embedder.dim) if embedder is not None else None


def answering_space(embedder: Embedder | None) -> Space | None:
    """The embedder's space, asked for before any transaction; None while the embedder fails to tell its dimension."""
    try:
        return space_of(embedder)
    except EmbeddingFailed as error:
        log.warning("the embedder does not answer: %s", error)
        return None


def prepare(drafts: Sequence[MemCube], embedder: Embedder | None) -> list[Entry]:
    """Entries for drafts, in order; without vectors, which a job makes later, if the embedder is absent or fails."""
    wanted = [i for i, draft in enumerate(drafts) if draft.kind is Kind.TEXT and len(draft.text) <= AT_ONCE]
    made: dict[int, tuple[bytes, bytes | None]] = {}
    if embedder is not None and wanted:
        try:
            made = dict(zip(wanted, embed([drafts[i].text for i in wanted], embedder), strict=True))
        except EmbeddingFailed as error:
            log.warning("%d memories are kept without vectors for now, an embed job is queued: %s", len(wanted), error)
    nothing: tuple[None, None] = (None, None)
    return [
        Entry(draft, words.counts(draft.text), marks(draft.text), *made.get(i, nothing))
        for i, draft in enumerate(drafts)
    ]


@contextmanager
def guarded() -> Iterator[None]:
    """Around every use of an embedder: whatever a stranger's may raise becomes an EmbeddingFailed."""
    try:
        yield
    except EmbeddingFailed:
        raise
    except Exception as error:
        raise EmbeddingFailed(f"The embedder raised {type(error).__name__}: {error}") from error


def embed(texts: Sequence[str], embedder: Embedder) -> list[tuple[bytes, bytes | None]]:
    """(vectors, coded token states) of each text, as a row keeps them. Raises EmbeddingFailed."""
    with guarded():
        rows = _rows(texts, embedder)
    if len(rows) != len(texts):
        raise EmbeddingFailed(f"The embedder gave {len(rows)} answers for {len(texts)} texts.")
    return rows


def _rows(texts: Sequence[str], embedder: Embedder) -> list[tuple[bytes, bytes | None]]:
    coder = coder_for(embedder)
    if coder is None or not gives_states(embedder):
        return [(vectors.pack(made.vectors, embedder.dim), None) for made in embedder.embed(texts)]
    rows: list[tuple[bytes, bytes | None]] = []
    for start in range(0, len(texts), STATES_AT_ONCE):
        for made in embedder.embed(texts[start : start + STATES_AT_ONCE], states=True):
            states = None
            if made.states is not None and made.token_ids is not None:
                states = coder.encode(made.states, made.token_ids)
            rows.append((vectors.pack(made.vectors, embedder.dim), states))
    return rows


def coder_for(embedder: Embedder) -> Coder | None:
    """The coder that fits an embedder's token states; None if it gives none, or there is no coder for its model."""
    fits = gives_states(embedder) and embedder.space.startswith("all-MiniLM-L6-v2/")
    return minilm_coder() if fits else None


@cache
def minilm_coder() -> Coder:
    """The coder for all-MiniLM-L6-v2, loaded once."""
    return Coder.load()
