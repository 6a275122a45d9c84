"""One owner's cubes as columns in memory: what ranking looks at, kept in step with the file.

A cache and no more: every row of it can be read again, and each recall first replays what the journal says was added,
changed or erased since, by this process or by another.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.lifecycle import READABLE, State
from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.search.ragged import Ragged
from tercet.vault.search.vectors import unpack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WIDE = 50_000
"""Rows from which on vectors and token states stay on disk; what they cost in memory would be felt."""
SPARSE = 8
"""Numbers for each row up to which a row is looked up by its number instead of searched for."""
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

    def rows_of(self, cubes: Ints) -> Ints:
        """The rows of cubes given by number, -1 where one is not there."""
        ascending = self.ascending
        if not len(ascending):
            return np.full(len(cubes), -1, dtype=np.int64)
        if self._places is not None:
            found: Ints = np.take(self._places, cubes - (ascending[0] - 1), mode="clip")
            return found
        at = np.minimum(np.searchsorted(ascending, cubes), len(ascending) - 1)
        return np.where(ascending[at] == cubes, self._order[at], -1)

    @cached_property
    def ascending(self) -> Ints:
        """The cubes' numbers, ascending."""
        return self.n[self._order]

    @cached_property
    def _order(self) -> Ints:
        return np.argsort(self.n, kind="stable")

    @cached_property
    def _places(self) -> Ints | None:
        """The row of each number from one below the least to one above the greatest; None where most have none."""
        span = int(self.ascending[-1] - self.ascending[0]) + 3
        if span > SPARSE * len(self):
            return None
        places = np.full(span, -1, dtype=np.int64)
        places[self.n - (self.ascending[0] - 1)] = np.arange(len(self))
        return places

    @cached_property
    def kept(self) -> dict[str, tuple[Ints, Ints]]:
        """Postings by rows that were looked up lately, see `ScopeView.postings`; as long-lived as the table."""
        return {}

    def moved(self, cubes: Ints, states: Ints) -> Table:
        """With other states of some cubes, all else the same, what was worked out of it too."""
        state = self.state.copy()
        state[self.rows_of(cubes)] = states
        made = replace(self, state=state)
        made.__dict__.update({name: self.__dict__[name] for name in _OF_TEXTS if name in self.__dict__})
        return made

    @cached_property
    def spoken(self) -> frozenset[int]:
        """The codes of those who speak in it."""
        return frozenset(np.unique(self.speaker[self.speaker >= 0]).tolist())

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


_OF_TEXTS = ("_order", "ascending", "_places", "spoken", "kept")
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

    It holds what is seen of some branches, by number, as their rows are now; 0 is the main line. Only what is `allowed`
    is in it: whoever may see the same shares one, and nothing is judged twice.
    """

    def __init__(
        self,
        owners: Sequence[int] | None,
        space: int,
        dim: int,
        branches: tuple[int, ...] = (0,),
        allowed: Allowed = EVERYTHING,
    ) -> None:
        self.owners, self.space, self.dim, self.branches, self.allowed = owners, space, dim, branches, allowed
        self.seq = -1
        self.runs, self.speakers, self.kinds, self.states = Names(), Names(), Names(), Names()
        self._table: Table | None = None
        self._readable: tuple[Table, Table] | None = None

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

    def read(self, connection: apsw.Connection, *, wide: bool) -> Table:
        """The rows that another vault (one in memory, of the past) has for these owners, with the codes used here."""
        with undamaged("What recall looks at"):
            return self._read(connection, "TRUE", (), wide=wide)

    def names(self, table: Table) -> list[str]:
        """The speakers of some rows, by code; empty for a code that none of them has."""
        return [name if code in table.spoken else "" for code, name in enumerate(self.speakers.names)]

    def readable(self, table: Table) -> Table:
        """Its rows in a state that recall looks at; `table` is what `at` gave."""
        if self._readable is None or self._readable[0] is not table:
            keep = among(table.state, self.states.names, READABLE)
            self._readable = table, table if keep.all() else table.take(np.flatnonzero(keep))
        return self._readable[1]

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
        if table.vectors is None and not self._written(connection):
            parts = [changed[start : start + 500] for start in range(0, len(changed), 500)]
            rows = [self._read(connection, f"c.n IN ({marks(part)})", part, wide=True) for part in parts]
            there = table.rows_of(np.array(changed, dtype=np.int64)) >= 0
            if sum(map(len, rows)) == there.sum():  # else some came or went, whatever the journal says
                for more in rows:
                    table = table.moved(more.n, more.state)
                return table
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

    def _written(self, connection: apsw.Connection) -> bool:
        """Whether the journal tells of more than changes of state: of a cube written, embedded or erased."""
        moves = [state.value for state in State]
        condition = f"seq > ? AND number > 0 AND action NOT IN ({marks(moves)})"
        statement = f"SELECT 1 FROM journal WHERE {condition} LIMIT 1"  # noqa: S608  # placeholders only
        return scalar(connection, statement, (self.seq, *moves)) is not None

    @property
    def _owned(self) -> str:
        seen = f"c.branch IN ({','.join(map(str, self.branches))}) AND c.hidden = 0"
        owned = "TRUE" if self.owners is None else f"s.owner IN ({marks(self.owners)})"
        return f"{seen} AND {owned} AND {self.allowed.condition}"

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


def among(codes: Ints, names: Sequence[str], wanted: Container[str]) -> NDArray[np.bool_]:
    """Whether each code stands for a wanted name."""
    return np.array([name in wanted for name in names], dtype=np.bool_)[codes]


def _seconds(micros: Sequence[int | None]) -> Floats:
    return np.array([np.nan if value is None else value / 1e6 for value in micros], dtype=np.float64)
