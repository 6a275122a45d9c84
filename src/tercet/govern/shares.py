"""Grants: somebody who may share lets another read some memories, for a purpose, so often, until then.

A grant gives what its maker may read and share himself at that very moment, and no more: who loses a right takes it
from those to whom he gave it. A deny that matches the reader holds all the same. It opens what a memory says now, on
the main line: no version of the past, no branch, no archive, no trace, and nothing that it or others were made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import apsw

from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.govern.retention import moment_after
from tercet.scope import Caller, Scope, check_name
from tercet.text.read.chat import instant
from tercet.vault.allowed import Allowed
from tercet.vault.codec import dump, from_micros, to_micros
from tercet.vault.connection import marks, query, undamaged
from tercet.vault.filters import Where, compile_where
from tercet.vault.ids import parse_id
from tercet.vault.shares import ShareRow, cubes_of

MAX_CUBES = 1_000
"""Memories that one grant names; more are better told by a filter."""
PARTS = ("user", "agent", "session")
Part = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Share:
    """A grant: `to` may read, on the word of `by`.

    Attributes
    ----------
    id
        What names it, as in "g7".
    cubes
        The ids that it names; none where it is of a scope.
    scope, where
        About whom the memories are and, unless it names them, the filter that they meet, those that are still to come
        among them. None: it names cubes.
    purpose
        What for; None: whatever for.
    reads, used
        How many calls it answers, and how many it has answered; None: any number, which is not counted then.
    until
        When it ends by itself.
    revoked
        When it was taken back.
    """

    id: str
    to: str
    by: str
    cubes: tuple[str, ...]
    scope: Scope
    where: Mapping[str, Any] | None
    purpose: str | None
    reads: int | None
    used: int
    made: datetime
    until: datetime | None
    revoked: datetime | None

    @property
    def left(self) -> int | None:
        """How many reads are left; None: it does not count."""
        return None if self.reads is None else max(0, self.reads - self.used)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant says beside what it is on: to whom, for what, how often, until when. Checked when it is made."""

    to: str
    purpose: str | None
    reads: int | None
    until: datetime | None


def read_terms(
    with_: str | Caller, by: Caller, *, purpose: str | None, reads: int | None, until: object, now: datetime
) -> Terms:
    """The terms of a new grant. Raises InvalidRequest for what cannot be one."""
    to = check_name(with_.name if isinstance(with_, Caller) else with_, "whom it is granted to")
    kind, colon, name = to.partition(":")
    if to == "*" or (colon and kind in {"role", "key"} and not name):
        raise InvalidRequest(f"A grant is to somebody, not to {to!r}; a rule (`tercet access`) can speak of everybody.")
    if to in {by.name, *(one for one in subjects(by) if one.startswith("key:"))}:
        raise InvalidRequest(f"{by.name!r} cannot grant to {to!r}, which is the one who asks.")
    if reads is not None and (type(reads) is not int or not 1 <= reads < 2**31):
        raise InvalidRequest(f"reads is a whole number from 1 on, not {reads!r:.40}.")
    end = None
    if isinstance(until, timedelta):
        end = moment_after(now, until)
    elif isinstance(until, datetime | str):
        end = instant(until, "until")
    elif until is not None:
        raise InvalidRequest(f"until is a moment or a timedelta, not {until!r:.40}.")
    if end is not None and end <= now:
        raise InvalidRequest(f"until is a moment that is still to come, and {end.isoformat()} is over.")
    return Terms(to, None if purpose is None else check_name(purpose, "purpose"), reads, end)


def draft_row(terms: Terms, by: Caller, scope: Scope, where: Where | None, *, at: datetime) -> ShareRow:
    """The row of a grant that is not kept yet; `where` is None where it names cubes. Raises InvalidRequest."""
    compile_where(where)
    try:
        condition = None if where is None else dump(where)
    except TypeError:
        raise InvalidRequest("A grant's filter must be plain JSON: texts, numbers, lists, and operators.") from None
    return ShareRow(
        n=0, at=to_micros(at), subject=terms.to, by=_signature(by), user=scope.user, agent=scope.agent,
        session=scope.session, condition=condition, purpose=terms.purpose, reads=terms.reads, used=0,
        expires=None if terms.until is None else to_micros(terms.until), revoked=None,
    )  # fmt: skip


def shown(connection: apsw.Connection, row: ShareRow, tenant: str) -> Share:
    """A grant as it is told."""
    with undamaged(f"Grant g{row.n}"):
        return Share(
            id=f"g{row.n}",
            to=row.subject,
            by=maker(row, tenant).name,
            cubes=cubes_of(connection, row.n),
            scope=scope_of(row, tenant),
            where=None if row.condition is None else json.loads(row.condition),
            purpose=row.purpose,
            reads=row.reads,
            used=row.used,
            made=from_micros(row.at),
            until=None if row.expires is None else from_micros(row.expires),
            revoked=None if row.revoked is None else from_micros(row.revoked),
        )


def number(id: object) -> int | None:
    """The number of a grant's id; None if it is none."""
    digits = id[1:] if isinstance(id, str) and id.startswith("g") else ""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None


def subjects(caller: Caller) -> tuple[str, ...]:
    """What a grant may call this caller."""
    key = () if caller.key is None else (f"key:{caller.key.partition('~')[0]}",)
    return (caller.name, *(f"role:{role}" for role in sorted(caller.roles)), *key)


def scope_of(row: ShareRow, tenant: str) -> Scope:
    """About whom the memories of a grant are."""
    return Scope(tenant, row.user, row.agent, row.session)


def maker(row: ShareRow, tenant: str) -> Caller:
    """Who made a grant, as he came then. Raises KeyError, TypeError or ValueError for what `draft_row` never wrote."""
    held: dict[str, Any] = json.loads(row.by)
    held |= {name: frozenset(held[name]) for name in ("roles", "rights") if name in held}
    within = held.pop("within", None)
    return Caller(**held, within=None if within is None else Scope(tenant, **within))


def _signature(by: Caller) -> str:
    within = None if by.within is None else {part: getattr(by.within, part) for part in PARTS}
    told = {"name": by.name, "purpose": by.purpose, "network": by.network, "key": by.key, "within": within}
    sets = {"roles": sorted(by.roles), "rights": None if by.rights is None else sorted(by.rights)}
    return dump({name: value for name, value in (told | sets).items() if value not in (None, [])})


@dataclass(frozen=True, slots=True)
class Lent:
    """What a caller may read: by its own right alone, and with grants; of each what its maker has a right to."""

    own: Allowed
    allowed: Allowed
    grants: Sequence[tuple[ShareRow, Allowed]] = ()

    def due(self, connection: apsw.Connection, cubes: Sequence[MemCube]) -> list[int]:
        """The grants, by number, of which an answer with these cubes takes a read: what none gives for nothing."""
        if not self.grants or not cubes:
            return []
        left = {parse_id(cube.id) for cube in cubes}
        left -= _meeting(connection, left, (self.own.condition, self.own.bindings))
        taken = []
        for row, right in sorted(self.grants, key=lambda one: (one[0].reads is not None, one[0].n)):
            met = _meeting(connection, left, condition([row], right))
            if met and row.reads is not None:
                taken.append(row.n)
            left -= met
        return taken


def _meeting(connection: apsw.Connection, ids: set[bytes | None], part: Part) -> set[bytes | None]:
    found, several = set[bytes | None](), sorted(filter(None, ids))
    for start in range(0, len(several), 500):
        some = several[start : start + 500]
        statement = (
            "SELECT c.id FROM cubes c JOIN scopes s ON s.n = c.scope "  # noqa: S608  # our own words
            f"WHERE c.id IN ({marks(some)}) AND c.branch = 0 AND {part[0]}"
        )
        found |= {id for (id,) in query(connection, statement, (*some, *part[1]))}
    return found


def condition(rows: Sequence[ShareRow], right: Allowed) -> Part:
    """What grants give of what their maker has a right to: some that name memories, or one with a filter.

    Nothing from quarantine and, by a filter, nothing that was made: what was made from memories that the filter meets
    and others that it does not would tell of the others.
    """
    first = rows[0]
    if first.condition is None:
        named = f"EXISTS (SELECT 1 FROM shared h WHERE h.cube = c.id AND h.share IN ({marks(rows)}))"  # noqa: S608
        bound: list[Any] = [row.n for row in rows]
    else:
        texts, bound = compile_where(json.loads(first.condition))
        about = [(_COLUMNS[part], getattr(first, part)) for part in PARTS if getattr(first, part) is not None]
        made = "NOT EXISTS (SELECT 1 FROM derivations d WHERE d.product = c.n)"
        named = " AND ".join([texts, made, *(column for column, _ in about)])
        bound += [value for _, value in about]
    return f"({named} AND c.trust > 0 AND {right.condition})", (*bound, *right.bindings)


_COLUMNS = {
    "user": "s.owner = (SELECT n FROM owners WHERE user = ?)",
    "agent": "s.agent = ?",
    "session": "s.session = ?",
}


def either(parts: Sequence[Part]) -> Part:
    """Any of several conditions, as a tree that stays flat: SQLite bounds how deep one may be."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    (one, bound), (other, more) = either(parts[:half]), either(parts[half:])
    return f"({one} OR {other})", (*bound, *more)


def union(grants: Sequence[tuple[ShareRow, Allowed]]) -> Part:
    """What all of these give together; those that name memories on the same word are one look-up."""
    named = dict[Allowed, list[ShareRow]]()
    for row, right in grants:
        if row.condition is None:
            named.setdefault(right, []).append(row)
    parts = [condition(rows, right) for right, rows in named.items()]
    return either([*parts, *(condition([row], right) for row, right in grants if row.condition is not None)])
