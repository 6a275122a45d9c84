"""Erasure: what a cube drags with it, taking it out, and scrubbing the bytes it left behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import apsw

from tercet import lifecycle
from tercet.cube import Kind, MemCube
from tercet.errors import Held
from tercet.lifecycle import State
from tercet.vault import blobs, jobs
from tercet.vault.codec import to_micros
from tercet.vault.connection import BUSY_MS, atomic, marks, query, scalar, undamaged
from tercet.vault.ids import parse_id
from tercet.vault.search import words
from tercet.vault.writer import Writer

SCRUB_AT_ONCE = 64 * 2**20
"""Bytes of a file up to which the scrub runs within the call; a larger file leaves it to a job."""

SCRUB_WAIT_MS = 250
"""How long a scrub waits for readers and writers; whoever forgets does not wait for them, the job tries again."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did.

    `erased` lists every id that is gone, `derived` those among them that were made from what was asked for, `rows`
    how many rows went, by table. From `erased_at` on nothing serves the content. `scrubbed_at` says when the last
    byte of it was overwritten; while it is None, `waiting_for` says for what. `unreachable` lists what the vault
    knows of but cannot erase. `rebuilding` is how many products lost some of their sources and are made again.
    `seq` and `head` name the journal's end at the erasure.
    """

    erased: tuple[str, ...]
    derived: tuple[str, ...]
    rows: dict[str, int]
    erased_at: datetime
    scrubbed_at: datetime | None
    waiting_for: str | None
    seq: int
    head: str
    unreachable: tuple[str, ...] = field(default=())
    rebuilding: int = 0


def closure(connection: apsw.Connection, numbers: Iterable[int]) -> list[int]:
    """The cubes that hold content of these: those quoting the same pieces, and all that was made from either."""
    reached, border = set[int](), sorted(set(numbers))
    while border:
        reached |= set(border)
        found = set[int]()
        for start in range(0, len(border), 500):
            part = border[start : start + 500]
            found |= {n for (n,) in query(connection, _NEXT.format(marks(part), marks(part)), (*part, *part))}
        with undamaged("What memories were made from"):
            border = sorted(found - reached)
    return sorted(reached)


_NEXT = """
SELECT product FROM derivations WHERE source IN ({})
UNION SELECT b.cube FROM versions a JOIN versions b ON b.piece = a.piece WHERE a.cube IN ({})
"""


def erase(writer: Writer, asked: Sequence[int], *, despite_holds: bool = False) -> Receipt:
    """Remove cubes and everything made from them, whole or not at all; leaves a scrub intent in the same transaction.

    `despite_holds` is for what was erased elsewhere already, when no hold stood on it any more.

    Raises
    ------
    Held
        If a hold stands on any cube that would have to go.
    """
    connection = writer.connection
    numbers = closure(connection, asked)
    found = dict(zip(numbers, writer.reader.cubes(numbers), strict=True))
    for cube in found.values():
        if cube.governance.hold is not None and not despite_holds:
            raise Held(f"Memory {cube.id} is on hold ({cube.governance.hold}); nothing was erased.")
        lifecycle.step(cube.state, State.EXPIRED)
    rows: dict[str, int] = {}
    rebuilding = _rebuild(writer, found)
    for n, cube in found.items():
        _remove(connection, n, cube, rows)
        writer.chain.append("forget", cube.id, cube.version, place=(n, writer.scope(cube.scope)[1]))
        connection.execute("INSERT INTO erased VALUES (?, ?)", (parse_id(cube.id), to_micros(writer.at)))
    # The words of a failed job's error may quote what is going.
    connection.execute("UPDATE jobs SET error = NULL WHERE error IS NOT NULL")
    connection.execute("INSERT INTO scrubs (at) VALUES (?)", (to_micros(writer.at),))
    jobs.enqueue(connection, "scrub", {}, at=writer.at)
    chosen = set(asked)
    return Receipt(
        erased=tuple(cube.id for cube in found.values()),
        derived=tuple(cube.id for n, cube in found.items() if n not in chosen),
        rows=rows,
        erased_at=writer.at,
        scrubbed_at=None,
        waiting_for="the scrub job",
        seq=writer.chain.seq,
        head=writer.chain.hash.hex(),
        rebuilding=rebuilding,
    )


def _rebuild(writer: Writer, gone: Mapping[int, MemCube]) -> int:
    """Put down a job for every adapter that loses some of its sources and keeps others; returns how many."""
    ids, count = {cube.id for cube in gone.values()}, 0
    for cube in gone.values():
        b = cube.behavioural
        left = [link.id for link in b.derivations if link.id not in ids]
        if cube.kind is Kind.PARAMETERS and left and len(left) < len(b.derivations):
            body = {"method": b.method, "sources": left, "type": cube.descriptive.type}
            jobs.enqueue(writer.connection, "rebuild", body, at=writer.at)
            count += 1
    return count


def scrub_waits(connection: apsw.Connection) -> bool:
    """Whether something was erased whose bytes are still to be overwritten."""
    return scalar(connection, "SELECT 1 FROM scrubs LIMIT 1") is not None


def scrub(connection: apsw.Connection, path: Path) -> str | None:
    """Overwrite what erasures left in free pages, page gaps and the write-ahead log.

    Returns None once nothing is left, else what it waits for. Freed pages are zeroed already, but gaps within pages
    and the log keep old bytes: only a rebuilt file and an emptied log are clean.
    """
    intent = scalar(connection, "SELECT max(n) FROM scrubs")
    if intent is None:
        return None
    connection.set_busy_timeout(SCRUB_WAIT_MS)
    try:
        connection.execute("VACUUM")
        busy, _, _ = query(connection, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
    except apsw.BusyError:
        busy = 1
    finally:
        connection.set_busy_timeout(BUSY_MS)
    if busy:
        return f"another process that is reading or writing {path.name}"
    with atomic(connection):
        connection.execute("DELETE FROM scrubs WHERE n <= ?", (intent,))
        connection.execute("DELETE FROM jobs WHERE name = 'scrub' AND NOT EXISTS (SELECT 1 FROM scrubs)")
    return None


def _remove(connection: apsw.Connection, n: int, cube: MemCube, rows: dict[str, int]) -> None:
    owner = scalar(connection, "SELECT s.owner FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?", (n,))
    pieces = [p for (p,) in query(connection, "SELECT piece FROM versions WHERE cube = ? AND piece IS NOT NULL", (n,))]
    terms = words.counts(cube.text)
    words.remove(connection, owner, n, terms)
    rows["postings"] = rows.get("postings", 0) + len(terms)
    rows["blobs"] = rows.get("blobs", 0) + blobs.release(connection, n)
    statements = [
        ("attributes", "DELETE FROM attributes WHERE owner = ? AND cube = ?", (owner, n)),
        ("vectors", "DELETE FROM vectors WHERE cube = ?", (n,)),
        ("derivations", "DELETE FROM derivations WHERE product = ? OR source = ?", (n, n)),
        ("uses", "DELETE FROM uses WHERE cube = ?", (n,)),
        ("versions", "DELETE FROM versions WHERE cube = ?", (n,)),
        ("cubes", "DELETE FROM cubes WHERE n = ?", (n,)),
    ]
    statements += [("episodes", "DELETE FROM episodes WHERE n = ?", (piece,)) for piece in pieces]
    for table, statement, bindings in statements:
        connection.execute(statement, bindings)
        rows[table] = rows.get(table, 0) + connection.changes()
