"""About whom a memory is (Scope), and who is asking (Caller)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

from tercet.errors import InvalidRequest

DEFAULT_TENANT = "default"
MAX_NAME = 256
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and lone surrogates


def check_name(value: str, what: str) -> str:
    """Return `value` if it can name a part of a scope: 1 to 256 characters, none of them a control character."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} must be a string, not {type(value).__name__}.")
    if not value or len(value) > MAX_NAME:
        raise InvalidRequest(f"{what} must have 1 to {MAX_NAME} characters, this has {len(value)}.")
    # Two spellings that look alike to a person must not be two owners, nor may a name break a log line.
    if _UNFIT.search(value):
        raise InvalidRequest(f"{what} {value!r} has a control character or a lone surrogate in it; remove it.")
    if value != value.strip():
        raise InvalidRequest(f"{what} {value!r} begins or ends with white space; strip it.")
    return unicodedata.normalize("NFC", value)


@dataclass(frozen=True, slots=True)
class Scope:
    """Tenant, user, agent, session: about whom.

    `tenant` left out means the tenant "default", never all of them. The others, left out, mean *any* on reading and
    *none* on writing; a part that is given filters by equality. A name may hold any character but control characters
    (a slash is just a slash).

    Raises
    ------
    InvalidRequest
        If a part is empty, longer than 256 characters, or has control characters.
    """

    tenant: str = DEFAULT_TENANT
    user: str | None = None
    agent: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant", check_name(self.tenant, "tenant"))
        for part in ("user", "agent", "session"):
            value = getattr(self, part)
            if value is not None:
                object.__setattr__(self, part, check_name(value, part))

    def within(self, **parts: str | None) -> Scope:
        """The same scope with some parts given or changed."""
        return replace(self, **{name: value for name, value in parts.items() if value is not None})

    def covers(self, other: Scope) -> bool:
        """Whether a cube written in `other` is seen from here."""
        return self.tenant == other.tenant and all(
            mine is None or mine == theirs
            for mine, theirs in (
                (self.user, other.user),
                (self.agent, other.agent),
                (self.session, other.session),
            )
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for which purpose. Policies decide by it and the journal records it."""

    name: str = "local"
    purpose: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "caller")
        if self.purpose is not None:
            check_name(self.purpose, "purpose")
