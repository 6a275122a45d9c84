"""What recall sees of a scope: columns of the rows that the caller may see, and the words and vectors behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Ints = NDArray[np.int64]

ASKS, TIMED = 1, 2  # bits of `View.marks`, set by `query.marks` when a text is remembered


class View(Protocol):
    """The n rows of one scope that the caller may see, ordered by session and within a session by time.

    Every statistic is taken over these rows alone, so that nothing else in the vault can change a score. A row's
    neighbours are the rows next to it in this order, as long as the session is the same.
    """

    def __len__(self) -> int:
        """n."""

    @property
    def session(self) -> Ints:
        """(n,) a code for each session, equal codes side by side; -1 for a row that has no neighbours."""

    @property
    def speaker(self) -> Ints:
        """(n,) index into `speakers`, or -1."""

    @property
    def speakers(self) -> Sequence[str]:
        """Names as they were given: a person's, or a role such as "user"; "" for a code that no row has."""

    @property
    def words(self) -> Ints:
        """(n,) the number of `analyse.terms` of each row."""

    @property
    def marks(self) -> NDArray[Any]:
        """(n,) `query.marks` of each row."""

    @property
    def observed(self) -> Times:
        """(n,) when it was said, in seconds since 1970."""

    @property
    def happened_from(self) -> Times:
        """(n,) when what the text tells of began, in seconds since 1970, or NaN."""

    @property
    def happened_to(self) -> Times:
        """(n,) and when it ended, or NaN."""

    def postings(self, term: str) -> tuple[Ints, Ints]:
        """The rows that hold `term`, ascending, and how often each does."""

    def similarities(self, vector: Floats, rows: Ints) -> Floats | None:
        """(len(rows),) each row's cosine with the unit `vector`, by its best window; NaN without; None if all are."""

    def nearest(self, vector: Floats, count: int) -> Ints | None:
        """The `count` rows of greatest cosine, best first; None if no row has a vector."""

    def linked(self, rows: Ints) -> Ints:
        """The rows that any of these was made from, or that were made from it; ascending."""

    def states(self, rows: Ints) -> tuple[NDArray[np.uint8], Ints, Ints]:
        """Coded token states (see `late`): some bytes, and where in them those of each of the rows begin and end."""
