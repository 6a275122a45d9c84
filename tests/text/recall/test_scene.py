"""What the signals share: BM25, neighbours, passages, candidates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tercet.text.recall import scene as scenes
from tercet.text.recall.candidates import best, by_words, in_time
from tercet.text.recall.memory import ArrayView, Turn, view_of
from tercet.text.recall.policies import POLICIES
from tercet.text.recall.query import parse
from tercet.text.recall.rank import rank
from tercet.text.recall.scene import FADE, NEAR, PASSAGE, B, look
from tercet.text.recall.view import Floats
from tercet.vault.search import analyse

K1 = scenes.K1


def unit(rng: np.random.Generator, *shape: int) -> Floats:
    """Random unit vectors."""
    found = rng.normal(size=shape).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True), np.float32)


def naive_bm25(question: str, texts: list[str]) -> list[float]:
    """Robertson's formula, one text and one term at a time."""
    documents = [analyse.terms(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in parse(question).terms:
            held = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - held + 0.5) / (held + 0.5))
            count = document.count(term)
            score += idf * (K1 + 1) * count / (count + K1 * (1 - B + B * len(document) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    "question", ["Which cat is on the piano?", "cat cat dog", "colour of the kitchen", "zebra", ""]
)
def test_bm25_equals_its_naive_twin(chat: list[Turn], question: str) -> None:
    texts = [text for _, _, text in chat]
    rows = [(session, None, text) for session, _, text in chat]
    found = look(parse(question), view_of(rows)).term_scores.sum(axis=0)
    np.testing.assert_allclose(found, naive_bm25(question, texts), rtol=1e-5)


def naive_spread(rows: ArrayView, values: Floats, reach: int, fade: float) -> list[float]:
    """The best of the neighbours' values, looked for one by one."""
    found = []
    for i, session in enumerate(rows.session):
        near = [j for j in range(len(rows)) if abs(i - j) <= reach]
        # Neighbours are those with nothing of another session between.
        inside = [
            j for j in near if j == i or (session >= 0 and set(rows.session[min(i, j) : max(i, j) + 1]) == {session})
        ]
        found.append(max([0.0, *(float(values[j]) * fade ** abs(i - j) for j in inside)]))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_equal_their_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sessions = np.sort(rng.integers(-1, 4, 60))
    rows = view_of([(int(session), None, "x") for session in sessions])
    values = rng.random(60).astype(np.float32)
    scene = look(parse("x"), rows)
    np.testing.assert_allclose(scene.nearby(values), naive_spread(rows, values, NEAR, FADE), rtol=1e-6)
    np.testing.assert_allclose(scene.passage(values), naive_spread(rows, values, PASSAGE, 1.0), rtol=1e-6)
    both = np.stack([values, values[::-1]])
    np.testing.assert_array_equal(scene.nearby(both)[0], scene.nearby(values))


def test_a_view_without_rows_has_a_scene() -> None:
    scene = look(parse("anything"), view_of([]))
    assert scene.term_scores.shape == (1, 0)
    assert scene.nearby(scene.term_scores).shape == (1, 0)


def test_a_large_scope_is_scored_as_a_small_one_where_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [(i // 40, "Ada" if i % 2 else "Ben", f"word{i % 37} thing{i % 11} part{i % 5}") for i in range(600)]
    vectors = unit(rng, 600, 8)
    question, vector = parse("word3 thing7", ["Ada", "Ben"]), unit(rng, 8)
    whole = look(question, view_of(rows, vectors=vectors), vector)
    monkeypatch.setattr(scenes, "SMALL", 100)
    monkeypatch.setattr(scenes, "CANDIDATES", 5)
    part = look(question, view_of(rows, vectors=vectors), vector)
    assert 10 <= len(part.rows) < 600
    assert whole.cosines is not None
    assert part.cosines is not None
    np.testing.assert_array_equal(part.cosines, whole.cosines[part.rows])
    np.testing.assert_allclose(part.term_scores, whole.term_scores[:, part.rows], rtol=1e-6)
    assert set(best(whole.cosines, 5)) <= set(part.rows)


def test_the_best_are_chosen_in_order_and_ties_stay_as_they_were() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert best(scores, 2).tolist() == [1, 3]
    assert best(scores, 4).tolist() == [1, 3, 5, 2]
    assert best(scores, 0).tolist() == []
    assert best(scores, 99).tolist()[:5] == [1, 3, 5, 2, 0]


def test_rows_without_a_vector_count_as_unrelated(chat: list[Turn]) -> None:
    vectors = unit(np.random.default_rng(0), 3, 4)
    half = replace(view_of(chat), vectors=vectors, owners=np.arange(3))
    scene = look(parse("cat"), half, unit(np.random.default_rng(1), 4))
    assert scene.cosines is not None
    assert scene.cosines[3:].tolist() == [0.0] * 5


def large(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(scenes, "SMALL", 100)
    monkeypatch.setattr(scenes, "CANDIDATES", count)


def dated() -> ArrayView:
    """600 days of turns in sessions of one, of which one alone tells of 5 March 2021."""
    said = [1_600_000_000.0 + 86_400 * i for i in range(600)]
    return view_of([(i, None, f"word{i % 37} thing{i % 11}") for i in range(600)], observed=said)


def test_the_time_that_a_question_names_gives_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch, 4)
    rows = dated()
    there = in_time(parse("What about 5 March 2021?"), rows)
    assert there.tolist() == [173]
    found = look(parse("Anything of word1 on 5 March 2021?"), replace(rows, **told(rows, 300, 173)))
    assert set(found.ways["time"].tolist()) == {173, 300}
    assert {173, 300} <= set(found.rows.tolist())
    assert "time" not in look(parse("Anything of word1?"), rows).ways


def told(rows: ArrayView, teller: int, of: int) -> dict[str, Any]:
    """Columns by which a row tells of the day on which another was said."""
    begun, ended = rows.happened_from.copy(), rows.happened_to.copy()
    begun[teller], ended[teller] = rows.observed[of] - 10, rows.observed[of] + 10
    return {"happened_from": begun, "happened_to": ended}


def test_of_a_long_time_the_rows_that_fit_best_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch, 4)
    rows, question = dated(), parse("What of thing3 in 2021?")
    found = look(question, rows)
    there = set(in_time(question, rows).tolist())
    assert len(there) > 300
    assert 0 < len(found.ways["time"]) <= 4
    assert set(found.ways["time"].tolist()) <= there
    assert all(row % 11 == 3 for row in found.ways["time"].tolist())


def test_what_a_candidate_was_made_from_or_into_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch, 5)
    rows = [(i, None, "rare" if i == 7 else f"thing{i}") for i in range(600)]
    scene = look(parse("rare?"), replace(view_of(rows), links={7: (50,), 90: (7,), 400: (401,)}))
    assert scene.ways["links"].tolist() == [50, 90]
    assert scene.rows.tolist() == [7, 50, 90]
    ranking = rank(parse("rare?"), scene.view, POLICIES["lexical"])
    ways = {int(row): ranking.through(place) for place, row in enumerate(ranking.rows)}
    assert ways == {7: "words", 50: "links", 90: "links"}


@pytest.mark.parametrize("seed", range(8))
def test_candidates_by_words_are_those_of_adding_up_every_posting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = [f"w{rank}" for rank in range(30)]
    rows = view_of([(0, None, " ".join(terms[min(r - 1, 29)] for r in rng.zipf(1.4, 6))) for _ in range(2000)])
    question = parse(" ".join(rng.choice(terms, 4)))
    sums = np.zeros(2000, np.float32)
    for term in question.terms:
        where, counts = rows.postings(term)
        sums[where] += (float(np.log1p(2000 / (len(where) + 1))) * (counts / (counts + 1))).astype(np.float32)
    wanted = best(sums, 20)
    assert by_words(question, rows, 20).tolist() == wanted[sums[wanted] > 0].tolist()
