"""The rows of grants: who may read what on whose word. It stores and finds; `govern` decides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import apsw

from tercet.cube import MemCube
from tercet.scope import Scope
from tercet.vault.codec import to_micros
from tercet.vault.connection import marks, query, scalar
from tercet.vault.ids import format_id, parse_id
from tercet.vault.writer import Writer


@dataclass(frozen=True, slots=True)
class ShareRow:
    """A grant as it is kept; times are microseconds since 1970. `condition` is None where it names cubes."""

    n: int
    at: int
    subject: str
    by: str
    user: str | None
    agent: str | None
    session: str | None
    condition: str | None
    purpose: str | None
    reads: int | None
    used: int
    expires: int | None
    revoked: int | None

    def live(self, now: int) -> bool:
        """Whether it gives anything at that moment. What was revoked does not, whatever a clock says."""
        unspent = self.reads is None or self.used < self.reads
        return self.revoked is None and unspent and (self.expires is None or now < self.expires)


COLUMNS = "n, at, subject, by, user, agent, session, condition, purpose, reads, used, expires, revoked"


def share_rows(connection: apsw.Connection, subjects: Sequence[str] | None = None) -> list[ShareRow]:
    """Grants to these subjects (None: to anybody), oldest first, those that give nothing any more among them."""
    whose = "" if subjects is None else f"WHERE subject IN ({marks(subjects)})"
    rows = query(connection, f"SELECT {COLUMNS} FROM shares {whose} ORDER BY n", subjects or ())  # noqa: S608  # ours
    return [ShareRow(*row) for row in rows]


def share_row(connection: apsw.Connection, n: int) -> ShareRow | None:
    """The grant of that number."""
    rows = query(connection, f"SELECT {COLUMNS} FROM shares WHERE n = ?", (n,))  # noqa: S608  # our own words
    return ShareRow(*rows[0]) if rows else None


def cubes_of(connection: apsw.Connection, n: int) -> tuple[str, ...]:
    """The ids that a grant names."""
    return tuple(format_id(raw) for (raw,) in query(connection, "SELECT cube FROM shared WHERE share = ?", (n,)))


def add_share(writer: Writer, row: ShareRow, cubes: Sequence[str]) -> int:
    """Keep a grant; returns its number. The journal says which memories it names, or that it is of a scope."""
    n = int(
        scalar(
            writer.connection,
            "INSERT INTO shares (at, subject, by, user, agent, session, condition, purpose, reads, expires) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
            (row.at, row.subject, row.by, row.user, row.agent, row.session, row.condition, row.purpose, row.reads,
             row.expires),
        )
    )  # fmt: skip
    writer.connection.executemany("INSERT INTO shared VALUES (?, ?)", [(parse_id(id), n) for id in cubes])
    writer.chain.append("share", share=n, cubes=list(cubes))
    return n


def revoke_share(writer: Writer, n: int) -> None:
    """Let a grant give nothing any more."""
    writer.connection.execute("UPDATE shares SET revoked = ? WHERE n = ?", (to_micros(writer.at), n))
    writer.chain.append("revoke share", share=n)


def spend(writer: Writer, numbers: Sequence[int]) -> bool:
    """Take one read of each of these grants, of all or of none; False if one of them gives nothing any more."""
    now = to_micros(writer.at)
    rows = [share_row(writer.connection, n) for n in numbers]
    if not all(row is not None and row.live(now) for row in rows):
        return False
    for n in numbers:
        writer.connection.execute("UPDATE shares SET used = used + 1 WHERE n = ?", (n,))
        writer.chain.append("read share", share=n)
    return True


def end_shares(writer: Writer, erased: Collection[MemCube], rows: dict[str, int]) -> None:
    """Take erased cubes out of the grants that name them; a grant that names none any more goes, with a journal line.

    So does one of a scope in which nothing is left: the names in it are content.
    """
    connection, touched = writer.connection, set[int]()
    for raw in {parse_id(cube.id) for cube in erased}:
        touched |= {n for (n,) in query(connection, "DELETE FROM shared WHERE cube = ? RETURNING share", (raw,))}
    gone = [n for n in sorted(touched) if not cubes_of(connection, n)]
    scopes = {cube.scope for cube in erased}
    for n, *parts in query(connection, "SELECT n, user, agent, session FROM shares WHERE condition IS NOT NULL"):
        named = any(Scope(writer.tenant, *parts).covers(scope) for scope in scopes)
        if named and any(parts) and not scalar(connection, _HOLDS, (*parts,)):
            gone.append(n)
    for n in gone:
        connection.execute("DELETE FROM shares WHERE n = ?", (n,))
        writer.chain.append("end share", share=n)
    if gone:
        rows["shares"] = rows.get("shares", 0) + len(gone)


_HOLDS = """
SELECT EXISTS (
    SELECT 1 FROM scopes s JOIN owners o ON o.n = s.owner
    WHERE o.user = coalesce(?1, o.user) AND s.agent = coalesce(?2, s.agent) AND s.session = coalesce(?3, s.session)
)
"""
