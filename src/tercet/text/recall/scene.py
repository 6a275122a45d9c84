"""A question before the rows of a scope: what the signals share, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.text.recall import late
from tercet.text.recall.candidates import candidates, occurrences
from tercet.text.recall.query import Question
from tercet.text.recall.view import Floats, Ints, View

K1, B = 1.2, 0.4  # turns are short: length matters less than BM25's usual 0.75 has it
NEAR, FADE = 2, 0.85  # what is met in a turn `d` away counts FADE ** d
PASSAGE = 12  # turns to either side that are one passage
SMALL = 4096  # rows of a scope that are all scored; of a larger one, only candidates and their passages
CANDIDATES = 128  # by words, and as many by vectors; on conversations of 600 turns 64 lose nothing, 16 lose 0.01


@dataclass(frozen=True, eq=False)
class Scene:
    """A question and the rows of a view that are scored for it.

    `rows` are ascending indices into the view, those of a candidate's passage among them. `cosines` (rows,)
    is None where the question or every row has no vector; a row without one has 0. `tokens` are the question's coded
    token states. `ways` has the rows of a large scope that each kind of candidate gave; it is empty for a small one.
    """

    question: Question
    view: View
    rows: Ints
    cosines: Floats | None = None
    tokens: late.Bits | None = None
    ways: Mapping[str, Ints] = field(default_factory=dict)

    def column(self, values: NDArray[Any]) -> NDArray[Any]:
        """(n,) of the view to (rows,)."""
        return values if len(self.rows) == len(values) else values[self.rows]

    @cached_property
    def term_scores(self) -> Floats:
        """(terms, rows) BM25 of each term, by the scope's own statistics; zeros for a question without."""
        found = np.zeros((max(len(self.question.terms), 1), len(self.rows)), np.float32)
        words, total = self.view.words, len(self.view)
        mean = max(float(words.mean()), 1.0) if total else 1.0
        norms = K1 * (1 - B + B / mean * self.column(words))
        for row, term in zip(found, self.question.terms, strict=False):
            where, counts = self.view.postings(term)
            weight = np.log1p((total - len(where) + 0.5) / (len(where) + 0.5))
            if len(self.rows) < total:
                counts = occurrences(self.rows, where, counts)
                where = np.flatnonzero(counts)
                counts = counts[where]
            row[where] = weight * (K1 + 1) * counts / (counts + norms[where])
        return found

    @cached_property
    def token_scores(self) -> Floats | None:
        """(question tokens, rows), see `late.similarity`; None if the question or every row has no coded states."""
        if self.tokens is None:
            return None
        blob, starts, ends = self.view.states(self.rows)
        if not len(blob):
            return None
        return late.similarity(self.tokens, late.Codes.read(blob, starts, ends))

    @cached_property
    def _cells(self) -> Ints:
        """(rows,) a place for each row on a line on which rows that are not neighbours are too far apart to meet."""
        session = self.column(self.view.session)
        apart = (np.diff(self.rows) > 1) | (session[1:] != session[:-1]) | (session[1:] < 0)
        gaps = np.zeros(len(self.rows), np.int64)
        np.cumsum(apart, out=gaps[1:])
        return PASSAGE + np.arange(len(self.rows)) + PASSAGE * gaps

    def spread(self, values: Floats, reach: int) -> Floats:
        """(..., rows) to (..., cells): the line with `reach` empty cells before and after; 0 where there is no row."""
        cells = self._cells
        line = np.zeros((*values.shape[:-1], (int(cells[-1]) if len(cells) else 0) + 1 + PASSAGE), np.float32)
        line[..., cells] = values
        return line[..., PASSAGE - reach : line.shape[-1] - PASSAGE + reach]

    def gather(self, line: Floats) -> Floats:
        """(..., cells) without empty cells before and after, back to (..., rows)."""
        return line[..., self._cells - PASSAGE]

    def nearby(self, values: Floats) -> Floats:
        """(..., rows): the greatest of a row's own value and those of its neighbours up to NEAR away, faded."""
        line = self.spread(values, NEAR)
        width = line.shape[-1] - 2 * NEAR
        best = line[..., NEAR : NEAR + width].copy()
        for step in range(1, NEAR + 1):
            sides = np.maximum(line[..., NEAR - step :][..., :width], line[..., NEAR + step :][..., :width])
            np.maximum(best, sides * np.float32(FADE**step), out=best)
        return self.gather(best)

    def passage(self, values: Floats) -> Floats:
        """(rows,): the greatest value, at least 0, among neighbours up to PASSAGE away."""
        line, have = self.spread(values, PASSAGE), 1
        while have < 2 * PASSAGE + 1:
            step = min(have, 2 * PASSAGE + 1 - have)
            line = np.maximum(line[:-step], line[step:])
            have += step
        return self.gather(line)


def look(question: Question, view: View, vector: Floats | None = None, tokens: late.Bits | None = None) -> Scene:
    """The scene of all rows of a small scope; of a large one, the candidates and their passages."""
    total = len(view)
    if total <= SMALL:
        return _scene(question, view, np.arange(total), vector, tokens)
    ways = candidates(question, view, vector, count=CANDIDATES, most=SMALL)
    chosen = np.unique(np.concatenate([*ways.values()]))
    return replace(_scene(question, view, _passages(view.session, chosen), vector, tokens), ways=ways)


def _passages(session: Ints, rows: Ints) -> Ints:
    """Those rows and their neighbours up to PASSAGE away, ascending."""
    around = rows[:, None] + np.arange(-PASSAGE, PASSAGE + 1)
    inside = np.clip(around, 0, len(session) - 1)
    near = (session[inside] == session[rows][:, None]) & (session[inside] >= 0) & (inside == around)
    near[:, PASSAGE] = True
    return np.unique(around[near])


def _scene(question: Question, view: View, rows: Ints, vector: Floats | None, tokens: late.Bits | None) -> Scene:
    found = None if vector is None else view.similarities(vector, rows)
    return Scene(question, view, rows, None if found is None else np.nan_to_num(found), tokens)
