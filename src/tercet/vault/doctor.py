"""Proof that every index says what the rows say, and repair where one does not. Rows are the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from tercet.errors import VaultDamaged
from tercet.vault import journal
from tercet.vault.connection import atomic, query
from tercet.vault.reader import Reader
from tercet.vault.search import words

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
    with atomic(connection):
        findings += _words(connection, tenant, repair=repair)
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
                if not reader.cubes([n]):
                    yield Finding("content", f"cube number {n} has no version to show")
            except VaultDamaged as error:
                yield Finding("content", str(error))


def _words(connection: apsw.Connection, tenant: str, *, repair: bool) -> Iterator[Finding]:
    reader = Reader(connection, tenant)
    for numbers in _numbers(connection):
        for n in numbers:
            try:
                [cube] = reader.cubes([n])
            except (VaultDamaged, ValueError):
                continue  # named already
            [(owner,)] = query(
                connection, "SELECT s.owner FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?", (n,)
            )
            wanted = words.counts(cube.text)
            terms = list(wanted)
            held = {
                term: count
                for term in terms
                for (count,) in query(
                    connection,
                    "SELECT count FROM postings WHERE owner = ? AND term = ? AND cube = ?",
                    (owner, term, n),
                )
            }
            if held != dict(wanted):
                if repair:
                    words.remove(connection, owner, n, terms)
                    words.add(connection, [(owner, n, wanted)])
                yield Finding("words", f"memory {cube.id}: {len(wanted)} terms wanted, {len(held)} found", repair)


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
