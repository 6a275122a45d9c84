from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TypedDict
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InvalidRequest
from tercet.text.read import date_words
from tercet.text.read.date_rules import RULES
from tercet.text.read.dates import happened

THURSDAY = datetime(2023, 5, 25, 13, 14, tzinfo=UTC)


class Case(TypedDict):
    batch: int
    kind: str
    text: str
    observed: str
    when: list[tuple[str, str, str]]


CASES: list[Case] = [
    json.loads(line) for line in Path(__file__).with_name("dates_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
# Labels that the grammar does not reach; it must stay silent there. "Were planning" says nothing about when.
REFUSED = {"We were planning it on Saturday night when the lights went out."}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['text']}")
def test_reads_what_the_label_says(case: Case) -> None:
    clock, zone = case["observed"].split()
    tz = ZoneInfo(zone)
    found = happened(case["text"], datetime.fromisoformat(clock).replace(tzinfo=tz))
    want = [
        (text, datetime.fromisoformat(start).replace(tzinfo=tz), datetime.fromisoformat(end).replace(tzinfo=tz))
        for text, start, end in case["when"]
        if case["text"] not in REFUSED
    ]
    assert [(when.text, when.start, when.end) for when in found] == want


def test_the_labels_hold_enough_of_both() -> None:
    assert sum(not case["when"] for case in CASES) >= 100
    assert sum(bool(case["when"]) for case in CASES) >= 150


def test_every_rule_has_a_pattern_and_a_calendar() -> None:
    assert set(RULES) == set(date_words.RULES)


def test_every_rule_is_reached_by_a_label() -> None:
    low = [date_words.fold(case["text"]) for case in CASES if case["when"]]
    reached = {match.lastgroup for text in low for match in date_words.phrases().finditer(text)}
    assert reached == set(RULES)


def test_a_time_without_zone_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidRequest, match=r"aware datetime.*ZoneInfo"):
        happened("I left yesterday.", datetime(2023, 5, 25))  # noqa: DTZ001


def test_since_may_give_a_reason_and_not_a_beginning() -> None:
    said = [happened(text, THURSDAY) for text in ("Since last week was busy, I rest.", "I rest since last week.")]
    assert [(when.text, when.end.day) for [when] in said] == [("last week", 22), ("since last week", 26)]
    assert happened("Since May was wet, the roof leaks.", THURSDAY) == []


def test_advice_for_weekends_is_no_date() -> None:
    assert happened("It's important to rest, especially on the weekend.", THURSDAY) == []
    assert [when.text for when in happened("We rested on the weekend.", THURSDAY)] == ["on the weekend"]


def test_a_feeling_like_yesterday_is_no_yesterday() -> None:
    assert happened("5 years already! It feels like just yesterday I put this dress on!", THURSDAY) == []


def test_a_day_is_as_long_as_the_clocks_make_it() -> None:
    [spring] = happened("I overslept yesterday.", datetime(2023, 3, 27, 9, tzinfo=ZoneInfo("Europe/Berlin")))
    [autumn] = happened("I overslept yesterday.", datetime(2023, 10, 30, 9, tzinfo=ZoneInfo("Europe/Berlin")))
    lengths = [when.end.astimezone(UTC) - when.start.astimezone(UTC) for when in (spring, autumn)]
    assert lengths == [timedelta(hours=23), timedelta(hours=25)]


def test_a_midnight_that_the_clocks_skip_moves_on() -> None:
    cairo = ZoneInfo("Africa/Cairo")  # 28 April 2023 began at one o'clock
    [when] = happened("We arrived yesterday.", datetime(2023, 4, 29, 9, tzinfo=cairo))
    assert when.start == datetime(2023, 4, 28, 1, tzinfo=cairo)
    assert when.start.utcoffset() == timedelta(hours=3)


def test_the_day_is_that_of_the_observer_and_not_of_the_server() -> None:
    instant = datetime(2023, 5, 25, 22, 30, tzinfo=UTC)
    tokyo = timezone(timedelta(hours=9))
    assert happened("today", instant)[0].start == datetime(2023, 5, 25, tzinfo=UTC)
    assert happened("today", instant.astimezone(tokyo))[0].start == datetime(2023, 5, 26, tzinfo=tokyo)


def test_the_result_keeps_the_zone_of_the_observation() -> None:
    oslo = ZoneInfo("Europe/Oslo")
    [when] = happened("2023-05-08T14:30Z", THURSDAY.astimezone(oslo))
    assert when.start.tzinfo is oslo
    assert when.end.tzinfo is oslo


@pytest.mark.parametrize("text", ["", " ", "\x00", "yester\x00day", "🙂🙂", "שלום", "on ſunday in İstanbul", "\ud800"])
def test_nothing_comes_of_nothing(text: str) -> None:
    assert happened(text, THURSDAY) == []


@pytest.mark.parametrize("padding", ["🙂 ", "İİ ", "שלום ", "ﬁ ", "\x00 "])
def test_the_span_counts_characters_of_the_text_as_given(padding: str) -> None:
    text = f"{padding}We met YESTERDAY’s guest"
    [when] = happened(text, THURSDAY)
    assert text[slice(*when.span)] == when.text == "YESTERDAY"


@pytest.mark.parametrize("hours", [-12, 0, 14])
@pytest.mark.parametrize("day", [(1, 1, 1), (9999, 12, 30), (9999, 12, 31)])
def test_the_ends_of_the_calendar_are_no_error(day: tuple[int, int, int], hours: int) -> None:
    text = " ".join(case["text"] for case in CASES)
    observed = datetime(*day, 12, tzinfo=timezone(timedelta(hours=hours)))
    assert all(when.start < when.end for when in happened(text, observed))


WORDS = sorted({word for case in CASES for word in re.findall(r"\S+", case["text"])})


@given(
    st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=30).map(" ".join),
    st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1), timezones=st.timezones()),  # noqa: DTZ001
)
def test_spans_are_in_order_and_apart_and_times_are_not_empty(text: str, observed: datetime) -> None:
    found = happened(text, observed)
    edges = [edge for when in found for edge in when.span]
    assert edges == sorted(edges)
    for when in found:
        assert when.text == text[slice(*when.span)]
        assert when.start.astimezone(UTC) < when.end.astimezone(UTC)


@given(st.sampled_from(CASES), st.sampled_from(CASES))
def test_a_sentence_more_changes_nothing(first: Case, second: Case) -> None:
    """A sentence that ends says nothing about the next: times of both are those of each."""
    one, two = (case["text"].rstrip(".!?") for case in (first, second))
    apart = [(when.start, when.text) for text in (one, two) for when in happened(f"{text}.", THURSDAY)]
    assert [(when.start, when.text) for when in happened(f"{one}.\n\n{two}.", THURSDAY)] == apart


@pytest.mark.timeout(60)  # a pattern that backtracks over the text would take hours
@pytest.mark.parametrize(
    ("piece", "each"),
    [
        ("yesterday ", 1),
        ("in           ", 0),
        ("since since the the ", 0),
        ("two or two to two - 2-", 0),
        ("1", 0),
        ("1/1/", 0),
        ("2023-05-08T", 0),
        ("twenty-", 0),
        ("may ", 0),
        ("on friday ", 0),
        ("last last past past ", 0),
        ("two days before 8 may ", 0),
        ("8 of of may ", 0),
        ("it is is on monday. ", 1),
    ],
)
def test_hostile_text_is_read_to_the_end(piece: str, each: int) -> None:
    times = 100_000 // len(piece)
    assert len(happened(piece * times, THURSDAY)) == each * times


@pytest.mark.slow
def test_ten_megabytes_are_read_to_the_end() -> None:
    text = "the soup was warm and we may march on " * 275_000 + "yesterday"
    [when] = happened(text, THURSDAY)
    assert when.span == (len(text) - 9, len(text))
