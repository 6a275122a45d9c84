"""Erasure: what a cube drags with it, taking it out, and what is told of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import apsw

from tercet import lifecycle
from tercet.cube import MemCube
from tercet.errors import Held, InvalidRequest
from tercet.lifecycle import State
from tercet.scope import DEFAULT_TENANT
from tercet.vault import blobs, jobs, slots
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.ids import format_id, parse_id
from tercet.vault.probe import Probe
from tercet.vault.reader import Reader
from tercet.vault.search import words
from tercet.vault.shares import end_shares
from tercet.vault.writer import Writer

ASKED = "somebody asked"
UNSCRUBBED = "the scrub job"


@dataclass(frozen=True, slots=True)
class Export:
    """A file outside the vault that holds what was erased: where it was written, its SHA-256 in hex, when, for whom."""

    path: str
    sha256: str
    at: datetime
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did.

    Attributes
    ----------
    erased, derived
        Every id that is gone, and those among them that were made from what was asked for.
    rows
        How many rows went, by table; "shares" are grants that named nothing else, and have ended.
    erased_at
        From then on nothing serves the content.
    scrubbed_at, waiting_for
        When the last byte of it was overwritten; while that is None, what it waits for.
    seq, head
        The journal's end at the erasure, and its hash there.
    unreachable
        Exports on record that hold some of it. The vault does not touch them.
    versions
        The newest version of each erased cube, by id; all of them up to it went.
    tenant
        Whose vault it was.
    cause, despite_hold
        Why it was erased, and the reason an administrator gave for doing so despite a hold.
    rebuilding
        How many products of many sources are made again from those that are left, by a job.
    probe
        What a search for it afterwards found: see `Probe`. None if there was none.
    key, signature
        The public key and the Ed25519 signature over all the rest, in hex; None if it is not signed.
    """

    erased: tuple[str, ...]
    derived: tuple[str, ...]
    rows: Mapping[str, int]
    erased_at: datetime
    scrubbed_at: datetime | None
    waiting_for: str | None
    seq: int
    head: str
    unreachable: tuple[Export, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    cause: str = ASKED
    despite_hold: str | None = None
    rebuilding: int = 0
    probe: Probe | None = None
    key: str | None = None
    signature: str | None = None


def closure(connection: apsw.Connection, numbers: Iterable[int]) -> list[int]:
    """The rows that hold content of these: those of every branch for the same cubes, those quoting the same pieces,
    and all that was made from any of them."""
    reached, border = set[int](), sorted(set(numbers))
    while border:
        reached |= set(border)
        found = set[int]()
        for start in range(0, len(border), 500):
            part = border[start : start + 500]
            found |= {n for (n,) in query(connection, _NEXT.format(marks(part)), part * 3)}
        with undamaged("What memories were made from"):
            border = sorted(found - reached)
    return sorted(reached)


_NEXT = """
SELECT product FROM derivations WHERE source IN ({0})
UNION SELECT b.cube FROM versions a JOIN versions b ON b.piece = a.piece WHERE a.cube IN ({0})
UNION SELECT b.n FROM cubes a JOIN cubes b ON b.id = a.id WHERE a.n IN ({0})
"""


def erase(
    writer: Writer, asked: Sequence[int], *, by: str = "forget", cause: str = ASKED, despite_hold: str | None = None
) -> Receipt:
    """Remove cubes and everything made from them, whole or not at all; leaves a scrub intent in the same transaction.

    A product of many sources is withdrawn with one of them; a job is put down to make it again from the others.

    Parameters
    ----------
    by
        What fires the edge to expired: the right to forget, or `lifecycle.RETENTION`.
    despite_hold
        A reason, which goes into the journal, to erase what a hold stands on.

    Raises
    ------
    Held
        If a hold stands on anything that would have to go.
    Refused
        If it is by retention, and something is frozen.
    """
    connection = writer.connection
    numbers = closure(connection, asked)
    # Rows as they are, whatever the writer's branch shows of them: their words are what the index has.
    found = dict(zip(numbers, Reader(connection, writer.tenant).cubes(numbers), strict=True))
    for cube in found.values():
        if cube.governance.hold is not None and despite_hold is None:
            raise Held(f"Memory {cube.id} is on hold ({cube.governance.hold}); nothing was erased.")
        lifecycle.step(cube.state, State.EXPIRED, by=by)
    chosen, exports = {found[n].id for n in asked if n in found}, _exports(connection, numbers)
    rebuilding, first = _rebuild(writer, found), writer.chain.seq + 1
    rows = _take_out(writer, found, chosen)
    gone = tuple(dict.fromkeys(cube.id for cube in found.values()))
    if found:
        writer.chain.append(
            "erasure",
            first=first,
            rows=rows,
            cause=cause,
            exports=[*exports],
            rebuilding=rebuilding,
            despite_hold=despite_hold,
        )
        writer.erased = True
        leave_scrub(writer)
    return Receipt(
        erased=gone,
        derived=tuple(id for id in gone if id not in chosen),
        rows=rows,
        erased_at=writer.at,
        scrubbed_at=None,
        waiting_for=UNSCRUBBED,
        seq=writer.chain.seq,
        head=writer.chain.hash.hex(),
        unreachable=tuple(exports.values()),
        versions=_versions((cube.id, cube.version) for cube in found.values()),
        tenant=writer.tenant,
        cause=cause,
        despite_hold=despite_hold,
        rebuilding=rebuilding,
    )


def _take_out(writer: Writer, found: Mapping[int, MemCube], chosen: Container[str]) -> dict[str, int]:
    """Remove rows with a line of the journal and of the ledger each; returns how many went, by table."""
    rows: dict[str, int] = {}
    places = set[tuple[int, int]]()
    for n, cube in found.items():
        owner, scope = writer.scope(cube.scope)
        places.add((owner, scope))
        writer.chain.branch = remove(writer.connection, n, cube, rows)
        about: dict[str, object] = {"former": cube.state.value, "derived": cube.id not in chosen}
        writer.chain.append("forget", cube.id, cube.version, place=(n, scope), **about)
        ledger = "INSERT OR IGNORE INTO erased VALUES (?, ?)"
        writer.connection.execute(ledger, (parse_id(cube.id), to_micros(writer.at)))
    writer.chain.branch = writer.branch
    slots.release(writer, list(found.values()))
    let_go_of_names(writer.connection, places, rows)
    end_shares(writer, found.values(), rows)
    return rows


def _versions(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The newest version of each cube; a branch may have had one of its own."""
    found: dict[str, int] = {}
    for id, version in pairs:
        found[id] = max(version, found.get(id, 0))
    return found


def leave_scrub(writer: Writer) -> None:
    """Put down, in the transaction that removes rows, that their bytes are to be overwritten."""
    # The words of a failed job's error may quote what is going.
    writer.connection.execute("UPDATE jobs SET error = NULL WHERE error IS NOT NULL")
    writer.connection.execute("INSERT INTO scrubs (at) VALUES (?)", (to_micros(writer.at),))
    jobs.enqueue(writer.connection, "scrub", {}, at=writer.at)


def receipt_at(reader: Reader, seq: int) -> Receipt:
    """The receipt of the erasure whose last line in the journal has that number, as things stand now.

    Raises
    ------
    InvalidRequest
        If no erasure ends at that line.
    """
    connection = reader.connection
    rows = query(connection, "SELECT at, detail, hash FROM journal WHERE seq = ? AND action = 'erasure'", (seq,))
    if not rows:
        raise InvalidRequest(f"No erasure ends at line {seq!r:.30} of the journal; a receipt's `seq` is one.")
    [(at, text, hash)] = rows
    with undamaged(f"The journal's line {seq}"):
        told = json.loads(text)
        lines = query(
            connection,
            "SELECT cube, version, detail FROM journal WHERE seq BETWEEN ? AND ? AND action = 'forget' ORDER BY seq",
            (told["first"], seq),
        )
        gone = [(format_id(id), version, json.loads(said)["derived"]) for id, version, said in lines]
        scrubbed = scalar(connection, _SCRUBBED, (seq, seq))
        return Receipt(
            erased=tuple(dict.fromkeys(id for id, _, _ in gone)),
            derived=tuple(dict.fromkeys(id for id, _, derived in gone if derived)),
            rows=told["rows"],
            erased_at=from_micros(at),
            scrubbed_at=None if scrubbed is None else from_micros(scrubbed),
            waiting_for=UNSCRUBBED if scrubbed is None else None,
            seq=seq,
            head=hash.hex(),
            unreachable=tuple(_exported(connection, told["exports"]).values()),
            versions=_versions((id, version) for id, version, _ in gone),
            tenant=reader.tenant,
            cause=told["cause"],
            despite_hold=told["despite_hold"],
            rebuilding=told["rebuilding"],
        )


_SCRUBBED = """
SELECT at FROM journal WHERE action = 'scrub' AND seq > ? AND detail ->> '$.upto' >= ? ORDER BY seq LIMIT 1
"""


def _exports(connection: apsw.Connection, numbers: Sequence[int]) -> dict[int, Export]:
    """The exports on record that hold one of these cubes, by number."""
    found = set[int]()
    for start in range(0, len(numbers), 500):
        part = numbers[start : start + 500]
        statement = f"SELECT DISTINCT export FROM exported WHERE cube IN ({marks(part)})"  # noqa: S608  # marks only
        found |= {n for (n,) in query(connection, statement, part)}
    return _exported(connection, sorted(found))


def _exported(connection: apsw.Connection, numbers: Sequence[int]) -> dict[int, Export]:
    statement = f"SELECT n, path, sha256, at, recipient FROM exports WHERE n IN ({marks(numbers)}) ORDER BY n"  # noqa: S608
    return {
        n: Export(path, sha256.hex(), from_micros(at), recipient)
        for n, path, sha256, at, recipient in query(connection, statement, numbers)
    }


def _rebuild(writer: Writer, gone: Mapping[int, MemCube]) -> int:
    """Put down a job for every product that loses some of its sources and keeps others; returns how many."""
    ids, count = {cube.id for cube in gone.values()}, 0
    for cube in gone.values():
        b = cube.behavioural
        left = [link.id for link in b.derivations if link.id not in ids]
        if left and len(left) < len(b.derivations) and b.method is not None:
            body = {"method": b.method, "sources": left, "type": cube.descriptive.type}
            jobs.enqueue(writer.connection, "rebuild", body, at=writer.at)
            count += 1
    return count


def let_go_of_names(connection: apsw.Connection, places: Iterable[tuple[int, int]], rows: dict[str, int]) -> None:
    """The names of users and scopes that hold nothing any more go, too: they are content."""
    for owner, scope in places:
        for (table, unused), n in zip(UNUSED_NAMES.items(), (scope, owner), strict=True):
            connection.execute(f"DELETE FROM {table} WHERE n = ? AND {unused}", (n,))  # noqa: S608  # our own words
            if connection.changes():
                rows[table] = rows.get(table, 0) + 1


UNUSED_NAMES: Mapping[str, str] = {
    "scopes": "NOT EXISTS (SELECT 1 FROM cubes WHERE scope = scopes.n)",
    "owners": "NOT EXISTS (SELECT 1 FROM scopes WHERE owner = owners.n)",
}
"""Table -> the condition under which a row of it names nobody who is remembered, in the order in which they go."""


def remove(connection: apsw.Connection, n: int, cube: MemCube, rows: dict[str, int]) -> int:
    """Take out one row with all that hangs on its number, and count by table; returns its branch."""
    where = "SELECT s.owner, c.branch FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?"
    [(owner, branch)] = query(connection, where, (n,))
    pieces = [p for (p,) in query(connection, "SELECT piece FROM versions WHERE cube = ? AND piece IS NOT NULL", (n,))]
    terms = words.counts(cube.text)
    words.remove(connection, owner, n, terms)
    rows["postings"] = rows.get("postings", 0) + len(terms)
    rows["blobs"] = rows.get("blobs", 0) + blobs.release(connection, n)
    statements = [
        ("attributes", "DELETE FROM attributes WHERE owner = ? AND cube = ?", (owner, n)),
        ("vectors", "DELETE FROM vectors WHERE cube = ?", (n,)),
        ("old_vectors", "DELETE FROM old_vectors WHERE cube = ?", (n,)),
        ("derivations", "DELETE FROM derivations WHERE product = ? OR source = ?", (n, n)),
        ("exported", "DELETE FROM exported WHERE cube = ?", (n,)),
        ("uses", "DELETE FROM uses WHERE cube = ?", (n,)),
        ("injected", "UPDATE injected SET version = NULL, score = NULL WHERE cube = ?", (parse_id(cube.id),)),
        ("versions", "DELETE FROM versions WHERE cube = ?", (n,)),
        ("cubes", "DELETE FROM cubes WHERE n = ?", (n,)),
    ]
    statements += [("episodes", "DELETE FROM episodes WHERE n = ?", (piece,)) for piece in pieces]
    for table, statement, bindings in statements:
        connection.execute(statement, bindings)
        if connection.changes():
            rows[table] = rows.get(table, 0) + connection.changes()
    return int(branch)
