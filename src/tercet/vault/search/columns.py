"""One owner's cubes as columns in memory: what ranking looks at, kept in step with the file.

A cache and no more: every row of it can be read again, and each recall first replays what the journal says was added,
changed or erased since, by this process or by another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.search.vectors import Half, unpack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SELECT = """
SELECT c.n, c.scope, c.run, c.speaker, c.kind, c.state, c.observed, c.happened_from, c.happened_to, c.words,
       c.marks, v.vectors, v.states
FROM cubes c JOIN scopes s ON s.n = c.scope LEFT JOIN vectors v ON v.cube = c.n AND v.space = ?
"""


@dataclass(slots=True)
class Table:
    """The columns at one moment, rows in the order of conversation: by run, then time, then arrival.

    Each array has a value a row; `speaker` and `kind` and `state` are codes into the lists beside them. Times are
    seconds since 1970, NaN where there is none. `parts` holds all vectors, `part_row` the row of each, ascending.
    `states` holds the coded token states of all rows, one after the other, row i up to byte `state_ends[i]`.
    """

    n: Ints
    scope: Ints
    run: Ints
    speaker: Ints
    kind: Ints
    state: Ints
    observed: Floats
    happened_from: Floats
    happened_to: Floats
    words: Ints
    marks: Ints
    parts: Half
    part_row: Ints
    single: bool  # no row has more than one vector
    states: bytes
    state_ends: Ints
    speakers: list[str]
    kinds: list[str]
    state_names: list[str]
    by_n: Ints  # row numbers in ascending order of n, to find a cube's row

    def rows_of(self, cubes: Ints) -> Ints:
        """Row numbers of cubes, -1 where one is not here."""
        if not len(self.n):
            return np.full(len(cubes), -1, dtype=np.int64)
        at = np.searchsorted(self.n, cubes, sorter=self.by_n)
        rows = self.by_n[np.minimum(at, len(self.n) - 1)]
        return np.where(self.n[rows] == cubes, rows, -1)


class Columns:
    """Keeps a `Table` for some owners and one embedding space, up to a sequence number of the journal."""

    def __init__(self, owners: Sequence[int] | None, space: int, dim: int) -> None:
        self.owners, self.space, self.dim = owners, space, dim
        self.seq = -1
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._table: Table | None = None

    @property
    def size(self) -> int:
        """Roughly the bytes it holds in memory."""
        return len(self._rows) * (400 + 2 * self.dim + 600)

    def at(self, connection: apsw.Connection) -> Table:
        """The table as of the connection's read transaction."""
        with undamaged("What recall looks at"):
            return self._at(connection)

    def _at(self, connection: apsw.Connection) -> Table:
        newest = int(scalar(connection, "SELECT coalesce(max(seq), 0) FROM journal"))
        if self.seq < 0:
            self._load(connection, "", ())
        elif newest > self.seq:
            self._replay(connection)
        self.seq = max(newest, self.seq)
        if self._table is None:
            self._table = self._build()
        return self._table

    def _replay(self, connection: apsw.Connection) -> None:
        changed = query(
            connection,
            "SELECT DISTINCT j.cube, c.n FROM journal j LEFT JOIN cubes c ON c.id = j.cube "
            "WHERE j.seq > ? AND j.cube IS NOT NULL",
            (self.seq,),
        )
        for _, n in changed:
            if n is not None:
                self._rows.pop(n, None)
                self._load(connection, "AND c.n = ?", (n,))
        if any(n is None for _, n in changed):
            alive = {n for (n,) in query(connection, "SELECT n FROM cubes")}
            for n in self._rows.keys() - alive:
                del self._rows[n]
        self._table = None

    def _load(self, connection: apsw.Connection, condition: str, bindings: tuple[int, ...]) -> None:
        owned = "TRUE" if self.owners is None else f"s.owner IN ({marks(self.owners)})"
        statement = f"{_SELECT} WHERE {owned} {condition}"  # placeholders only
        for row in query(connection, statement, (self.space, *(self.owners or ()), *bindings)):
            self._rows[row[0]] = row

    def _build(self) -> Table:
        runs: dict[object, int] = {}
        rows = [(*row, runs.setdefault((row[1], row[2]), len(runs))) for row in sorted(self._rows.values())]
        rows.sort(key=lambda row: (row[13], row[6], row[0]))
        columns = list(zip(*rows, strict=True)) if rows else [()] * 14
        speaker, speakers = _codes(columns[3])
        kind, kinds = _codes(columns[4])
        state, state_names = _codes(columns[5])
        n = np.array(columns[0], dtype=np.int64)
        parts, part_row = self._vectors(columns[11])
        embedded = sum(blob is not None for blob in columns[11])
        states = [blob or b"" for blob in columns[12]]
        return Table(
            n=n,
            scope=np.array(columns[1], dtype=np.int64),
            run=np.array(columns[13], dtype=np.int64),
            speaker=speaker,
            kind=kind,
            state=state,
            observed=_seconds(columns[6]),
            happened_from=_seconds(columns[7]),
            happened_to=_seconds(columns[8]),
            words=np.array(columns[9], dtype=np.int64),
            marks=np.array(columns[10], dtype=np.int64),
            parts=parts,
            part_row=part_row,
            single=len(parts) == embedded,
            states=b"".join(states),
            state_ends=np.cumsum(np.array([len(blob) for blob in states], dtype=np.int64)),
            speakers=speakers,
            kinds=kinds,
            state_names=state_names,
            by_n=np.argsort(n, kind="stable"),
        )

    def _vectors(self, blobs: Sequence[bytes | None]) -> tuple[Half, Ints]:
        held = [(row, unpack(blob, self.dim)) for row, blob in enumerate(blobs) if blob is not None]
        if not held:
            return np.zeros((0, self.dim), dtype=np.float16), np.zeros(0, dtype=np.int64)
        lengths = [len(parts) for _, parts in held]
        return (
            np.ascontiguousarray(np.concatenate([parts for _, parts in held])),
            np.repeat(np.array([row for row, _ in held], dtype=np.int64), lengths),
        )


def _codes(values: Sequence[str | None]) -> tuple[Ints, list[str]]:
    names = sorted({value for value in values if value is not None})
    code = {name: position for position, name in enumerate(names)}
    return np.array([-1 if value is None else code[value] for value in values], dtype=np.int64), names


def _seconds(micros: Sequence[int | None]) -> Floats:
    return np.array([np.nan if value is None else value / 1e6 for value in micros], dtype=np.float64)
