"""What one recall may look at: some rows of an owner's columns, and the words and vectors behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.connection import marks, query
from tercet.vault.search import words
from tercet.vault.search.columns import Floats, Ints, Table
from tercet.vault.search.ragged import Ragged
from tercet.vault.search.vectors import Half, dots, unpack

CHUNK = 500
KEPT = 8_000_000
"""Postings of a scope kept in memory between recalls, 16 bytes each."""
_LINKED = """
SELECT source FROM derivations WHERE product IN ({0}) UNION SELECT product FROM derivations WHERE source IN ({0})
"""


@dataclass(frozen=True, eq=False)
class ScopeView:
    """The cubes a recall may see, as rows 0..n-1 in the order of conversation (by run, then time, then arrival).

    Statistics taken from it are the scope's own: what other owners or tenants hold cannot change a score.
    """

    connection: apsw.Connection
    owners: Sequence[int] | None
    table: Table  # the rows, and no others
    speakers: Sequence[str]
    space: tuple[int, int]  # its number and dimension
    wide: Callable[[apsw.Connection, Ints, int, NDArray[np.float32], int], tuple[Ints, str] | None]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def numbers(self) -> Ints:
        """Cube numbers of the rows."""
        return self.table.n

    @property
    def session(self) -> Ints:
        """(n,) codes: rows of one conversation share one."""
        return self.table.run

    @property
    def speaker(self) -> Ints:
        """(n,) codes into `speakers`, -1 where nobody is named."""
        return self.table.speaker

    @property
    def words(self) -> Ints:
        """(n,) indexed terms in each row."""
        return self.table.words

    @property
    def marks(self) -> Ints:
        """(n,) bits that recall set when the text was remembered."""
        return self.table.marks

    @property
    def observed(self) -> Floats:
        """(n,) seconds since 1970."""
        return self.table.observed

    @property
    def happened_from(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_from

    @property
    def happened_to(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_to

    def similarities(self, vector: NDArray[np.float32], rows: Ints) -> NDArray[np.float32] | None:
        """(len(rows),) exact inner product of a unit vector with each row's best window; NaN for a row without.

        None if no row has one.
        """
        held = self.table.vectors
        if held is None:
            found = self._read(vector, rows)
        else:
            found = held.greatest(dots(held.values, vector))
            found = found if len(rows) == len(found) else found[rows]
        return None if np.isnan(found).all() else found

    def placed(self, rows: Ints) -> NDArray[np.bool_]:
        """(len(rows),) whether each row has a vector in the space."""
        if self.table.vectors is not None:
            return np.asarray(self.table.vectors.counts[rows] > 0)
        numbers = self.numbers[rows]
        found = [n for start in range(0, len(rows), CHUNK) for n in self._placed(numbers[start : start + CHUNK])]
        return np.isin(numbers, np.array(found, dtype=np.int64))

    def nearest(self, vector: NDArray[np.float32], count: int) -> Ints | None:
        """The `count` rows of greatest similarity, best first; None if no row has a vector.

        Exact while vectors are in memory. Of a wide scope the index finds them, or all are read where there is none.
        """
        if self.table.vectors is None:
            wide = self.wide(self.connection, self.table.ascending, self.space[0], vector, count)
            if wide is not None:
                numbers, self._ways["vectors"] = wide
                return self.table.rows_of(numbers)
        found = self.similarities(vector, np.arange(len(self)))
        if found is None:
            return None
        return np.argsort(-found, kind="stable")[: min(count, int((~np.isnan(found)).sum()))]

    @property
    def way(self) -> str:
        """How near vectors were found: by the "graph", or by a "scan" of all that the view has."""
        return self._ways.get("vectors", "scan")

    def postings(self, term: str) -> tuple[Ints, Ints]:
        """Rows that hold a term, ascending, and how often each does."""
        if term not in self._postings:
            kept = self.table.kept
            found = self._postings[term] = kept.get(term) or self._look_up(term)
            if term not in kept:
                kept[term] = found
                while sum(len(rows) for rows, _ in list(kept.values())) > KEPT:
                    kept.pop(next(iter(kept)), None)
        return self._postings[term]

    def _look_up(self, term: str) -> tuple[Ints, Ints]:
        cubes, counts = self._found(term)
        rows = self.table.rows_of(cubes)
        if len(rows) and rows.min() < 0:
            rows, counts = rows[rows >= 0], counts[rows >= 0]
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            rows, counts = rows[order], counts[order]
        return rows, counts

    def _found(self, term: str) -> tuple[Ints, Ints]:
        """Numbers of all cubes of the owners that hold a term, whether the view has them or not, and how often."""
        return words.find(self.connection, self.owners, term)

    def linked(self, rows: Ints) -> Ints:
        """The rows that any of these was made from, or that were made from it; ascending."""
        found: list[int] = []
        if query(self.connection, "SELECT 1 FROM derivations LIMIT 1"):
            numbers = self.numbers[rows].tolist()
            for start in range(0, len(numbers), CHUNK):
                part = numbers[start : start + CHUNK]
                statement = _LINKED.format(marks(part))
                found += [n for (n,) in query(self.connection, statement, (*part, *part))]
        there = self.table.rows_of(np.array(found, dtype=np.int64))
        return np.unique(there[there >= 0])

    def states(self, rows: Ints) -> tuple[NDArray[np.uint8], Ints, Ints]:
        """Coded token states: some bytes, and where in them those of each of the rows begin and end."""
        held = self.table.states
        if held is not None:
            return held.values, held.starts[rows], held.starts[rows + 1]
        blobs = dict(self._on_disk("states", rows))
        parts = [blobs.get(n) or b"" for n in self.numbers[rows].tolist()]
        ends = np.cumsum(np.array([len(part) for part in parts], dtype=np.int64))
        return np.frombuffer(b"".join(parts), dtype=np.uint8), np.concatenate([[0], ends[:-1]]), ends

    def _placed(self, numbers: Ints) -> list[int]:
        part = numbers.tolist()
        statement = f"SELECT cube FROM vectors WHERE space = ? AND cube IN ({marks(part)})"  # noqa: S608
        return [n for (n,) in query(self.connection, statement, (self.space[0], *part))]

    @cached_property
    def _ways(self) -> dict[str, str]:
        return {}

    @cached_property
    def _postings(self) -> dict[str, tuple[Ints, Ints]]:
        return {}

    def _read(self, vector: NDArray[np.float32], rows: Ints) -> NDArray[np.float32]:
        blobs = dict(self._on_disk("vectors", rows))
        parts = [blobs.get(n) or b"" for n in self.numbers[rows].tolist()]
        counts = np.array([len(part) for part in parts], dtype=np.int64) // (2 * self.space[1])
        held: Half = unpack(b"".join(parts), self.space[1])
        return Ragged(held, np.concatenate([[0], np.cumsum(counts)])).greatest(dots(held, vector))

    def _on_disk(self, column: str, rows: Ints) -> Iterator[tuple[int, bytes | None]]:
        numbers = np.sort(self.numbers[rows]).tolist()  # near numbers lie on near pages
        for start in range(0, len(numbers), CHUNK):
            part = numbers[start : start + CHUNK]
            condition = f"space = ? AND cube IN ({marks(part)})"
            statement = f"SELECT cube, {column} FROM vectors WHERE {condition}"  # noqa: S608  # our names
            yield from query(self.connection, statement, (self.space[0], *part))
