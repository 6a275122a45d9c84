"""What one recall may look at: some rows of an owner's columns, and the words and vectors behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.search import words
from tercet.vault.search.columns import Floats, Ints, Table
from tercet.vault.search.vectors import dots


@dataclass(frozen=True, slots=True)
class ScopeView:
    """The cubes a recall may see, as rows 0..n-1 in the order of conversation (by run, then time, then arrival).

    Statistics taken from it are the scope's own: what other owners or tenants hold cannot change a score.
    """

    connection: apsw.Connection
    owners: Sequence[int]
    table: Table
    rows: Ints  # table row of each view row, ascending

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def numbers(self) -> Ints:
        """Cube numbers of the rows."""
        return self.table.n[self.rows]

    @property
    def session(self) -> Ints:
        """(n,) codes: rows of one conversation share one."""
        return self.table.run[self.rows]

    @property
    def speaker(self) -> Ints:
        """(n,) codes into `speakers`, -1 where nobody is named."""
        return self.table.speaker[self.rows]

    @property
    def speakers(self) -> list[str]:
        """Names of the speakers."""
        return self.table.speakers

    @property
    def words(self) -> Ints:
        """(n,) indexed terms in each row."""
        return self.table.words[self.rows]

    @property
    def observed(self) -> Floats:
        """(n,) seconds since 1970."""
        return self.table.observed[self.rows]

    @property
    def happened_from(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_from[self.rows]

    @property
    def happened_to(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_to[self.rows]

    def cosines(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) inner product of a unit vector with each row's best window; -1 where a row has no vector yet."""
        scores = np.full(len(self.table.n), -1.0, dtype=np.float32)
        np.maximum.at(scores, self.table.part_row, dots(self.table.parts, vector))
        return scores[self.rows]

    @property
    def embedded(self) -> NDArray[np.bool_]:
        """(n,) whether a row has a vector."""
        has = np.zeros(len(self.table.n), dtype=np.bool_)
        has[self.table.part_row] = True
        return has[self.rows]

    def postings(self, term: str) -> tuple[Ints, Ints]:
        """Rows that hold a term, ascending, and how often each does."""
        found = words.find(self.connection, self.owners, term)
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        cubes, counts = np.array(found, dtype=np.int64).T
        table_rows = self.table.rows_of(cubes)
        at = np.searchsorted(self.rows, table_rows)
        kept = (at < len(self.rows)) & (self.rows[np.minimum(at, len(self.rows) - 1)] == table_rows)
        order = np.argsort(at[kept], kind="stable")
        return at[kept][order], counts[kept][order]

    def states(self, rows: Ints) -> list[bytes | None]:
        """Coded token states of rows, for late interaction."""
        return [self.table.states[row] for row in self.rows[rows]]

    def vectors(self, rows: Ints) -> NDArray[np.float32]:
        """(len(rows), dim) the first vector of each row; zeros where there is none."""
        first = np.searchsorted(self.table.part_row, self.rows[rows])
        result = np.zeros((len(rows), self.table.parts.shape[1]), dtype=np.float32)
        inside = first < len(self.table.part_row)
        inside[inside] = self.table.part_row[first[inside]] == self.rows[rows][inside]
        result[inside] = self.table.parts[first[inside]]
        return result
