"""Everything that is read from a tenant's file, within one transaction. A scope is asked for by every call."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Self

import apsw

from tercet.cube import MemCube
from tercet.errors import InvalidRequest, MissingMemory, VaultDamaged
from tercet.scope import Scope
from tercet.vault import journal
from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.codec import commit, decode
from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.filters import Where, compile_where
from tercet.vault.ids import format_id, parse_id
from tercet.vault.journal import Change

MAX_LIMIT = 10_000

_HEAD = "FROM cubes c JOIN scopes s ON s.n = c.scope JOIN owners o ON o.n = s.owner"
_CUBE = f"""
SELECT c.n, c.id, v.version, c.state, o.user, s.agent, s.session, v.header, v.salt, v.commitment,
       coalesce(v.text, e.text)
{_HEAD} JOIN versions v ON v.cube = c.n LEFT JOIN episodes e ON e.n = v.piece
WHERE v.branch = 0
"""

_HEADS = "SELECT n, id FROM cubes WHERE n IN ({})"
_ASTRAY = """
SELECT n, id FROM cubes c WHERE n IN ({}) AND version IS NOT (
    SELECT max(v.version) FROM versions v WHERE v.cube = c.n AND v.branch = 0
)
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cubes a call may see and asks for, as a condition over `cubes c`, `scopes s` and `owners o`."""

    condition: str
    bindings: tuple[Any, ...]


def select(scope: Scope, where: Where | None = None, allowed: Allowed = EVERYTHING) -> Selection:
    """The cubes of a scope that meet `where`, of those that are allowed."""
    condition, bindings = compile_where(where, scope.user)
    parts = [("o.user", scope.user), ("s.agent", scope.agent), ("s.session", scope.session)]
    given = [(column, value) for column, value in parts if value is not None]
    condition = " AND ".join([*(f"{column} = ?" for column, _ in given), condition, allowed.condition])
    return Selection(condition, (*(value for _, value in given), *bindings, *allowed.bindings))


class Page(list[MemCube]):
    """Some cubes of a longer list: how many there are in all, and where to go on (None at the end)."""

    def __init__(self, cubes: Sequence[MemCube], *, total: int, cursor: str | None) -> None:
        super().__init__(cubes)
        self.total, self.cursor = total, cursor

    @property
    def truncated(self) -> bool:
        """Whether there is more than this page."""
        return self.cursor is not None


class Reader:
    """What one snapshot of the file holds: all of it, or what `under` leaves."""

    def __init__(self, connection: apsw.Connection, tenant: str) -> None:
        self.connection, self.tenant = connection, tenant
        self.allowed = EVERYTHING
        self._scopes: dict[tuple[str, str, str], Scope] = {}

    def under(self, allowed: Allowed) -> Self:
        """The same snapshot, of which only what is allowed is there: every call that takes a scope keeps to it."""
        narrowed = copy.copy(self)
        narrowed.allowed = allowed
        return narrowed

    def head(self, id: str, scope: Scope) -> tuple[int, MemCube]:
        """The number and newest version of a cube.

        Raises
        ------
        MissingMemory
            If the scope does not see it; a foreign id and one that never was are not told apart.
        """
        chosen = select(scope, None, self.allowed)
        statement = f"SELECT c.n {_HEAD} WHERE c.id = ? AND {chosen.condition}"
        n = scalar(self.connection, statement, (parse_id(id) or b"", *chosen.bindings))
        if n is None:
            raise MissingMemory(id)
        return n, self.cubes([n])[0]

    def cubes(self, numbers: Sequence[int]) -> list[MemCube]:
        """The newest versions of cubes given by number, in that order; a number that is gone is left out.

        Raises
        ------
        VaultDamaged
            If one of them is not what was written; so does everything else that gives cubes.
        """
        found: dict[int, MemCube] = {}
        for start in range(0, len(numbers), 500):
            part = numbers[start : start + 500]
            statement = f"{_CUBE} AND v.version = c.version AND c.n IN ({marks(part)})"
            for row in query(self.connection, statement, part):
                found[row[0]] = self._cube(row)
            self._check_heads(part, found)
        return [found[n] for n in numbers if n in found]

    def history(self, id: str, scope: Scope) -> list[MemCube]:
        """Every version that is allowed, oldest first. Raises MissingMemory."""
        return [cube for cube in self.versions(self.head(id, scope)[0]) if self.allowed.covers(cube)]

    def versions(self, n: int) -> list[MemCube]:
        """Every version of the cube with that number, oldest first."""
        rows = query(self.connection, f"{_CUBE} AND c.n = ? ORDER BY v.version", (n,))
        cubes = [self._cube(row) for row in rows]
        self._check_heads([n], {n} if cubes else set())
        if [cube.version for cube in cubes] != list(range(cubes[-1].version - len(cubes) + 1, cubes[-1].version + 1)):
            raise VaultDamaged(f"Memory {cubes[-1].id} has lost a version; `tercet doctor` tells more.")
        return cubes

    def page(self, scope: Scope, *, limit: int, cursor: str | None, where: Where | None) -> Page:
        """Cubes oldest first, from where `cursor` points.

        Raises
        ------
        InvalidRequest
            If the limit is out of range or the cursor is not one of ours.
        """
        check_limit(limit)
        after = _read_cursor(cursor)
        chosen = select(scope, where, self.allowed)
        base = f"{_HEAD} WHERE {chosen.condition}"
        total = scalar(self.connection, f"SELECT count(*) {base}", chosen.bindings)
        rows = query(
            self.connection,
            f"SELECT c.n {base} AND c.n > ? ORDER BY c.n LIMIT ?",
            (*chosen.bindings, after, limit + 1),
        )
        numbers = [n for (n,) in rows[:limit]]
        following = _write_cursor(numbers[-1]) if len(rows) > limit else None
        return Page(self.cubes(numbers), total=total, cursor=following)

    def named(self, scope: Scope, ref: str) -> MemCube | None:
        """The cube that a ref names within exactly this scope, where a part left out means none."""
        rows = query(
            self.connection,
            f"SELECT c.n {_HEAD} WHERE o.user = ? AND s.agent = ? AND s.session = ? AND c.ref = ?",
            (scope.user or "", scope.agent or "", scope.session or "", ref),
        )
        return self.cubes([rows[0][0]])[0] if rows else None

    def erased(self, id: str) -> bool:
        """Whether a cube of this id was erased here; such a one does not come back."""
        return scalar(self.connection, "SELECT 1 FROM erased WHERE id = ?", (parse_id(id) or b"",)) is not None

    def changes(self, scope: Scope, *, since: int, limit: int) -> list[Change]:
        """What happened to the cubes of a scope after a sequence number, oldest first. Raises InvalidRequest."""
        check_limit(limit)
        if not isinstance(since, int) or not 0 <= since < 2**63:
            raise InvalidRequest(f"since is a sequence number such as a change's `.seq`, not {since!r:.40}.")
        chosen = select(scope)
        return journal.changes(
            self.connection, chosen.condition, chosen.bindings, since=since, limit=limit, allowed=self.allowed
        )

    def numbers(self, scope: Scope, where: Where | None = None) -> list[int]:
        """The numbers of all cubes of a scope that meet `where`."""
        chosen = select(scope, where, self.allowed)
        return [
            n
            for (n,) in query(
                self.connection, f"SELECT c.n {_HEAD} WHERE {chosen.condition} ORDER BY c.n", chosen.bindings
            )
        ]

    def _cube(self, row: tuple[Any, ...]) -> MemCube:
        n, raw, version, state, user, agent, session, header, salt, commitment, text = row
        with undamaged(f"Memory {_name(n, raw)} version {version}"):
            fields = json.loads(header) | {"commitment": commitment.hex()}
            scope = self._scopes.get((user, agent, session))
            if scope is None:  # names are checked once, not for every cube that bears them
                scope = Scope(self.tenant, user or None, agent or None, session or None)
                self._scopes[user, agent, session] = scope
            cube = decode(fields, id=format_id(raw), scope=scope, version=version, state=state, text=text)
            if commit(salt, cube, header) != commitment:
                raise ValueError("its hash is another")
            return cube

    def _check_heads(self, numbers: Sequence[int], found: Container[int]) -> None:
        """A head that has lost its newest version, or itself, would pass for an answer. Raises VaultDamaged."""
        astray = query(self.connection, _ASTRAY.format(marks(numbers)), numbers)
        if lost := [n for n in numbers if n not in found]:
            astray += query(self.connection, _HEADS.format(marks(lost)), lost)
        for n, raw in astray:
            raise VaultDamaged(f"Memory {_name(n, raw)} does not show its newest version; `tercet doctor` tells more.")


def _name(n: int, raw: object) -> str:
    return format_id(raw) if isinstance(raw, bytes) and len(raw) == 16 else f"number {n}"


def check_limit(limit: int) -> int:
    """Return `limit` if it is a number from 1 to 10,000."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(
            f"limit must be a whole number from 1 to {MAX_LIMIT:,}, not {limit!r}; use a cursor for more."
        )
    return limit


def _write_cursor(n: int) -> str:
    return base64.urlsafe_b64encode(f"n{n}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if text[:1] != "n" or not text[1:].isdecimal() or len(text) > 19:
            raise ValueError(text)
        return int(text[1:])
    except (TypeError, ValueError):
        raise InvalidRequest(f"{cursor!r} is not a cursor that `list` gave; leave it out to start anew.") from None
