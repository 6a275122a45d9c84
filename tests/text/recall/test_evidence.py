"""Evidence: a bounded number that falls where the question is about somebody else, or about nothing that was told."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.evaluate.abstain import auroc
from tercet.text.recall.evidence import FEATURES, STRENGTHS, features, fit
from tercet.text.recall.memory import view_of
from tercet.text.recall.policies import POLICIES
from tercet.text.recall.query import parse
from tercet.text.recall.rank import rank
from tercet.text.recall.recall import strength
from tercet.text.recall.scene import look

TURNS = [
    (0, "Ann", "I painted a lake at sunrise last week."),
    (0, "Bob", "Nice, what else did you do?"),
    (0, "Bob", "I bought a red bicycle for my daughter."),
    (0, "Ann", "I went to the market and had soup."),
]


def evidence(question: str) -> float:
    view = view_of(TURNS)
    return strength(rank(parse(question, view.speakers), view, POLICIES["lexical"]))


def test_whom_it_is_about_counts() -> None:
    assert evidence("What did Ann paint?") > evidence("What did Bob paint?")
    assert evidence("What did Bob buy for his daughter?") > evidence("What did Ann buy for her daughter?")


def test_a_question_about_nothing_told_has_less() -> None:
    assert evidence("What did Ann paint?") > evidence("Which volcano did Ann climb?")


def test_it_is_bounded_and_an_empty_scope_has_features_too() -> None:
    for question in ("?", "Ann", "What did Ann paint?", "x" * 1000):
        assert 0 <= evidence(question) <= 1
    view = view_of([])
    assert set(features(look(parse("Ann?"), view), np.zeros(0), None)) == set(FEATURES)


def test_fit_finds_what_tells_the_two_apart() -> None:
    chance = np.random.default_rng(0)
    rows = [dict.fromkeys(FEATURES, 0.0) | {"own": float(x), "named": float(chance.normal())} for x in range(-20, 20)]
    found = fit([(row, row["own"] > 0) for row in rows], ["named", "own"])
    assert found.weights["own"] > 0.1
    assert found.of(rows[-1]) > 0.9
    assert found.of(rows[0]) < 0.1
    with pytest.raises(ValueError, match="questions"):
        fit([(row, True) for row in rows], FEATURES)


def test_auroc() -> None:
    assert auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert auroc([0.0, 1.0], [2.0, 3.0]) == 0.0
    assert auroc([1.0, 1.0], [1.0]) == 0.5
    assert auroc([], [1.0]) is None


def test_the_weights_are_few_and_rounded() -> None:
    for one in STRENGTHS.values():
        assert set(one.weights) <= set(FEATURES)
        assert all(weight == round(weight, 1) for weight in [*one.weights.values(), one.bias])
