"""Everything that is read from a tenant's file, within one transaction. A scope is asked for by every call."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.cube import MemCube
from tercet.errors import InvalidRequest, MissingMemory, VaultDamaged
from tercet.scope import Scope
from tercet.vault import journal
from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.branches import TRUNK, Line
from tercet.vault.codec import commit, decode
from tercet.vault.connection import marks, query, rising, scalar, undamaged
from tercet.vault.filters import Where, split_where
from tercet.vault.ids import format_id, parse_id
from tercet.vault.journal import Change
from tercet.vault.past import Overlay
from tercet.vault.select import FROM, select
from tercet.vault.sight import Sight

Ints = NDArray[np.int64]

MAX_LIMIT = 10_000

_CUBE = f"""
SELECT c.n, c.id, v.version, c.state, o.user, s.agent, s.session, v.header, v.salt, v.commitment,
       coalesce(v.text, e.text)
{FROM} JOIN versions v ON v.cube = c.n AND v.branch = c.branch LEFT JOIN episodes e ON e.n = v.piece
WHERE TRUE
"""

_HEADS = "SELECT n, id FROM cubes WHERE n IN ({})"
_ASTRAY = """
SELECT n, id FROM cubes c WHERE n IN ({}) AND version IS NOT (
    SELECT max(v.version) FROM versions v WHERE v.cube = c.n AND v.branch = c.branch
)
"""


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
    """What one snapshot of the file holds, as a line shows it: the main line as it is now, unless told otherwise.

    All of it, or what `under` leaves.

    `past` reads, from a vault in memory, those cubes that the line shows otherwise than the rows are; `left_out` are
    the numbers of rows that it does not show. `sight` is kept between readers of the main line.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        tenant: str,
        *,
        line: Line = TRUNK,
        past: Reader | None = None,
        overlay: Overlay | None = None,
        sight: Sight | None = None,
    ) -> None:
        self.connection, self.tenant, self.line, self.past = connection, tenant, line, past
        self.sight = sight
        self._overlay = overlay
        self.left_out = overlay.left_out if overlay else frozenset[int]()
        self.there = overlay.there if overlay else frozenset[int]()
        self.allowed = EVERYTHING
        self._scopes: dict[tuple[str, str, str], Scope] = {}

    def under(self, allowed: Allowed) -> Self:
        """The same snapshot, of which only what is allowed is there: every call that takes a scope keeps to it."""
        narrowed = copy.copy(self)
        narrowed.allowed = allowed
        if self.past is not None:
            narrowed.past = self.past.under(allowed)
        return narrowed

    @property
    def _seen(self) -> str:
        if not self.left_out:
            return self.line.seen
        numbers = json.dumps(sorted(self.left_out))
        return f"{self.line.seen} AND c.n NOT IN (SELECT value FROM json_each('{numbers}'))"  # noqa: S608  # numbers

    def close(self) -> None:
        """Let the vault in memory go; the file's connection is not this one's to close."""
        if self.past is None:
            return
        if self._overlay is not None and self.there == self._overlay.there:
            self._overlay.give_back(self.past.connection)
        else:  # a writer took rows out of it
            self.past.connection.close()

    def cover(self, n: int) -> None:
        """See a row no more: the writer's branch has just got one of its own for that cube."""
        self.left_out, self.there = self.left_out | {n}, self.there - {n}
        if self.past is not None:
            self.past.connection.execute("DELETE FROM cubes WHERE n = ?", (n,))

    def head(self, id: str, scope: Scope) -> tuple[int, MemCube]:
        """The number and newest version of a cube.

        Raises
        ------
        MissingMemory
            If the scope does not see it; a foreign id and one that never was are not told apart.
        """
        raw = parse_id(id) or b""
        found = self.having(scope, "c.id = ?", (raw,))
        if not found:
            raise MissingMemory(id)
        return found[0], self.cubes(found)[0]

    def find(self, id: str) -> list[int]:
        """The number of a cube of this tenant in a list; an empty one if it is not there."""
        return [n for (n,) in query(self.connection, "SELECT n FROM cubes WHERE id = ?", (parse_id(id) or b"",))]

    def cubes(self, numbers: Sequence[int]) -> list[MemCube]:
        """The versions of cubes given by number that the line shows, in that order; one that is gone is left out.

        Raises
        ------
        VaultDamaged
            If one of them is not what was written; so does everything else that gives cubes.
        """
        found: dict[int, MemCube] = {}
        if self.past is not None and self.there.intersection(numbers):
            old = [n for n in numbers if n in self.there]
            found = dict(zip(old, self.past.cubes(old), strict=True))
        wanted = [n for n in numbers if n not in found]
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            statement = f"{_CUBE} AND v.version = c.version AND c.n IN ({marks(part)})"
            for row in query(self.connection, statement, part):
                found[row[0]] = self._cube(row)
            self._check_heads(part, found)
        return [found[n] for n in numbers if n in found]

    def history(self, id: str, scope: Scope) -> list[MemCube]:
        """Every version that is allowed, oldest first. Raises MissingMemory."""
        n, _ = self.head(id, scope)
        versions = self.past.versions(n) if self.past is not None and n in self.there else self.versions(n)
        # A row that a branch made when it changed its parent's cube goes on where the parent's versions were then.
        raw = parse_id(id)
        for branch in self.line.numbers[1:] if versions[0].version > 1 else ():
            below = scalar(self.connection, "SELECT n FROM cubes WHERE id = ? AND branch = ?", (raw, branch))
            if below is not None and below != n:
                first, state = versions[0].version, versions[0].state
                older = [old for old in self.versions(below) if old.version < first]
                versions = [
                    *(replace(old, behavioural=replace(old.behavioural, state=state)) for old in older),
                    *versions,
                ]
        return [cube for cube in versions if self.allowed.covers(cube)]

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
        total, numbers = self._turn(scope, where, after, limit + 1)
        following = _write_cursor(numbers[limit - 1]) if len(numbers) > limit else None
        return Page(self.cubes(numbers[:limit]), total=total, cursor=following)

    def _turn(self, scope: Scope, where: Where | None, after: int, limit: int) -> tuple[int, list[int]]:
        """How many cubes there are, and the numbers of the first of them after a number, in order."""
        if self.sight is not None and self.line.plain and self.allowed is not EVERYTHING:
            seen = self.sight.numbers(self.connection, scope, self.allowed, where)
            start = int(np.searchsorted(seen, after, side="right"))
            return len(seen), seen[start : start + limit].tolist()
        chosen = select(scope, where, self.allowed)
        total, numbers = 0, list[int]()
        for reader in self._readers:
            base = f"{FROM} WHERE {reader._seen} AND {chosen.condition}"  # noqa: SLF001
            total += scalar(reader.connection, f"SELECT count(*) {base}", chosen.bindings)
            rows = query(
                reader.connection,
                f"SELECT c.n {base} AND c.n > ? ORDER BY c.n LIMIT ?",
                (*chosen.bindings, after, limit),
            )
            numbers += rising([n for (n,) in rows], after)
        return total, sorted(numbers)

    def named(self, scope: Scope, ref: str) -> MemCube | None:
        """The cube that a ref names within exactly this scope, where a part left out means none."""
        exactly = "o.user = ? AND s.agent = ? AND s.session = ? AND c.ref = ?"
        bound = (scope.user or "", scope.agent or "", scope.session or "", ref)
        found = self.having(Scope(self.tenant), exactly, bound)
        return self.cubes(found)[0] if found else None

    def having(self, scope: Scope, condition: str, bound: Sequence[object]) -> list[int]:
        """The numbers of a scope's cubes that meet a condition over `cubes c`, `scopes s` and `owners o`."""
        found: list[int] = []
        for reader in self._readers:
            found += reader._find(scope, condition, bound)  # noqa: SLF001  # one of our own kind
        return sorted(found)

    def marks(self, n: int) -> int:
        """What recall keeps of a cube's text beside its words."""
        connection = self.past.connection if self.past is not None and n in self.there else self.connection
        return int(scalar(connection, "SELECT marks FROM cubes WHERE n = ?", (n,)))

    def erased(self, id: str) -> bool:
        """Whether a cube of this id was erased here; such a one does not come back."""
        return scalar(self.connection, "SELECT 1 FROM erased WHERE id = ?", (parse_id(id) or b"",)) is not None

    def hidden(self, id: str) -> bool:
        """Whether a restore has hidden a cube of this id on the branch."""
        found = "SELECT hidden FROM cubes WHERE id = ? AND branch = ?"
        return bool(scalar(self.connection, found, (parse_id(id) or b"", self.line.branch)))

    def changes(self, scope: Scope, *, since: int, limit: int) -> list[Change]:
        """What happened to the cubes of a scope after a sequence number, oldest first. Raises InvalidRequest."""
        check_limit(limit)
        if not isinstance(since, int) or not 0 <= since < 2**63:
            raise InvalidRequest(f"since is a sequence number such as a change's `.seq`, not {since!r:.40}.")
        chosen = select(scope)
        layers = [(layer.branch, layer.until) for layer in self.line.layers]
        return journal.changes(
            self.connection,
            chosen.condition,
            chosen.bindings,
            layers=layers,
            since=since,
            limit=limit,
            allowed=self.allowed,
        )

    def numbers(self, scope: Scope, where: Where | None = None) -> list[int]:
        """The numbers of all cubes of a scope that meet `where`."""
        chosen = select(scope, where, self.allowed)
        found: list[int] = []
        for reader in self._readers:
            statement = f"SELECT c.n {FROM} WHERE {reader._seen} AND {chosen.condition} ORDER BY c.n"  # noqa: SLF001
            found += [n for (n,) in query(reader.connection, statement, chosen.bindings)]
        return found if self.past is None else sorted(found)

    def sets(self, scope: Scope, where: Where | None = None) -> Iterator[tuple[Ints, bool]]:
        """Sets of numbers, in no order, that say which of a user's cubes the rest of the scope and `where` leave.

        Those in every set whose flag is true, and in none whose flag is false. They may hold numbers that are not seen.
        """
        tests = split_where(where, scope.user)
        if not self.line.plain:
            if tests or scope.agent is not None or scope.session is not None:
                yield np.array(self.numbers(scope, where), dtype=np.int64), True
            return
        plain = [test for test in tests if not test.of_label]
        if plain or scope.agent is not None or scope.session is not None:
            chosen = select(scope)
            condition = " AND ".join([chosen.condition, *(test.condition for test in plain)])
            bound = (*chosen.bindings, *(one for test in plain for one in test.bound))
            yield self._set(f"c.n) {FROM} WHERE {condition}", bound), True
        for test in tests:
            if test.of_label:
                yield self._set(f"a.cube) FROM attributes a WHERE {test.over}", test.bound), test.holds

    def _set(self, rest: str, bound: Sequence[Any]) -> Ints:
        # One text of all numbers: a tuple for each would take longer than to find them.
        found = scalar(self.connection, f"SELECT group_concat({rest}", bound)  # every value is bound
        return np.fromstring(found or "", dtype=np.int64, sep=",")

    def reach(self, scope: Scope, where: Where | None = None, *, id: str | None = None) -> list[int]:
        """The rows that an erasure of a scope has to reach: hidden ones too and, on the main line, those of any branch.

        `where` or `id` say of which cubes. A cube that met `where` in an earlier version only is not among them.
        """
        chosen = select(scope, where, self.allowed)
        named, bound = ("TRUE", ()) if id is None else ("c.id = ?", (parse_id(id) or b"",))
        own = "TRUE" if self.line.branch == 0 else f"c.branch = {self.line.branch} AND c.hidden != 0"
        statement = f"SELECT c.n {FROM} WHERE {named} AND {own} AND {chosen.condition} ORDER BY c.n"
        found = {n for (n,) in query(self.connection, statement, (*bound, *chosen.bindings))}
        if self.line.branch:
            seen = self.numbers(scope, where) if id is None else self.having(scope, named, bound)
            found |= set(seen)
        return sorted(found)

    @property
    def _readers(self) -> tuple[Reader, ...]:
        """This one, and that of what the line shows otherwise; between them each cube is seen once."""
        return (self,) if self.past is None else (self, self.past)

    def _find(self, scope: Scope, condition: str, bound: Sequence[object]) -> list[int]:
        chosen = select(scope, None, self.allowed)
        statement = f"SELECT c.n {FROM} WHERE {condition} AND {self.line.seen} AND {chosen.condition}"
        found = query(self.connection, statement, (*bound, *chosen.bindings))
        # Few meet a condition: a look at each costs less than to give SQLite the numbers of all that are left out.
        return [n for (n,) in found if n not in self.left_out]

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
