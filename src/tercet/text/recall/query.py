"""What a question says besides its words: whom it is about, whether it asks for a time, which date it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tercet.text.recall.view import ASKS, TIMED
from tercet.vault.search import analyse

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = "|".join(_MONTHS)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_CLEAR = _MONTH.replace("march|", "").replace("may|", "")  # alone, those two are verbs more often than months
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b{_DAY}\s+(?:of\s+)?(?P<month>{_MONTH})\b(?:[\s,]+{_YEAR})?",
        rf"\b(?P<month>{_MONTH})\s+{_DAY}\b(?:[\s,]+{_YEAR})?",
        rf"\b{_YEAR}-(?P<number>\d\d)-(?P<day>\d\d)\b",
        rf"\b(?P<month>{_MONTH})[\s,]+{_YEAR}\b",
        rf"\b(?:in|of|during|since|by|last|this|early|late)\s+(?P<month>{_MONTH})\b|\b(?P<clear>{_CLEAR})\b",
        r"\b(?P<year>(?:19|20)\d\d)\b",
    )
)
_WHEN = re.compile(
    r"\s*(?:when|since when|how long|(?:in |on |around )?(?:which|what) (?:day|date|week|month|year|season))\b"
)
_TIMED = re.compile(
    rf"\b(?:yesterday|today|tonight|tomorrow|last|ago|next|since|recently|week|weekend|month|year|{_MONTH}|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday|\d{4})\b"
)
_ASKS = re.compile(r"[?？]\s*(?:\[[^\]]*\]\s*)?$")
_FIRST, _SECOND = frozenset({"i", "me", "my", "mine", "myself"}), frozenset({"you", "your", "yours"})
_USER, _ASSISTANT = frozenset({"user", "human"}), frozenset({"assistant", "ai", "bot"})
_SHORTEST_NICKNAME = 3


@dataclass(frozen=True)
class Date:
    """A day, a month or a year; what is not said is None. At least one is."""

    day: int | None
    month: int | None
    year: int | None

    def spans(self, first_year: int, last_year: int) -> list[tuple[float, float]]:
        """From-to in seconds since 1970 UTC, once for each year that it may mean: its own, or any."""
        found = []
        for year in [self.year] if self.year else range(first_year, last_year + 1):
            try:
                start = datetime(year, self.month or 1, self.day or 1, tzinfo=UTC)
            except ValueError:  # 29 February, say, in a year without
                continue
            if self.day:
                end = start + timedelta(days=1)
            elif self.month:
                end = start.replace(day=28) + timedelta(days=4)
                end = end.replace(day=1)
            else:
                end = start + timedelta(days=366)
                end = end.replace(day=1)
            found.append((start.timestamp(), end.timestamp()))
        return found


@dataclass(frozen=True)
class Question:
    """`bare` is the question without the speakers' names: embed this, for a person's own words seldom name them.

    `terms` are what it looks up by words, `named` the codes of the speakers it is about (empty if it names nobody, or
    everybody), `when` whether it asks for a time, and `date` a date in it.
    """

    text: str
    bare: str
    terms: tuple[str, ...]
    named: frozenset[int]
    when: bool
    date: Date | None


def parse(text: str, speakers: Sequence[str] = ()) -> Question:
    """Read a question asked of a scope where these speak ("" stands for nobody). An empty question has no terms."""
    asked = analyse.words(text)
    spoken = set(asked) - analyse.STOP
    capitals = {word.casefold() for word in re.findall(r"[^\W\d_]+", text) if word[0].isupper()}
    named, names = set(), set()
    for code, speaker in enumerate(speakers):
        own = {word for word in analyse.words(speaker) if word not in analyse.STOP}
        met = {
            word
            for word in spoken
            if any(
                word == name or (len(word) >= _SHORTEST_NICKNAME and word in capitals and name.startswith(word))
                for name in own
            )
        }
        role = (own & _USER and _FIRST & set(asked)) or (own & _ASSISTANT and _SECOND & set(asked))
        if met or role:
            named.add(code)
            names |= met
    bare = text
    for name in sorted(names, key=len, reverse=True):
        bare = re.sub(rf"\b{re.escape(name)}(?:['’]s)?\b", "", bare, flags=re.IGNORECASE)
    bare = re.sub(r"\s+", " ", bare).strip()
    lowered = text.casefold()
    return Question(
        text=text,
        bare=bare if analyse.words(bare) else text,
        terms=tuple(analyse.question_terms(text, frozenset(names))),
        named=frozenset(named) if len(named) < sum(map(bool, speakers)) else frozenset(),
        when=_WHEN.match(lowered) is not None,
        date=find_date(lowered),
    )


def find_date(lowered: str) -> Date | None:
    """The first date of the most exact form that a case-folded English text holds."""
    for pattern in _DATES:
        if match := pattern.search(lowered):
            part = match.groupdict()
            month = part.get("month") or part.get("clear")
            number = _MONTHS.index(month) + 1 if month else int(part["number"]) if part.get("number") else None
            day, year = (int(part[name]) if part.get(name) else None for name in ("day", "year"))
            if (number or 1) <= 12 and 1 <= (day or 1) <= 31 and (year is None or 1 <= year < 9999):
                return Date(day, number, year)
    return None


def marks(text: str) -> int:
    """What to keep of a remembered text besides its terms.

    ASKS if it ends in a question, a caption in brackets apart; TIMED if it tells a time.
    """
    return ASKS * bool(_ASKS.search(text)) | TIMED * bool(_TIMED.search(text.casefold()))
