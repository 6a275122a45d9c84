"""Wide searches: a coded segment for what the vault held up to some moment, and the rows changed since from the table.

A segment is a cache like any index: it can be written anew from the rows, and nothing but its own registration (a line
of `meta`) leads to it. What was revised or erased since it was written is left out of every answer.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.errors import VaultDamaged
from tercet.lifecycle import State
from tercet.vault.connection import atomic, marks, query, scalar
from tercet.vault.search.columns import WIDE, Ints
from tercet.vault.search.lvq import LVQ
from tercet.vault.search.segment import Segment, file_name
from tercet.vault.search.vectors import dots, unpack

CODER = LVQ(4, residual=8)
"""Half a byte a dimension in memory, a byte on disk to rerank with."""
SHARE = 0.99
"""How many of the nearest an unfiltered search should find; a filtered one scans."""
STALE = 0.1
"""Share of a segment's rows that may change before it is written anew."""
CHUNK = 10_000

HELD = """
FROM vectors v JOIN cubes c ON c.n = v.cube WHERE v.space = ? AND c.branch = 0 AND c.hidden = 0
"""
"""What a segment holds: the main line. The rows of branches are few, and scanned."""

log = logging.getLogger(__name__)


class Wide:
    """The segments of one tenant, opened when they are first searched. Guarded by the tenant's cache lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, Segment] = {}

    def segment(self, connection: apsw.Connection, space: int) -> Segment | None:
        """The registered segment of a space, if there is one. Raises VaultDamaged."""
        name = registered(connection, space)
        if name is None or not (self.folder / name).exists():
            return None
        held = self._open.get(space)
        if held is None or held.path.name != name:
            self._open[space] = held = Segment.open(self.folder / name)
        return held

    def nearest(
        self, connection: apsw.Connection, numbers: Ints, space: int, vector: NDArray[np.float32], count: int
    ) -> Ints | None:
        """Cubes among `numbers` that are near, best first, about `count`; None without a sound segment."""
        try:
            segment = self.segment(connection, space)
            return None if segment is None else self._nearest(connection, segment, numbers, space, vector, count)
        except VaultDamaged as error:
            # It is only a cache: without its file, the next `index` job writes it anew.
            log.warning("wide searches read the table until the index is written anew: %s", error)
            self._open.pop(space, None)
            with suppress(OSError):
                (self.folder / str(registered(connection, space))).unlink()
            return None

    def _nearest(
        self,
        connection: apsw.Connection,
        segment: Segment,
        numbers: Ints,
        space: int,
        vector: NDArray[np.float32],
        count: int,
    ) -> Ints:
        changed = changed_since(connection, segment.seq)
        total = scalar(connection, "SELECT count(*) FROM cubes WHERE branch = 0 AND hidden = 0")
        if len(numbers) == total and not len(changed):
            found, scores = segment.search(vector, count, share=SHARE)
        else:
            kept = np.setdiff1d(numbers, changed, assume_unique=True)
            found, scores = segment.search(vector, count, allowed=kept)
        after = np.intersect1d(changed, numbers, assume_unique=True)
        newer, their = _scan(connection, after, space, len(vector), vector)
        order = np.argsort(-np.concatenate([scores, their]), kind="stable")
        merged = np.concatenate([found, newer])[order]
        return merged[np.sort(np.unique(merged, return_index=True)[1])][:count]

    def close(self) -> None:
        """Let the files go."""
        self._open.clear()


def registered(connection: apsw.Connection, space: int) -> str | None:
    """The file name of a space's segment."""
    value = scalar(connection, "SELECT value FROM meta WHERE key = ?", (f"segment:{space}",))
    return None if value is None else str(json.loads(value)["file"])


def changed_since(connection: apsw.Connection, seq: int) -> Ints:
    """Numbers of the cubes written, embedded or erased after a line of the journal; a change of state is none of it."""
    moves = [state.value for state in State]
    condition = f"seq > ? AND number > 0 AND action NOT IN ({marks(moves)})"
    statement = f"SELECT DISTINCT number FROM journal WHERE {condition}"  # noqa: S608  # placeholders only
    return np.array(sorted(n for (n,) in query(connection, statement, (seq, *moves))), dtype=np.int64)


def wanted(connection: apsw.Connection, folder: Path) -> list[tuple[int, int]]:
    """(space, dim) of each space that is large and has no segment, or one that too much has changed since."""
    found = []
    for space, dim in query(connection, "SELECT n, dim FROM spaces ORDER BY n"):
        rows = scalar(connection, "SELECT count(*) FROM vectors WHERE space = ?", (space,))
        value = scalar(connection, "SELECT value FROM meta WHERE key = ?", (f"segment:{space}",))
        held = json.loads(value) if value else None
        if held is not None and not (folder / held["file"]).exists():  # a restored backup has none
            held = None
        if rows > WIDE and (held is None or len(changed_since(connection, held["seq"])) > STALE * rows):
            found.append((space, dim))
    return found


def build(connection: apsw.Connection, folder: Path, space: int, dim: int) -> Path:
    """Write a space's segment from its rows, register it, and unlink the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    key = f"segment:{space}"
    before = scalar(connection, "SELECT value FROM meta WHERE key = ?", (key,))
    generation = json.loads(before)["generation"] + 1 if before else 1
    path = folder / file_name(space, generation)
    with tempfile.TemporaryFile(dir=folder) as spool:  # nameless: a crash leaves no copy of the vectors
        connection.execute("BEGIN")
        try:
            seq = scalar(connection, "SELECT coalesce(max(seq), 0) FROM journal")
            numbers: list[int] = []
            for cube, blob in _rows(connection, space):
                rows = unpack(blob, dim)
                numbers += [cube] * len(rows)
                spool.write(blob)
        finally:
            connection.execute("ROLLBACK")
        spool.flush()
        if not numbers:
            return path
        vectors = np.memmap(spool, dtype="<f2", mode="r", shape=(len(numbers), dim))
        Segment.write(path, np.array(numbers, dtype=np.int64), vectors, CODER, seq)
        del vectors
    value = json.dumps({"file": path.name, "generation": generation, "seq": seq, "rows": len(numbers)})
    with atomic(connection):
        connection.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?2", (key, value))
    keep = {registered(connection, n) for (n,) in query(connection, "SELECT n FROM spaces")}
    for old in folder.glob("vectors-*.lvq"):
        if old.name not in keep:
            with suppress(FileNotFoundError):
                old.unlink()
    return path


def renew(connection: apsw.Connection, folder: Path) -> None:
    """Write anew every segment, since what it was made of may have been erased."""
    for space, dim in query(connection, "SELECT n, dim FROM spaces ORDER BY n"):
        if registered(connection, space) is not None:
            build(connection, folder, space, dim)


def _rows(connection: apsw.Connection, space: int) -> Iterator[tuple[int, bytes]]:
    yield from connection.execute(f"SELECT cube, vectors {HELD} ORDER BY cube", (space,))


def _scan(
    connection: apsw.Connection, numbers: Ints, space: int, dim: int, vector: NDArray[np.float32]
) -> tuple[Ints, NDArray[np.float32]]:
    found: list[int] = []
    scores: list[float] = []
    for start in range(0, len(numbers), CHUNK):
        part = numbers[start : start + CHUNK].tolist()
        condition = f"space = ? AND cube IN ({marks(part)})"
        statement = f"SELECT cube, vectors FROM vectors WHERE {condition}"  # noqa: S608  # placeholders only
        for cube, blob in query(connection, statement, (space, *part)):
            found.append(cube)
            scores.append(float(dots(unpack(blob, dim), vector).max()))
    return np.array(found, dtype=np.int64), np.array(scores, dtype=np.float32)
