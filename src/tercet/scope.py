"""About whom a memory is (Scope), and who is asking (Caller)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal, get_args

from tercet.errors import InvalidRequest

Right = Literal["read", "write", "revise", "forget", "promote", "share", "administer"]
"""What a caller may want to do with a memory; `administer` is over a whole tenant."""
RIGHTS: tuple[Right, ...] = get_args(Right)

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


def check_names(names: Iterable[str], what: str) -> frozenset[str]:
    """Return some names as a set. Raises InvalidRequest if one is none, or for one string in place of a set."""
    if isinstance(names, str):
        raise InvalidRequest(f"{what} must be a set of names, not the string {names!r:.80}.")
    return frozenset(check_name(name, what) for name in names)


def check_rights(rights: Iterable[str], what: str) -> frozenset[str]:
    """Return some rights as a set. Raises InvalidRequest if there is none, or one is unknown."""
    found = [rights] if isinstance(rights, str) else list(rights)
    unknown = sorted(str(one) for one in found if one not in RIGHTS)
    if isinstance(rights, str) or unknown or not found:
        said = unknown or (f"the string {rights!r:.80}" if found else "no right at all")
        raise InvalidRequest(f"{what} needs a set of rights and has {said}; there are {', '.join(RIGHTS)}.")
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, in which role, for which purpose, from where. Policies decide by it and the journal records it.

    Attributes
    ----------
    name
        Who it is. A host program vouches for it; `Tercet.caller` makes a caller whose key vouches for it.
    purpose
        What for, where rules tell purposes apart.
    roles
        Groups it belongs to.
    network
        The IP address it calls from.
    within
        The scope that it belongs to: whatever the policy says, it reaches nothing outside. None: not bound.
    rights
        The only rights it may use, of those that the policy gives it. None: all of them.
    key
        The id of the API key that it came with; the key's row is read again at each use.

    Raises
    ------
    InvalidRequest
        For a name, role or purpose that cannot be one, an unknown right, or an address that is none.
    """

    name: str = "local"
    purpose: str | None = None
    roles: AbstractSet[str] = frozenset()
    network: str | None = None
    within: Scope | None = None
    rights: AbstractSet[str] | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name, "caller"))
        if self.purpose is not None:
            object.__setattr__(self, "purpose", check_name(self.purpose, "purpose"))
        object.__setattr__(self, "roles", check_names(self.roles, "roles"))
        if self.network is not None:
            try:
                ip_address(self.network)
            except ValueError:
                raise InvalidRequest(f"network is an IP address such as 192.0.2.7, not {self.network!r:.80}.") from None
        if self.rights is not None:
            object.__setattr__(self, "rights", check_rights(self.rights, "A caller"))

    @property
    def signed(self) -> str:
        """What the journal says: the name, and the id of the key."""
        return self.name if self.key is None else f"{self.name} (key {self.key})"
