"""The English of time: which words may name a time, and what the words around them say about it.

Everything here works on text folded by `fold`: lower case, same length. Each repetition in a pattern is bounded and
each look at the context stops after `REACH` characters, so the work is linear in the text whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from functools import cache

REACH = 80  # characters of context that a phrase may consult on either side
_FOLD = {i: i + 32 for i in range(65, 91)} | {0x2019: "'", 0x2018: "'", 0x2013: "-", 0x2011: "-"}


def _words(text: str) -> list[str]:
    return text.split()


MONTHS = _words("january february march april may june july august september october november december")
WEEKDAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month, northern hemisphere
HOLIDAYS = {  # first day and how many; those that move (Easter, Thanksgiving) are left out
    "christmas eve": (12, 24, 1),
    "christmas day": (12, 25, 1),
    "christmas": (12, 24, 3),
    "new year's eve": (12, 31, 1),
    "new year's day": (1, 1, 1),
    "halloween": (10, 31, 1),
    "valentine's day": (2, 14, 1),
}
PARTS = {"morning": (0, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}  # hours of the day
_ONES = _words("one two three four five six seven eight nine")
_TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_COUNTS = {"a": 1, "an": 1} | {word: n for n, word in enumerate([*_ONES, *_TEENS], 1)}
_COUNTS |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_COUNTS |= {f"{ten}-{one}": 10 * t + o for t, ten in enumerate(_TENS, 2) for o, one in enumerate(_ONES, 1)}
_VAGUE = {"couple": (2, 3), "few": (2, 5), "several": (3, 7)}


def fold(text: str) -> str:
    """Lower-case the Latin letters, straighten apostrophes and dashes; every character keeps its place."""
    return text.lower() if text.isascii() else text.translate(_FOLD)


def count(words: str) -> tuple[int, int]:
    """Least and greatest number that `words` may mean: "two" is (2, 2), "a few" (2, 5), "2-3" (2, 3)."""
    for vague, bounds in _VAGUE.items():
        if vague in words:
            return bounds
    pair = re.split(r"\s*(?:\bto\b|\bor\b|(?<=[0-9])-)\s*", words)
    numbers = [int(word) if word.isdigit() else _COUNTS[word] for word in pair]
    return min(numbers), max(numbers)


def _any(words: Iterable[str] | str) -> str:
    return "(?:" + "|".join(words.split() if isinstance(words, str) else words) + ")"


_MONTH = (
    "(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?"
    "|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_NUMBER = f"(?:[0-9]{{1,3}}|{_any(_TENS)}(?:-{_any(_ONES)})?|{_any(_TEENS)}|{_any(_ONES)})"
_COUNT = rf"(?P<n>(?:a )?couple(?: of)?|(?:a )?few|several|{_NUMBER}(?:(?: ?- ?| to | or ){_NUMBER})?|an?)"
_DAY = "(?:0?[1-9]|[12][0-9]|3[01])"
_YEAR = "(?P<year>(?:19|20)[0-9]{2})"
_NTH = f"{_DAY}(?:st|nd|rd|th)?"
_DAYS = rf"(?P<day>{_DAY})(?:st|nd|rd|th)?(?: ?- ?(?P<last>{_DAY})(?:st|nd|rd|th)?)?"
_WEEKDAY = f"(?P<weekday>{_any(WEEKDAYS)})"
_BEFORE_DATE = rf"(?:{_WEEKDAY},? )?"
_OF_YEAR = rf"(?:,? (?:of )?{_YEAR}| (?:of )?(?P<rel>last|this|next) year)"
_SEASON = f"(?P<season>{_any(SEASONS)})"
_HOLIDAY = f"(?P<holiday>{_any(HOLIDAYS)})"
_UNITS = "(?P<unit>day|week|fortnight|month|year|wk|yr)s?"

# One alternative per rule, tried in this order at each word; the calendar has a function of the same name.
RULES: dict[str, str] = {
    "iso": r"(?P<year>[0-9]{4})(?P<sep>[-/])(?P<month>[0-9]{2})(?P=sep)(?P<day>[0-9]{2})"
    r"(?:[t\s](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]{1,9})?)?(?P<zone>z|[+-][0-9]{2}:?[0-9]{2})?)?",
    "slashed": r"(?P<a>[0-9]{1,2})/(?P<b>[0-9]{1,2})/(?P<year>[0-9]{4})",
    "day_month": rf"{_BEFORE_DATE}{_DAYS}(?: of)? {_MONTH}(?!\w)(?:\.?{_OF_YEAR})?",
    "month_day": rf"{_BEFORE_DATE}{_MONTH}\.? {_DAYS}(?!\w){_OF_YEAR}?",
    "month_year": rf"(?:(?:early|mid|late)[\s-])?{_MONTH}\.?{_OF_YEAR}",
    "beside_date": rf"(?:{_COUNT} {_UNITS}|(?P<whole>day|weekend|week|month|year|{_any(WEEKDAYS)}))"
    rf" (?P<side>before|after) (?P<date>(?:the )?{_NTH}(?: of)? [a-z]{{3,9}}\.?,? [0-9]{{4}}"
    rf"|[a-z]{{3,9}}\.? {_NTH},? [0-9]{{4}}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})",
    "beside_day": "day (?P<side>before yesterday|after tomorrow)",
    "beside_unit": rf"(?P<whole>week|weekend|month|year|{_any(WEEKDAYS)}) (?P<side>before last|after next)",
    "part": "tonight|last (?P<last>night|evening)|this (?P<this>morning|afternoon|evening)",
    "day": "(?P<name>yesterday|today|tomorrow)",
    "counted": rf"{_COUNT} (?:{_UNITS}|(?P<weekend>weekend)s?|{_WEEKDAY}s?)"
    r" (?P<past>ago(?: (?P<to>today|yesterday))?|back(?= ?(?:[.,!?)]|$)))",
    "ahead": rf"{_COUNT} {_UNITS}(?: from (?P<origin>now|today|tomorrow)|(?P<time>'? time))?",
    "window": rf"(?:last|past) {_COUNT} {_UNITS}|(?:this )?past (?P<one>day|week|month|year)",
    "relative": r"(?P<rel>this past|this coming|last|this|next|coming) "
    rf"(?:(?P<unit>weekend|week|month|year)|{_WEEKDAY}|(?P<month>{_any(MONTHS)})|{_SEASON}|{_HOLIDAY})",
    "weekend": "weekend",
    "weekday_of": rf"{_WEEKDAY},?(?: of)? (?P<rel>last|this|next) week",
    "weekday": _WEEKDAY,
    "named_year": rf"(?:{_SEASON}|{_HOLIDAY})(?: of)? {_YEAR}",
    "holiday": _HOLIDAY,
    "month": rf"(?:(?:early|mid|late)[\s-])?(?P<month>{_any(MONTHS)})",
    "year": rf"(?:(?:early|mid|late)[\s-])?{_YEAR}(?P<decade>s)?|'(?P<tens>[2-9])0s",
}
_PREP = "since in on at during from between over for of by until till before after to through and"
# What a word right before a phrase does to it. "No tomorrow" and "more than two weeks ago" name no time at all,
# "like yesterday" is a figure of speech, and "my last year" counts something else than the calendar.
_BLOCK = _words("every each any no or half quite than least under within better brighter")
_FIGURE = _words("like born new")
_POSSESSIVE = _words("my our your his her their its one some other")
_DET = ["the", "only", *_BLOCK, *_FIGURE, *_POSSESSIVE]


def _spaced(pattern: str) -> str:
    return pattern.replace(" ?", r"\s?").replace(" ", r"\s{1,3}")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile when first used, and not when imported; a blank in `pattern` stands for one to three of any kind."""
    return re.compile(_spaced(pattern))


def rule(name: str) -> re.Pattern[str]:
    return compiled(RULES[name])


def _openings() -> str:
    """A look ahead that only the first letters of a rule pass: most words of a text end here, and cheaply."""
    others = "day week weekend month year yesterday today tonight tomorrow last this next past coming"
    others += " early mid late couple few several"
    by_initial: dict[str, set[str]] = {}
    for word in [*MONTHS, *WEEKDAYS, *SEASONS, *HOLIDAYS, *_TENS, *_TEENS, *_ONES, *others.split()]:
        by_initial.setdefault(word[0], set()).add(word[1:3])
    initials = [f"{initial}{_any(sorted(rest))}" for initial, rest in sorted(by_initial.items())]
    return rf"(?=[0-9']|{'|'.join(initials)}|an?\s{{1,3}}[cdfmstwy])"


@cache
def phrases() -> re.Pattern[str]:
    """Find the next phrase: groups `prep`, `det`, and one named after the rule that holds the phrase proper."""
    # Inner groups lose their names (a name may be used once); a back reference is spelt out instead.
    plain = {name: re.sub(r"\(\?P<\w+>", "(?:", p.replace("(?P=sep)", "[-/]")) for name, p in RULES.items()}
    rules = "|".join(f"(?P<{name}>{pattern})" for name, pattern in plain.items())
    lead = rf"(?:(?P<prep>{_any(_PREP)})\s{{1,3}})?(?:(?P<det>{_any(_DET)})\s{{1,3}})?"
    return re.compile(rf"(?<!\w){lead}{_openings()}(?:{_spaced(rules)})(?!\w)")


class Tense(Enum):
    PAST = "past"
    FUTURE = "future"
    ABLE = "able"  # "can": ahead of us, but "in two days" is then a duration
    UNSURE = "unsure"  # "decided to", "would", "was going to": the verb does not say on which side of now
    NONE = "none"


_PAST_VERBS = _any(
    "was were wasn't weren't had hadn't did didn't been went saw seen got came met took taken gave given made"
    " said told found left felt kept held bought brought thought taught caught fought sold sent spent built"
    " lost won ran swam sang began drove rode wrote written flew grew knew threw drew ate fell spoke broke"
    " chose woke wore stole heard stood slept paid laid led gone done shot hid bit blew shook swore tore rang"
    " sank forgot became hit put cut read hurt set let quit beat burst spread understood drank dreamt learnt"
    " burnt spilt dealt swept"
)
_VERBS = (
    rf"(?P<unsure>(?:was|were|wasn't|weren't) (?:going|supposed|planning|hoping|meant)|would|used to|had to"
    r"|(?:decided|wanted|agreed|promised|hoped|offered|asked|arranged|intended|expected|planned|needed) (?:to|for))\b"
    rf"|(?P<able>can|can't|could|couldn't)\b(?: (?:not|be))?(?: \w{{1,20}})?"
    r"|(?P<future>(?:(?:will|won't|shall|may|might|must|should)\b|'ll\b)"
    r"(?: (?:not|be|\w{1,18}ly)){0,2}(?: \w{1,20})?"
    rf"|(?:(?:is|are|am|be)\b|'m\b|'re\b)(?: (?:not|\w{{1,18}}ly))?(?: (?:\w{{1,18}}ed|{_PAST_VERBS})\b)?"
    r"|isn't|aren't|(?:it|that|there|he|she|when|what)'s\b|(?:have|has|'ve|'s) got\b|(?:have|has) to\b|have\b|has\b"
    r"|going to|gonna|let's|needs?\b|wants?\b|hop(?:e|es|ing)\b|plans?\b|planning|see (?:you|ya)|forward to|upcoming)"
    r"|(?P<infinitive>to \w{1,20})"
    r"|(?P<adjective>(?:need|indeed|hundred|excited|tired|interested|worried|bored|scared|married|supposed|scheduled|speed|breed|unless)\b)"
    rf"|(?P<past>(?:{_PAST_VERBS}|\w{{2,18}}[^\We]ed)\b)"
)
_HABIT = r"\b(?:usually|always|often|typically|generally|normally|never|sometimes|whenever|every|each|annual(?:ly)?)\b"
_RECURRING = r"\b(?:birthday|anniversary|holiday|bday)\b"
_OTHER = r"\b(?:last|next|that|following|previous)"
_AWAY = "(?:ago|later|earlier|before|after)"
_OTHER_YEAR = rf"{_OTHER} (?:year|spring|summer|fall|autumn|winter)\b|\byears? {_AWAY}\b|\b(?:19|20)[0-9]{{2}}\b"
_OTHER_WEEK = rf"{_OTHER} (?:week|month)\b|\b(?:week|month)s? {_AWAY}\b"


def _said(segment: str, *, nearest_last: bool) -> Tense:
    found = Tense.NONE
    for match in compiled(rf"(?<!\w)(?:{_VERBS})|(?<=\w)(?P<after>'ll|'m|'re|'ve got)\b").finditer(segment):
        kind = match.lastgroup or ""
        if kind in ("infinitive", "adjective"):
            continue
        found = Tense.FUTURE if kind == "after" else Tense(kind)
        if not nearest_last:
            break
    return found


@dataclass(frozen=True, slots=True)
class Phrase:
    """A candidate in its text. `start`:`end` is the phrase proper, after any preposition and determiner."""

    raw: str
    low: str
    start: int
    end: int
    prep: str
    det: str
    observed: datetime

    @property
    def today(self) -> date:
        return self.observed.date()

    @property
    def before(self) -> str:
        """The sentence so far (at most `REACH` characters), the phrase's own preposition included."""
        return re.split(r"[.!?;\n]", self.low[max(0, self.start - REACH) : self.start])[-1]

    @property
    def after(self) -> str:
        """The rest of the sentence, at most `REACH` characters."""
        return re.split(r"[.!?;\n]", self.low[self.end : self.end + REACH], maxsplit=1)[0]

    def tense(self) -> Tense:
        """Tense of the verb nearest to the phrase: first in its own clause before it, then after, then further back."""
        before, after = self.before, self.after
        clause = re.split(r"[,:(]", before)[-1]
        back, ahead = (before, True), (after, False)
        apart = after[:1] in (",", ")", "")
        for segment, nearest_last in [(clause, True), *((back, ahead) if apart else (ahead, back))]:
            tense = _said(segment, nearest_last=nearest_last)
            if tense is not Tense.NONE:
                return tense
        return Tense.NONE

    def inferable(self, *, within: str) -> bool:
        """Whether the year (or the week) that the phrase leaves out may be taken from the observation time."""
        around = f"{self.before}\n{self.after}"
        if compiled(_HABIT).search(around) or compiled(_OTHER_YEAR).search(around):
            return False
        if within == "week" and compiled(_OTHER_WEEK).search(around):
            return False
        return not compiled(_RECURRING).search(around) or self.tense() is Tense.PAST

    def says_month(self) -> bool:
        """Whether may, march and august are months here, by their capital or by ending the sentence."""
        raw = re.split(r"[\s-]", self.raw[self.start : self.end])[-1]
        if not raw.lower().endswith(("may", "march", "august")):
            return True
        if self.low.startswith((" madness", " for "), self.end):
            return False
        named = raw[:1].isupper() and raw[-1:].islower()
        return named or self.raw[self.end : self.end + 1] in (".", "!", "?", "")

    def is_person(self) -> bool:
        """Whether someone is believed in, rather than something done in a month."""
        return bool(re.search(r"\b(?:belie\w+|trust\w*|faith|confidence|interest\w*) in $", self.before))

    def misread(self) -> bool:
        """Whether the neighbourhood shows that this is no time, or not one that can be told."""
        start, end = self.start, self.end
        previous, following = self.low[start - 1 : start] if start else "", self.low[end : end + 2]
        if previous in ("'", '"', "“") and following[:1] in ("'", '"', "”"):
            return True  # mentioned, not used: a song called "Yesterday"
        if previous in ("@", "#", "/", "\\", "_", ".", "-") or re.match(r"[.@/_-][a-z0-9]|[,:][0-9]|%", following):
            return True
        if self.low[start].isdigit() and previous in ("$", "€", "£", "¥", ",", ":", "+"):
            return True
        if self.low.startswith((" of ", " or ", "-or"), end) or re.match(
            r" (?:morning|evening|night|afternoon)s\b", self.low[end : end + 12]
        ):
            return True
        return self.det in _BLOCK

    def is_figure(self) -> bool:
        """Whether "yesterday" and its like stand for the past, or are part of a name ("USA Today")."""
        raw = self.raw[self.start : self.end]
        titled = (
            raw[0].isupper()
            and raw[-1].islower()
            and re.search(r"\w\s$", self.raw[max(0, self.start - 2) : self.start])
        )
        like = re.search(
            r"\b(?:like|as if)(?: it was| it were)?(?: just| only)? $", self.before
        )  # "feels like just yesterday"
        return bool(titled or like) or self.det in _FIGURE

    def is_owned(self) -> bool:
        """Whether "last year" is somebody's, and not the calendar's. "I saw her last Friday" is the calendar's."""
        if self.det in ("her", "one", "some") and self.prep == "":
            return re.match(r"[.,!?;)]|\s(?:and|but|when|to|for)\b|$", self.low[self.end : self.end + 6]) is None
        return self.det in _POSSESSIVE or self.det in _FIGURE

    def is_week(self) -> bool:
        """Whether the date only says which week: "the week of 8 May"."""
        return self.prep == "of" and re.search(r"\bweek(?:end)? of (?:the )?$", self.before) is not None
