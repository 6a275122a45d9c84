"""How strong the evidence is that a scope answers a question at all: a number on which a caller can abstain.

Ranking always finds a best row. Whether it answers is told by a few features of how the rows score, weighed in a
logistic sum: evidence = 1 / (1 + exp(-(bias + sum of weight * feature))).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tercet.text.recall.scene import Scene
from tercet.text.recall.view import Floats

FEATURES = ("named", "rivals", "own", "weakest")
"""Of policies that need token states; the others do without the last."""
QUARTER = 4
"""Of the question's tokens, the worst met quarter is what `weakest` looks at."""


@dataclass(frozen=True)
class Strength:
    """A weight for each of FEATURES, a bias, and which labelled questions they were chosen by."""

    weights: Mapping[str, float]
    bias: float
    fitted_on: str

    def of(self, found: Mapping[str, float]) -> float:
        """The evidence that features speak for, in [0, 1]."""
        total = self.bias + sum(weight * found[name] for name, weight in self.weights.items())
        return float(1 / (1 + np.exp(-total)))


DEV = "LoCoMo, conversations 26, 41, 43, 47 and 49; rounded to one decimal"

# `fit` chose the weights on questions that a conversation answers (categories 1 to 4), that it does not though it tells
# of the like (category 5), and that were asked about another conversation, with the names of those who speak here.
STRENGTHS: Mapping[str, Strength] = MappingProxyType(
    {
        "tokens": Strength(MappingProxyType({"named": -1.4, "rivals": -1.0, "own": 0.4, "weakest": 3.9}), 0.4, DEV),
        "words": Strength(MappingProxyType({"named": -1.2, "rivals": -1.0, "own": 0.4}), 2.0, DEV),
    }
)
"""By what the policy that ranked needs: where it is not token states, there is no `weakest`."""


def features(scene: Scene, sums: NDArray[np.float64], spoken: Floats | None) -> dict[str, float]:
    """The features of a ranking, given the (rows,) sums by which it ranks and the part of them for the speaker.

    named: 1 if the question names one whose rows are there. rivals: by how much the best row of others fits better in
    content (the sum without that part) than the best of theirs; 0 if nobody is named. own: the best of theirs, or of
    all. weakest: how well the worst met quarter of the question's tokens is met among their rows, or among all, by late
    interaction; 0 without token states.
    """
    if not len(sums):
        return dict.fromkeys(FEATURES, 0.0)
    own = np.isin(scene.column(scene.view.speaker), list(scene.question.named))
    named = bool(own.any() and not own.all())
    own = own if named else np.ones(len(sums), np.bool_)
    content = sums if spoken is None else sums - spoken
    tokens, weakest = scene.token_scores, 0.0
    if tokens is not None:
        met = np.sort(tokens[:, own].max(axis=1))
        weakest = float(met[: max(len(met) // QUARTER, 1)].mean())
    return {
        "named": float(named),
        "rivals": float(content[~own].max() - content[own].max()) if named else 0.0,
        "own": float(content[own].max()),
        "weakest": weakest,
    }


def fit(
    examples: Sequence[tuple[Mapping[str, float], bool]], names: Sequence[str], *, ridge: float = 1.0, digits: int = 1
) -> Strength:
    """Weights of named features by logistic regression of whether a question is answered, rounded.

    `ridge` penalises the squares of the weights that the features have when scaled to unit deviation.

    ValueError unless there are questions of both sorts.
    """
    inputs = np.array([[found[name] for name in names] for found, _ in examples], np.float64)
    truth = np.array([answered for _, answered in examples], np.float64)
    if not 0 < truth.sum() < len(truth):
        raise ValueError("fitting needs questions that are answered and questions that are not")
    middle, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale < 1e-9] = np.inf
    design = np.concatenate([(inputs - middle) / scale, np.ones((len(inputs), 1))], axis=1)
    penalty = np.diag([ridge] * len(names) + [1e-9])
    at = np.zeros(len(names) + 1)
    for _ in range(30):
        chance = 1 / (1 + np.exp(-(design @ at)))
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        at = at + np.linalg.solve(curve, design.T @ (truth - chance) - penalty @ at)
    weights = at[:-1] / scale
    rounded = {name: float(round(weight, digits)) for name, weight in zip(names, weights, strict=True)}
    return Strength(MappingProxyType(rounded), float(round(at[-1] - middle @ weights, digits)), "the examples given")
