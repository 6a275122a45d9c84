"""The `embed` job: vectors for the cubes that have none in the embedder's space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from tercet.cube import MemCube
from tercet.errors import EmbeddingFailed
from tercet.text.embed.base import Embedder
from tercet.text.prepare import embed, space_of
from tercet.vault import jobs
from tercet.vault.connection import query
from tercet.vault.sqlite import Tenant
from tercet.vault.writer import Space

BATCH = 128
FAILURES = 8
"""Texts that may fail before a run gives up: then it is the embedder that fails, not the texts."""

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


def want(tenant: Tenant, space: Space, *, at: datetime) -> None:
    """Put down an `embed` job if there is something to embed and no such job yet."""
    if lacking(tenant, space, 1):
        with tenant.maintaining() as connection:
            if "embed" not in jobs.counts(connection):
                jobs.enqueue(connection, "embed", {}, at=at)


def fill(tenant: Tenant, embedder: Embedder, *, by: str, progress: Callable[[int], None] | None = None) -> int:
    """Embed what has no vector yet, a batch a transaction; returns how many.

    A text that the embedder cannot read keeps none of the others from their vectors.

    Raises
    ------
    EmbeddingFailed
        If texts are left, once the others are done, or once `FAILURES` were refused.
    """
    space, done, failed = space_of(embedder), 0, dict[int, EmbeddingFailed]()
    assert space is not None  # noqa: S101  # there is an embedder
    while numbers := [n for n in lacking(tenant, space, BATCH + len(failed)) if n not in failed]:
        with tenant.reading() as reader:
            cubes = {n: cube for n in numbers for cube in reader.cubes([n])}  # one may have been erased since
        rows = [(n, cubes[n], *made) for n, made in _each(cubes, embedder, failed).items()]
        if rows:
            with tenant.writing(by=by) as writer:
                writer.embedded(rows, space)
        done += len(rows)
        if progress is not None:
            progress(len(rows))
        if len(failed) >= FAILURES:
            break
    for error in failed.values():
        raise error
    return done


def _each(
    cubes: Mapping[int, MemCube], embedder: Embedder, failed: dict[int, EmbeddingFailed]
) -> dict[int, tuple[bytes, bytes | None]]:
    """What each cube became: all at once, or one by one where that fails. Takes down which fail."""
    try:
        return dict(zip(cubes, embed([cube.text for cube in cubes.values()], embedder), strict=True))
    except EmbeddingFailed as error:
        if len(cubes) == 1:
            failed[next(iter(cubes))] = error
            return {}
    made: dict[int, tuple[bytes, bytes | None]] = {}
    for n, cube in cubes.items():
        if len(failed) < FAILURES:
            made |= _each({n: cube}, embedder, failed)
    return made
