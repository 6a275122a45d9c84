"""Terms: the same word is the same term, whoever writes it how."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.vault.search import analyse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Running, runs and ran!", ["run", "run", "and", "ran"]),
        ("Caroline's DOG", ["carolin", "dog"]),
        ("Caroline’s dog", ["carolin", "dog"]),
        ("room 4b, 1999", ["room", "4b", "1999"]),
        ("ﬁne Ｆｕｌｌ Straße", ["fine", "full", "strass"]),
        ("snake_case", ["snake", "case"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("naïve Müller", ["naïve", "müller"]),
        ("我爱猫", ["我", "爱", "猫", "我爱", "爱猫"]),
        ("猫 cats", ["猫", "cat"]),
        ("東京tower", ["東", "京", "東京", "tower"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("…?! ", []),
        ("fun 🙂🏽!", ["fun", "🙂"]),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert analyse.terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("When did she go to the museums?", ["go", "museum"]),
        ("What is it?", ["what", "is", "it"]),
        ("museum Museums museum", ["museum"]),
        ("我爱猫", ["我爱", "爱猫"]),
        ("猫", ["猫"]),
        ("", []),
    ],
)
def test_question_terms(text: str, expected: list[str]) -> None:
    assert analyse.question_terms(text) == expected


def test_words_may_be_left_out() -> None:
    assert analyse.question_terms("Ada paints", frozenset({"ada"})) == ["paint"]


@given(st.text(max_size=80))
def test_a_text_is_found_by_what_is_asked_of_it(text: str) -> None:
    stored = set(analyse.terms(text))
    assert set(analyse.question_terms(text)) <= stored
    assert all(term and len(term) <= analyse.LONGEST for term in stored)


def test_a_word_without_end_is_cut() -> None:
    assert analyse.terms("a" * 10_000) == ["a" * analyse.LONGEST]


def test_threads_do_not_disturb_one_another() -> None:
    texts = [f"painting{i} running houses adoption agencies {i}" * 5 for i in range(50)]
    alone = [analyse.terms(text) for text in texts]
    together: list[list[list[str]]] = []
    workers = [threading.Thread(target=lambda: together.append([analyse.terms(t) for t in texts])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert together == [alone] * 4
