"""Many rules as one policy, compiled for a caller into a condition that SQLite judges over columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from tercet.cube import Grant, MemCube
from tercet.errors import Refused
from tercet.govern.rules import Part, Rule
from tercet.scope import Caller, Right, Scope
from tercet.vault.allowed import EVERYTHING, NOTHING, Allowed, grant_value
from tercet.vault.connection import marks


class Lending(NamedTuple):
    """What grants let a caller read, as a condition over `cubes c` and `scopes s`; `alone`: and nothing else does."""

    condition: str
    bindings: tuple[Any, ...]
    alone: bool = False


Key = tuple[Caller, Right, Scope, tuple[bool, ...], bool, Lending | None]
COMPILED = 1024
"""Conditions that a policy keeps: one for each caller, right, scope and set of rules that are open at that hour."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy of rules: what a deny matches is refused; what an allow matches, or a cube grants, is allowed.

    Grants are lines of a cube's own access list; they widen, and no deny gives way to one. With
    `Tercet.open(access=Rules([...]))` a vault decides by it; the rules of a tenant's file are another such policy, and
    both must allow.
    """

    rules: tuple[Rule, ...]
    _compiled: dict[Key, Allowed] = field(default_factory=dict, init=False, compare=False, repr=False)
    _timed: tuple[Rule, ...] = field(default=(), init=False, compare=False, repr=False)

    def __init__(self, rules: Sequence[Rule]) -> None:
        object.__setattr__(self, "rules", tuple(rules))
        object.__setattr__(self, "_compiled", {})
        object.__setattr__(self, "_timed", tuple(rule for rule in self.rules if rule.timed))

    @property
    def timed(self) -> bool:
        """Whether the answer depends on when one asks."""
        return bool(self._timed)

    def know(self, caller: Caller, tenant: str) -> bool:
        """Whether any rule allows this caller anything in that tenant."""
        there = (rule for rule in self.rules if rule.effect == "allow" and rule.tenant in (None, tenant))
        return any(rule.speaks_of(caller) for rule in there)

    def allowed(
        self,
        caller: Caller,
        right: Right,
        scope: Scope,
        *,
        at: datetime | None = None,
        granted: bool = False,
        lent: Lending | None = None,
    ) -> Allowed:
        """What the caller may use the right on, within the scope, at a moment (which only timed rules need).

        `granted` says whether any cube's own list gives this caller the right, `lent` what grants give it. The answer
        is worked out once and kept.
        """
        active = tuple(rule.open_at(at) for rule in self._timed) if at is not None else ()
        own = lent is None or not lent.alone
        granted = granted and own
        key = (caller, right, scope, active, granted, lent)
        found = self._compiled.get(key)
        if found is None:
            closed = {id(rule) for rule, is_open in zip(self._timed, active, strict=False) if not is_open}
            if len(self._compiled) >= COMPILED:
                self._compiled.clear()
            meeting = [
                rule
                for rule in self.rules
                if id(rule) not in closed
                and (own or rule.effect == "deny")
                and rule.meets(caller, right)
                and rule.reaches(caller, scope)
            ]
            found = _compiled(meeting, caller, right, scope, granted=granted, lent=lent)
            self._compiled[key] = found
        return found


def _compiled(
    meeting: Sequence[Rule], caller: Caller, right: Right, scope: Scope, *, granted: bool, lent: Lending | None
) -> Allowed:
    allows = [rule for rule in meeting if rule.effect == "allow"]
    denies = [rule for rule in meeting if rule.effect == "deny"]
    if not allows and not granted and lent is None:
        return NOTHING
    lines = [_all(rule.by_scope(caller, scope)) for rule in allows if not rule.by_cube()]
    barred = [_all(rule.by_scope(caller, scope)) for rule in denies]
    gone, gone_bindings = _but(_any(lines), _any(barred))
    grants = [_granted(caller, right)] if granted else []
    grants += [(lent.condition, [*lent.bindings])] if lent is not None else []
    some = _any([_all([*rule.by_scope(caller, scope), *rule.by_cube()]) for rule in allows] + grants)
    none = _any([_all([*rule.by_scope(caller, scope), *rule.by_cube()]) for rule in denies])
    condition, bindings = _but(some, none)
    if condition == "TRUE" and gone == "TRUE":
        return EVERYTHING
    values = grant_lines(caller, right) if granted else frozenset()
    covers = _Judge(caller, allows, denies, values).covers
    return Allowed(condition, tuple(bindings), gone, tuple(gone_bindings), covers)


class _Judge:
    """The same decision for a cube in hand. Most cubes of a batch are alike to the rules, so answers are kept."""

    def __init__(self, caller: Caller, allows: list[Rule], denies: list[Rule], granted: frozenset[Grant]) -> None:
        self.caller, self.allows, self.denies, self.granted = caller, allows, denies, granted
        self._by_id = any(rule.cubes for rule in (*allows, *denies))
        self._kept: dict[tuple[object, ...], bool] = {}

    def covers(self, cube: MemCube) -> bool:
        d, g = cube.descriptive, cube.governance
        facts = (g.scope, d.kind, d.type, d.tags, g.sensitivity, g.access, d.id if self._by_id else "")
        found = self._kept.get(facts)
        if found is None:
            if len(self._kept) >= COMPILED:
                self._kept.clear()
            found = any(rule.covers(self.caller, cube) for rule in self.allows) or bool(g.access & self.granted)
            found = found and not any(rule.covers(self.caller, cube) for rule in self.denies)
            self._kept[facts] = found
        return found


@lru_cache(1024)
def grant_lines(caller: Caller, right: Right) -> frozenset[Grant]:
    """The lines of an access list that give this caller the right, in its context."""
    subjects = [caller.name, *(f"role:{role}" for role in caller.roles)]
    if caller.key is not None:
        subjects.append(f"key:{caller.key.partition('~')[0]}")
    contexts = {None, caller.purpose}
    return frozenset(Grant(subject, right, context) for subject in subjects for context in contexts)


@lru_cache(1024)
def grant_values(caller: Caller, right: Right) -> tuple[str, ...]:
    """The same as the vault keeps them."""
    return tuple(sorted(grant_value(one.subject, one.right, one.context) for one in grant_lines(caller, right)))


def refuse(caller: Caller, right: Right, what: str) -> Refused:
    """The error that says no; the same whatever is there."""
    purpose = f" for {caller.purpose!r}" if caller.purpose is not None else ""
    return Refused(f"{caller.name!r} may not {right}{purpose} {what}; `tercet access list` shows the rules.")


def _granted(caller: Caller, right: Right) -> Part:
    values = grant_values(caller, right)
    held = f"a.owner = s.owner AND a.key = 'access' AND a.value IN ({marks(values)}) AND a.cube = c.n"
    return f"EXISTS (SELECT 1 FROM attributes a WHERE {held})", [*values]  # noqa: S608  # placeholders only


def _all(parts: Sequence[Part]) -> Part:
    if not parts:
        return "TRUE", []
    return " AND ".join(text for text, _ in parts), [value for _, bound in parts for value in bound]


def _any(parts: Sequence[Part]) -> Part:
    if any(text == "TRUE" for text, _ in parts):
        return "TRUE", []
    if not parts:
        return "FALSE", []
    return " OR ".join(f"({text})" for text, _ in parts), [value for _, bound in parts for value in bound]


def _but(some: Part, none: Part) -> Part:
    """`some` and not `none`; a missing owner makes a comparison NULL, which is no."""
    if some[0] == "FALSE" or none[0] == "TRUE":
        return "FALSE", []
    if none[0] == "FALSE":
        return (some[0], some[1]) if some[0] == "TRUE" else (f"({some[0]})", some[1])
    return f"(({some[0]}) AND NOT coalesce({none[0]}, FALSE))", [*some[1], *none[1]]
