"""How long memories are kept when nobody says: ends, half-lives and the archive. The vault keeps to what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import isfinite
from types import MappingProxyType

from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.text.read.chat import instant

ANY = "*"
"""Stands for every type that is not named."""


@dataclass(frozen=True, slots=True)
class Retention:
    """A policy for what is remembered without an end or a half-life of its own.

    Attributes
    ----------
    ttl
        By type of cube ("*": any other): how long after it was recorded a memory is erased.
    half_life_days
        By type: after so many days without a use, its strength has fallen by half. Zero or more.
    floor
        Below this strength a memory is archived; in (0, 0.5]. With it, a memory never used is archived after
        half-life · log2(1 / floor): 3.3 half-lives for the default.
    archive_timeout
        How long after being archived a memory is erased; None: never.

    Raises InvalidRequest for values out of these ranges.
    """

    ttl: Mapping[str, timedelta] = field(default_factory=lambda: MappingProxyType({}))
    half_life_days: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    floor: float = 0.1
    archive_timeout: timedelta | None = None

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 0.5:
            raise InvalidRequest(f"The floor of strength is above 0 and at most 0.5, not {self.floor!r}.")
        spans = [*self.ttl.values(), *([] if self.archive_timeout is None else [self.archive_timeout])]
        if not all(isinstance(span, timedelta) and span > timedelta(0) for span in spans):
            raise InvalidRequest("How long a memory is kept is a timedelta longer than nothing.")
        for days in self.half_life_days.values():
            check_half_life(days)

    def applied(self, draft: MemCube, *, now: datetime) -> MemCube:
        """The draft with the end and the half-life of its type, where it has none of its own."""
        rules, kind = draft.governance, draft.descriptive.type
        expires, half_life = rules.expires, rules.half_life_days
        ttl = self.ttl.get(kind, self.ttl.get(ANY))
        if expires is None and ttl is not None:
            expires = moment_after(now, ttl)
        if half_life is None:
            half_life = self.half_life_days.get(kind, self.half_life_days.get(ANY))
        if (expires, half_life) == (rules.expires, rules.half_life_days):
            return draft
        return replace(draft, governance=replace(rules, expires=expires, half_life_days=half_life))

    def archived_until(self, now: datetime) -> datetime | None:
        """When a memory that is archived now is erased; None: never."""
        return None if self.archive_timeout is None else moment_after(now, self.archive_timeout)


def ending(draft: MemCube, expires: datetime | timedelta | str, *, now: datetime) -> MemCube:
    """The draft with an end: a moment with a zone, or a span from `now`. Raises InvalidRequest for another value."""
    if isinstance(expires, timedelta):
        end = moment_after(now, expires)
    elif isinstance(expires, datetime | str):
        end = instant(expires, "expires")
    else:
        raise InvalidRequest(f"expires is a moment or a timedelta, not {expires!r:.40}.")
    return replace(draft, governance=replace(draft.governance, expires=end))


def check_half_life(days: float) -> float:
    """Return a half-life that a cube can have. Raises InvalidRequest."""
    if isinstance(days, bool) or not isinstance(days, int | float) or not isfinite(days) or days < 0:
        raise InvalidRequest(f"A half-life is a number of days, zero or more, not {days!r:.40}.")
    return days


def moment_after(now: datetime, span: timedelta) -> datetime:
    """`now` and `span` later. Raises InvalidRequest for a span beyond the calendar, or one that is not positive."""
    if span <= timedelta(0):
        raise InvalidRequest(f"What ends after {span} would never have begun; give a positive span.")
    try:
        return now + span
    except OverflowError:
        raise InvalidRequest(f"{span} from now is beyond the calendar.") from None
