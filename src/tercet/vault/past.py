"""What a line shows that the rows do not: the past, worked out from what changed since, and what a branch covers.

Most of a line is the rows as they are now. What changed after its end, as it was then, is put into a small vault in
memory, with the same tables: so it is read, filtered and searched by the code that reads the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import apsw

from tercet.cube import MemCube
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.vault.branches import OPEN, Layer, Line
from tercet.vault.codec import decode
from tercet.vault.connection import atomic, connect, marks, query, undamaged
from tercet.vault.heads import attributes, heading
from tercet.vault.ids import format_id
from tercet.vault.schema import migrate
from tercet.vault.search import words

CHUNK = 500
HIDE, SHOW = "hide", "show"
"""Actions of the journal: a restore withdrew a cube, or brought one back."""

Marks = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Then:
    """How a line shows a cube: by which row, at which version, in which state."""

    n: int
    version: int
    state: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """`left_out` are rows that a line does not show as they are now; `image` is a vault of those that it shows
    otherwise, by the same numbers, or None if there are none."""

    left_out: frozenset[int]
    there: frozenset[int]
    image: bytes | None
    _idle: list[apsw.Connection] = field(default_factory=list, compare=False, repr=False)

    def open(self) -> apsw.Connection:
        """The vault in memory, for one reader at a time."""
        try:
            return self._idle.pop()
        except IndexError:
            connection = connect(None)
        if self.image is not None:
            connection.deserialize("main", self.image)
        return connection

    def give_back(self, connection: apsw.Connection) -> None:
        """Keep what was only read for the next reader: to open one copies the image, and takes longer than a look."""
        if self._idle:
            connection.close()
        else:
            self._idle.append(connection)


def seen(connection: apsw.Connection, line: Line, ids: Iterable[bytes]) -> dict[bytes, Then]:
    """How a line shows the cubes of some ids; those that it does not show are left out."""
    left, found = set(ids), dict[bytes, Then]()
    for layer in line.layers:
        moves = _moves(connection, layer.until) if left else {}
        for n, id, version, state, hidden in _rows(connection, layer, sorted(left)):
            left.discard(id)
            former, was_hidden = moves.get(n, (None, None))
            if not (hidden if was_hidden is None else was_hidden):
                found[id] = Then(n, version, state if former is None else former)
    return found


def touched(connection: apsw.Connection, branch: int, since: int, until: int = OPEN) -> dict[int, bytes]:
    """Rows of a branch that the journal speaks of after one line and up to another, with their ids.

    That a vector was made for a text is no change of it.
    """
    if since >= until:
        return {}
    return dict(query(connection, _TOUCHED, (since, until, branch)))


_TOUCHED = """
SELECT DISTINCT c.n, c.id FROM journal j CROSS JOIN cubes c ON c.n = j.number
WHERE j.seq > ? AND j.seq <= ? AND c.branch = ? AND j.action != 'embed'
"""


def overlay(connection: apsw.Connection, tenant: str, line: Line, of: Marks) -> Overlay:
    """Work out what a line shows otherwise than the rows are; `of` gives the marks of a text."""
    with undamaged("The past"):
        changed: dict[int, bytes] = {}
        covered, above = set[int](), set[bytes]()
        for layer in line.layers:
            changed |= touched(connection, layer.branch, layer.until)
            covered |= {n for n, *_ in _rows(connection, layer, sorted(above))}
            if layer.branch:
                above |= {id for _, id in own_rows(connection, layer)}
        then = [row for row in seen(connection, line, changed.values()).values() if row.n in changed]
        left_out = frozenset(changed.keys() | covered)
        image = _image(connection, tenant, then, of) if then else None
        return Overlay(left_out, frozenset(row.n for row in then), image)


def versions_of(
    connection: apsw.Connection, tenant: str, n: int, until: int
) -> list[tuple[MemCube, tuple[apsw.SQLiteValue, ...]]]:
    """Versions 1 to `until` of the row with that number, and the columns that each is kept in."""
    found: list[tuple[MemCube, tuple[apsw.SQLiteValue, ...]]] = []
    for row in query(connection, _VERSIONS, (n, until)):
        id, user, agent, session, state, version, *kept = row
        text, header = kept[1], kept[2]
        scope = Scope(tenant, user or None, agent or None, session or None)
        cube = decode(json.loads(header), id=format_id(id), scope=scope, version=version, state=state, text=text)
        found.append((cube, (kept[0], version, text, header, kept[3], kept[4])))
    return found


_VERSIONS = """
SELECT c.id, o.user, s.agent, s.session, c.state, v.version, v.seq, coalesce(v.text, e.text), v.header, v.salt,
    v.commitment
FROM cubes c JOIN scopes s ON s.n = c.scope JOIN owners o ON o.n = s.owner
JOIN versions v ON v.cube = c.n AND v.branch = c.branch LEFT JOIN episodes e ON e.n = v.piece
WHERE c.n = ? AND v.version <= ? ORDER BY v.version
"""


def _moves(connection: apsw.Connection, until: int) -> Mapping[int, tuple[str | None, int | None]]:
    """The state, and whether it was hidden, that cubes had before their first move after a line of the journal."""
    if until == OPEN:
        return {}
    states = [state.value for state in State]
    found: dict[int, tuple[str | None, int | None]] = {}
    statement = f"""
        SELECT number, action, detail FROM journal
        WHERE seq > ? AND number > 0 AND action IN ({marks(states)}, ?, ?) ORDER BY seq
    """  # noqa: S608  # placeholders only
    for n, action, detail in query(connection, statement, (until, *states, HIDE, SHOW)):
        state, hidden = found.get(n, (None, None))
        if action in {HIDE, SHOW}:
            found[n] = (state, hidden if hidden is not None else int(action == SHOW))
        elif state is None:
            found[n] = (json.loads(detail)["former"], hidden)
    return found


def _rows(connection: apsw.Connection, layer: Layer, ids: Sequence[bytes]) -> list[tuple[int, bytes, int, str, int]]:
    """(number, id, version then, state now, hidden now) of the rows of a branch that were there then."""
    found: list[tuple[int, bytes, int, str, int]] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        if layer.until == OPEN:
            statement, bound = f"{_NOW} AND id IN ({marks(part)})", (layer.branch, *part)
        else:
            statement, bound = f"{_THEN} AND id IN ({marks(part)})", (layer.until, layer.branch, *part)
        found += [row for row in query(connection, statement, bound) if row[2] is not None]
    return found


_NOW = "SELECT n, id, version, state, hidden FROM cubes WHERE branch = ?"
_THEN = """
SELECT n, id, (SELECT max(v.version) FROM versions v WHERE v.cube = n AND v.seq <= ?), state, hidden
FROM cubes WHERE branch = ?
"""


def own_rows(connection: apsw.Connection, layer: Layer) -> list[tuple[int, bytes]]:
    """(number, id) of all rows of a branch, other than the main line, that were there then."""
    statement = """
        SELECT n, id FROM cubes WHERE branch = ? AND branch > 0
        AND (SELECT min(v.seq) FROM versions v WHERE v.cube = n) <= ?
    """
    return query(connection, statement, (layer.branch, layer.until))


def _image(connection: apsw.Connection, tenant: str, then: Sequence[Then], of: Marks) -> bytes:
    memory = connect(None)
    migrate(memory)
    with atomic(memory):
        for table in ("owners", "spaces"):
            rows = query(connection, f"SELECT * FROM {table}")  # noqa: S608  # our own names
            _insert(memory, table, rows)
        for row in then:
            _put(connection, memory, tenant, row, of)
    image = memory.serialize("main")
    memory.close()
    return image


def _put(source: apsw.Connection, memory: apsw.Connection, tenant: str, then: Then, of: Marks) -> None:
    """Copy one cube, as it was then, into the vault in memory."""
    held = versions_of(source, tenant, then.n, then.version)
    cube, _ = held[-1]
    [(id, scope, run, owner, agent, session)] = query(source, _PLACE, (then.n,))
    memory.execute("INSERT OR IGNORE INTO scopes VALUES (?, ?, ?, ?)", (scope, owner, agent, session))
    terms = words.counts(cube.text)
    columns = {
        "n": then.n, "id": id, "scope": scope, "run": run, "state": then.state, "version": then.version,
        "words": sum(terms.values()), "marks": of(cube.text), **heading(cube),
    }  # fmt: skip
    insert = f"INSERT INTO cubes ({', '.join(columns)}) VALUES ({marks([*columns])})"  # noqa: S608
    memory.execute(insert, tuple(columns.values()))
    for _, (seq, version, text, header, salt, commitment) in held:
        memory.execute(
            "INSERT INTO versions (seq, cube, version, text, header, salt, commitment) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq, then.n, version, text, header, salt, commitment),
        )
    words.add(memory, [(owner, then.n, terms)])
    _insert(memory, "attributes", {(owner, key, value, then.n) for key, value in attributes(cube)})
    for space, vectors, states in vectors_of(source, then.n, then.version):
        memory.execute(
            "INSERT INTO vectors (cube, space, vectors, states) VALUES (?, ?, ?, ?)", (then.n, space, vectors, states)
        )


_PLACE = """
SELECT c.id, c.scope, c.run, s.owner, s.agent, s.session FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?
"""


def vectors_of(connection: apsw.Connection, n: int, version: int) -> list[tuple[int, bytes, bytes | None]]:
    """(space, vectors, states) of a version, where they were made."""
    return query(connection, _VECTORS, (n, version, n, version))


_VECTORS = """
SELECT space, vectors, states FROM old_vectors WHERE cube = ? AND version = ?
UNION ALL SELECT v.space, v.vectors, v.states FROM vectors v JOIN cubes c ON c.n = v.cube
WHERE v.cube = ? AND c.version = ?
"""


def _insert(memory: apsw.Connection, table: str, rows: Iterable[Sequence[apsw.SQLiteValue]]) -> None:
    for row in rows:
        memory.execute(f"INSERT INTO {table} VALUES ({marks(row)})", tuple(row))  # noqa: S608
