"""What a question says besides its words."""

from __future__ import annotations

import pytest

from tercet.text.recall.query import Date, find_date, marks, parse
from tercet.text.recall.view import ASKS, TIMED


@pytest.mark.parametrize(
    ("text", "speakers", "named", "bare"),
    [
        ("When did Melanie paint?", ["Caroline", "Melanie"], {1}, "When did paint?"),
        ("What is Mel's dog called?", ["Caroline", "Melanie"], {1}, "What is dog called?"),
        ("what did john smith say?", ["Ada", "John Smith"], {1}, "what did say?"),
        ("When did James meet Samantha?", ["James", "Sam"], {0}, "When did meet Samantha?"),
        ("What have Ada and Ben both painted?", ["Ada", "Ben"], set(), "What have and both painted?"),
        ("Can you swim?", ["Candice", "Bo"], set(), "Can you swim?"),
        ("Where do I live?", ["assistant", "user"], {1}, "Where do I live?"),
        ("What did you recommend?", ["assistant", "user"], {0}, "What did you recommend?"),
        ("Where does she live?", [], set(), "Where does she live?"),
        ("Ada?", ["Ada", "Ben"], {0}, "Ada?"),
        ("", ["Ada", "Ben"], set(), ""),
    ],
)
def test_whom_it_names(text: str, speakers: list[str], named: set[int], bare: str) -> None:
    question = parse(text, speakers)
    assert question.named == named
    assert question.bare == bare


def test_names_are_not_looked_up_but_other_names_are() -> None:
    assert parse("What did Ada buy for Tom?", ["Ada", "Ben"]).terms == ("bui", "tom")
    assert parse("Ada?", ["Ada", "Ben"]).terms == ("ada",)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("who came on may 3, 2023?", Date(3, 5, 2023)),
        ("who came on the 3rd of may?", Date(3, 5, None)),
        ("who came on 2023-05-03?", Date(3, 5, 2023)),
        ("what happened in may 2023?", Date(None, 5, 2023)),
        ("what happened in may?", Date(None, 5, None)),
        ("what may happen?", None),
        ("which march did they join?", None),
        ("the december meeting", Date(None, 12, None)),
        ("what changed in 2021?", Date(None, None, 2021)),
        ("on 2023-13-03", Date(None, None, 2023)),
        ("how many of the 1234 parts?", None),
    ],
)
def test_dates(text: str, date: Date | None) -> None:
    assert find_date(text) == date


def test_a_date_without_its_year_may_be_in_any() -> None:
    spans = Date(29, 2, None).spans(2023, 2024)
    assert spans == [(1709164800.0, 1709251200.0)]
    assert len(Date(None, 12, None).spans(2021, 2023)) == 3
    assert Date(None, 12, 2023).spans(1970, 1970) == [(1701388800.0, 1704067200.0)]
    assert Date(None, None, 2024).spans(1970, 1970) == [(1704067200.0, 1735689600.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are you?", ASKS),
        ("How are you? [image: a cat on a wall]", ASKS),
        ("What? No.", 0),
        ("I moved last week.", TIMED),
        ("Will you come next year?", ASKS | TIMED),
        ("", 0),
    ],
)
def test_marks(text: str, expected: int) -> None:
    assert marks(text) == expected


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("When did she move?", True),
        ("In which month was it?", True),
        ("How long has he run?", True),
        ("Who was there when it rained?", False),
    ],
)
def test_asking_for_a_time(text: str, when: bool) -> None:  # noqa: FBT001
    assert parse(text).when is when
