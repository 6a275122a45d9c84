"""The calendar behind each pattern of `date_words.RULES`: a match and its context in, an interval out.

A function answers None for what it refuses, and may raise ValueError or OverflowError for a date that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Literal

from tercet.text.read.date_words import (
    HOLIDAYS,
    MONTHS,
    PARTS,
    SEASONS,
    WEEKDAYS,
    Phrase,
    Tense,
    compiled,
    count,
    rule,
)

Interval = tuple[datetime, datetime]  # wall clock in the zone of the observation; the end is not included
Match = re.Match[str]
Pick = Literal["last", "past", "ahead", "next"]  # over by now, begun by now, not over yet, not begun yet

_YEARS = range(1900, 2101)  # that a conversation may name
_MOST = {"day": 999, "week": 150, "month": 60, "year": 99}  # counts beyond these are figures of speech
_STRETCH = ("in", "over", "during", "for")
_LONG = {"wk": "week", "yr": "year", "fortnight": "week"}
_REL = {"last": -1, "this": 0, "next": 1}
_NO_DATE = (  # what is counted there, so that the number before it is no year or day
    r"\s(?:people|persons|men|women|kids|cases|pieces|words|steps|miles|met(?:re|er)s|km|feet|dollars|euros|pounds"
    r"|points|times|lines|pages|items|units|years|months|weeks|days|hours|minutes|seconds|percent|calories|copies"
    r"|seats|more|of|out)\b"
)
_CLOCK = (
    r"\s{1,3}at\s{1,3}(?:(?P<noon>noon)|(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-5][0-9]))?\s?(?P<half>[ap])(?:m|\.m\.?)"
    r"|(?P<hour24>[0-9]{1,2}):(?P<minute24>[0-5][0-9]))(?![\w:])"
)
_PART = r"\s{1,3}(?P<part>morning|afternoon|evening|night)\b"


def midnight(day: date) -> datetime:
    """Wall clock, without a zone until the phrase is done."""
    return datetime.combine(day, time())


def _days(first: date, end: date) -> Interval:
    return midnight(first), midnight(end)


def _one(day: date) -> Interval:
    return _days(day, day + timedelta(days=1))


def _month(day: date, shift: int) -> date:
    """First of the month that lies `shift` months from `day`'s."""
    year, month = divmod(day.year * 12 + day.month - 1 + shift, 12)
    return date(year, month + 1, 1)


def _shift(day: date, unit: str, n: int) -> date:
    """The same day, `n` units on; the last of the month where that month is shorter."""
    if unit in ("day", "week"):
        return day + timedelta(days=n * (7 if unit == "week" else 1))
    first = _month(day, n * (12 if unit == "year" else 1))
    return min(first + timedelta(days=day.day - 1), _month(first, 1) - timedelta(days=1))


def _around(day: date, unit: str, first: int, last: int) -> Interval:
    """From `first` to `last` units away (negative: ago), as wide as people mean it."""
    if unit == "day":
        return _days(day + timedelta(days=first), day + timedelta(days=last + 1))
    if unit == "week":
        return _days(day + timedelta(days=7 * first - 3), day + timedelta(days=7 * last + 4))
    if unit == "month":
        return _days(_month(day, first), _month(day, last + 1))
    return _days(date(day.year + first, 1, 1), date(day.year + last + 1, 1, 1))


def _whole(day: date, unit: str, shift: int) -> Interval:
    """The calendar unit `shift` away from the one that holds `day`."""
    if unit in ("week", "weekend"):
        monday = day - timedelta(days=day.weekday() - 7 * shift)
        return _days(monday + timedelta(days=5 if unit == "weekend" else 0), monday + timedelta(days=7))
    return _around(day, unit, shift, shift)


def _weekday(day: date, name: str, *, ahead: bool) -> date:
    """The nearest such weekday strictly before `day`, or strictly after."""
    wanted = WEEKDAYS.index(name)
    if ahead:
        return day + timedelta(days=(wanted - day.weekday() - 1) % 7 + 1)
    return day - timedelta(days=(day.weekday() - wanted - 1) % 7 + 1)


def _yearly(of: Callable[[int], Interval], today: date, pick: Pick) -> Interval | None:
    """Of what comes once a year, the one that `pick` names; 29 February may be eight years away."""
    fits: dict[Pick, Callable[[Interval], bool]] = {
        "last": lambda at: at[1] <= midnight(today),
        "past": lambda at: at[0] <= midnight(today),
        "ahead": lambda at: at[1] > midnight(today),
        "next": lambda at: at[0] > midnight(today),
    }
    back = pick in ("last", "past")
    for year in range(today.year, today.year - 10, -1) if back else range(today.year - 1, today.year + 10):
        try:
            at = of(year)
        except ValueError:
            continue
        if fits[pick](at):
            return at
    return None


def _named(parts: Match) -> Callable[[int], Interval]:
    """The month, season or holiday that `parts` names, as a function of the year it begins in."""
    groups = parts.groupdict()
    if groups.get("month"):
        month = 1 + next(i for i, name in enumerate(MONTHS) if name.startswith(groups["month"][:3]))
        return lambda year: _days(date(year, month, 1), _month(date(year, month, 1), 1))
    if groups.get("season"):
        first = SEASONS[groups["season"]]
        return lambda year: _days(date(year, first, 1), _month(date(year, first, 1), 3))
    month, day, length = HOLIDAYS[" ".join(groups["holiday"].split())]
    return lambda year: _days(date(year, month, day), date(year, month, day) + timedelta(days=length))


def _pick(phrase: Phrase, *, otherwise: Pick | None) -> Pick | None:
    """Which of a recurring thing is meant, by the tense of the verb."""
    if phrase.prep == "since":
        return "past"
    picks: dict[Tense, Pick | None] = {Tense.PAST: "past", Tense.FUTURE: "ahead", Tense.ABLE: "ahead"}
    return (picks | {Tense.NONE: otherwise}).get(phrase.tense())


def _iso(parts: Match, phrase: Phrase) -> Interval | None:
    day = date(int(parts["year"]), int(parts["month"]), int(parts["day"]))
    if day.year not in _YEARS or phrase.is_week():
        return None
    if not parts["hour"]:
        return _one(day)
    clock = f"{parts['hour']}:{parts['minute']}:{parts['second'] or '00'}"
    at = datetime.fromisoformat(f"{day.isoformat()}T{clock}{(parts['zone'] or '').upper()}")
    if at.tzinfo:
        at = at.astimezone(phrase.observed.tzinfo).replace(tzinfo=None)
    return at, at + (timedelta(seconds=1) if parts["second"] else timedelta(minutes=1))


def _slashed(parts: Match, phrase: Phrase) -> Interval | None:  # noqa: ARG001
    first, second, year = int(parts["a"]), int(parts["b"]), int(parts["year"])
    if min(first, second) > 12 or (max(first, second) <= 12 and first != second) or year not in _YEARS:
        return None  # which one is the month?
    return _one(date(year, min(first, second), max(first, second)))


def _date(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.is_week() or (not parts["year"] and re.match(_NO_DATE, phrase.low[phrase.end : phrase.end + 12])):
        return None
    month = _named(parts)

    def of(year: int) -> Interval:
        first = month(year)[0].replace(day=int(parts["day"]))
        last = first.replace(day=int(parts["last"] or parts["day"]))
        return first, last + timedelta(days=1)

    at: Interval | None
    if parts["year"] or parts["rel"]:
        at = of(int(parts["year"] or phrase.today.year + _REL[parts["rel"]]))
    elif phrase.low[phrase.start : phrase.end].startswith(("may", "march")) and not phrase.says_month():
        return None
    else:
        pick = _pick(phrase, otherwise=None) if phrase.inferable(within="year") else None
        at = pick and _yearly(of, phrase.today, pick)
    if at and parts["weekday"] and WEEKDAYS[at[0].weekday()] != parts["weekday"]:
        return None
    return at


def _month_year(parts: Match, phrase: Phrase) -> Interval | None:
    if re.search(r"[0-9]\.?\s$", phrase.low[max(0, phrase.start - 3) : phrase.start]):
        return None  # "8. August 2023" is a day in a language that is not read here
    return _named(parts)(int(parts["year"] or phrase.today.year + _REL[parts["rel"]]))


def _beside_date(parts: Match, phrase: Phrase) -> Interval | None:
    written = parts["date"].removeprefix("the ")
    read = {"iso": _iso, "day_month": _date, "month_day": _date}
    found = ((of, rule(name).fullmatch(written)) for name, of in read.items())
    at = next((of(match, phrase) for of, match in found if match), None)
    if at is None:
        return None
    day, after = at[0].date(), parts["side"] == "after"
    sign = 1 if after else -1
    if parts["n"]:
        unit, low, high = _counted_unit(parts)
        return _around(day, unit, *sorted((sign * low, sign * high)))
    whole = parts["whole"]
    if whole in WEEKDAYS:
        return _one(_weekday(day, whole, ahead=after))
    if whole == "week":
        return _days(day + timedelta(days=1), day + timedelta(days=8)) if after else _days(day - timedelta(days=7), day)
    if whole == "weekend":
        saturday = (
            _weekday(day, "saturday", ahead=True)
            if after
            else _weekday(day - timedelta(days=1), "saturday", ahead=False)
        )
        return _days(saturday, saturday + timedelta(days=2))
    return _around(day, whole, sign, sign)


def _beside_day(parts: Match, phrase: Phrase) -> Interval | None:
    return _one(phrase.today + timedelta(days=-2 if parts["side"].startswith("before") else 2))


def _beside_unit(parts: Match, phrase: Phrase) -> Interval | None:
    after = parts["side"].startswith("after")
    if parts["whole"] in WEEKDAYS:
        nearest = _weekday(phrase.today, parts["whole"], ahead=after)
        return _one(nearest + timedelta(days=7 if after else -7))
    return _whole(phrase.today, parts["whole"], 2 if after else -2)


def _part(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.is_figure() or (phrase.det and parts["last"]):
        return None
    day = midnight(phrase.today - timedelta(days=1 if parts["last"] else 0))
    first, end = PARTS[parts["last"] or parts["this"] or "night"]
    return day + timedelta(hours=first), day + timedelta(hours=end)


def _day(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.is_figure():
        return None
    if phrase.prep == "in" or (phrase.prep == "from" and parts["name"] == "today"):
        return None  # "in today's world"
    return _one(phrase.today + timedelta(days={"yesterday": -1, "today": 0, "tomorrow": 1}[parts["name"]]))


def _counted_unit(parts: Match) -> tuple[str, int, int]:
    low, high = count(parts["n"])
    unit = _LONG.get(parts["unit"], parts["unit"])
    if parts["unit"] == "fortnight":
        low, high = 2 * low, 2 * high
    if high > _MOST[unit]:
        raise ValueError(f"{high} {unit}s is a figure of speech")
    return unit, low, high


def _counted(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.prep in ("over", "for", "in"):
        return None
    today = phrase.today
    if not parts["unit"]:
        low, high = count(parts["n"])
        if parts["weekend"]:
            return _whole(today, "weekend", -low) if low == high else None
        return (
            _one(_weekday(today, parts["weekday"], ahead=False) - timedelta(days=7 * (low - 1)))
            if low == high
            else None
        )
    unit, low, high = _counted_unit(parts)
    if parts["to"] and low == high:
        day = _shift(today - timedelta(days=1 if parts["to"] == "yesterday" else 0), unit, -low)
        return _one(day)
    return _around(today, unit, -high, -low)


def _ahead(parts: Match, phrase: Phrase) -> Interval | None:
    unit, low, high = _counted_unit(parts)
    origin = parts["origin"]
    if origin in ("today", "tomorrow"):
        return _one(_shift(phrase.today + timedelta(days=origin == "tomorrow"), unit, low)) if low == high else None
    if not origin and (phrase.prep != "in" or phrase.det):
        return None
    # "in two weeks" is also how long something takes: only a verb that looks ahead makes a date of it.
    if not (origin or parts["time"]) and (phrase.tense() is not Tense.FUTURE or (unit, high) == ("day", 1)):
        return None
    return _around(phrase.today, unit, low, high)


def _until_now(phrase: Phrase, unit: str, n: int) -> Interval:
    return _days(_shift(phrase.today, unit, -n), phrase.today + timedelta(days=1))


def _window(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.is_owned() or (not phrase.prep and "past" not in parts[0]):
        return None  # "the last two weeks" of what?
    unit, _, high = (parts["one"], 1, 1) if parts["one"] else _counted_unit(parts)
    return _until_now(phrase, unit, high)


def _relative(parts: Match, phrase: Phrase) -> Interval | None:
    rel = " ".join(parts["rel"].split())
    if phrase.is_owned():
        return None
    if phrase.det == "the" and rel != "coming":  # "the last week" of something, unless we speak of a stretch up to now
        stretch = rel == "last" and phrase.prep in _STRETCH and parts["unit"] in ("week", "month", "year")
        return _until_now(phrase, parts["unit"], 1) if stretch else None
    if parts["unit"]:
        return _relative_unit(rel, parts["unit"], phrase)
    if parts["weekday"]:
        return _relative_weekday(rel, parts["weekday"], phrase)
    return _relative_named(rel, parts, phrase)


def _relative_named(rel: str, parts: Match, phrase: Phrase) -> Interval | None:
    of, today = _named(parts), phrase.today
    if parts["month"] and not phrase.says_month():
        return None
    if rel != "this":
        at = _yearly(of, today, "last" if rel in ("last", "this past") else "next")
        # "Next June", said in May: this year's or the next one's?
        return None if at and rel == "next" and at[0].year == today.year else at
    if parts["month"] or parts["season"] not in (None, "winter"):
        return of(today.year)
    return _yearly(of, today, "past" if phrase.tense() is Tense.PAST else "ahead")


def _relative_unit(rel: str, unit: str, phrase: Phrase) -> Interval | None:
    today, resting = phrase.today, phrase.today.weekday() > 4
    if unit != "weekend":
        return _whole(today, unit, _REL.get(rel, 1))
    if rel == "this past":
        return None if resting else _whole(today, unit, -1)
    if rel == "this" and not resting and phrase.tense() is Tense.PAST:
        return _whole(today, unit, -1)
    return _whole(today, unit, _REL.get(rel, int(resting)))


def _relative_weekday(rel: str, name: str, phrase: Phrase) -> Interval | None:
    yesterday, tomorrow = phrase.today - timedelta(days=1), phrase.today + timedelta(days=1)
    if rel in ("last", "this past"):
        return _one(_weekday(phrase.today, name, ahead=False))
    if rel != "this":
        return _one(_weekday(phrase.today, name, ahead=True))
    past = phrase.tense() is Tense.PAST
    return _one(_weekday(tomorrow, name, ahead=False) if past else _weekday(yesterday, name, ahead=True))


def _weekend(parts: Match, phrase: Phrase) -> Interval | None:  # noqa: ARG001
    pick = _pick(phrase, otherwise=None) if phrase.det == "the" and phrase.inferable(within="week") else None
    if pick != "past" and phrase.prep != "over":
        return None  # "rest on the weekend" is advice for all of them
    past = pick == "past" and phrase.today.weekday() < 5
    return _whole(phrase.today, "weekend", -1 if past else 0) if pick else None


def _weekday_of(parts: Match, phrase: Phrase) -> Interval | None:
    monday = _whole(phrase.today, "week", _REL[parts["rel"]])[0].date()
    return _one(monday + timedelta(days=WEEKDAYS.index(parts["weekday"])))


def _bare_weekday(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.det or not phrase.inferable(within="week"):
        return None
    pick = _pick(phrase, otherwise=None)
    return _one(_weekday(phrase.today, parts["weekday"], ahead=pick == "ahead")) if pick else None


def _named_year(parts: Match, phrase: Phrase) -> Interval | None:  # noqa: ARG001
    if parts["season"] == "winter":
        return None  # it began in that year, or it ended in it
    return _named(parts)(int(parts["year"]))


def _recurring(parts: Match, phrase: Phrase) -> Interval | None:
    if phrase.det or not phrase.inferable(within="year"):
        return None
    month = "month" in parts.groupdict()
    if month and (not phrase.says_month() or phrase.is_person()):
        return None
    pick = _pick(phrase, otherwise="past" if month else None)
    return _yearly(_named(parts), phrase.today, pick) if pick else None


def _year(parts: Match, phrase: Phrase) -> Interval | None:
    decade = parts["decade"] or parts["tens"]
    if re.match(_NO_DATE, phrase.low[phrase.end : phrase.end + 12]) or (phrase.det and not decade):
        return None
    if not decade:
        return _around(date(int(parts["year"]), 1, 1), "year", 0, 0)
    first = int(parts["year"] or f"19{parts['tens']}0")
    if first % 10 or (first % 100 == 0 and first < 2000):
        return None  # "the 1900s" is a century, too
    return _around(date(first, 1, 1), "year", 0, 9)


RULES: dict[str, Callable[[Match, Phrase], Interval | None]] = {
    "iso": _iso,
    "slashed": _slashed,
    "day_month": _date,
    "month_day": _date,
    "month_year": _month_year,
    "beside_date": _beside_date,
    "beside_day": _beside_day,
    "beside_unit": _beside_unit,
    "part": _part,
    "day": _day,
    "counted": _counted,
    "ahead": _ahead,
    "window": _window,
    "relative": _relative,
    "weekend": _weekend,
    "weekday_of": _weekday_of,
    "weekday": _bare_weekday,
    "named_year": _named_year,
    "holiday": _recurring,
    "month": _recurring,
    "year": _year,
}


def narrow(interval: Interval, phrase: Phrase) -> tuple[Interval, int]:
    """Take in the part of the day or the clock time that follows a day; also answers where the phrase now ends."""
    day, end = interval[0], phrase.end
    if interval[1] - day != timedelta(days=1) or day.time() != time():
        return interval, end
    if part := compiled(_PART).match(phrase.low, end):
        first, last = PARTS[part["part"]]
        interval, end = (day + timedelta(hours=first), day + timedelta(hours=last)), part.end()
    if not (clock := compiled(_CLOCK).match(phrase.low, end)):
        return interval, end
    if clock["hour24"]:
        at, length = day.replace(hour=int(clock["hour24"]), minute=int(clock["minute24"])), timedelta(minutes=1)
    else:
        hour = 12 if clock["noon"] else int(clock["hour"]) % 12 + (12 if clock["half"] == "p" else 0)
        if clock["hour"] and not 1 <= int(clock["hour"]) <= 12:
            return interval, end
        at = day.replace(hour=hour, minute=int(clock["minute"] or 0))
        length = timedelta(minutes=1) if clock["minute"] else timedelta(hours=1)
    return (at, at + length), clock.end()
