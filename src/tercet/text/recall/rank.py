"""Rank the rows of a view for a question. Pure: no clock, no I/O beyond what the view does, no randomness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tercet.text.recall.late import Bits
from tercet.text.recall.policies import POLICIES, Policy
from tercet.text.recall.query import Question
from tercet.text.recall.signals import PASSAGE, SIGNALS, Scene
from tercet.text.recall.view import Floats, Ints, View

SMALL = (
    4096  # rows of a scope that are all scored; of a larger one, only candidates and what stands around them
)
CANDIDATES = 256  # from the words, and as many from the vectors


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best rows first.

    `rows` (k,) indexes the view. `scores` (k,) falls, within (0, 1): the policy's estimate of how likely the row is evidence for the question, as
    measured on conversations; below some 0.05 it is mostly noise, above 0.5 mostly right. `contributions` holds for each signal the (k,) terms of
    the sum (the bias apart). `policy` is the one that ranked, and `missing` what the one asked for would have needed ("vectors", "tokens") if another took its place.
    """

    rows: Ints
    scores: Floats
    contributions: Mapping[str, Floats]
    policy: Policy
    missing: str | None

    def why(self, place: int) -> dict[str, float]:
        """The contribution of each signal to the hit at `place`, those that are 0 left out, the largest first."""
        parts = {name: float(values[place]) for name, values in self.contributions.items() if values[place]}
        return dict(sorted(parts.items(), key=lambda part: -abs(part[1])))


def rank(
    question: Question,
    view: View,
    policy: Policy,
    *,
    vector: Floats | None = None,
    tokens: Bits | None = None,
    limit: int | None = 10,
) -> Ranking:
    """The `limit` best rows (None: all that were scored).

    `vector` is the unit vector of `question.bare` in the view's space, `tokens` the code of its token states; without them, or where the view has
    none, the policy's fallback ranks. Rows of equal score keep the view's order.
    """
    scene = Scene(question, view, candidates(question, view, vector), vector, tokens)
    chosen, missing = _able(policy, scene)
    parts = {name: np.float32(weight) * SIGNALS[name](scene) for name, weight in chosen.weights.items()}
    logits = np.full(len(scene.rows), chosen.bias, np.float64)
    for part in parts.values():
        logits += part
    order = _best(logits, len(logits) if limit is None else limit)
    return Ranking(
        rows=scene.rows[order],
        scores=(1 / (1 + np.exp(-logits[order]))).astype(np.float32),
        contributions={name: part[order] for name, part in parts.items()},
        policy=chosen,
        missing=missing,
    )


def candidates(question: Question, view: View, vector: Floats | None) -> Ints:
    """Ascending rows worth scoring: all of a small scope; else the best by words, the nearest by vector, and their passages."""
    total = len(view.session)
    if total <= SMALL:
        return np.arange(total)
    by_words = np.zeros(total, np.float32)
    for term in question.terms:
        where, counts = view.postings(term)
        by_words[where] += np.log1p(total / (len(where) + 1)) * (counts / (counts + 1))
    found = _best(by_words, CANDIDATES)
    found = found[by_words[found] > 0]
    if vector is not None:
        found = np.union1d(found, view.nearest(vector, CANDIDATES))
    around = found[:, None] + np.arange(-PASSAGE, PASSAGE + 1)
    inside = around[(around >= 0) & (around < total)]
    kept = np.zeros(total, np.bool_)
    kept[inside] = True
    return np.flatnonzero(kept)


def _able(policy: Policy, scene: Scene) -> tuple[Policy, str | None]:
    """The policy, or the first of its fallbacks whose needs are met, and what was missing first."""
    there = {"words": True, "vectors": scene.cosines is not None, "tokens": scene.token_scores is not None}
    there["tokens"] = there["tokens"] and there["vectors"]
    missing = None
    while not there[policy.needs]:
        missing = missing or ("vectors" if not there["vectors"] else policy.needs)
        policy = POLICIES[policy.fallback or "words"]
    return policy, missing


def _best(scores: Floats, count: int) -> Ints:
    """Indices of the `count` greatest, falling; ties in order."""
    if count < len(scores) // 4:
        edge = np.partition(scores, len(scores) - count)[len(scores) - count] if count > 0 else np.inf
        some = np.flatnonzero(scores >= edge)
        return some[np.argsort(-scores[some], kind="stable")][:count]
    return np.argsort(-scores, kind="stable")[: max(count, 0)]
