"""What recall sees of a scope: columns of the rows that the caller may see, and four look-ups. No I/O is promised, none is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tercet.text.recall.late import Codes

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

ASKS, TIMED = 1, 2  # bits of `View.marks`, set by `query.marks` when a text is remembered


class View(Protocol):
    """The rows of one scope, n of them, ordered by session and within a session by time. Only rows that the caller may see are there, and
    every statistic is taken over them alone, so that nothing else in the vault can change a score.

    A row's neighbours are the rows next to it in this order, as long as the session is the same.
    """

    @property
    def session(self) -> Ints:
        """(n,) a code for each session, equal codes side by side; -1 for a row that belongs to none and has no neighbours."""

    @property
    def speaker(self) -> Ints:
        """(n,) index into `speakers`, or -1."""

    @property
    def speakers(self) -> Sequence[str]:
        """Names as they were given: a person's, or a role such as "user"."""

    @property
    def words(self) -> Ints:
        """(n,) the number of `analyse.terms` of each row."""

    @property
    def marks(self) -> npt.NDArray[np.uint8]:
        """(n,) `query.marks` of each row."""

    @property
    def observed(self) -> Times:
        """(n,) when it was said, in seconds since 1970 UTC."""

    @property
    def happened_from(self) -> Times:
        """(n,) when what the text tells of began, in seconds since 1970 UTC, or NaN."""

    @property
    def happened_to(self) -> Times:
        """(n,) and when it ended, or NaN."""

    def postings(self, term: str) -> tuple[Ints, Ints]:
        """The rows that hold `term`, ascending, and how often each does."""

    def cosines(self, vector: Floats, rows: Ints) -> Floats | None:
        """(len(rows),) the cosine of each row with the unit `vector`, the best of its vectors where it has several, 0 where it has none;
        None if no row of the scope has a vector."""

    def nearest(self, vector: Floats, count: int) -> Ints:
        """The `count` rows of greatest cosine, in any order. Asked only of scopes too large to be scored row by row."""

    def states(self, rows: Ints) -> Codes | None:
        """The coded token states of `rows` (see `late`), empty for a row without; None if no row of the scope has any."""


@dataclass(frozen=True, eq=False)
class ArrayView:
    """A `View` over arrays in memory: the reference, and enough for a scope that fits.

    `vectors` is float32 (m, dim) of unit norm and `owners` (m,) says which row each belongs to, ascending; both may be left out, as may `codes`.
    """

    session: Ints
    speaker: Ints
    speakers: Sequence[str]
    words: Ints
    marks: npt.NDArray[np.uint8]
    observed: Times
    happened_from: Times
    happened_to: Times
    index: Mapping[str, tuple[Ints, Ints]] = field(repr=False)
    vectors: Floats | None = field(default=None, repr=False)
    owners: Ints | None = field(default=None, repr=False)
    codes: Codes | None = field(default=None, repr=False)

    def postings(self, term: str) -> tuple[Ints, Ints]:
        return self.index.get(term) or (np.zeros(0, np.intp), np.zeros(0, np.intp))

    def cosines(self, vector: Floats, rows: Ints) -> Floats | None:
        if self.vectors is None or self.owners is None:
            return None
        best = np.full(len(self.session), -np.inf, np.float32)
        np.maximum.at(best, self.owners, self.vectors @ vector)
        best[np.isneginf(best)] = 0
        chosen: Floats = best[rows]
        return chosen

    def nearest(self, vector: Floats, count: int) -> Ints:
        cosines = self.cosines(vector, np.arange(len(self.session)))
        return np.zeros(0, np.intp) if cosines is None else np.argsort(-cosines, kind="stable")[:count]

    def states(self, rows: Ints) -> Codes | None:
        return None if self.codes is None else self.codes.take(rows)
