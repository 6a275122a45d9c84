"""Comparing two moments, going back to one, and taking a branch out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import apsw

from tercet.cube import Governance, MemCube
from tercet.errors import Held, InvalidRequest, MissingBranch
from tercet.lifecycle import State
from tercet.vault.branches import OPEN, Layer, Line, branch_name, branch_number, line_of, named_line, take_snapshot
from tercet.vault.codec import to_micros
from tercet.vault.connection import query, scalar
from tercet.vault.erase import leave_scrub, let_go_of_names, remove
from tercet.vault.ids import format_id
from tercet.vault.past import HIDE, SHOW, Marks, Then, own_rows, seen, touched, vectors_of, versions_of
from tercet.vault.search import words
from tercet.vault.shares import end_shares
from tercet.vault.writer import Entry, Writer


@dataclass(frozen=True, slots=True)
class Difference:
    """A cube that two moments show differently: its version in each, None where it is not shown."""

    id: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What is different in `b`, seen from `a`.

    `revised` says another text or another header than before; a version that says the same is no difference.
    """

    a: str
    b: str
    added: tuple[Difference, ...]
    removed: tuple[Difference, ...]
    revised: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a restore did: `undo` names the snapshot that was taken first, and that undoes it.

    Ids of the cubes that got their old content back as a new `revised` version, that were `hidden` since they were
    made later, that were `shown` again, and that were `moved` back to their state.
    """

    name: str
    branch: str
    undo: str
    revised: tuple[str, ...]
    hidden: tuple[str, ...]
    shown: tuple[str, ...]
    moved: tuple[str, ...]


def diff(connection: apsw.Connection, tenant: str, a: str, b: str) -> Diff:
    """Compare two moments, each the name of a snapshot, of a branch, or "now"; it costs what changed between them.

    Raises
    ------
    MissingBranch
        If there is no such snapshot or branch.
    """
    lines = named_line(connection, a), named_line(connection, b)
    ids = _between(connection, *lines)
    before, after = (seen(connection, line, ids) for line in lines)
    found: dict[str, list[Difference]] = {"added": [], "removed": [], "revised": []}
    for id in sorted(ids):
        old, new = before.get(id), after.get(id)
        one = Difference(format_id(id), old.version if old else None, new.version if new else None)
        if old is None or new is None:
            if old is not new:
                found["added" if old is None else "removed"].append(one)
        elif (old.n, old.version) != (new.n, new.version) and not _same(
            _content(connection, tenant, old), _content(connection, tenant, new)
        ):
            found["revised"].append(one)
    return Diff(a, b, *(tuple(found[kind]) for kind in ("added", "removed", "revised")))


def restore(writer: Writer, name: str, of: Marks) -> Rewound:
    """Bring the branch of a snapshot, which the writer writes to, back to what it showed then.

    Old content comes back as new versions, under the rules (holds, access, retention) that stand now; what was made
    since is hidden, and nothing is erased. What was erased since does not come back.

    Raises
    ------
    MissingBranch
        If there is no such snapshot.
    """
    connection = writer.connection
    rows = query(connection, "SELECT branch, seq FROM snapshots WHERE name = ?", (name,))
    if not rows:
        raise MissingBranch(name)
    [(branch, seq)] = rows
    undo = take_snapshot(writer, _unused(connection, f"before {name}"))
    ids = set(touched(connection, branch, seq).values())
    then, now = (seen(connection, line_of(connection, branch, until), ids) for until in (seq, OPEN))
    writer.chain.append("restore", of=branch, upto=seq)
    hidden = _flag(writer, {id: now[id] for id in sorted(ids) if id in now and id not in then}, hidden=True)
    # What the branch shows again is a row of its own: only such a one is ever hidden.
    own = _rows(connection, branch, [id for id in then if id not in now])
    shown = _flag(writer, own, hidden=False)
    revised, moved = [], []
    for id in sorted(then):
        row = now.get(id) or own[id]
        if (row.n, row.version) != (then[id].n, then[id].version) and _rewrite(writer, row, then[id], of):
            revised.append(format_id(id))
        if row.state != then[id].state:
            _move(writer, id, row, then[id].state, seq)
            moved.append(format_id(id))
    return Rewound(name, undo.branch, undo.name, tuple(revised), hidden, shown, tuple(moved))


def _rows(connection: apsw.Connection, branch: int, ids: Iterable[bytes]) -> dict[bytes, Then]:
    """The rows of a branch for some cubes, as they are now, whether hidden or not."""
    found = {}
    for id in ids:
        for row in query(connection, "SELECT n, version, state FROM cubes WHERE branch = ? AND id = ?", (branch, id)):
            found[id] = Then(*row)
    return found


def branch_of(connection: apsw.Connection, name: str) -> str:
    """The name of the branch that a snapshot was taken of. Raises MissingBranch."""
    branch = scalar(connection, "SELECT branch FROM snapshots WHERE name = ?", (name,))
    if branch is None:
        raise MissingBranch(name)
    return branch_name(connection, branch)


def drop(writer: Writer, name: str) -> int:
    """Drop a snapshot, or a branch with its snapshots and the rows of its own, whose bytes are then scrubbed.

    Returns how many rows of memories went. A cube that was only in the branch is erased; one that it had from its
    parent stays there.

    Raises
    ------
    MissingBranch
        If there is neither.
    InvalidRequest
        If other branches begin on the branch.
    Held
        If a hold stands on a memory that only the branch has.
    """
    connection = writer.connection
    if scalar(connection, "SELECT 1 FROM snapshots WHERE name = ?", (name,)):
        connection.execute("DELETE FROM snapshots WHERE name = ?", (name,))
        writer.chain.append("drop")
        return 0
    branch = branch_number(connection, name)
    if branch == 0:
        raise InvalidRequest("The main line cannot be dropped.")
    above = query(connection, "SELECT name FROM branches WHERE parent = ? ORDER BY n", (branch,))
    if above:
        raise InvalidRequest(f"Branches begin on {name!r}: {', '.join(one for (one,) in above)}; drop them first.")
    numbers = [n for (n,) in query(connection, "SELECT n FROM cubes WHERE branch = ? AND branch > 0", (branch,))]
    cubes = dict(zip(numbers, writer.reader.cubes(numbers), strict=True))
    counted, places, gone = dict[str, int](), set[tuple[int, int]](), list[MemCube]()
    writer.chain.branch = branch
    for n, cube in cubes.items():
        if cube.governance.hold is not None:
            raise Held(f"Memory {cube.id} of branch {name!r} is on hold ({cube.governance.hold}); nothing was dropped.")
        id = scalar(connection, "SELECT id FROM cubes WHERE n = ?", (n,))
        remove(connection, n, cube, counted)
        elsewhere = scalar(connection, "SELECT 1 FROM cubes WHERE id = ?", (id,))
        owner, scope = writer.scope(cube.scope)
        places.add((owner, scope))
        writer.chain.append("drop" if elsewhere else "forget", cube.id, cube.version, place=(n, scope))
        if not elsewhere:
            connection.execute("INSERT OR IGNORE INTO erased VALUES (?, ?)", (id, to_micros(writer.at)))
            gone.append(cube)
    writer.chain.branch = writer.branch
    let_go_of_names(connection, places, counted)
    end_shares(writer, gone, counted)
    connection.execute("DELETE FROM snapshots WHERE branch = ?", (branch,))
    connection.execute("DELETE FROM branches WHERE n = ?", (branch,))
    writer.chain.append("drop", of=branch)
    if numbers:
        leave_scrub(writer)
    return len(numbers)


def _between(connection: apsw.Connection, a: Line, b: Line) -> set[bytes]:
    """Ids of all cubes that two lines may show differently."""
    found = set[bytes]()
    ends = [{layer.branch: layer.until for layer in line.layers} for line in (a, b)]
    for branch in ends[0].keys() | ends[1].keys():
        both = [end[branch] for end in ends if branch in end]
        if len(both) == 2:
            found |= set(touched(connection, branch, min(both), max(both)).values())
        else:  # never the main line, which is under both
            found |= {id for _, id in own_rows(connection, Layer(branch, both[0]))}
    return found


def _content(connection: apsw.Connection, tenant: str, then: Then) -> MemCube:
    return versions_of(connection, tenant, then.n, then.version)[-1][0]


def _same(one: MemCube, other: MemCube) -> bool:
    """Whether two versions say the same, whenever and under whichever rules they were written."""
    return _bare(one) == _bare(other)


def _bare(cube: MemCube) -> MemCube:
    return replace(
        cube,
        descriptive=replace(cube.descriptive, recorded=None, commitment=None),
        governance=Governance(cube.scope),
        behavioural=replace(cube.behavioural, version=0, parent=None, state=State.GENERATED),
    )


def _flag(writer: Writer, rows: Mapping[bytes, Then], *, hidden: bool) -> tuple[str, ...]:
    for id, row in rows.items():
        writer.connection.execute("UPDATE cubes SET hidden = ? WHERE n = ?", (int(hidden), row.n))
        writer.chain.append(HIDE if hidden else SHOW, format_id(id), place=(row.n, _scope(writer, row.n)))
    return tuple(format_id(id) for id in rows)


def _rewrite(writer: Writer, row: Then, then: Then, of: Marks) -> bool:
    """Give a row the content that a version had, with the vectors of that version; False if it has it already."""
    connection, tenant = writer.connection, writer.tenant
    now, old = _content(connection, tenant, row), _content(connection, tenant, then)
    if _same(now, old):
        return False
    behavioural = replace(old.behavioural, parent=None)
    # Who released a later text from quarantine has not released this one.
    governance = replace(now.governance, trust=min(now.governance.trust, old.governance.trust))
    draft = replace(
        old, descriptive=replace(old.descriptive, recorded=None), governance=governance, behavioural=behavioural
    )
    entry = Entry(draft, words.counts(old.text), of(old.text))
    writer.rewrite(row.n, now, entry, None, "restore", kept=vectors_of(connection, then.n, then.version))
    return True


def _move(writer: Writer, id: bytes, row: Then, state: str, seq: int) -> None:
    """Back to a state, along no edge of the lifecycle: the moves since are undone, not answered by others."""
    former = None
    if state == State.FROZEN:
        statement = (
            "SELECT detail ->> '$.former' FROM journal WHERE number = ? AND seq <= ? AND action = ? ORDER BY seq DESC"
        )
        former = scalar(writer.connection, statement, (row.n, seq, state))
    # A time set for the other state must not count in this one: of the archive it would be the end.
    writer.connection.execute("UPDATE cubes SET state = ?, former = ? WHERE n = ?", (state, former, row.n))
    writer.look_again(row.n)
    writer.chain.append(state, format_id(id), place=(row.n, _scope(writer, row.n)), former=row.state)


def _scope(writer: Writer, n: int) -> int:
    return int(scalar(writer.connection, "SELECT scope FROM cubes WHERE n = ?", (n,)))


def _unused(connection: apsw.Connection, name: str) -> str:
    """The name, or with a number behind it if it is taken."""
    taken = {one for (one,) in query(connection, "SELECT name FROM snapshots UNION SELECT name FROM branches")}
    tries: Sequence[str] = [name[:180], *(f"{name[:180]} ({n})" for n in range(2, len(taken) + 3))]
    return next(one for one in tries if one not in taken)
