"""Overwriting the bytes that erasures left behind."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import apsw

from tercet.vault.connection import BUSY_MS, atomic, query, scalar
from tercet.vault.journal import Chain

AT_ONCE = 64 * 2**20
"""Bytes of a file up to which the scrub runs within the call; a larger file leaves it to a job."""

WAIT_MS = 250
"""How long a scrub waits for readers and writers; whoever forgets does not wait for them, the job tries again."""

LOCKS, OPEN_BYTE = Path("/proc/locks"), 128


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
        return _busy(path)
    with atomic(connection):
        connection.execute("DELETE FROM scrubs WHERE n <= ?", (intent,))
        connection.execute("DELETE FROM jobs WHERE name = 'scrub' AND NOT EXISTS (SELECT 1 FROM scrubs)")
        Chain(connection, by="tercet", at=at).append("scrub", upto=upto)
    return None


def holders(path: Path) -> list[int]:
    """Processes that are in a transaction on a tenant's file, this one included; empty where nobody can tell.

    Read from the kernel's list: to open and close a file here would drop the locks this process has on it.
    """
    index = path.with_name(f"{path.name}-shm")
    try:
        inode = index.stat().st_ino
        lines = [line.split() for line in LOCKS.read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    # "12: POSIX  ADVISORY  READ 4711 08:01:1234 124 124"; whoever waits for a lock has "->" after the number. Bytes up
    # to 127 are the locks of transactions (SQLite's walIndexFormat); 128 has every process that has the file open.
    held = [line for line in lines if len(line) == 8 and line[5].rpartition(":")[2] == str(inode)]
    return sorted({int(line[4]) for line in held if int(line[6]) < OPEN_BYTE and int(line[4]) > 0})


def _busy(path: Path) -> str:
    who = holders(path)
    if who == [os.getpid()]:
        return f"a transaction of this process on {path.name}"
    others = ", ".join(f"process {pid}" for pid in who if pid != os.getpid())
    return f"another process that is reading or writing {path.name}" + (f" ({others})" if others else "")
