"""Embedding spaces side by side: which a vault has, which one it moves to, and dropping one that it has left.

A vault lives in one space. When it moves to another, every other space is marked as left; rows get vectors in the new
one a batch at a time, and once none lacks one the left spaces go, a batch at a time too. By the marks a move goes on
after an interruption, and they outlive it, so that a process with the old embedder does not move the vault back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw

from tercet.vault.codec import dump, from_micros, to_micros
from tercet.vault.connection import atomic, marks, query, rising, scalar, undamaged

BATCH = 1000
"""Vectors that are dropped in one transaction."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: vectors are compared only within one."""

    name: str
    dim: int


@dataclass(frozen=True, slots=True)
class Left:
    """Since when a space is left, and whether its vectors stay all the same."""

    at: datetime
    keep: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A space that has a row here: its number, what it is, and whether it was left."""

    n: int
    space: Space
    left: Left | None


def known(connection: apsw.Connection) -> list[Known]:
    """Every space that vectors may be in, the oldest first."""
    with undamaged("The list of embedding spaces"):
        return [
            Known(n, Space(name, dim), left(connection, name))
            for n, name, dim in query(connection, "SELECT n, name, dim FROM spaces ORDER BY n")
        ]


def left(connection: apsw.Connection, name: str) -> Left | None:
    """How the vault left a space, which may have no vector any more; None if it did not."""
    value = scalar(connection, "SELECT value FROM meta WHERE key = ?", (f"left:{name}",))
    if value is None:
        return None
    found = json.loads(value)
    return Left(from_micros(found["at"]), bool(found["keep"]))


def others(connection: apsw.Connection, space: Space) -> list[Known]:
    """The spaces that the vault has beside one and has not left."""
    return [one for one in known(connection) if one.left is None and one.space.name != space.name]


def enter(connection: apsw.Connection, space: Space, *, keep: bool, at: datetime) -> None:
    """Leave every other space for this one; `keep` their vectors, or let them go once the move is done."""
    with atomic(connection):
        connection.execute("DELETE FROM meta WHERE key = ?", (f"left:{space.name}",))
        for one in known(connection):
            if one.space.name != space.name:
                value = dump({"at": to_micros(one.left.at if one.left else at), "keep": keep})
                insert = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?2"
                connection.execute(insert, (f"left:{one.space.name}", value))


def to_drop(connection: apsw.Connection) -> list[Known]:
    """The spaces whose vectors are not wanted any more."""
    return [one for one in known(connection) if one.left is not None and not one.left.keep]


def drop(connection: apsw.Connection, n: int, folder: Path) -> None:
    """Take a space's vectors out, a batch a transaction, then its segments (in `folder`) and the space itself."""
    for table in ("vectors", "old_vectors"):
        after = 0
        while page := _page(connection, table, n, after):
            with atomic(connection):
                gone = f"DELETE FROM {table} WHERE rowid IN ({marks(page)})"  # noqa: S608  # our own words
                connection.execute(gone, page)
            after = page[-1]
    with atomic(connection):
        for table in ("vectors", "old_vectors"):  # whoever has the old embedder may have written meanwhile
            connection.execute(f"DELETE FROM {table} WHERE space = ?", (n,))  # noqa: S608
        connection.execute("DELETE FROM meta WHERE key = ?", (f"segment:{n}",))
        connection.execute("DELETE FROM spaces WHERE n = ?", (n,))
    for path in folder.glob(f"vectors-{n}-*"):
        path.unlink(missing_ok=True)


def lacking(connection: apsw.Connection, space: Space, *, limit: int = -1, after: int = 0) -> Sequence[int]:
    """Numbers above `after` of the text cubes without a vector in a space, ascending."""
    return rising([n for (n,) in query(connection, _LACKING, (after, space.name, limit))], after)


_LACKING = """
SELECT c.n FROM cubes c
WHERE c.n > ? AND c.kind = 'text' AND NOT EXISTS (
    SELECT 1 FROM vectors v JOIN spaces p ON p.n = v.space WHERE v.cube = c.n AND p.name = ?
) ORDER BY c.n LIMIT ?
"""


def lacking_old(connection: apsw.Connection, space: Space) -> dict[int, list[int]]:
    """By cube, the older versions that have a vector in some space and none in this one."""
    found: dict[int, list[int]] = {}
    for n, version in query(connection, _LACKING_OLD, (space.name,)):
        found.setdefault(n, []).append(version)
    return found


_LACKING_OLD = """
SELECT DISTINCT o.cube, o.version FROM old_vectors o
WHERE NOT EXISTS (
    SELECT 1 FROM old_vectors v JOIN spaces p ON p.n = v.space
    WHERE v.cube = o.cube AND v.version = o.version AND p.name = ?
) ORDER BY 1, 2
"""


def keep_old(connection: apsw.Connection, rows: Sequence[tuple[int, int, bytes, bytes | None]], space: int) -> None:
    """Vectors of older versions, for looks into the past: (cube number, version, vectors, states).

    A version that was erased since they were made takes none.
    """
    for n, version, vectors, states in rows:
        if scalar(connection, "SELECT 1 FROM old_vectors WHERE cube = ? AND version = ?", (n, version)):
            insert = "INSERT INTO old_vectors (cube, version, space, vectors, states) VALUES (?, ?, ?, ?, ?)"
            connection.execute(f"{insert} ON CONFLICT DO NOTHING", (n, version, space, vectors, states))


def _page(connection: apsw.Connection, table: str, n: int, after: int) -> Sequence[int]:
    statement = f"SELECT rowid FROM {table} WHERE rowid > ? AND space = ? ORDER BY rowid LIMIT ?"  # noqa: S608
    return rising([row for (row,) in query(connection, statement, (after, n, BATCH))], after)


def collect(connection: apsw.Connection) -> dict[str, Any]:
    """Each space by name: its dimension, how many vectors it has, how many of older versions, and if it was left."""
    counts, old = (
        dict(query(connection, f"SELECT space, count(*) FROM {table} GROUP BY 1"))  # noqa: S608
        for table in ("vectors", "old_vectors")
    )
    return {
        one.space.name: {
            "dim": one.space.dim,
            "vectors": counts.get(one.n, 0),
            "old_vectors": old.get(one.n, 0),
            "left": one.left.at.isoformat() if one.left else None,
        }
        for one in known(connection)
    }
