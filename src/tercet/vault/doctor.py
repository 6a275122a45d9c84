"""Proof that every index says what the rows say, and repair where one does not. Rows are the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from tercet.cube import MemCube, Scalar
from tercet.errors import VaultDamaged
from tercet.vault import journal
from tercet.vault.connection import atomic, marks, query, scalar
from tercet.vault.reader import Reader
from tercet.vault.search import words
from tercet.vault.writer import attributes

BATCH = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `repaired` says whether it was put right."""

    what: str
    detail: str
    repaired: bool = False


def examine(connection: apsw.Connection, tenant: str, *, repair: bool) -> list[Finding]:
    """Check one tenant's file; an empty list means that all is well.

    It runs SQLite's own check, re-reads every version against its commitment, walks the journal, and compares words,
    attributes and vectors with what the rows would give. With `repair`, indexes are rebuilt from rows; damaged content
    is only named, since nothing here can know it.
    """
    findings = [Finding("file", line) for (line,) in query(connection, "PRAGMA integrity_check") if line != "ok"]
    try:
        journal.verify(connection)
    except VaultDamaged as error:
        findings.append(Finding("journal", str(error)))
    findings += _content(connection, tenant)
    findings += _unlogged(connection)
    with atomic(connection):
        findings += _heads(connection)
        findings += _words(connection, tenant, repair=repair)
        findings += _attributes(connection, tenant, repair=repair)
        findings += _orphans(connection, repair=repair)
    return findings


def _numbers(connection: apsw.Connection) -> Iterator[list[int]]:
    after = 0
    while rows := query(connection, "SELECT n FROM cubes WHERE n > ? ORDER BY n LIMIT ?", (after, BATCH)):
        yield [n for (n,) in rows]
        after = rows[-1][0]


def _content(connection: apsw.Connection, tenant: str) -> Iterator[Finding]:
    reader = Reader(connection, tenant)
    for numbers in _numbers(connection):
        for n in numbers:
            try:
                if not reader.versions(n):
                    yield Finding("content", f"cube number {n} has no version to show")
            except VaultDamaged as error:
                yield Finding("content", str(error))


def _unlogged(connection: apsw.Connection) -> Iterator[Finding]:
    # A chain that was cut at its end is whole as far as it goes; the versions tell that it went further.
    rows = query(
        connection,
        "SELECT v.seq FROM versions v LEFT JOIN journal j ON j.seq = v.seq "
        "WHERE json_extract(j.detail, '$.commitment') IS NOT lower(hex(v.commitment)) ORDER BY 1",
    )
    for (seq,) in rows:
        yield Finding("journal", f"line {seq} does not name the version that was written with it")


def _heads(connection: apsw.Connection) -> Iterator[Finding]:
    rows = query(
        connection,
        "SELECT c.n, c.version, max(v.version) FROM cubes c LEFT JOIN versions v ON v.cube = c.n AND v.branch = 0 "
        "GROUP BY c.n HAVING c.version IS NOT max(v.version)",
    )
    for n, version, newest in rows:
        yield Finding("content", f"cube number {n} says version {version} and the newest kept is {newest}")


def _sound(connection: apsw.Connection, tenant: str) -> Iterator[tuple[int, int, int, MemCube]]:
    """Number, owner, count of words and newest version of every cube that can be read."""
    reader = Reader(connection, tenant)
    for numbers in _numbers(connection):
        statement = f"SELECT c.n, s.owner, c.words {_OWNED} WHERE c.n IN ({marks(numbers)})"
        for n, owner, count in query(connection, statement, numbers):
            try:
                [cube] = reader.cubes([n])
            except (VaultDamaged, ValueError):
                continue  # named already
            yield n, owner, count, cube


_OWNED = "FROM cubes c JOIN scopes s ON s.n = c.scope"


def _words(connection: apsw.Connection, tenant: str, *, repair: bool) -> Iterator[Finding]:
    # Postings stand by owner and term: what a cube holds beyond its terms is seen only in a count over all of them.
    held = dict(query(connection, "SELECT cube, count(*) FROM postings GROUP BY cube"))
    for n, owner, count, cube in _sound(connection, tenant):
        wanted = words.counts(cube.text)
        found = [scalar(connection, _POSTING, (owner, term, n)) for term in wanted]
        right = sum(times == there for times, there in zip(wanted.values(), found, strict=True))
        if right == len(wanted) == held.get(n, 0) and count == sum(wanted.values()):
            continue
        if repair:
            connection.execute("DELETE FROM postings WHERE cube = ?", (n,))
            words.add(connection, [(owner, n, wanted)])
            connection.execute("UPDATE cubes SET words = ? WHERE n = ?", (sum(wanted.values()), n))
        detail = f"memory {cube.id}: {len(wanted)} terms wanted, {held.get(n, 0)} found, {right} of them right"
        yield Finding("words", detail, repair)


_POSTING = "SELECT count FROM postings WHERE owner = ? AND term = ? AND cube = ?"


def _attributes(connection: apsw.Connection, tenant: str, *, repair: bool) -> Iterator[Finding]:
    held: dict[int, set[tuple[int, str, Scalar]]] = {}
    for owner, key, value, n in query(connection, "SELECT owner, key, value, cube FROM attributes"):
        held.setdefault(n, set()).add((owner, key, value))
    for n, owner, _, cube in _sound(connection, tenant):
        wanted = {(owner, key, value) for key, value in attributes(cube)}
        if wanted == held.get(n, set()):
            continue
        if repair:
            connection.execute("DELETE FROM attributes WHERE cube = ?", (n,))
            connection.executemany("INSERT INTO attributes VALUES (?, ?, ?, ?)", [(*row, n) for row in wanted])
        yield Finding(
            "attributes", f"memory {cube.id}: {len(wanted)} labels wanted, {len(held.get(n, ()))} found", repair
        )


_ORPHANS = {
    "postings": "FROM postings WHERE cube NOT IN (SELECT n FROM cubes)",
    "attributes": "FROM attributes WHERE cube NOT IN (SELECT n FROM cubes)",
    "vectors": "FROM vectors WHERE cube NOT IN (SELECT n FROM cubes)",
    "episodes": "FROM episodes WHERE n NOT IN (SELECT piece FROM versions WHERE piece IS NOT NULL)",
    "uses": "FROM uses WHERE cube NOT IN (SELECT n FROM cubes)",
    "derivations": "FROM derivations WHERE product NOT IN (SELECT n FROM cubes)",
    "short vectors": "FROM vectors WHERE n IN (SELECT v.n FROM vectors v JOIN spaces p ON p.n = v.space "
    "WHERE length(v.vectors) = 0 OR length(v.vectors) % (2 * p.dim) != 0)",
}


def _orphans(connection: apsw.Connection, *, repair: bool) -> Iterator[Finding]:
    for name, rest in _ORPHANS.items():
        [(count,)] = query(connection, f"SELECT count(*) {rest}")
        if count:
            if repair:
                connection.execute(f"DELETE {rest}")
            yield Finding(name, f"{count} rows that belong to no memory", repair)
