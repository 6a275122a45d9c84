"""From draft cubes to entries: words counted, vectors made, all of it before any transaction begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tercet.cube import Kind, MemCube
from tercet.errors import EmbeddingFailed
from tercet.text.embed.base import Embedder
from tercet.vault.search import vectors, words
from tercet.vault.writer import Entry, Space

AT_ONCE = 50_000
"""Characters up to which a text is embedded within the call; a longer one is found by words until its job has run."""

log = logging.getLogger(__name__)


def space_of(embedder: Embedder | None) -> Space | None:
    """The space an embedder's vectors live in."""
    return Space(embedder.space, embedder.dim) if embedder is not None else None


def prepare(drafts: Sequence[MemCube], embedder: Embedder | None) -> list[Entry]:
    """Entries for drafts, in order; without vectors, which a job makes later, if the embedder is absent or fails."""
    wanted = [i for i, draft in enumerate(drafts) if draft.kind is Kind.TEXT and len(draft.text) <= AT_ONCE]
    made: dict[int, tuple[bytes, bytes | None]] = {}
    if embedder is not None and wanted:
        try:
            made = dict(zip(wanted, embed([drafts[i].text for i in wanted], embedder), strict=True))
        except EmbeddingFailed as error:
            log.warning("%d memories are kept without vectors for now, an embed job is queued: %s", len(wanted), error)
    return [
        Entry(draft, words.counts(draft.text), 0, *made.get(i, (None, None))) for i, draft in enumerate(drafts)
    ]  # fmt: skip


def embed(texts: Sequence[str], embedder: Embedder) -> list[tuple[bytes, bytes | None]]:
    """(vectors, coded token states) of each text, as a row keeps them. Raises EmbeddingFailed."""
    return [(vectors.pack(made.vectors, embedder.dim), None) for made in embedder.embed(texts)]
