"""Rank the rows of a view for a question. Pure: no clock, no randomness, no I/O beyond what the view does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tercet.text.recall.candidates import best
from tercet.text.recall.evidence import features
from tercet.text.recall.late import Bits
from tercet.text.recall.policies import POLICIES, Policy
from tercet.text.recall.query import Question
from tercet.text.recall.scene import Scene, look
from tercet.text.recall.signals import SIGNALS
from tercet.text.recall.view import Floats, Ints, View


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best rows first.

    `rows` (k,) indexes the view. `scores` (k,) falls, within [0, 1]: how likely it is that the row holds evidence for
    the question, as estimated on conversations and as if one row in thirty did, so that a hit scores the same however
    much else a scope comes to hold. `contributions` has, for each signal, the (k,) terms of the sum behind it, the bias
    apart. `policy` is the one that ranked; if it is a fallback, `missing` says what the one asked for would have
    needed: "vectors" or "tokens". `features` are those of `evidence.features`. `ways` has the rows by what made them
    candidates; it is empty where all rows were scored.
    """

    rows: Ints
    scores: Floats
    contributions: Mapping[str, Floats]
    policy: Policy
    missing: str | None
    features: Mapping[str, float]
    ways: Mapping[str, Ints]

    def through(self, place: int) -> str:
        """What made the hit at `place` a candidate; "" where all rows were scored.

        One or more of "words", "vectors", "time" and "links", with commas, or "passage" if only a neighbour is one.
        """
        if not self.ways:
            return ""
        return ", ".join(way for way, rows in self.ways.items() if self.rows[place] in rows) or "passage"

    def why(self, place: int) -> dict[str, float]:
        """Each signal's contribution to the hit at `place`, the greatest first; nothing for those that gave none."""
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

    `vector` is the unit vector of `question.bare` in the view's space and `tokens` its `late.Coder.question`; without
    them, or where the view has none, the policy's fallback ranks. Rows of equal score keep the view's order.
    """
    scene = look(question, view, vector, tokens)
    chosen, missing = _able(policy, scene)
    parts = {name: np.float32(weight) * SIGNALS[name](scene) for name, weight in chosen.weights.items()}
    sums = np.full(len(scene.rows), chosen.bias, np.float64)
    for part in parts.values():
        sums += part
    order = best(sums, len(sums) if limit is None else limit)
    return Ranking(
        rows=scene.rows[order],
        scores=(1 / (1 + np.exp(-sums[order]))).astype(np.float32),
        contributions={name: part[order] for name, part in parts.items()},
        policy=chosen,
        missing=missing,
        features=features(scene, sums, parts.get("speaker")),
        ways=scene.ways,
    )


def _able(policy: Policy, scene: Scene) -> tuple[Policy, str | None]:
    """The policy, or the first of its fallbacks whose needs are met, and what was missing."""
    missing = None
    while True:
        if policy.needs != "words" and scene.cosines is None:
            lacks = "vectors"
        elif policy.needs == "tokens" and scene.token_scores is None:
            lacks = "tokens"
        else:
            return policy, missing
        missing = missing or lacks
        policy = POLICIES[policy.fallback or "words"]
