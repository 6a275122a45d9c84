"""How strong the evidence is that a scope answers a question at all: a number on which a caller can abstain.

Ranking always finds a best row. Whether it answers is told by a few features of how the rows score, weighed in a
logistic sum: evidence = 1 / (1 + exp(-(BIAS + sum of weight * feature))).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tercet.text.recall.scene import Scene
from tercet.text.recall.view import Floats

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"best": 0.0, "own": 0.0, "rivals": 0.0, "margin": 0.0, "terms": 0.0, "tokens": 0.0, "named": 0.0}
)
BIAS = 0.0


def features(scene: Scene, sums: NDArray[np.float64], spoken: Floats | None) -> dict[str, float]:
    """The features of a ranking, given the (rows,) sums by which it ranks and the part of them for the speaker.

    best: the greatest sum, over 10. rivals: by how much the best row of others, whom the question does not name, fits
    better in content than the best of those it names, over 10; 0 if it names nobody. margin: the greatest sum less the
    mean of the five that follow, over 10. terms: the share of the question's terms that the three best rows hold, by
    their rarity. tokens: the best late interaction. named: whether the question names a speaker.
    """
    if not len(sums):
        return dict.fromkeys(WEIGHTS, 0.0)
    order = np.argsort(-sums, kind="stable")[:6]
    content = sums if spoken is None else sums - spoken
    own = np.isin(scene.column(scene.view.speaker), list(scene.question.named))
    named = bool(scene.question.named)
    rivals = 0.0
    if named and own.any() and not own.all():
        rivals = float(content[~own].max() - content[own].max())
    held = scene.term_scores[:, order[:3]].max(axis=1)
    most = scene.term_scores.max(axis=1)
    tokens = scene.token_scores
    return {
        "best": float(sums[order[0]]) / 10,
        "own": float(content[own].max() if own.any() else content.max()) / 10,
        "rivals": rivals / 10,
        "margin": float(sums[order[0]] - sums[order[1:]].mean()) / 10 if len(order) > 1 else 0.0,
        "terms": float(held.sum() / most.sum()) if most.sum() else 0.0,
        "tokens": 0.0 if tokens is None else float(tokens[:, order[0]].mean()),
        "named": float(named),
    }


def strength(found: Mapping[str, float]) -> float:
    """The evidence that features speak for, in [0, 1]."""
    total = BIAS + sum(weight * found[name] for name, weight in WEIGHTS.items())
    return float(1 / (1 + np.exp(-total)))
