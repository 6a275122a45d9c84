from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tercet.errors import InvalidRequest
from tercet.text.read.transcript import is_transcript, read_transcript

WALK = """\
# A walk

[2024-05-01 09:30] Ana: Shall we go?
[2024-05-01 09:30] Ben: Yes: at ten.
# not a heading, Ben's words

Still Ben.
[2024-05-01 11:31 +02:00] Ana: Come!

# Evening

[2024-05-01T20:00:05Z] Ben: שלום 👋
"""


def test_reads_turns_and_sessions() -> None:
    walk, evening = read_transcript(WALK, session="demo")
    assert (walk.session, walk.title, evening.session, evening.title) == ("demo_1", "A walk", "demo_2", "Evening")
    assert [(m.name, m.content) for m in walk.messages] == [
        ("Ana", "Shall we go?"),
        ("Ben", "Yes: at ten.\n# not a heading, Ben's words\n\nStill Ben."),
        ("Ana", "Come!"),
    ]
    assert evening.messages[0].content == "שלום 👋"
    assert all(m.session == c.session for c in (walk, evening) for m in c.messages)


def test_times_keep_the_order() -> None:
    walk, evening = read_transcript(WALK)
    start = datetime(2024, 5, 1, 9, 30, tzinfo=UTC)
    assert [m.at for m in walk.messages] == [start, start + timedelta(seconds=1), start + timedelta(minutes=1)]
    assert evening.messages[0].at == datetime(2024, 5, 1, 20, 0, 5, tzinfo=UTC)


def test_the_zone_of_bare_times_can_be_told() -> None:
    (run,) = read_transcript("[2024-05-01 09:30] Ana: a", zone=timezone(timedelta(hours=-5)))
    assert run.messages[0].at == datetime(2024, 5, 1, 14, 30, tzinfo=UTC)
    assert (run.session, run.title) == ("transcript", None)


def test_refs_last_when_the_transcript_grows() -> None:
    before = [m.ref for run in read_transcript(WALK) for m in run.messages]
    after = [m.ref for run in read_transcript(WALK + "[2024-05-01 20:01] Ana: Hi\n") for m in run.messages]
    assert after[: len(before)] == before
    assert len(set(after)) == len(before) + 1


def test_the_same_words_twice_are_two_turns() -> None:
    (run,) = read_transcript("[2024-05-01 09:30] Ana: ok\n[2024-05-01 09:30] Ana: ok")
    assert len({m.ref for m in run.messages}) == 2


@pytest.mark.parametrize(
    "text", ["words", "Preface.\n[2024-05-01 09:30] Ana: a", "[09:30] Ana: a", "[2024-05-01 09:30] Ana says"]
)
def test_what_is_no_transcript(text: str) -> None:
    assert not is_transcript(text)
    with pytest.raises(InvalidRequest, match="begins with a turn"):
        read_transcript(text)


@pytest.mark.parametrize("at", ["2024-13-01 09:30", "2024-05-01 25:30", "2024-05-01 09:30+99:00"])
def test_a_time_that_is_none(at: str) -> None:
    with pytest.raises(InvalidRequest, match="no such time"):
        read_transcript(f"[{at}] Ana: a")


def test_ten_megabytes_of_blank_lines_in_a_turn() -> None:
    (run,) = read_transcript("[2024-05-01 09:30] Ana: a" + "\n" * 10_000_000 + "b\n[2024-05-01 09:31] Ben: c")
    assert len(run.messages[0].content) == 10_000_002
