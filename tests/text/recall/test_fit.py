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


def test_labels_come_from_a_view(chat: list[Turn]) -> None:
    rows = view_of(chat)
    made = label(parse("Where does the cat sleep?", rows.speakers), rows, BLANK, [6])
    assert made.signals.shape == (8, 3)
    assert made.gold.tolist() == [6]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no example"):
        fit([Labelled(np.zeros((3, 3), np.float32), np.zeros(0, np.int64))], BLANK)
