"""A tenant's file written anew from its rows, for when the trees that hold them are damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw

from tercet.errors import VaultBusy, VaultDamaged, VaultError
from tercet.vault import journal
from tercet.vault.connection import connect, key_of, marks, query, scalar, translated
from tercet.vault.reader import Reader
from tercet.vault.schema import migrate

NEEDED = (
    "owners", "scopes", "episodes", "cubes", "versions", "journal", "spaces", "meta", "branches", "snapshots",
    "exports", "exported", "rules", "keys", "blobs", "injections", "injected",
    "shares", "shared",
)  # fmt: skip
"""What nothing else can tell."""
WELCOME = ("vectors", "old_vectors", "jobs", "erased", "scrubs", "uses", "unlinks", "sqlite_sequence")
"""What doctor makes again, from the rows or the journal, or can do without; postings and the like it makes anyway."""


def rebuild(connection: apsw.Connection) -> str | None:
    """Replace a file's content by a fresh copy of its rows, read table by table without any index.

    Words, attributes and derivations are left for doctor to make again. Returns None if it was done, else why not: the
    file is as it was then. It is done only if every version that the journal speaks of could be read and is sound.

    Raises
    ------
    VaultBusy
        If another process keeps the file locked.
    """
    path = Path(connection.filename)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        fresh = connect(part, key=key_of(connection))
        try:
            migrate(fresh)
            with translated(path):
                _copy(connection, fresh)
                _prove(fresh)
                with connection.backup("main", fresh, "main") as backup:
                    backup.step()
        finally:
            fresh.close()
    except VaultBusy:
        raise
    except VaultError as error:
        return f"it cannot be written anew: {error}"
    finally:
        for left in path.parent.glob(f"{part.name}*"):
            left.unlink()
    return None


def _copy(damaged: apsw.Connection, fresh: apsw.Connection) -> None:
    with fresh:
        for table in NEEDED:
            _fill(fresh, table, _rows(damaged, table))
        for table in WELCOME:
            try:
                rows = _rows(damaged, table)
            except apsw.CorruptError:
                continue
            fresh.execute(f"DELETE FROM {table}")  # noqa: S608  # one of the names above
            _fill(fresh, table, rows)


def _rows(damaged: apsw.Connection, table: str) -> list[tuple[apsw.SQLiteValue, ...]]:
    return query(damaged, f"SELECT * FROM {table} NOT INDEXED")  # noqa: S608  # one of the names above


def _fill(fresh: apsw.Connection, table: str, rows: Sequence[tuple[apsw.SQLiteValue, ...]]) -> None:
    if rows:
        fresh.executemany(f"INSERT INTO {table} VALUES ({marks(rows[0])})", rows)  # noqa: S608


def _prove(fresh: apsw.Connection) -> None:
    """Raises VaultDamaged if any content is lost or changed."""
    journal.verify(fresh)
    reader = Reader(fresh, str(scalar(fresh, "SELECT value FROM meta WHERE key = 'tenant'")))
    for (n,) in query(fresh, "SELECT n FROM cubes"):
        reader.versions(n)
    lost = scalar(fresh, _LOST) + scalar(fresh, "SELECT count(*) FROM versions WHERE cube NOT IN (SELECT n FROM cubes)")
    if lost:
        raise VaultDamaged(f"{lost} versions of memories are lost; restore a backup, and keep this file.")


_LOST = """
SELECT count(*) FROM journal
WHERE version IS NOT NULL AND json_extract(detail, '$.commitment') IS NOT NULL
AND cube NOT IN (SELECT cube FROM journal WHERE action = 'forget') AND seq NOT IN (SELECT seq FROM versions)
AND number NOT IN (SELECT number FROM journal WHERE action = 'drop' AND number > 0)
"""
