"""One owner's cubes as columns in memory: what ranking looks at, kept in step with the file.

A cache and no more: every row of it can be read again, and each recall first replays what the journal says was added,
changed or erased since, by this process or by another.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.search.ragged import Ragged
from tercet.vault.search.vectors import unpack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WIDE = 50_000
"""Rows from which on vectors and token states stay on disk; what they cost in memory would be felt."""
CHUNK = 20_000

_SCALARS = """
SELECT c.n, c.scope, c.run, c.speaker, c.kind, c.state, c.observed, c.happened_from, c.happened_to, c.words, c.marks
FROM cubes c JOIN scopes s ON s.n = c.scope
"""
_COUNT = "SELECT count(*) FROM cubes c JOIN scopes s ON s.n = c.scope"
_VECTORS = """
SELECT v.cube, v.vectors, v.states FROM vectors v JOIN cubes c ON c.n = v.cube JOIN scopes s ON s.n = c.scope
WHERE v.space = ?
"""


@dataclass(frozen=True, eq=False)
class Table:
    """The columns at one moment, rows in the order of conversation: by run, then time, then arrival.

    Each array has a value a row; `speaker`, `kind` and `state` are codes that `Columns` has the names of (-1: none).
    Times are seconds since 1970, NaN where there is none. `vectors` (fp16, any number a row) and `states` (bytes) are
    None where they stay on disk.
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
    vectors: Ragged[np.float16] | None
    states: Ragged[np.uint8] | None

    def __len__(self) -> int:
        return len(self.n)

    def take(self, rows: Ints) -> Table:
        """Those rows alone, in the order asked for."""
        changed: dict[str, Any] = {name: getattr(self, name)[rows] for name in SCALARS}
        for name in ("vectors", "states"):
            column: Ragged[Any] | None = getattr(self, name)
            changed[name] = None if column is None else column.take(rows)
        return replace(self, **changed)

    def insert(self, rows: Table) -> Table:
        """With sorted `rows` put in where they belong."""
        at = np.array([self._place(rows, i) for i in range(len(rows))], dtype=np.int64)
        changed: dict[str, Any] = {name: np.insert(getattr(self, name), at, getattr(rows, name)) for name in SCALARS}
        for name in ("vectors", "states"):
            column, more = getattr(self, name), getattr(rows, name)
            changed[name] = None if column is None else column.insert(at, more)
        return replace(self, **changed)

    def sort(self) -> Table:
        """In the order of conversation."""
        return self.take(np.lexsort((self.n, self.observed, self.run)))

    def _place(self, rows: Table, i: int) -> int:
        low, high = (int(np.searchsorted(self.run, rows.run[i], side)) for side in ("left", "right"))
        for column in ("observed", "n"):
            values, value = getattr(self, column)[low:high], getattr(rows, column)[i]
            first, last = (int(np.searchsorted(values, value, side)) for side in ("left", "right"))
            low, high = low + first, low + last
        return low


SCALARS = tuple(field.name for field in fields(Table) if field.name not in {"vectors", "states"})


class Names:
    """Codes for names, given in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[Any] = []
        self._codes: dict[Any, int] = {}

    def code(self, name: Any) -> int:  # noqa: ANN401  # any key
        """The code of a name; -1 for None."""
        if name is None:
            return -1
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]

    def keep(self, used: Ints) -> None:
        """Forget the names of all other codes, which become empty; a code is never given twice."""
        for code in set(range(len(self.names))) - set(used.tolist()):
            self._codes.pop(self.names[code], None)
            self.names[code] = ""


class Columns:
    """Keeps a `Table` for some owners (None: all) and one embedding space, up to a sequence number of the journal.

    Only what is `allowed` is in it: whoever may see the same shares one, and nothing is judged twice.
    """

    def __init__(self, owners: Sequence[int] | None, space: int, dim: int, allowed: Allowed = EVERYTHING) -> None:
        self.owners, self.space, self.dim, self.allowed = owners, space, dim, allowed
        self.seq = -1
        self.runs, self.speakers, self.kinds, self.states = Names(), Names(), Names(), Names()
        self._table: Table | None = None

    @property
    def size(self) -> int:
        """The bytes it holds in memory."""
        table = self._table
        if table is None:
            return 0
        ragged = [column.values for column in (table.vectors, table.states) if column is not None]
        return sum(int(array.nbytes) for array in [*ragged, *(getattr(table, name) for name in SCALARS)])

    def at(self, connection: apsw.Connection) -> Table:
        """The table as of the connection's read transaction."""
        with undamaged("What recall looks at"):
            return self._at(connection)

    def _at(self, connection: apsw.Connection) -> Table:
        newest = int(scalar(connection, "SELECT coalesce(max(seq), 0) FROM journal"))
        if self._table is None:
            self._table = self._load(connection)
        elif newest > self.seq:
            self._table = self._replay(connection, self._table)
        self.seq = max(newest, self.seq)
        return self._table

    def names(self, table: Table) -> list[str]:
        """The speakers of some rows, by code; empty for a code that none of them has."""
        there = np.bincount(table.speaker[table.speaker >= 0], minlength=len(self.speakers.names))
        return [name if count else "" for name, count in zip(self.speakers.names, there.tolist(), strict=True)]

    def _load(self, connection: apsw.Connection) -> Table:
        wide = scalar(connection, f"{_COUNT} WHERE {self._owned}", self._owners) > WIDE
        table = self._read(connection, "TRUE", (), wide=wide).sort()
        self.speakers.keep(np.unique(table.speaker))
        return table

    def _replay(self, connection: apsw.Connection, table: Table) -> Table:
        rows = query(connection, "SELECT DISTINCT number FROM journal WHERE seq > ? AND number > 0", (self.seq,))
        changed = [n for (n,) in rows]
        if not changed:
            return table
        if len(changed) > max(len(table) // 4, 1000):
            return self._load(connection)
        kept = np.flatnonzero(~np.isin(table.n, np.array(changed)))
        if len(kept) < len(table):
            table = table.take(kept)
        for start in range(0, len(changed), 500):
            part = changed[start : start + 500]
            more = self._read(connection, f"c.n IN ({marks(part)})", part, wide=table.vectors is None)
            if len(more):
                table = table.insert(more.sort())
        self.speakers.keep(np.unique(table.speaker))  # who was erased is not remembered by name
        return table

    @property
    def _owned(self) -> str:
        owned = "TRUE" if self.owners is None else f"s.owner IN ({marks(self.owners)})"
        return f"{owned} AND {self.allowed.condition}"

    @property
    def _owners(self) -> tuple[Any, ...]:
        return (*(self.owners or ()), *self.allowed.bindings)

    def _read(self, connection: apsw.Connection, condition: str, bound: Sequence[int], *, wide: bool) -> Table:
        statement = f"{_SCALARS} WHERE {self._owned} AND {condition} ORDER BY c.n"
        cursor = connection.execute(statement, (*self._owners, *bound))
        chunks = [self._scalars(rows) for rows in iter(lambda: list(islice(cursor, CHUNK)), [])]
        columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in SCALARS} if chunks else None
        if columns is None:
            columns = self._scalars([])
        if wide:
            return Table(**columns, vectors=None, states=None)
        held = {}
        statement = f"{_VECTORS} AND {self._owned} AND {condition}"
        for n, vectors, states in query(connection, statement, (self.space, *self._owners, *bound)):
            held[n] = (unpack(vectors, self.dim), np.frombuffer(states or b"", dtype=np.uint8))
        empty = (np.zeros((0, self.dim), dtype=np.float16), np.zeros(0, dtype=np.uint8))
        pairs = [held.get(n, empty) for n in columns["n"].tolist()]
        return Table(
            **columns,
            vectors=Ragged.of([pair[0] for pair in pairs], empty[0]),
            states=Ragged.of([pair[1] for pair in pairs], empty[1]),
        )

    def _scalars(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
        n, scope, run, speaker, kind, state, *times, words, marks_ = zip(*rows, strict=True) if rows else [()] * 11
        runs = [self.runs.code(pair) for pair in zip(scope, run, strict=True)]
        return {
            "n": np.array(n, dtype=np.int64),
            "scope": np.array(scope, dtype=np.int64),
            "run": np.array(runs, dtype=np.int64),
            "speaker": np.array([self.speakers.code(name) for name in speaker], dtype=np.int64),
            "kind": np.array([self.kinds.code(name) for name in kind], dtype=np.int64),
            "state": np.array([self.states.code(name) for name in state], dtype=np.int64),
            "observed": _seconds(times[0]),
            "happened_from": _seconds(times[1]),
            "happened_to": _seconds(times[2]),
            "words": np.array(words, dtype=np.int64),
            "marks": np.array(marks_, dtype=np.int64),
        }


def in_order(numbers: Ints) -> tuple[Ints, Ints]:
    """Cube numbers ascending, and the row of each: what `rows_of` looks in."""
    order = np.argsort(numbers, kind="stable")
    return numbers[order], order


def rows_of(cubes: Ints, ascending: Ints, order: Ints) -> Ints:
    """The rows of cubes, -1 where one is not there."""
    if not len(ascending):
        return np.full(len(cubes), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(ascending, cubes), len(ascending) - 1)
    return np.where(ascending[at] == cubes, order[at], -1)


def among(codes: Ints, names: Sequence[str], wanted: Container[str]) -> NDArray[np.bool_]:
    """Whether each code stands for a wanted name."""
    return np.array([name in wanted for name in names], dtype=np.bool_)[codes]


def _seconds(micros: Sequence[int | None]) -> Floats:
    return np.array([np.nan if value is None else value / 1e6 for value in micros], dtype=np.float64)
