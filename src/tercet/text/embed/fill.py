"""The `embed` job: vectors for the cubes that have none in the embedder's space."""

from __future__ import annotations

from collections.abc import Callable

from tercet.text.embed.base import Embedder
from tercet.text.prepare import embed, space_of
from tercet.vault.connection import query
from tercet.vault.sqlite import Tenant
from tercet.vault.writer import Space

BATCH = 128

_LACKING = """
SELECT c.n FROM cubes c
WHERE c.kind = 'text' AND NOT EXISTS (
    SELECT 1 FROM vectors v JOIN spaces p ON p.n = v.space WHERE v.cube = c.n AND p.name = ?
) ORDER BY c.n LIMIT ?
"""


def lacking(tenant: Tenant, space: Space, limit: int = -1) -> list[int]:
    """Numbers of the text cubes without a vector in a space."""
    with tenant.reading() as reader:
        return [n for (n,) in query(reader.connection, _LACKING, (space.name, limit))]


def fill(tenant: Tenant, embedder: Embedder, *, by: str, progress: Callable[[int], None] | None = None) -> int:
    """Embed what has no vector yet, a batch a transaction; returns how many. Raises EmbeddingFailed."""
    space, done = space_of(embedder), 0
    assert space is not None  # noqa: S101  # there is an embedder
    while numbers := lacking(tenant, space, BATCH):
        with tenant.reading() as reader:
            cubes = dict(zip(numbers, reader.cubes(numbers), strict=True))
        made = embed([cube.text for cube in cubes.values()], embedder)
        rows = [(n, cube, *pair) for (n, cube), pair in zip(cubes.items(), made, strict=True)]
        with tenant.writing(by=by) as writer:
            writer.embedded(rows, space)
        done += len(rows)
        if progress is not None:
            progress(len(rows))
    return done
