"""Which rows of a large scope are worth scoring: by words, by vectors, by the time that a question names, by links."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tercet.text.recall.query import Question
from tercet.text.recall.view import Floats, Ints, View

COMMON = 1 / 8
"""Share of the rows from which on a word that they hold makes none of them a candidate where a rarer word does."""


def candidates(question: Question, view: View, vector: Floats | None, *, count: int, most: int) -> Mapping[str, Ints]:
    """Rows by the way they were found; a way that gave none is left out.

    "words" and "vectors": the `count` best of all rows. "time": of those of the date that the question names, the
    `count` best by words and, where there are no more than `most`, the `count` nearest. "links": what any of these was
    made from, or was made from it.
    """
    found = {"words": by_words(question, view, count)}
    if vector is not None and (near := view.nearest(vector, count)) is not None:
        found["vectors"] = near
    if question.date is not None:
        found["time"] = _dated(question, view, vector, count, most)
    found["links"] = view.linked(np.concatenate([*found.values()]))
    return {way: rows for way, rows in found.items() if len(rows)} or {"words": np.zeros(0, np.int64)}


def by_words(question: Question, view: View, count: int) -> Ints:
    """The `count` rows of greatest sum, over terms, of log(1 + n / (df + 1)) tf / (tf + 1), best first; none of sum 0.

    A term adds less than its weight. Rows are therefore taken from the rarest term on, until all that is left could not
    lift a row that has none of those taken over the `count`-th best, which is exact (MaxScore: Turtle and Flood 1995);
    or until what is left is COMMON, which then gives no row of its own.
    """
    weights = _weights(question, view)
    rarest = sorted(question.terms, key=lambda term: -weights[term])
    pool, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for place, term in enumerate(rarest):
        where, _ = view.postings(term)
        if len(pool) and len(where) > COMMON * len(view):
            break
        pool = _union(pool, where)
        scores = _scores(question, view, weights, pool)
        left = sum(weights[other] for other in rarest[place + 1 :])
        if len(pool) >= count and np.partition(scores, -count)[-count] > left:
            break
    return pool[best(scores, count)]


def _union(some: Ints, others: Ints) -> Ints:
    """Of two ascending arrays; numpy's own hashes, which takes several times as long."""
    both = np.sort(np.concatenate([some, others]), kind="stable")
    found: Ints = both[np.append(True, both[1:] != both[:-1])[: len(both)]]
    return found


def _dated(question: Question, view: View, vector: Floats | None, count: int, most: int) -> Ints:
    rows = in_time(question, view)
    scores = _scores(question, view, _weights(question, view), rows)
    chosen = best(scores, count)
    near = view.similarities(vector, rows) if vector is not None and 0 < len(rows) <= most else None
    if near is not None:
        chosen = np.union1d(chosen, best(np.nan_to_num(near), count))
    return rows[chosen]


def in_time(question: Question, view: View) -> Ints:
    """The rows that happened, or were said, on the date that the question names."""
    said, begun, ended = view.observed, view.happened_from, view.happened_to
    found = np.zeros(len(said), np.bool_)
    for start, end in spans(question, said):
        found |= (said >= start) & (said < end)
        found |= (begun < end) & (ended >= start)  # NaN compares false, which is what is meant
    return np.flatnonzero(found)


def spans(question: Question, said: NDArray[np.float64]) -> list[tuple[float, float]]:
    """From-to of the date that the question names, in seconds since 1970; without a year, once for each of the rows."""
    if question.date is None or not len(said):
        return []
    first, last = (datetime.fromtimestamp(float(edge), UTC).year for edge in (said.min(), said.max()))
    return question.date.spans(first - 1, last)


def _weights(question: Question, view: View) -> dict[str, float]:
    total = len(view)
    return {term: float(np.log1p(total / (len(view.postings(term)[0]) + 1))) for term in question.terms}


def _scores(question: Question, view: View, weights: Mapping[str, float], rows: Ints) -> Floats:
    scores = np.zeros(len(rows), np.float32)
    for term in question.terms:
        found = occurrences(rows, *view.postings(term))
        scores += (weights[term] * (found / (found + 1))).astype(np.float32)
    return scores


def occurrences(rows: Ints, where: Ints, counts: Ints) -> Ints:
    """(rows,) the count of each row, given the rows that have one, ascending; 0 for the others."""
    if not len(where):
        return np.zeros(len(rows), np.int64)
    place = np.minimum(np.searchsorted(where, rows), len(where) - 1)
    return np.where(where[place] == rows, counts[place], 0)


def best(scores: NDArray[np.floating], count: int) -> Ints:
    """Indices of the `count` greatest, falling; equal ones in order."""
    if 0 < count < len(scores) // 4:
        some = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        return some[np.argsort(-scores[some], kind="stable")][:count]
    return np.argsort(-scores, kind="stable")[: max(count, 0)]
