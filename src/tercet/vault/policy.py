"""The rows of access: rules, keys, and who is granted something by a cube. It stores and finds; `govern` decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apsw

from tercet.vault.codec import to_micros
from tercet.vault.connection import marks, query, scalar
from tercet.vault.writer import Writer

Token = tuple[int, int | None, int | None]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is kept: never its text. Times are microseconds since 1970."""

    id: str
    hash: bytes
    body: str
    at: int
    expires: int | None
    revoked: int | None

    def live(self, now: int) -> bool:
        """Whether it opens anything at that moment. What was revoked does not, whatever a clock says."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def rules_token(connection: apsw.Connection) -> Token:
    """Changes whenever the rules do: numbers are never given twice, so these three tell every set of rules apart."""
    [(count, newest, times)] = query(connection, "SELECT count(*), max(n), sum(at) FROM rules")
    return count, newest, times


def rule_rows(connection: apsw.Connection) -> list[tuple[int, str]]:
    """(number, body) of each rule, oldest first."""
    return query(connection, "SELECT n, body FROM rules ORDER BY n")


def add_rule(writer: Writer, body: str) -> int:
    """Keep a rule; returns its number. The journal says that there is one more, not what it says."""
    insert = "INSERT INTO rules (at, body) VALUES (?, ?) RETURNING n"
    n = int(scalar(writer.connection, insert, (to_micros(writer.at), body)))
    writer.chain.append("add rule", rule=n)
    return n


def remove_rule(writer: Writer, n: int) -> bool:
    """Take a rule away; whether there was one of that number."""
    writer.connection.execute("DELETE FROM rules WHERE n = ?", (n,))
    if not writer.connection.changes():
        return False
    writer.chain.append("remove rule", rule=n)
    return True


def granted(connection: apsw.Connection, values: Sequence[str]) -> bool:
    """Whether any cube's access list has one of these lines."""
    statement = f"SELECT 1 FROM attributes WHERE key = 'access' AND value IN ({marks(values)}) LIMIT 1"  # noqa: S608
    return scalar(connection, statement, values) is not None


def key_row(connection: apsw.Connection, id: str) -> KeyRow | None:
    """The key of that id."""
    rows = query(connection, "SELECT id, hash, body, at, expires, revoked FROM keys WHERE id = ?", (id,))
    return KeyRow(*rows[0]) if rows else None


def newest_key(connection: apsw.Connection, id: str) -> str:
    """The id of what a key was last rotated into; its own if it was not."""
    family = "SELECT id FROM keys WHERE id = ?1 OR substr(id, 1, length(?1) + 1) = ?1 || '~' ORDER BY at DESC, id DESC"
    return str(scalar(connection, f"{family} LIMIT 1", (id.partition("~")[0],)) or id)


def key_rows(connection: apsw.Connection) -> list[KeyRow]:
    """All keys, oldest first, those that open nothing any more among them."""
    rows = query(connection, "SELECT id, hash, body, at, expires, revoked FROM keys ORDER BY at, id")
    return [KeyRow(*row) for row in rows]


def add_key(writer: Writer, row: KeyRow, *, action: str) -> None:
    """Keep a key, with a journal line that has its id."""
    insert = "INSERT INTO keys (id, hash, body, at, expires, revoked) VALUES (?, ?, ?, ?, ?, ?)"
    writer.connection.execute(insert, (row.id, row.hash, row.body, row.at, row.expires, row.revoked))
    writer.chain.append(action, key=row.id)


def revoke_key(writer: Writer, id: str) -> None:
    """Let a key open nothing any more."""
    writer.connection.execute("UPDATE keys SET revoked = ? WHERE id = ?", (to_micros(writer.at), id))
    writer.chain.append("revoke key", key=id)


def shorten_key(writer: Writer, id: str, at: int) -> None:
    """Let a key open nothing from a moment on, if not from an earlier one already."""
    writer.connection.execute("UPDATE keys SET expires = min(?, coalesce(expires, ?)) WHERE id = ?", (at, at, id))
