"""Fit a policy's weights on questions whose evidence is known. Deterministic, numpy only.

The weights maximise the mean log-probability of the evidence under a softmax over all rows of its question (listwise,
ridge-penalised, by Newton's method). A logistic regression on the sum then gives the slope and the bias that make of it
the probability that a row is evidence, if one row in thirty were: the true share depends on how much a scope holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tercet.text.recall.late import Bits
from tercet.text.recall.policies import Policy
from tercet.text.recall.query import Question
from tercet.text.recall.scene import look
from tercet.text.recall.signals import SIGNALS
from tercet.text.recall.view import Floats, Ints, View

Reals = npt.NDArray[np.float64]
PRIOR = 1 / 30  # the share of evidence among rows that scores assume, whatever the size of the scope


@dataclass(frozen=True, eq=False)
class Labelled:
    """One question: `signals` (rows, names), and the indices of the rows, at least one, that hold its evidence."""

    signals: Floats
    gold: Ints


def label(
    question: Question,
    view: View,
    policy: Policy,
    gold: Sequence[int],
    *,
    vector: Floats | None = None,
    tokens: Bits | None = None,
) -> Labelled:
    """What `fit` needs of a question: the signals that `policy` names. Evidence that is no candidate is left out."""
    scene = look(question, view, vector, tokens)
    found = np.stack([SIGNALS[name](scene) for name in policy.weights], axis=1)
    return Labelled(found, np.flatnonzero(np.isin(scene.rows, gold)))


def fit(examples: Sequence[Labelled], policy: Policy, *, ridge: float = 0.01, digits: int = 1) -> Policy:
    """`policy` with weights and bias fitted on `examples`, rounded to `digits` decimals.

    `ridge` penalises the squares of the weights that the signals have when scaled to unit deviation. Examples without
    evidence are passed over; ValueError if none is left.
    """
    known = [example for example in examples if len(example.gold)]
    if not known:
        raise ValueError("no example has evidence among its rows")
    scale = np.concatenate([example.signals for example in known]).std(axis=0, dtype=np.float64)
    scale[scale < 1e-9] = np.inf  # a signal that never varies gets no weight
    scaled = [(example.signals / scale, example.gold) for example in known]
    weights = _listwise(scaled, ridge)
    sums = [signals @ weights for signals, _ in scaled]
    slope, bias = _calibrate(sums, [gold for _, gold in scaled])
    fitted = (float(round(weight, digits)) for weight in slope * weights / scale)
    return replace(
        policy,
        weights=MappingProxyType(dict(zip(policy.weights, fitted, strict=True))),
        bias=float(round(bias, digits)),
    )


def _listwise(examples: Sequence[tuple[Reals, Ints]], ridge: float) -> Reals:
    size, penalty = examples[0][0].shape[1], ridge * len(examples)
    weights = np.zeros(size)
    for _ in range(50):
        value, slope, curve = _objective(examples, weights, penalty)
        step = np.linalg.solve(curve, slope)
        part = 1.0
        while part > 1e-4 and _objective(examples, weights + part * step, penalty)[0] < value:
            part /= 2
        weights = weights + part * step
        if np.abs(part * step).max() < 1e-3:
            break
    return weights


def _objective(examples: Sequence[tuple[Reals, Ints]], weights: Reals, penalty: float) -> tuple[float, Reals, Reals]:
    """Value, gradient and negative Hessian of the penalised log-likelihood."""
    value = -penalty * float(weights @ weights) / 2
    slope, curve = -penalty * weights, penalty * np.eye(len(weights))
    for signals, gold in examples:
        sums = signals @ weights
        top = sums.max()
        chance = np.exp(sums - top)
        total = chance.sum()
        chance /= total
        expected = chance @ signals
        value += float(sums[gold].mean() - top - np.log(total))
        slope += signals[gold].mean(axis=0) - expected
        curve += (signals * chance[:, None]).T @ signals - np.outer(expected, expected)
    return value, slope, curve


def _calibrate(sums: Sequence[Reals], gold: Sequence[Ints]) -> tuple[float, float]:
    """Slope and bias of the logistic regression of being evidence on the sum, the bias moved to PRIOR."""
    inputs = np.concatenate(sums)
    truth = np.concatenate([np.isin(np.arange(len(s)), g) for s, g in zip(sums, gold, strict=True)]).astype(np.float64)
    odds = truth.mean() / max(1 - truth.mean(), 1e-9)
    design = np.stack([inputs - inputs.mean(), np.ones_like(inputs)], axis=1)
    found = np.array([0.0, np.log(odds)])

    def value(at: Reals) -> float:
        logits = design @ at
        return float(truth @ logits - np.logaddexp(0, logits).sum())

    for _ in range(50):
        chance = 1 / (1 + np.exp(-(design @ found)))
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, design.T @ (truth - chance))
        part, before = 1.0, value(found)
        while part > 1e-6 and value(found + part * step) < before:
            part /= 2
        found = found + part * step
        if np.abs(part * step).max() < 1e-6:
            break
    slope, bias = found
    return float(slope), float(bias - slope * inputs.mean() + np.log(PRIOR / (1 - PRIOR) / odds))
