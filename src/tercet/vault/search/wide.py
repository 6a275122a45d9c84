"""Wide searches: a coded segment for what the vault held up to some moment, and the rows changed since from the table.

A segment is a cache like any index: it can be written anew from the rows, and nothing but its own registration (a line
of `meta`) leads to it. What was revised or erased since it was written is left out of every answer.

Up to a size that is measured when the first segment with a graph is written, rows are scanned; the graph serves wider
searches. An erasure writes segments anew at once but without their graphs, which take long; until the `index` job has
made one again, wide searches scan codes.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.errors import VaultDamaged
from tercet.lifecycle import State
from tercet.vault import sealed
from tercet.vault.blobs import destroy
from tercet.vault.connection import atomic, marks, query, scalar
from tercet.vault.datakeys import Keyring, Seal
from tercet.vault.search.columns import WIDE, Ints
from tercet.vault.search.graph import Graph
from tercet.vault.search.lvq import LVQ
from tercet.vault.search.segment import GATHER, Mask, Segment, file_name
from tercet.vault.search.segment_file import IDENTITY, sync_folder
from tercet.vault.search.vectors import dots, unpack

CODER = LVQ(8, residual=4, symmetric=True)
"""A byte a dimension in memory, half a byte on disk to rerank with."""
GRAPH = Graph()
BREADTH = 96
"""Rows kept in sight: finds 0.99 of the ten nearest of 100,000 real texts."""
TRIALS = 20
"""Searches timed to find out where a graph becomes quicker than a scan."""
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

    def __init__(self, folder: Path, keys: Keyring) -> None:
        self.folder, self.keys = folder, keys
        self._open: dict[int, Segment] = {}

    def segment(self, connection: apsw.Connection, space: int) -> Segment | None:
        """The registered segment of a space, if there is one. Raises VaultDamaged."""
        name = registered(connection, space)
        if name is None or not (self.folder / name).exists():
            return None
        held = self._open.get(space)
        if held is None or held.path.name != name:
            self._open[space] = held = Segment.open(self.folder / name, self.keys.seal())
        return held

    def nearest(
        self, connection: apsw.Connection, numbers: Ints, space: int, vector: NDArray[np.float32], count: int
    ) -> tuple[Ints, str] | None:
        """Cubes among `numbers` that are near, best first, about `count`, and what found them: a "scan" or the "graph".

        None without a sound segment.
        """
        try:
            segment = self.segment(connection, space)
            return None if segment is None else _nearest(connection, segment, numbers, space, vector, count)
        except VaultDamaged as error:
            # It is only a cache: without its file, the next `index` job writes it anew.
            log.warning("wide searches read the table until the index is written anew: %s", error)
            self._open.pop(space, None)
            with suppress(OSError):
                (self.folder / str(registered(connection, space))).unlink()
            return None

    def close(self) -> None:
        """Let the files go."""
        self._open.clear()


def _nearest(
    connection: apsw.Connection, segment: Segment, numbers: Ints, space: int, vector: NDArray[np.float32], count: int
) -> tuple[Ints, str]:
    changed = changed_since(connection, segment.seq)
    kept = _kept(segment, numbers, changed)
    way, best = "graph", None
    if len(numbers) > scanned(connection):
        best = segment.near(vector, count, breadth=BREADTH, allowed=kept)
    if best is None:
        way, best = "scan", segment.search(vector, count, allowed=kept)
    found, scores = best
    after = np.intersect1d(changed, numbers, assume_unique=True)
    newer, their = _scan(connection, after, space, len(vector), vector)
    order = np.argsort(-np.concatenate([scores, their]), kind="stable")
    merged = np.concatenate([found, newer])[order]
    return merged[np.sort(np.unique(merged, return_index=True)[1])][:count], way


def _kept(segment: Segment, numbers: Ints, changed: Ints) -> Mask | Ints | None:
    """Which rows of a segment may be found: numbers, a mask where those would be many, None where it is all."""
    if GATHER * len(numbers) <= len(segment):
        return np.setdiff1d(numbers, changed, assume_unique=True)
    places = np.zeros(1 + max(int(part.max(initial=0)) for part in (segment.numbers, numbers, changed)), np.bool_)
    places[numbers] = True  # a look-up each: sorting a million numbers takes a hundred times as long
    places[changed] = False
    mask = places[segment.numbers]
    return None if mask.all() else mask


def scanned(connection: apsw.Connection) -> int:
    """Up to how many rows a scan is preferred to the graph, as measured once in this vault; WIDE before that."""
    value = scalar(connection, "SELECT value FROM meta WHERE key = 'scan_rows'")
    return WIDE if value is None else int(value)


def measured(segment: Segment) -> int:
    """How many rows are scanned in the time of a search by the graph, the median of some searches of each kind."""
    by_graph, by_scan = [], []
    for vector in segment.coarse(np.linspace(0, len(segment) - 1, TRIALS).astype(np.int64)):
        began = time.perf_counter()
        segment.near(vector, 100, breadth=BREADTH)
        between = time.perf_counter()
        segment.search(vector, 100)
        by_graph.append(between - began)
        by_scan.append(time.perf_counter() - between)
    return round(len(segment) * min(1.0, float(np.median(by_graph) / np.median(by_scan))))


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


def gone(connection: apsw.Connection, folder: Path) -> list[str]:
    """Registered segments that have no file."""
    spaces = query(connection, "SELECT n FROM spaces ORDER BY n")
    return [name for (n,) in spaces if (name := registered(connection, n)) and not (folder / name).exists()]


def wanted(connection: apsw.Connection, folder: Path) -> list[tuple[int, int]]:
    """(space, dim) of each large space without a segment, or with one without its graph or changed too much since."""
    found = []
    for space, dim in query(connection, "SELECT n, dim FROM spaces ORDER BY n"):
        rows = scalar(connection, "SELECT count(*) FROM vectors WHERE space = ?", (space,))
        value = scalar(connection, "SELECT value FROM meta WHERE key = ?", (f"segment:{space}",))
        held = json.loads(value) if value else None
        if held is not None and not (folder / held["file"]).exists():  # a restored backup has none
            held = None
        if rows > WIDE and (
            held is None or not held["whole"] or len(changed_since(connection, held["seq"])) > STALE * rows
        ):
            found.append((space, dim))
    return found


@dataclass(frozen=True)
class Built:
    """A segment that is written but not registered: of what space, up to where in the journal, and whether whole."""

    path: Path
    space: int
    seq: int
    rows: int
    whole: bool


def build(
    connection: apsw.Connection, folder: Path, space: int, dim: int, *, whole: bool = True, seal: Seal | None = None
) -> Built | None:
    """Write a space's segment from its rows, with its graph if `whole`; None if it has none.

    That of many rows takes minutes. Nobody need wait: what is read is one snapshot, and `register` comes after. With a
    `seal` the vectors are in memory meanwhile, at two bytes a dimension: nothing clear is put on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vectors-{space}-{uuid4().hex}.building"
    with _spool(folder, seal) as spool:
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
            return None
        vectors = _spooled(spool, (len(numbers), dim))
        graph = GRAPH if whole else None
        Segment.write(path, np.array(numbers, dtype=np.int64), vectors, CODER, seq, graph=graph, seal=seal)
        del vectors
    return Built(path, space, seq, len(numbers), whole)


def _spool(folder: Path, seal: Seal | None) -> IO[bytes]:
    """Where vectors wait to be coded: a nameless file, of which a crash leaves nothing; memory if they are sealed."""
    return tempfile.TemporaryFile(dir=folder) if seal is None else io.BytesIO()


def _spooled(spool: IO[bytes], shape: tuple[int, int]) -> NDArray[np.float16]:
    """The vectors (n, dim) that were written there."""
    if isinstance(spool, io.BytesIO):
        held = spool.getvalue()
        spool.close()
        return np.frombuffer(held, "<f2").reshape(shape)
    return np.memmap(spool, dtype="<f2", mode="r", shape=shape)


def register(connection: apsw.Connection, folder: Path, built: Built, seal: Seal | None) -> bool:
    """Give a segment its name and unlink the one before.

    False, and the file is gone, if something was erased since that it may hold, if another was registered meanwhile, or
    if the keys were rotated.
    """
    key = f"segment:{built.space}"
    with atomic(connection):  # an erasure comes before and is seen, or after and finds the segment registered
        erased = scalar(connection, "SELECT count(*) FROM journal WHERE seq > ? AND action = 'forget'", (built.seq,))
        there = built.path.exists()
        if erased or not there or sealed.key_of(built.path) != (None if seal is None else seal.keys[0].id):
            built.path.unlink(missing_ok=True)
            return False
        before = scalar(connection, "SELECT value FROM meta WHERE key = ?", (key,))
        generation = json.loads(before)["generation"] + 1 if before else 1
        name = file_name(built.space, generation)
        value = {"file": name, "generation": generation, "seq": built.seq, "rows": built.rows, "whole": built.whole}
        built.path.replace(folder / name)
        sync_folder(folder)
        connection.execute(_KEEP, (key, json.dumps(value)))
    tidy(connection, folder)
    return True


_KEEP = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?2"


def calibrate(connection: apsw.Connection, folder: Path, space: int, seal: Seal | None) -> None:
    """Measure, once a vault, up to how many rows a scan is quicker than the graph."""
    name = registered(connection, space)
    if name is None or scalar(connection, "SELECT value FROM meta WHERE key = 'scan_rows'") is not None:
        return
    segment = Segment.open(folder / name, seal)
    if segment.has_graph:
        with atomic(connection):
            connection.execute(_KEEP, ("scan_rows", str(measured(segment))))


def renew(connection: apsw.Connection, folder: Path, seal: Seal | None) -> bool:
    """Write anew every segment, since what it was made of may have been erased; whether graphs are to be made again."""
    tidy(connection, folder)
    done = False
    for space, dim in query(connection, "SELECT n, dim FROM spaces ORDER BY n"):
        if registered(connection, space) is not None:
            built = build(connection, folder, space, dim, whole=False, seal=seal)
            done = (built is not None and register(connection, folder, built, seal)) or done
    return done


def reseal(connection: apsw.Connection, folder: Path, seal: Seal) -> int:
    """Bring every registered segment under the newest key, one a transaction; returns how many were moved.

    A clear one is overwritten and left to the `index` job: whoever has it open may have parts of it mapped.
    """
    moved = 0
    for (space,) in query(connection, "SELECT n FROM spaces ORDER BY n"):
        with atomic(connection):  # nothing writes it anew meanwhile
            name = registered(connection, space)
            path = folder / str(name)
            if name is None or not path.exists() or sealed.key_of(path) == seal.keys[0].id:
                continue
            if sealed.is_sealed(path):
                sealed.write(path, seal.keys[0], sealed.chunks(path, seal, IDENTITY), IDENTITY)
            else:
                destroy(path)
            moved += 1
    return moved


def tidy(connection: apsw.Connection, folder: Path) -> None:
    """Unlink what no space has registered: the segments before, and what a killed build has left.

    A build that is running may lose its file by it and is tried again: a segment is only a cache.
    """
    found = list(folder.glob("vectors-*"))
    keep = {registered(connection, n) for (n,) in query(connection, "SELECT n FROM spaces")} if found else set()
    for old in found:
        if old.name not in keep:
            with suppress(OSError):
                old.unlink()


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
