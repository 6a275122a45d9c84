"""The `embed` job: vectors for the cubes that have none in the embedder's space, and the end of the spaces left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from tercet.errors import EmbeddingFailed
from tercet.text.embed.base import Embedder
from tercet.text.prepare import embed, space_of
from tercet.vault import jobs, spaces
from tercet.vault.spaces import Space
from tercet.vault.sqlite import Tenant, segments_of

BATCH = 128
FAILURES = 8
"""Texts that may fail before a run gives up: then it is the embedder that fails, not the texts."""

Made = tuple[bytes, bytes | None]
K = TypeVar("K")


def lacking(tenant: Tenant, space: Space, limit: int = -1) -> Sequence[int]:
    """Numbers of the text cubes without a vector in a space."""
    with tenant.reading() as reader:
        return spaces.lacking(reader.connection, space, limit=limit)


def want(tenant: Tenant, space: Space, *, at: datetime) -> None:
    """Put down an `embed` job if there is something to embed, or a space to drop, and no such job yet."""
    with tenant.reading() as reader:
        wanted = spaces.to_drop(reader.connection) or spaces.lacking(reader.connection, space, limit=1)
    if wanted:
        with tenant.maintaining() as connection:
            if "embed" not in jobs.counts(connection):
                jobs.enqueue(connection, "embed", {}, at=at)


def may_fill(tenant: Tenant, space: Space, *, may_enter: Callable[[Space], bool], at: datetime) -> bool:
    """Whether vectors in this space are wanted: it is the vault's only one, or the one that the vault moves to.

    A space that was left is not entered again; another is where `may_enter` allows to leave each of those that the
    vault is in. Entering is where a move begins.
    """
    with tenant.reading() as reader:
        if spaces.left(reader.connection, space.name) is not None:
            return False
        beside = spaces.others(reader.connection, space)
    if not all(may_enter(one.space) for one in beside):
        return False
    if beside:
        with tenant.maintaining() as connection:
            spaces.enter(connection, space, keep=False, at=at)
    return True


def fill(tenant: Tenant, embedder: Embedder, *, by: str, progress: Callable[[int], None] | None = None) -> int:
    """Embed what has no vector yet, a batch a transaction, then drop the spaces left for this one; returns how many.

    A text that the embedder cannot read keeps none of the others from their vectors. To be run again after an
    interruption: it goes on where it was.

    Raises
    ------
    EmbeddingFailed
        If texts are left, once the others are done, or once `FAILURES` were refused; no space is dropped then.
    """
    space = space_of(embedder)
    assert space is not None  # noqa: S101  # there is an embedder
    done = _fill(tenant, space, embedder, by, progress)
    _fill_old(tenant, space, embedder, by)
    with tenant.maintaining() as connection:
        for one in spaces.to_drop(connection):
            if one.space.name != space.name:
                spaces.drop(connection, one.n, segments_of(tenant.path))
    return done + _fill(tenant, space, embedder, by, progress)  # what came meanwhile from who has the old embedder


def _fill(tenant: Tenant, space: Space, embedder: Embedder, by: str, progress: Callable[[int], None] | None) -> int:
    done, after, failed = 0, 0, dict[int, EmbeddingFailed]()
    while len(failed) < FAILURES:
        with tenant.reading() as reader:
            numbers = spaces.lacking(reader.connection, space, limit=BATCH, after=after)
            cubes = {n: cube for n in numbers for cube in reader.cubes([n])}
        if not numbers:
            break
        after = numbers[-1]
        made = _each({n: cube.text for n, cube in cubes.items()}, embedder, failed)
        if made:
            with tenant.writing(by=by) as writer:
                writer.embedded([(n, cubes[n], *row) for n, row in made.items()], space)
        done += len(made)
        if progress is not None:
            progress(len(made))
    for error in failed.values():
        raise error
    return done


def _fill_old(tenant: Tenant, space: Space, embedder: Embedder, by: str) -> None:
    """Older versions that have a vector in another space get one in this: a look into the past is by meaning, too."""
    with tenant.reading() as reader:
        wanted = list(spaces.lacking_old(reader.connection, space).items())
    failed = dict[tuple[int, int], EmbeddingFailed]()
    for start in range(0, len(wanted), BATCH):
        with tenant.reading() as reader:
            texts = {
                (n, cube.version): cube.text
                for n, versions in wanted[start : start + BATCH]
                if reader.cubes([n])  # one may have been erased since
                for cube in reader.versions(n)
                if cube.version in versions
            }
        made = _each(texts, embedder, failed)
        with tenant.writing(by=by) as writer:
            n_of_space = writer.space(space)
            if n_of_space is not None:
                spaces.keep_old(writer.connection, [(*key, *row) for key, row in made.items()], n_of_space)
        for error in failed.values():
            raise error


def _each(texts: Mapping[K, str], embedder: Embedder, failed: dict[K, EmbeddingFailed]) -> dict[K, Made]:
    """What each text became: all at once, or one by one where that fails. Takes down which fail."""
    try:
        return dict(zip(texts, embed(list(texts.values()), embedder), strict=True))
    except EmbeddingFailed as error:
        if len(texts) == 1:
            failed[next(iter(texts))] = error
            return {}
    made: dict[K, Made] = {}
    for key, text in texts.items():
        if len(failed) < FAILURES:
            made |= _each({key: text}, embedder, failed)
    return made
