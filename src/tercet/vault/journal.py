"""The journal: what happened to which cube, in order, each line chained to the one before by its hash.

Lines carry ids, versions and salted commitments, never content, so that an erasure need not rewrite history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from tercet.errors import VaultDamaged
from tercet.vault.codec import dump, from_micros, to_micros
from tercet.vault.connection import query, undamaged
from tercet.vault.ids import format_id, parse_id

GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the journal: at `seq`, `by` did `action` to version `version` of cube `id`."""

    seq: int
    at: datetime
    action: str
    id: str
    version: int | None
    by: str


class Chain:
    """Appends lines within one transaction."""

    def __init__(self, connection: apsw.Connection, *, by: str, at: datetime) -> None:
        self.connection, self.by, self.at = connection, by, to_micros(at)
        self.seq, self.hash = head(connection)

    def append(
        self,
        action: str,
        id: str | None = None,
        version: int | None = None,
        *,
        place: tuple[int, int] | None = None,
        **detail: object,
    ) -> int:
        """Write a line about a cube at `place` (its number, its scope's); returns the line's sequence number."""
        self.seq += 1
        raw = parse_id(id) if id else None
        text = dump(detail) if detail else None
        number, scope = place or (None, None)
        where = (number, version, scope)
        self.hash = _link(self.hash, (self.seq, self.at, action, raw, *where, self.by, text))
        self.connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.seq, self.at, action, raw, *where, self.by, text, self.hash),
        )
        return self.seq


def head(connection: apsw.Connection) -> tuple[int, bytes]:
    """The newest sequence number and hash; (0, zeros) for an empty journal."""
    rows = query(connection, "SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")
    if rows and (not isinstance(rows[0][1], bytes) or len(rows[0][1]) != len(GENESIS)):
        raise VaultDamaged(f"The journal was altered at line {rows[0][0]}; `tercet doctor` tells more.")
    return rows[0] if rows else (0, GENESIS)


def changes(
    connection: apsw.Connection, condition: str, bindings: Sequence[object], *, since: int, limit: int
) -> list[Change]:
    """Lines after `since`, oldest first, on cubes of the scopes that meet a condition over `scopes s`, `owners o`."""
    statement = (
        "SELECT j.seq, j.at, j.action, j.cube, j.version, j.by "  # noqa: S608  # our own words; values are bound
        "FROM journal j JOIN scopes s ON s.n = j.scope JOIN owners o ON o.n = s.owner "
        f"WHERE j.seq > ? AND {condition} ORDER BY j.seq LIMIT ?"
    )
    rows = query(connection, statement, (since, *bindings, limit))
    with undamaged("The journal"):
        return [
            Change(seq, from_micros(at), action, format_id(cube), version, by)
            for seq, at, action, cube, version, by in rows
        ]


def verify(connection: apsw.Connection) -> int:
    """Walk the whole chain; returns how many lines it has.

    Raises
    ------
    VaultDamaged
        At the first line that was changed, removed or put in.
    """
    previous, expected = GENESIS, 0
    for *line, stored in _lines(connection):
        expected += 1
        with undamaged(f"The journal's line {expected}"):
            previous = _link(previous, tuple(line))
        if line[0] != expected or previous != stored:
            raise VaultDamaged(
                f"The journal was altered at line {expected}: its hash does not follow from the one before."
            )
    return expected


def logged_ids(connection: apsw.Connection) -> Iterator[str]:
    """Every id the vault's source gave, in order: what `ReplayedIds` needs to give them again.

    The cubes of an import brought ids of their own; only its episodes were given one here.
    """
    statement = "SELECT action, cube, json_extract(detail, '$.episode') FROM journal ORDER BY seq"
    for action, cube, episode in query(connection, statement):
        if episode is not None:
            yield episode
        elif action in {"remember", "promote"}:
            yield format_id(cube)


def _lines(connection: apsw.Connection) -> Iterator[tuple[Any, ...]]:
    return connection.execute(
        "SELECT seq, at, action, cube, number, version, scope, by, detail, hash FROM journal ORDER BY seq"
    )


def _link(previous: bytes, line: tuple[Any, ...]) -> bytes:
    seq, at, action, cube, *rest = line
    content = dump({"line": [seq, at, action, cube.hex() if cube else None, *rest]})
    return hashlib.sha256(previous + content.encode()).digest()
