"""Ranking: order, reasons, fallbacks, and that nothing outside the view matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.text.recall.late import BYTES, Bits
from tercet.text.recall.memory import Turn, view_of
from tercet.text.recall.policies import POLICIES
from tercet.text.recall.query import parse
from tercet.text.recall.rank import rank
from tercet.text.recall.signals import SIGNALS
from tercet.text.recall.view import Floats

TEXTS = st.sampled_from(["the cat sleeps", "a dog in May?", "piano and cat", "", "yellow walls last week", "42 猫"])
ROWS = st.lists(st.tuples(st.integers(-1, 3), st.sampled_from(["Ada", "Ben", None]), TEXTS), max_size=12)


def unit(rng: np.random.Generator, *shape: int) -> Floats:
    """Random unit vectors."""
    found = rng.normal(size=shape).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True), np.float32)


def codes(rng: np.random.Generator, rows: int) -> list[bytes]:
    return [rng.bytes(BYTES * int(rng.integers(0, 4))) for _ in range(rows)]


def question_bits(rng: np.random.Generator) -> Bits:
    return rng.integers(0, 2**63, (3, 2), np.uint64)


@pytest.mark.parametrize(
    ("question", "row"),
    [
        ("What did Ben paint?", 1),
        ("Which colour are the kitchen walls of Ben?", 3),
        ("What is the name of Ada's cat?", 6),
        ("Where does Miso sleep?", 6),
        ("When did Ada adopt a cat?", 4),
    ],
)
def test_words_and_conversation_find_the_turn(chat: list[Turn], question: str, row: int) -> None:
    rows = view_of(chat)
    found = rank(parse(question, rows.speakers), rows, POLICIES["lexical"], limit=3)
    assert found.rows[0] == row


def test_scores_fall_and_reasons_add_up(chat: list[Turn]) -> None:
    rng = np.random.default_rng(0)
    rows = view_of(chat, vectors=unit(rng, 8, 4), codes=codes(rng, 8))
    policy = POLICIES["balanced"]
    found = rank(
        parse("When did Ada adopt a cat?", rows.speakers),
        rows,
        policy,
        vector=unit(rng, 4),
        tokens=question_bits(rng),
        limit=None,
    )
    assert found.policy is policy
    assert found.missing is None
    assert sorted(found.rows) == list(range(8))
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.scores > 0) & (found.scores < 1)).all()
    for place in range(8):
        total = policy.bias + sum(found.why(place).values())
        assert found.scores[place] == pytest.approx(1 / (1 + np.exp(-total)), rel=1e-4)
        sizes = [abs(part) for part in found.why(place).values()]
        assert sizes == sorted(sizes, reverse=True)


def test_without_vectors_or_states_another_policy_ranks_and_says_so(chat: list[Turn]) -> None:
    rng = np.random.default_rng(0)
    question, vector, tokens = parse("cat"), unit(rng, 4), question_bits(rng)
    bare, dense = view_of(chat), view_of(chat, vectors=unit(rng, 8, 4))
    full = view_of(chat, vectors=unit(rng, 8, 4), codes=codes(rng, 8))
    balanced = POLICIES["balanced"]
    for rows, given_vector, given_tokens, name, missing in (
        (full, vector, tokens, "balanced", None),
        (full, vector, None, "hybrid", "tokens"),
        (full, None, tokens, "lexical", "vectors"),
        (dense, vector, tokens, "hybrid", "tokens"),
        (bare, vector, tokens, "lexical", "vectors"),
    ):
        found = rank(question, rows, balanced, vector=given_vector, tokens=given_tokens)
        assert (found.policy.name, found.missing) == (name, missing)
    assert rank(question, bare, POLICIES["vectors"], vector=vector).policy.name == "words"


def test_nothing_to_rank(chat: list[Turn]) -> None:
    found = rank(parse("cat"), view_of([]), POLICIES["balanced"])
    assert len(found.rows) == len(found.scores) == 0
    assert len(rank(parse("cat"), view_of(chat), POLICIES["balanced"], limit=0).rows) == 0
    assert len(rank(parse(""), view_of(chat), POLICIES["balanced"], limit=3).rows) == 3


@given(rows=ROWS, hidden=ROWS, text=st.sampled_from(["Where does Ada's cat sleep?", "dog in May", "", "猫"]))
def test_what_the_view_does_not_hold_changes_nothing(rows: list[Turn], hidden: list[Turn], text: str) -> None:
    """A view of some rows ranks as a store that never held the others."""
    rows.sort(key=lambda row: row[0])
    alone = view_of(rows)
    hidden = [row for row in hidden if row[1] is None or row[1] in alone.speakers]  # codes stay what they are
    among = view_of([*rows, *((row[0] + 10, row[1], row[2]) for row in hidden)])
    restricted = type(alone)(
        **{
            **vars(among),
            **{name: vars(among)[name][: len(rows)] for name in ("session", "speaker", "words", "marks", "observed")},
            **{name: vars(among)[name][: len(rows)] for name in ("happened_from", "happened_to")},
            "index": {term: (held[held < len(rows)], n[held < len(rows)]) for term, (held, n) in among.index.items()},
        }
    )
    for policy in POLICIES.values():
        a = rank(parse(text, ["Ada", "Ben"]), alone, policy, limit=None)
        b = rank(parse(text, ["Ada", "Ben"]), restricted, policy, limit=None)
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_every_policy_uses_signals_that_exist_and_ends_somewhere() -> None:
    for name, policy in POLICIES.items():
        assert policy.name == name
        assert set(policy.weights) <= set(SIGNALS)
        assert policy.fallback is None or POLICIES[policy.fallback].needs != policy.needs
        assert (policy.fallback is None) == (policy.needs == "words")
