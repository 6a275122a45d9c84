"""Signals by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tercet.text.recall import signals
from tercet.text.recall.memory import Turn, view_of
from tercet.text.recall.query import parse
from tercet.text.recall.scene import FADE, look

DAY = 86_400.0
MAY_3_2023 = 1683072000.0


def test_the_speaker_named(chat: list[Turn]) -> None:
    rows = view_of(chat)
    assert signals.speaker(look(parse("What did Ben paint?", rows.speakers), rows)).tolist() == [0, 1] * 4
    assert signals.speaker(look(parse("Who painted?", rows.speakers), rows)).tolist() == [0.5] * 8
    assert signals.speaker(look(parse("Did Ada or Ben paint?", rows.speakers), rows)).tolist() == [0.5] * 8


def test_words_are_met_nearby_and_in_the_passage(chat: list[Turn]) -> None:
    rows = view_of(chat)
    scene = look(parse("piano", rows.speakers), rows)
    match, nearby, words = signals.match(scene), signals.nearby(scene), signals.words(scene)
    assert np.flatnonzero(match).tolist() == [6]
    assert np.flatnonzero(nearby).tolist() == [4, 5, 6, 7]
    score = -6 * math.log(1 - match[6])
    assert nearby[5] == pytest.approx(1 - math.exp(-score * FADE / 6), rel=1e-5)
    assert words.tolist() == pytest.approx([0] * 4 + [match[6] / 2] * 2 + [match[6], match[6] / 2])
    assert float(match.max()) < 1


def test_meaning_looks_at_neighbours_of_the_session_only(chat: list[Turn]) -> None:
    vectors = np.zeros((8, 2), np.float32)
    vectors[:, 1] = 1
    vectors[3] = vectors[4] = (1, 0)
    scene = look(parse("x"), view_of(chat, vectors=vectors), np.array([1, 0], np.float32))
    assert signals.meaning(scene).tolist() == [0, 0, 0.25, 0.5, 0.5, 0.25, 0, 0]
    assert signals.cosine(scene).tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_an_answer_follows_another_speakers_question() -> None:
    turns: list[Turn] = [(0, "Ada", "Which cat?"), (0, "Ben", "Miso."), (0, "Ben", "A cat?"), (0, "Ben", "Yes.")]
    rows = view_of([*turns, (1, "Ada", "No.")])
    scene = look(parse("cat"), rows)
    match = signals.match(scene)
    assert signals.answers(scene).tolist() == pytest.approx([0, match[0], 0, 0, 0])


def test_questions_and_times(chat: list[Turn]) -> None:
    rows = view_of(chat)
    scene = look(parse("When was the kitchen painted?"), rows)
    assert np.flatnonzero(signals.asks(scene)).tolist() == [0, 2, 5]
    assert np.flatnonzero(signals.timed(scene)).tolist() == [0, 1, 4]
    assert signals.when(scene).tolist() == signals.timed(scene).tolist()
    assert not signals.when(look(parse("Who painted the kitchen?"), rows)).any()


def test_length_grows_and_stays_within_one() -> None:
    rows = view_of([(0, None, ""), (0, None, "one"), (0, None, "one two three"), (0, None, "word " * 500)])
    found = signals.length(look(parse("x"), rows))
    assert found.tolist() == pytest.approx([0, 0, math.log(3) / 4, 1])


def test_a_date_is_met_when_it_was_said_then_or_soon_after_or_happened_then() -> None:
    rows = view_of(
        [(0, None, "x")] * 4,
        observed=[MAY_3_2023 - DAY, MAY_3_2023 + 60, MAY_3_2023 + 11 * DAY, MAY_3_2023 + 300 * DAY],
        happened=[(math.nan, math.nan)] * 3 + [(MAY_3_2023, MAY_3_2023 + DAY)],
    )
    for question in ("Who came on May 3, 2023?", "Who came on 3 May?"):
        found = signals.date(look(parse(question), rows))
        assert found.tolist() == pytest.approx([0, 1, math.exp(-1), 1], abs=1e-5)
    assert not signals.date(look(parse("Who came?"), rows)).any()
    assert not signals.date(look(parse("Who came on 30 February 2023?"), rows)).any()


@pytest.mark.parametrize("name", sorted(signals.SIGNALS))
def test_every_signal_gives_one_float_a_row(chat: list[Turn], name: str) -> None:
    for rows in (view_of(chat), view_of([])):
        found = signals.SIGNALS[name](look(parse("When did Ada adopt the cat in May?", rows.speakers), rows))
        assert found.shape == (len(rows),)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
