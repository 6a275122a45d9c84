"""The journal: what happened to which cube, in order, each line chained to the one before by its hash.

Lines carry ids, versions and salted commitments, never content, so that an erasure need not rewrite history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from tercet.errors import InvalidRequest, VaultDamaged
from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.codec import dump, from_micros, to_micros
from tercet.vault.connection import query, rising, undamaged
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


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal as an auditor reads it: who (`by`) did what, when, to which cube, with what detail."""

    seq: int
    at: datetime
    by: str
    action: str
    id: str | None
    version: int | None
    detail: Mapping[str, Any]
    hash: str


class Chain:
    """Appends lines within one transaction."""

    def __init__(self, connection: apsw.Connection, *, by: str, at: datetime, branch: int = 0) -> None:
        self.connection, self.by, self.at, self.branch = connection, by, to_micros(at), branch
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
        """Write a line about a cube at `place` (its number, its scope's); returns the line's sequence number.

        The detail of a line says of which branch it is, unless it is of the main line.
        """
        if self.branch:
            detail = {"branch": self.branch, **detail}
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
    connection: apsw.Connection,
    condition: str,
    bindings: Sequence[object],
    *,
    layers: Sequence[tuple[int, int]],
    since: int,
    limit: int,
    allowed: Allowed = EVERYTHING,
) -> list[Change]:
    """Lines after `since`, oldest first, on cubes of the scopes that meet a condition over `scopes s`, `owners o`.

    `layers` are the branches that are looked at, each up to some line; erasures are told beyond it, for they reach all.
    A scope that holds nothing any more has no name any more: its lines are seen by whoever asks for the whole tenant.
    """
    within = " OR ".join("(of = ? AND (j.seq <= ? OR j.action = 'forget'))" for _ in layers)
    bounds = [bound for layer in layers for bound in layer]
    heads, judged = "", "TRUE"
    if allowed is not EVERYTHING:
        heads = "LEFT JOIN cubes c ON c.n = j.number "
        judged = f"CASE WHEN c.n IS NULL THEN {allowed.gone} ELSE {allowed.condition} END"
    statement = (
        "SELECT j.seq, j.at, j.action, j.cube, j.version, j.by, "  # noqa: S608  # our own words; values are bound
        "CASE WHEN json_valid(j.detail) THEN coalesce(j.detail ->> '$.branch', 0) ELSE 0 END AS of "
        f"FROM journal j LEFT JOIN scopes s ON s.n = j.scope LEFT JOIN owners o ON o.n = s.owner {heads}"
        f"WHERE j.seq > ? AND j.scope IS NOT NULL AND {condition} AND ({within}) AND {judged} ORDER BY j.seq LIMIT ?"
    )
    bound = (since, *bindings, *bounds, *allowed.gone_bindings, *allowed.bindings, limit)
    rows = query(connection, statement, bound)
    rising([row[0] for row in rows], since)
    with undamaged("The journal"):
        return [
            Change(seq, from_micros(at), action, format_id(cube), version, by)
            for seq, at, action, cube, version, by, _ in rows
        ]


def lines(connection: apsw.Connection, *, since: int, limit: int) -> list[Line]:
    """Lines after `since`, oldest first. Raises InvalidRequest for a `since` that is no line's number."""
    if not isinstance(since, int) or not 0 <= since < 2**63:
        raise InvalidRequest(f"since is a line's number, `.seq`, not {since!r:.40}.")
    statement = (
        "SELECT seq, at, by, action, cube, version, detail, hash FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
    )
    with undamaged("The journal"):
        return [
            Line(
                seq,
                from_micros(at),
                by,
                action,
                format_id(cube) if cube else None,
                version,
                json.loads(detail) if detail else {},
                hash.hex(),
            )
            for seq, at, by, action, cube, version, detail, hash in query(connection, statement, (since, limit))
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
