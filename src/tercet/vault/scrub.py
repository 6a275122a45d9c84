"""Overwriting the bytes that erasures left behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import apsw

from tercet.vault.connection import BUSY_MS, atomic, query, scalar
from tercet.vault.journal import Chain

AT_ONCE = 64 * 2**20
"""Bytes of a file up to which the scrub runs within the call; a larger file leaves it to a job."""

WAIT_MS = 250
"""How long a scrub waits for readers and writers; whoever forgets does not wait for them, the job tries again."""

LOCKS = Path("/proc/locks")


def scrub_waits(connection: apsw.Connection) -> bool:
    """Whether something was erased whose bytes are still to be overwritten."""
    return scalar(connection, "SELECT 1 FROM scrubs LIMIT 1") is not None


def scrub(connection: apsw.Connection, path: Path, *, at: datetime) -> str | None:
    """Overwrite what erasures left in free pages, page gaps and the write-ahead log.

    Returns None once nothing is left, else what it waits for. Freed pages are zeroed already, but gaps within pages
    and the log keep old bytes: only a rebuilt file and an emptied log are clean. A line of the journal then says up to
    which line all that was erased is scrubbed.
    """
    [(intent, upto)] = query(connection, "SELECT max(n), (SELECT max(seq) FROM journal) FROM scrubs")
    if intent is None:
        return None
    connection.set_busy_timeout(WAIT_MS)
    try:
        connection.execute("VACUUM")
        busy, _, _ = query(connection, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
    except apsw.BusyError:
        busy = 1
    finally:
        connection.set_busy_timeout(BUSY_MS)
    if busy:
        who = ", ".join(f"process {pid}" for pid in holders(path))
        return f"another process that is reading or writing {path.name}{f' ({who})' if who else ''}"
    with atomic(connection):
        connection.execute("DELETE FROM scrubs WHERE n <= ?", (intent,))
        connection.execute("DELETE FROM jobs WHERE name = 'scrub' AND NOT EXISTS (SELECT 1 FROM scrubs)")
        Chain(connection, by="tercet", at=at).append("scrub", upto=upto)
    return None


def holders(path: Path) -> list[int]:
    """Processes that have a lock on a tenant's file or its index, this one included; empty where nobody can tell.

    Read from the kernel's list: to open and close the file here would drop the locks this process has on it.
    """
    try:
        inodes = {one.stat().st_ino for one in (path, path.with_name(f"{path.name}-shm")) if one.exists()}
        lines = [line.split() for line in LOCKS.read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    # "12: POSIX  ADVISORY  READ 4711 08:01:1234 124 124"; whoever waits has "->" after the number.
    held = [line for line in lines if len(line) == 8 and line[5].count(":") == 2]
    return sorted({int(line[4]) for line in held if int(line[5].split(":")[2]) in inodes and int(line[4]) > 0})
