"""Find the times that an English message names, and resolve them against the time it was said.

A wrong date is worse than none. What has two readings of equal weight, what names no definite time ("the other
day", "a decade ago"), what only bounds one ("until Friday", "over a year ago"), what recurs ("on Mondays", "my
birthday is in May") and what hangs on another event ("two weeks later") is left alone; so is anything finer than a
day that comes without one. Weeks start on Monday, seasons are northern. Counted weeks are three days wide on
either side, counted months and years are whole ones of the calendar; "a couple" is two or three, "a few" two to
five, "several" three to seven. A month without a year is the last one unless the verb looks ahead; a day or
weekday needs a verb to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tercet.errors import InvalidRequest
from tercet.text.read.date_rules import RULES, Interval, midnight, narrow
from tercet.text.read.date_words import Phrase, compiled, fold, phrases, rule

_BOUNDS = ("by", "until", "till", "before", "after", "to", "through")  # the event is beside the time, not in it
_BECAUSE = r" (?:is|was|were|will|has|had)\b|'s\b"  # "since last week was so busy"
_CLOSED_BY = {"from": ("to", "until", "till", "through"), "between": ("and", "to")}
_RELATIVE = ("part", "day", "counted", "relative")
# Rules that need one of these prepositions, which is then part of the phrase.
_NEEDS = {
    "month": ("in", "since"),
    "weekday": ("on", "since"),
    "weekend": ("over", "on", "at"),
    "holiday": ("on", "at", "since"),
    "ahead": ("in", ""),
    "window": ("in", "over", "during", "for", ""),
    "year": ("in", "during", "since", "from", "between", "and", "to", "until", "till", "through"),
}


@dataclass(frozen=True, slots=True)
class When:
    """A time that a text names, and where.

    `start` is inclusive and `end` exclusive, both aware, in the zone of the observation. `span` counts characters of
    the text; `text` is the phrase as written there.
    """

    start: datetime
    end: datetime
    span: tuple[int, int]
    text: str


def happened(text: str, observed: datetime) -> list[When]:
    """Resolve the times that `text` names, in the order of the text; phrases do not overlap.

    `observed` is when the text was said. Days are counted on the calendar of its zone, so a day on which clocks change
    lasts 23 or 25 hours. Takes time linear in the text. Raises `InvalidRequest` if `observed` has no time zone.
    """
    if observed.utcoffset() is None:
        raise InvalidRequest(
            f"The observation time {observed.isoformat()} has no time zone, so 'yesterday' has no meaning. Pass an "
            "aware datetime: datetime.now(timezone.utc), or one with tzinfo=ZoneInfo('Europe/Oslo')."
        )
    low = fold(text)
    readings = (_read(match, text, low, observed) for match in phrases().finditer(low))
    found = []
    for reading in _join((reading for reading in readings if reading), low):
        try:
            start, end = _aware(reading.interval, observed)
        except OverflowError:  # at the very ends of the calendar
            continue
        span = (reading.start, reading.end)
        found.append(When(start, end, span, text[slice(*span)]))
    return found


@dataclass(frozen=True, slots=True)
class _Reading:
    interval: Interval
    prep: str
    outer: int  # where the preposition begins
    start: int
    end: int
    alone: bool  # whether it is a time without a second one that closes it ("between May 2020 and June 2021")


def _read(match: re.Match[str], text: str, low: str, observed: datetime) -> _Reading | None:
    name, prep = match.lastgroup or "", match["prep"] or ""
    if prep == "since" and compiled(_BECAUSE).match(low, match.end()):
        prep = ""
    phrase = Phrase(text, low, *match.span(name), prep, match["det"] or "", observed)
    needs = _NEEDS.get(name)
    parts = rule(name).fullmatch(low, phrase.start, phrase.end)
    if parts is None or (needs and prep not in needs) or phrase.misread():
        return None
    try:
        tomorrow = midnight(observed.date() + timedelta(days=1))
        interval = RULES[name](parts, phrase)
        if interval is None:
            return None
        interval, end = narrow(interval, phrase)
    except (ValueError, OverflowError):  # 30 February, or beyond the ends of the calendar
        return None
    endless = prep == "from" and (interval[1] > tomorrow or low.startswith(" on", end))
    if prep == "since":
        interval = interval[0], tomorrow
    if interval[0] >= interval[1]:
        return None
    start = match.start() if needs or prep == "since" else phrase.start
    if name.startswith("beside") and phrase.det and start == phrase.start:
        start = match.start("det")
    # "The one I went to last week", "she stopped by yesterday": there the little word belongs to the verb.
    particle = name in _RELATIVE and (prep == "to" or (prep == "by" and interval[1] < tomorrow))
    bound = prep in _BOUNDS and not particle
    alone = not (bound or endless or prep == "between" or (needs and prep == "and"))
    return _Reading(interval, prep, match.start(), start, end, alone)


def _join(readings: Iterable[_Reading], low: str) -> Iterator[_Reading]:
    """Make one of "from 2015" and "to 2019"; drop what is no time alone."""
    held: _Reading | None = None
    for reading in readings:
        if held and reading.prep in _CLOSED_BY.get(held.prep, ()) and low[held.end : reading.outer].isspace():
            interval = held.interval[0], reading.interval[1]
            held = replace(
                held, interval=interval, start=held.outer, end=reading.end, alone=interval[0] < interval[1], prep=""
            )
            continue
        if held and held.alone:
            yield held
        held = reading
    if held and held.alone:
        yield held


def _aware(interval: Interval, observed: datetime) -> Interval:
    """Read wall clock times in the zone of the observation; one that the clocks skipped moves on by the gap."""
    start, end = (wall.replace(tzinfo=observed.tzinfo).astimezone(UTC) for wall in interval)
    if end <= start:
        end = start + (interval[1] - interval[0])
    return start.astimezone(observed.tzinfo), end.astimezone(observed.tzinfo)
