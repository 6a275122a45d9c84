"""What one recall may look at: some rows of an owner's columns, and the words and vectors behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.search import words
from tercet.vault.search.columns import Floats, Ints, Table
from tercet.vault.search.vectors import dots


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def numbers(self) -> Ints:
        """Cube numbers of the rows."""
        return self.table.n[self.rows]

    @cached_property
    def session(self) -> Ints:
        """(n,) codes: rows of one conversation share one."""
        return self.table.run[self.rows]

    @cached_property
    def speaker(self) -> Ints:
        """(n,) codes into `speakers`, -1 where nobody is named."""
        return self.table.speaker[self.rows]

    @cached_property
    def speakers(self) -> list[str]:
        """Names of the speakers."""
        return self.table.speakers

    @cached_property
    def words(self) -> Ints:
        """(n,) indexed terms in each row."""
        return self.table.words[self.rows]

    @cached_property
    def observed(self) -> Floats:
        """(n,) seconds since 1970."""
        return self.table.observed[self.rows]

    @cached_property
    def happened_from(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_from[self.rows]

    @cached_property
    def happened_to(self) -> Floats:
        """(n,) seconds since 1970, NaN where unknown."""
        return self.table.happened_to[self.rows]

    @cached_property
    def marks(self) -> Ints:
        """(n,) bits that recall set when the text was remembered."""
        return self.table.marks[self.rows]

    def similarities(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """(n,) inner product of a unit vector with each row's best window, exact; NaN where a row has no vector yet.

        None if no row has one.
        """
        if not len(self.table.parts):
            return None
        found = dots(self.table.parts, vector)
        scores = np.full(len(self.table.n), np.nan, dtype=np.float32)
        if self.table.single:
            scores[self.table.part_row] = found
        else:
            np.fmax.at(scores, self.table.part_row, found)
        chosen = scores[self.rows]
        return None if np.isnan(chosen).all() else chosen

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

    def states(self) -> tuple[bytes, Ints, Ints]:
        """Coded token states: the bytes of the whole table, and where those of each row begin and end."""
        ends = self.table.state_ends
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        return self.table.states, starts[self.rows], ends[self.rows]
