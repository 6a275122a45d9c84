"""A column whose rows hold any number of values each, kept in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Ragged(Generic[T]):
    """Row i holds `values[starts[i]:starts[i + 1]]`; `starts` is (rows + 1,) and begins with 0."""

    values: NDArray[T]
    starts: Ints

    @classmethod
    def of(cls, rows: Sequence[NDArray[T]], empty: NDArray[T]) -> Ragged[T]:
        """Rows given one by one; `empty` is what a row without values looks like."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(np.ascontiguousarray(np.concatenate([empty, *rows])), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Ints:
        """(rows,) how many values each row has."""
        return np.diff(self.starts)

    def take(self, rows: Ints) -> Ragged[T]:
        """Those rows alone, in the order asked for."""
        counts = self.counts[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        where = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], counts)
        return Ragged(self.values[where], starts)

    def insert(self, at: Ints, rows: Ragged[T]) -> Ragged[T]:
        """With `rows` put in before the rows at `at` (ascending), as `numpy.insert` does."""
        counts = rows.counts
        values = np.insert(self.values, np.repeat(self.starts[at], counts), rows.values, axis=0)
        return Ragged(values, np.concatenate([[0], np.cumsum(np.insert(self.counts, at, counts))]))

    def greatest(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows,) the greatest score of each row's values, given one a value; NaN for a row without."""
        found = np.full(len(self), np.nan, dtype=np.float32)
        full = np.flatnonzero(self.counts)
        if len(full) == len(self.values):
            found[full] = scores
        elif len(full):
            found[full] = np.maximum.reduceat(scores, self.starts[full])
        return found
