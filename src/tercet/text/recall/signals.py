"""The signals of a row for a question. Each is a function from a `Scene` to float32 (rows,), mostly within [0, 1].

None is scaled by the other rows' values, so that a score means the same in every scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from tercet.text.recall.candidates import spans
from tercet.text.recall.scene import Scene
from tercet.text.recall.view import ASKS, TIMED, Floats

ENOUGH = 6.0  # a BM25 score that is a good match already; 1 - exp(-score / ENOUGH) bounds it
LONG = 4.0  # the logarithm of the words of a turn that says much
LINGER = 10 * 86_400.0  # seconds: how soon after an event people stop telling of it


def speaker(scene: Scene) -> Floats:
    """1 where the speaker is one whom the question names, 0 where not; one half throughout if it names none or all."""
    if not scene.question.named:
        return np.full(len(scene.rows), 0.5, np.float32)
    return np.isin(scene.column(scene.view.speaker), list(scene.question.named)).astype(np.float32)


def tokens(scene: Scene) -> Floats:
    """Late interaction (see `late`) where each token of the question may be met in a neighbour, faded."""
    found = scene.token_scores
    return _nothing(scene) if found is None else scene.nearby(found).mean(axis=0)


def words(scene: Scene) -> Floats:
    """The mean of `match` and the best `match` of the passage."""
    own = match(scene)
    return np.float32(0.5) * (own + scene.passage(own))


def nearby(scene: Scene) -> Floats:
    """BM25 where each term may be met in a neighbour, faded; bounded as in `match`."""
    return _bounded(scene.nearby(scene.term_scores).sum(axis=0))


def match(scene: Scene) -> Floats:
    """BM25 of the row, bounded by 1 - exp(-score / ENOUGH)."""
    return _bounded(scene.term_scores.sum(axis=0))


def meaning(scene: Scene) -> Floats:
    """Half the cosine of the row and a quarter of each neighbour's. In [-1, 1]."""
    if scene.cosines is None:
        return _nothing(scene)
    line = scene.spread(scene.cosines, 1)
    return scene.gather(np.float32(0.5) * line[1:-1] + np.float32(0.25) * (line[:-2] + line[2:]))


def cosine(scene: Scene) -> Floats:
    """Cosine of the row. In [-1, 1]."""
    return _nothing(scene) if scene.cosines is None else scene.cosines


def length(scene: Scene) -> Floats:
    """The logarithm of the number of words, over LONG, at most 1: who says more tells more."""
    found = np.log(np.maximum(scene.column(scene.view.words), 1)) / LONG
    short: Floats = np.minimum(found, 1).astype(np.float32)
    return short


def asks(scene: Scene) -> Floats:
    """1 where the text ends in a question: it asks for what it does not know."""
    return ((scene.column(scene.view.marks) & ASKS) > 0).astype(np.float32)


def answers(scene: Scene) -> Floats:
    """How well the row before fits the question, where it is a question itself and another speaker's; else 0.

    Its cosine, at least 0, or its `match` where there are no vectors.
    """
    fit = match(scene) if scene.cosines is None else np.maximum(scene.cosines, 0)
    before = scene.gather(scene.spread(fit * asks(scene), 1)[:-2])
    speaker = scene.column(scene.view.speaker)
    # A row and the one before it in `rows` are neighbours wherever `before` is not 0.
    return before * np.concatenate([[False], speaker[1:] != speaker[:-1]]).astype(np.float32)[: len(before)]


def timed(scene: Scene) -> Floats:
    """1 where the text tells a time ("last week", "in May")."""
    return ((scene.column(scene.view.marks) & TIMED) > 0).astype(np.float32)


def when(scene: Scene) -> Floats:
    """`timed` if the question asks for a time, else 0."""
    return timed(scene) if scene.question.when else _nothing(scene)


def date(scene: Scene) -> Floats:
    """1 where a row happened, or was said, on the date that the question names; fading if it was said later."""
    found, view = _nothing(scene), scene.view
    said = scene.column(view.observed)
    begun, ended = scene.column(view.happened_from), scene.column(view.happened_to)
    for start, end in spans(scene.question, said):
        late_by = np.where(said < start, np.inf, np.maximum(said - end, 0))
        inside = (begun < end) & (ended >= start)  # NaN compares false, which is what is meant
        found = np.maximum(found, np.where(inside, 1, np.exp(-late_by / LINGER)).astype(np.float32))
    return found


def _bounded(score: Floats) -> Floats:
    bounded: Floats = -np.expm1(-score / np.float32(ENOUGH))
    return bounded


def _nothing(scene: Scene) -> Floats:
    return np.zeros(len(scene.rows), np.float32)


SIGNALS: Mapping[str, Callable[[Scene], Floats]] = MappingProxyType(
    {
        signal.__name__: signal
        for signal in (speaker, tokens, words, nearby, match, meaning, cosine, length, asks, answers, timed, when, date)
    }
)
