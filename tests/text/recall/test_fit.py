"""Fitting weights finds what made the labels."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from tercet.text.recall.fit import Labelled, fit, label
from tercet.text.recall.memory import Turn, view_of
from tercet.text.recall.policies import Policy
from tercet.text.recall.query import parse

BLANK = Policy("made", MappingProxyType({"match": 0.0, "length": 0.0, "asks": 0.0}), 0.0)


def examples(rng: np.random.Generator, count: int) -> list[Labelled]:
    """Evidence is the row with the greatest 4 a - 2 b + noise; c says nothing."""
    made = []
    for _ in range(count):
        signals = rng.random((30, 3)).astype(np.float32)
        utility = signals @ np.array([4, -2, 0]) + rng.gumbel(size=30) * 0.5
        made.append(Labelled(signals, np.array([int(utility.argmax())])))
    return made


def test_it_finds_the_weights_that_made_the_labels() -> None:
    fitted = fit(examples(np.random.default_rng(0), 800), BLANK, ridge=1e-4, digits=3)
    a, b, c = fitted.weights.values()
    assert a / b == pytest.approx(-2, rel=0.15)
    assert abs(c) < 0.1 * a
    assert fitted.name == "made"


def test_it_is_deterministic_and_a_signal_that_never_varies_weighs_nothing() -> None:
    made = examples(np.random.default_rng(1), 60)
    for example in made:
        example.signals[:, 2] = 1
    first, second = fit(made, BLANK), fit(made, BLANK)
    assert first == second
    assert first.weights["asks"] == 0
    assert all(weight == round(weight, 1) for weight in first.weights.values())


def test_scores_are_calibrated_to_one_row_in_thirty() -> None:
    made = examples(np.random.default_rng(2), 400)  # thirty rows each, one of them evidence
    fitted = fit(made, BLANK, digits=4)
    weights = np.array(list(fitted.weights.values()))
    scores = np.concatenate([1 / (1 + np.exp(-(example.signals @ weights + fitted.bias))) for example in made])
    assert float(scores.mean()) == pytest.approx(1 / 30, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_at_its_optimum(seed: int) -> None:
    """Newton steps that are not checked overshoot where evidence is rare."""
    made = []
    rng = np.random.default_rng(seed)
    for _ in range(60):
        signals = rng.normal(size=(500, 3)).astype(np.float32)
        signals[0] += 1.5
        made.append(Labelled(signals, np.array([0])))
    fitted = fit(made, BLANK, digits=6)
    weights = np.array(list(fitted.weights.values()))
    prior = np.log((1 / 500) / (1 - 1 / 500)) - np.log((1 / 30) / (1 - 1 / 30))

    def likelihood(scale: float) -> float:
        total = 0.0
        for example in made:
            logits = scale * (example.signals @ weights + fitted.bias + prior)
            total += logits[0] - np.logaddexp(0, logits).sum()
        return float(total)

    assert likelihood(1.0) >= max(likelihood(0.95), likelihood(1.05))


def test_labels_come_from_a_view(chat: list[Turn]) -> None:
    rows = view_of(chat)
    made = label(parse("Where does the cat sleep?", rows.speakers), rows, BLANK, [6])
    assert made.signals.shape == (8, 3)
    assert made.gold.tolist() == [6]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no example"):
        fit([Labelled(np.zeros((3, 3), np.float32), np.zeros(0, np.int64))], BLANK)
