"""The signals of a row for a question: each a number, mostly in [0, 1], that needs no other scope and no other question to be compared with.

A `Scene` holds what they share. A signal is a function from a scene to float32 (rows,); `SIGNALS` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from tercet.text.recall import late
from tercet.text.recall.query import Question
from tercet.text.recall.view import ASKS, TIMED, Floats, Ints, View

K1, B = 1.2, 0.4  # turns are short: length matters less than BM25's usual 0.75 has it
ENOUGH = 6.0  # a BM25 score that is a good match already; 1 - exp(-score / ENOUGH) bounds it
NEAR, FADE = 2, 0.85  # a word met in a turn `d` away counts FADE ** d
PASSAGE = 12  # turns to either side that are one passage
LONG = 4.0  # the logarithm of the words of a turn that says much
LINGER = 10 * 86_400.0  # seconds: how soon after an event people stop telling of it


@dataclass(frozen=True, eq=False)
class Scene:
    """A question before some rows of a view: ascending indices into it, which should bring their neighbours along."""

    question: Question
    view: View
    rows: Ints
    vector: Floats | None = None
    tokens: late.Bits | None = None

    @cached_property
    def term_scores(self) -> Floats:
        """(terms, rows) the BM25 score of each term, with the scope's own statistics; one row of zeros if the question has no terms."""
        view, total = self.view, len(self.view.words)
        found = np.zeros((max(len(self.question.terms), 1), len(self.rows)), np.float32)
        if not total:
            return found
        length = self.view.words / max(float(view.words.mean()), 1.0)
        for row, term in zip(found, self.question.terms, strict=False):
            where, counts = view.postings(term)
            if not len(where):
                continue
            weight = np.log1p((total - len(where) + 0.5) / (len(where) + 0.5))
            if len(self.rows) < total:
                place = np.searchsorted(self.rows, where)
                here = self.rows[np.minimum(place, len(self.rows) - 1)] == where
                where, counts, place = where[here], counts[here], place[here]
            else:
                place = where
            row[place] = weight * (K1 + 1) * counts / (counts + K1 * (1 - B + B * length[where]))
        return found

    @cached_property
    def cosines(self) -> Floats | None:
        """(rows,) or None without a vector of the question, or of any row."""
        return None if self.vector is None else self.view.cosines(self.vector, self.rows)

    @cached_property
    def token_scores(self) -> Floats | None:
        """(question tokens, rows), see `late.similarity`; None without states."""
        codes = None if self.tokens is None else self.view.states(self.rows)
        return None if codes is None or self.tokens is None else late.similarity(self.tokens, codes)

    @cached_property
    def _cells(self) -> Ints:
        """(rows,) a place for each row on a line where rows that are not neighbours are too far apart to meet."""
        session = self.view.session[self.rows]
        apart = (np.diff(self.rows) > 1) | (session[1:] != session[:-1]) | (session[1:] < 0)
        return PASSAGE + np.arange(len(self.rows)) + PASSAGE * np.concatenate([[0], np.cumsum(apart)])

    def spread(self, values: Floats, reach: int) -> Floats:
        """(..., rows) onto the line, `reach` empty places on either side: slices of it are the neighbours' values, 0 where there is none."""
        line = np.zeros(
            (*values.shape[:-1], int(self._cells[-1]) + 1 + PASSAGE if len(self.rows) else 1), values.dtype
        )
        line[..., self._cells] = values
        return line[..., PASSAGE - reach : line.shape[-1] - PASSAGE + reach]

    def gather(self, line: Floats) -> Floats:
        """Back from a line without margins."""
        return line[..., self._cells - PASSAGE]

    def nearby(self, values: Floats) -> Floats:
        """(..., rows): the greatest of a row's own value and its neighbours' within NEAR, faded; values are at least 0."""
        line = self.spread(values, NEAR)
        width = line.shape[-1] - 2 * NEAR
        best = line[..., NEAR : NEAR + width].copy()
        for step in range(1, NEAR + 1):
            sides = np.maximum(line[..., NEAR - step :][..., :width], line[..., NEAR + step :][..., :width])
            np.maximum(best, sides * np.float32(FADE**step), out=best)
        return self.gather(best)

    def passage(self, values: Floats) -> Floats:
        """(rows,): the greatest value within PASSAGE rows to either side."""
        line, have = self.spread(values, PASSAGE), 1
        while have < 2 * PASSAGE + 1:
            step = min(have, 2 * PASSAGE + 1 - have)
            line = np.maximum(line[:-step], line[step:])
            have += step
        return self.gather(line)


def speaker(scene: Scene) -> Floats:
    """1 where the speaker is one that the question names, 0 where not, one half throughout if it names none or all."""
    if not scene.question.named:
        return np.full(len(scene.rows), 0.5, np.float32)
    return np.isin(scene.view.speaker[scene.rows], list(scene.question.named)).astype(np.float32)


def words(scene: Scene) -> Floats:
    """BM25 of the row and the best of its passage, each bounded by 1 - exp(-score / ENOUGH), their mean."""
    own = scene.term_scores.sum(axis=0)
    return (_bounded(own) + _bounded(scene.passage(own))) / 2


def nearby(scene: Scene) -> Floats:
    """BM25 where each term may be met in a neighbour, faded; bounded as in `words`."""
    return _bounded(scene.nearby(scene.term_scores).sum(axis=0))


def tokens(scene: Scene) -> Floats:
    """Late interaction (see `late`) where each token of the question may be met in a neighbour, faded. In [0, 1]."""
    found = scene.token_scores
    return np.zeros(len(scene.rows), np.float32) if found is None else scene.nearby(found).mean(axis=0)


def meaning(scene: Scene) -> Floats:
    """Cosine of the row and, half each, of its two neighbours, over 2. In [-1, 1]."""
    if scene.cosines is None:
        return np.zeros(len(scene.rows), np.float32)
    line = scene.spread(scene.cosines, 1)
    return scene.gather(line[1:-1] / 2 + (line[:-2] + line[2:]) / 4)


def cosine(scene: Scene) -> Floats:
    """Cosine of the row alone. In [-1, 1]."""
    return np.zeros(len(scene.rows), np.float32) if scene.cosines is None else scene.cosines


def match(scene: Scene) -> Floats:
    """BM25 of the row alone, bounded as in `words`."""
    return _bounded(scene.term_scores.sum(axis=0))


def length(scene: Scene) -> Floats:
    """The logarithm of the number of words, over LONG, at most 1: who says more tells more."""
    found = np.log(np.maximum(scene.view.words[scene.rows], 1)) / LONG
    return np.minimum(found, 1).astype(np.float32)


def asks(scene: Scene) -> Floats:
    """1 where the text ends in a question: it asks for what it does not know."""
    return ((scene.view.marks[scene.rows] & ASKS) > 0).astype(np.float32)


def timed(scene: Scene) -> Floats:
    """1 where the text tells a time ("last week", "in May")."""
    return ((scene.view.marks[scene.rows] & TIMED) > 0).astype(np.float32)


def when(scene: Scene) -> Floats:
    """`timed` if the question asks for a time, else 0."""
    return timed(scene) if scene.question.when else np.zeros(len(scene.rows), np.float32)


def date(scene: Scene) -> Floats:
    """1 where a row happened, or was said, on a date that the question names; fading over LINGER when it was said later. 0 without a date."""
    found = np.zeros(len(scene.rows), np.float32)
    view, asked = scene.view, scene.question.date
    if asked is None or not len(scene.rows):
        return found
    said = view.observed[scene.rows]
    begun, ended = view.happened_from[scene.rows], view.happened_to[scene.rows]
    years = [datetime.fromtimestamp(float(edge), UTC).year for edge in (said.min(), said.max())]
    for start, end in asked.spans(years[0] - 1, years[1]):
        with np.errstate(invalid="ignore"):  # NaN compares false, which is what is meant
            inside = (begun < end) & (ended > start)
        late_by = np.where(said < start, np.inf, np.maximum(said - end, 0))
        found = np.maximum(found, np.where(inside, 1, np.exp(-late_by / LINGER)).astype(np.float32))
    return found


def _bounded(score: Floats) -> Floats:
    return -np.expm1(-score / np.float32(ENOUGH))


SIGNALS: dict[str, Callable[[Scene], Floats]] = {
    "speaker": speaker,
    "words": words,
    "nearby": nearby,
    "tokens": tokens,
    "meaning": meaning,
    "cosine": cosine,
    "match": match,
    "length": length,
    "asks": asks,
    "timed": timed,
    "when": when,
    "date": date,
}
