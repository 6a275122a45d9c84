"""Branches and snapshots: names for a line of versions, and for a moment on one.

A branch is a row that names its parent and a line of the journal; it shows its parent as of that line, and over it the
rows of its own. A snapshot is a row that names a branch and a line of the journal. Neither copies anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import apsw

from tercet.errors import InvalidRequest, MissingBranch
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import query, scalar, undamaged
from tercet.vault.journal import head

if TYPE_CHECKING:
    from tercet.vault.writer import Writer

MAIN, PRESENT = "main", "now"
"""Names that are taken: of the line that is always there, and of its newest state."""
OPEN = 2**63 - 1
"""No end yet: beyond every line that a journal can have."""
MAX_NAME = 200

Known: TypeAlias = datetime | int | None
"""What was known at a time, or up to a line of the journal; None: all."""


@dataclass(frozen=True, slots=True)
class Branch:
    """An overlay over `parent` as of line `fork` of the journal; `memories` have rows of its own in it."""

    name: str
    parent: str
    fork: int
    at: datetime
    memories: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `branch` showed after line `seq` of the journal; taken at `at`."""

    name: str
    branch: str
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Layer:
    """The rows of one branch, as they were after a line of the journal."""

    branch: int
    until: int


@dataclass(frozen=True, slots=True)
class Line:
    """Layers, the uppermost first: a cube is shown by the first that had it, unless it was hidden there."""

    layers: tuple[Layer, ...]

    @property
    def branch(self) -> int:
        """The number of the branch that it is the line of."""
        return self.layers[0].branch

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of all branches in it."""
        return tuple(layer.branch for layer in self.layers)

    @property
    def plain(self) -> bool:
        """Whether it is the main line as it is now, which needs no overlay."""
        return self == TRUNK

    @property
    def seen(self) -> str:
        """A condition over `cubes c` that holds for its rows as they are now, hidden ones apart."""
        return f"c.branch IN ({','.join(map(str, self.numbers))}) AND c.hidden = 0"


TRUNK = Line((Layer(0, OPEN),))


@dataclass(frozen=True, slots=True)
class Moment:
    """Which branch is looked at (None: the main line), and with what that was known when."""

    branch: str | None = None
    known: Known = None


HERE = Moment()
"""The main line, now."""


def line_at(connection: apsw.Connection, moment: Moment) -> Line:
    """The line that a moment means. Raises MissingBranch, InvalidRequest."""
    if moment == HERE:
        return TRUNK
    return line_of(connection, branch_number(connection, moment.branch), _seq(connection, moment.known))


def line_of(connection: apsw.Connection, branch: int, until: int = OPEN) -> Line:
    """The line of a branch up to a line of the journal, down to the main line."""
    layers = [Layer(branch, until)]
    while branch:
        rows = query(connection, "SELECT parent, fork FROM branches WHERE n = ?", (branch,))
        with undamaged("The list of branches"):
            [(parent, fork)] = rows
            if parent >= branch:
                raise ValueError(f"branch {branch} has a parent that is younger")
        branch, until = parent, min(until, fork)
        layers.append(Layer(branch, until))
    return Line(tuple(layers))


def named_line(connection: apsw.Connection, name: str) -> Line:
    """The line of a snapshot, of a branch, or "now". Raises MissingBranch."""
    if name == PRESENT:
        return TRUNK
    rows = query(connection, "SELECT branch, seq FROM snapshots WHERE name = ?", (name,))
    return line_of(connection, *rows[0]) if rows else line_of(connection, branch_number(connection, name))


def branch_number(connection: apsw.Connection, name: str | None) -> int:
    """The number of a branch. Raises MissingBranch."""
    if name is None or name == MAIN:
        return 0
    n = scalar(connection, "SELECT n FROM branches WHERE name = ?", (name,))
    if n is None:
        raise MissingBranch(name)
    return int(n)


def branch_name(connection: apsw.Connection, number: int) -> str:
    """The name of a branch, given its number."""
    return MAIN if number == 0 else str(scalar(connection, "SELECT name FROM branches WHERE n = ?", (number,)))


def check_name(name: object) -> str:
    """Return a name that a branch or a snapshot may have. Raises InvalidRequest."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidRequest(f"A name is printable text of 1 to {MAX_NAME} characters, not {name!r:.80}.")
    if name in {MAIN, PRESENT}:
        raise InvalidRequest(f"{name!r} always means the main line; choose another name.")
    return name


def check_known(known: Known) -> Known:
    """Return what `as_of` may be asked for. Raises InvalidRequest."""
    if isinstance(known, int) and (isinstance(known, bool) or known < 0):
        raise InvalidRequest(f"known is a time or a line of the journal such as a change's `.seq`, not {known!r}.")
    return known


def take_snapshot(writer: Writer, name: str) -> Snapshot:
    """Name what the writer's branch shows now. Raises InvalidRequest if the name is taken."""
    connection = writer.connection
    _free(connection, check_name(name))
    branch, seq = writer.branch, writer.chain.seq
    connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?)", (name, branch, seq, to_micros(writer.at)))
    writer.chain.append("snapshot", of=branch, upto=seq)
    return Snapshot(name, branch_name(connection, branch), seq, writer.at)


def make_branch(writer: Writer, name: str, source: str | None) -> Branch:
    """Begin a branch at a snapshot, or where another branch is now (None: the main line).

    Raises
    ------
    InvalidRequest
        If the name is taken.
    MissingBranch
        If there is no such snapshot or branch.
    """
    connection = writer.connection
    _free(connection, check_name(name))
    top = named_line(connection, PRESENT if source is None else source).layers[0]
    fork = min(top.until, writer.chain.seq)
    statement = "INSERT INTO branches (name, parent, fork, at) VALUES (?, ?, ?, ?) RETURNING n"
    n = scalar(connection, statement, (name, top.branch, fork, to_micros(writer.at)))
    writer.chain.append("branch", of=n, parent=top.branch, fork=fork)
    return Branch(name, branch_name(connection, top.branch), fork, writer.at, 0)


def snapshots(connection: apsw.Connection) -> Sequence[Snapshot]:
    """All snapshots, oldest first."""
    rows = query(connection, "SELECT name, branch, seq, at FROM snapshots ORDER BY seq, at, name")
    with undamaged("The list of snapshots"):
        return [Snapshot(name, branch_name(connection, branch), seq, from_micros(at)) for name, branch, seq, at in rows]


def branches(connection: apsw.Connection) -> Sequence[Branch]:
    """All branches but the main line, oldest first."""
    rows = query(
        connection,
        "SELECT name, parent, fork, at, (SELECT count(*) FROM cubes c WHERE c.branch = b.n AND c.branch > 0) "
        "FROM branches b ORDER BY n",
    )
    with undamaged("The list of branches"):
        return [
            Branch(name, branch_name(connection, parent), fork, from_micros(at), memories)
            for name, parent, fork, at, memories in rows
        ]


def _free(connection: apsw.Connection, name: str) -> None:
    for table in ("branches", "snapshots"):
        if scalar(connection, f"SELECT 1 FROM {table} WHERE name = ?", (name,)):  # noqa: S608  # our own names
            raise InvalidRequest(f"The name {name!r} is taken by one of the {table}; choose another or drop that one.")


def _seq(connection: apsw.Connection, known: Known) -> int:
    """The last line whose running maximum of times is not after `known`: where a clock went back, order decides."""
    if known is None:
        return OPEN
    if isinstance(known, int):
        return OPEN if known >= head(connection)[0] else known
    after = scalar(connection, "SELECT min(seq) FROM journal WHERE at > ?", (to_micros(known),))
    return OPEN if after is None else int(after) - 1
