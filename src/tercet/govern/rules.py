"""Rules of access: who may use which right on which memories, for which purpose, when and from where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, Literal, get_args

from tercet.cube import Kind, MemCube, Sensitivity, read_label
from tercet.errors import InvalidRequest
from tercet.scope import DEFAULT_TENANT, Caller, Right, Scope, check_name, check_rights
from tercet.vault.connection import marks
from tercet.vault.ids import format_id, parse_id

Effect = Literal["allow", "deny"]
Part = tuple[str, list[Any]]
SETS = ("rights", "kinds", "types", "tags", "cubes", "purposes", "networks")


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows or denies. It matches where all that it says holds; what is left out says nothing.

    A deny that matches wins over any allow, in whatever order they stand; where no rule matches, the answer is no. A
    caller whose purpose or address is not known matches a deny that names some, and no allow that does.

    Attributes
    ----------
    effect
        "allow" or "deny".
    subject
        A caller's name; "role:NAME" for whoever has that role; "key:ID" for whoever came with that API key; "*" for
        everybody.
    rights
        Of read, write, revise, forget, promote, share, administer.
    tenant
        In which tenant; left out "default", and None for every one. In a tenant's own file it is that tenant.
    user, agent, session
        About whom the memory is, equal.
    own
        Only memories about the user who has the caller's name.
    kinds, types, tags, cubes
        Of one of these kinds, semantic types, with one of these tags, with one of these ids.
    min_sensitivity, max_sensitivity
        At least, at most so sensitive.
    purposes
        For one of these purposes.
    hours
        From one hour to before another, UTC, 0 to 24; (22, 6) is over night.
    networks
        From an address within one of these, such as "10.0.0.0/8".
    until
        Before that moment.

    Raises
    ------
    InvalidRequest
        For a value that cannot be one of these.
    """

    effect: Effect
    subject: str
    rights: AbstractSet[str]
    tenant: str | None = DEFAULT_TENANT
    user: str | None = None
    agent: str | None = None
    session: str | None = None
    own: bool = False
    kinds: AbstractSet[str] = frozenset()
    types: AbstractSet[str] = frozenset()
    tags: AbstractSet[str] = frozenset()
    cubes: AbstractSet[str] = frozenset()
    min_sensitivity: Sensitivity | None = None
    max_sensitivity: Sensitivity | None = None
    purposes: AbstractSet[str] = frozenset()
    hours: tuple[int, int] | None = None
    networks: AbstractSet[str] = frozenset()
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.effect not in get_args(Effect):
            raise InvalidRequest(f"A rule allows or denies; it cannot {self.effect!r}.")
        object.__setattr__(self, "subject", check_name(self.subject, "subject"))
        if self.subject in {"role:", "key:"}:
            raise InvalidRequest(f"The subject {self.subject!r} names none: a name stands after the colon.")
        object.__setattr__(self, "rights", check_rights(self.rights, "A rule"))
        for part in ("tenant", "user", "agent", "session"):
            if getattr(self, part) is not None:
                object.__setattr__(self, part, check_name(getattr(self, part), part))
        for name in SETS[1:]:
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        self._check_cubes()
        self._check_context()

    def _check_cubes(self) -> None:
        if unknown := self.kinds - set(Kind.__members__.values()):
            raise InvalidRequest(f"Unknown kinds {sorted(unknown)}; kinds are {', '.join(Kind)}.")
        ids = {one: parse_id(one) for one in self.cubes}
        if wrong := [one for one, raw in ids.items() if raw is None]:
            raise InvalidRequest(f"{wrong[0]!r} is not a memory's id (a UUID).")
        object.__setattr__(self, "cubes", frozenset(format_id(raw) for raw in ids.values() if raw is not None))
        for name in ("min_sensitivity", "max_sensitivity"):
            object.__setattr__(self, name, read_label(getattr(self, name)))

    def _check_context(self) -> None:
        for network in self.networks:
            try:
                ip_network(network)
            except ValueError as error:
                raise InvalidRequest(f"A rule's network is one such as 10.0.0.0/8: {error}.") from None
        if self.hours is not None:
            object.__setattr__(self, "hours", _hours(self.hours))
        if self.until is not None and (not isinstance(self.until, datetime) or self.until.utcoffset() is None):
            raise InvalidRequest(f"until is a time with a zone, not {self.until!r:.80}.")

    @property
    def timed(self) -> bool:
        """Whether it depends on when one asks."""
        return self.hours is not None or self.until is not None

    @property
    def lasting(self) -> bool:
        """Whether it speaks of a whole tenant, at any time, from anywhere and for any purpose."""
        return not (self.timed or self.networks or self.purposes or self.own or self._about() or self._narrows())

    def open_at(self, at: datetime) -> bool:
        """Whether it says anything at that moment."""
        if self.until is not None and at >= self.until:
            return False
        if self.hours is None:
            return True
        start, end = self.hours
        hour = at.astimezone(UTC).hour
        return start <= hour < end if start < end else hour >= start or hour < end

    def speaks_of(self, caller: Caller) -> bool:
        """Whether the caller is its subject."""
        kind, colon, name = self.subject.partition(":")
        if self.subject == "*":
            return True
        if colon and kind == "role":
            return name in caller.roles
        if colon and kind == "key":
            return caller.key is not None and caller.key.partition("~")[0] == name
        return self.subject == caller.name

    def meets(self, caller: Caller, right: Right) -> bool:
        """Whether it is about this caller and right in this context, at least of some memories at some time."""
        if right not in self.rights or not self.speaks_of(caller):
            return False
        unknown = self.effect == "deny"
        if self.purposes and not (unknown if caller.purpose is None else caller.purpose in self.purposes):
            return False
        if not self.networks:
            return True
        if caller.network is None:
            return unknown
        address = ip_address(caller.network)
        return any(address in ip_network(one) for one in self.networks)

    def reaches(self, caller: Caller, scope: Scope) -> bool:
        """Whether anything that it is about may lie in the scope."""
        if self.tenant is not None and self.tenant != scope.tenant:
            return False
        wanted = [*self._about(), *([("user", caller.name)] if self.own else [])]
        return all(getattr(scope, part) in (None, value) for part, value in wanted)

    def covers(self, caller: Caller, cube: MemCube) -> bool:
        """Whether it is about that memory."""
        d, held = cube.descriptive, cube.scope
        if self.own and held.user != caller.name:
            return False
        return (
            all(getattr(held, part) == value for part, value in self._about())
            and (not self.kinds or d.kind.value in self.kinds)
            and (not self.types or d.type in self.types)
            and (not self.tags or not self.tags.isdisjoint(d.tags))
            and (not self.cubes or d.id in self.cubes)
            and (self.min_sensitivity is None or cube.governance.sensitivity >= self.min_sensitivity)
            and (self.max_sensitivity is None or cube.governance.sensitivity <= self.max_sensitivity)
        )

    def by_scope(self, caller: Caller, scope: Scope) -> list[Part]:
        """Conditions over `scopes s` that do not follow from the scope that is asked for."""
        users = {value for part, value in self._about() if part == "user"} | ({caller.name} if self.own else set())
        find = "s.owner = (SELECT n FROM owners WHERE user = ?)"
        parts: list[Part] = [(find, [user]) for user in sorted(users - {scope.user})]
        rest = [(part, value) for part, value in self._about() if part != "user" and getattr(scope, part) != value]
        return parts + [(f"s.{part} = ?", [value]) for part, value in rest]

    def by_cube(self) -> list[Part]:
        """Conditions over `cubes c` (and `scopes s`, for the owner of its tags)."""
        parts: list[Part] = []
        for column, values in (("c.kind", self.kinds), ("c.type", self.types)):
            if values:
                parts.append((f"{column} IN ({marks([*values])})", sorted(values)))
        if self.cubes:
            parts.append((f"c.id IN ({marks([*self.cubes])})", [parse_id(one) for one in sorted(self.cubes)]))
        if self.min_sensitivity is not None:
            parts.append(("c.sensitivity >= ?", [int(self.min_sensitivity)]))
        if self.max_sensitivity is not None:
            parts.append(("c.sensitivity <= ?", [int(self.max_sensitivity)]))
        if self.tags:
            held = f"a.owner = s.owner AND a.key = 'tags' AND a.value IN ({marks([*self.tags])}) AND a.cube = c.n"
            parts.append((f"EXISTS (SELECT 1 FROM attributes a WHERE {held})", sorted(self.tags)))  # noqa: S608
        return parts

    def _about(self) -> list[tuple[str, str]]:
        given = ((part, getattr(self, part)) for part in ("user", "agent", "session"))
        return [(part, value) for part, value in given if value is not None]

    def _narrows(self) -> bool:
        bounds = (self.min_sensitivity, self.max_sensitivity)
        return bool(self.kinds or self.types or self.tags or self.cubes) or any(one is not None for one in bounds)


def to_json(rule: Rule) -> dict[str, Any]:
    """What a file keeps of a rule: all that it says but the tenant, whose file it is."""
    found: dict[str, Any] = {}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name == "tenant" or value is None or value is False or value == frozenset():
            continue
        if isinstance(value, frozenset | tuple):
            value = sorted(value) if isinstance(value, frozenset) else list(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        found[field.name] = value
    return found


def from_json(found: Mapping[str, Any], tenant: str) -> Rule:
    """The rule again. Raises TypeError, ValueError or KeyError for anything that `to_json` would not write."""
    values: dict[str, Any] = dict(found)
    for name in SETS:
        if name in values:
            values[name] = frozenset(values[name])
    if "until" in values:
        values["until"] = datetime.fromisoformat(values["until"])
    if "hours" in values:
        values["hours"] = tuple(values["hours"])
    return Rule(**values, tenant=tenant)


def _strings(name: str, given: Iterable[str]) -> frozenset[str]:
    if isinstance(given, str) or not all(isinstance(one, str) and one for one in given):
        raise InvalidRequest(f"A rule's {name} are a set of strings, not {given!r:.80}.")
    return frozenset(given)


def _hours(given: tuple[int, int]) -> tuple[int, int]:
    whole = isinstance(given, tuple) and len(given) == 2 and all(type(one) is int and 0 <= one <= 24 for one in given)
    if not whole or given[0] % 24 == given[1] % 24:
        raise InvalidRequest(f"hours are two different hours from 0 to 24, such as (9, 17), not {given!r:.80}.")
    return given
