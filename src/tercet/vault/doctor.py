"""Proof that every index says what the rows say, and repair where one does not. Rows are the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np

from tercet.cube import MemCube, Scalar
from tercet.errors import VaultBusy, VaultDamaged, VaultError, VaultTooNew
from tercet.vault import blobs, jobs, journal, ledger, mark
from tercet.vault.codec import from_micros
from tercet.vault.connection import atomic, key_of, query, rising, scalar, snapshot, translated, undamaged
from tercet.vault.datakeys import Seal
from tercet.vault.erase import UNUSED_NAMES
from tercet.vault.heads import attributes, heading
from tercet.vault.ids import parse_id
from tercet.vault.reader import Reader
from tercet.vault.rebuild import rebuild
from tercet.vault.search import wide, words
from tercet.vault.search.segment import Segment
from tercet.vault.search.vectors import unpack
from tercet.vault.sqlite import SqliteVault, Tenant, file_name, segments_of

BATCH = 500
MOST_LINES = 20
"""Of SQLite's own check; a file with that many faults has more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `repaired` says whether it was put right."""

    what: str
    detail: str
    repaired: bool = False


def examine_all(vault: SqliteVault, *, repair: bool) -> dict[str, list[Finding]]:
    """Check every file of a vault; returns what was found by tenant, or by the file's name where it cannot be told.

    One damaged file does not keep the others from being checked.
    """
    found: dict[str, list[Finding]] = {}
    for path in vault.paths():
        try:
            name = vault.owner(path)
            if name is None:
                continue
            if path.stem != file_name(name):
                detail = f"{path.name} holds tenant {name!r}, whose file is {file_name(name)}.db; was it renamed?"
                found[path.stem] = [Finding("file", detail)]
                continue
            tenant = vault.tenant(name)
            with tenant.maintaining(trusting=True) as connection:
                found[name] = [
                    *_lost(connection, path, repair=repair),
                    *_pages(connection, vault.vfs),
                    *examine(connection, name, repair=repair),
                    *_segments(connection, tenant, repair=repair),
                    *_ledger(connection, path, repair=repair),
                    *(Finding("blobs", *one) for one in blobs.examine(connection, tenant.blobs, repair=repair)),
                ]
            if repair and (again := tenant.recheck()):
                found[name].append(Finding("erased", f"{len(again)} memories were erased again", repaired=True))
        except VaultTooNew:
            raise
        except VaultDamaged as error:
            found[path.stem] = [Finding("file", str(error))]
        else:
            if repair:
                tenant.forget_cache()
    return found


Check = Callable[[apsw.Connection, str, bool], Iterator[Finding]]
"""Looks at a connection to a tenant's file, in a transaction; repairs if the flag is set."""


def examine(connection: apsw.Connection, tenant: str, *, repair: bool) -> list[Finding]:
    """Check one tenant's file; an empty list means that all is well.

    It runs SQLite's own check, walks the journal, re-reads every version against its commitment and its journal line,
    and compares heads, words, attributes, derivations and vectors with what the rows would give. With `repair`, all
    that is made from rows is made again; damaged content is only named, since nothing here can know it.

    Raises
    ------
    VaultBusy
        If another process keeps the file locked.
    """
    findings = _guarded("file", connection, tenant, _file, repair=False)
    if findings and repair:
        # A damaged tree can be neither read nor mended in place: the file is written anew, from its rows alone.
        trouble = rebuild(connection)
        findings = [Finding("file", f"{one.detail}; {trouble or 'written anew'}", trouble is None) for one in findings]
    for name, check in CHECKS.items():
        findings += _guarded(name, connection, tenant, check, repair=repair)
    return findings


def _pages(connection: apsw.Connection, vfs: str | None) -> Iterator[Finding]:
    """A sealed file opens throughout: in pages that nothing uses, too, and in the bytes before the first one."""
    key = key_of(connection)
    if key is None:
        return
    try:
        with translated():
            connection.serialize("main")  # reads every page, each of which is authenticated
    except VaultDamaged as error:
        yield Finding("file", str(error))
    opened = apsw.VFSFile(vfs or "", connection.filename, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        begins = opened.xRead(len(BEGINS), 0)
    finally:
        opened.xClose()
    salt = bytes.fromhex(key[-2 * SALT :])
    if begins != salt + BEGINS[SALT:]:
        yield Finding("file", "it does not begin as a file that this key seals")


SALT = 16
BEGINS = bytes(SALT) + bytes.fromhex("1000020240402020")
"""How a sealed file begins: 16 bytes of its key's, then pages of 4,096 bytes of which 64 are the cipher's, a log."""


def _lost(connection: apsw.Connection, path: Path, *, repair: bool) -> Iterator[Finding]:
    """Whether acknowledged writes are missing; with `repair` the vault goes on without them."""
    try:
        mark.check(connection, path)
    except VaultDamaged as error:
        if repair:
            mark.write(path, *journal.head(connection))
        yield Finding("lost writes", str(error), repair)
    if mark.mark_of(path).exists() and mark.read(path) is None:
        if repair:
            mark.write(path, *journal.head(connection))
        yield Finding("mark", f"{mark.mark_of(path).name} is damaged; it says how far the journal has come", repair)


def _ledger(connection: apsw.Connection, path: Path, *, repair: bool) -> Iterator[Finding]:
    """The ledger of erasures beside the file: whole, and no more than the file knows of."""
    try:
        _, whole = ledger.read(path)
        unknown = len(ledger.missing(connection, path))
    except OSError as error:
        yield Finding("ledger", f"{ledger.ledger_of(path).name} cannot be read: {error.strerror}")
        return
    if unknown:
        yield Finding(
            "ledger", f"{unknown} erasures of {ledger.ledger_of(path).name} are not known to the file", repair
        )
    if not whole:
        yield Finding("ledger", f"{ledger.ledger_of(path).name} is damaged", repair)


def _segments(connection: apsw.Connection, tenant: Tenant, *, repair: bool) -> Iterator[Finding]:
    """Coded segments that are damaged or hold something else than the table; without its file one is made anew."""
    with undamaged("The list of segments"):
        spaces = [n for (n,) in query(connection, "SELECT n FROM spaces")]
        known = {name: n for n in spaces if (name := wide.registered(connection, n)) is not None}
    seal = tenant.keys.seal()
    for path in sorted(segments_of(tenant.path).glob("*.lvq")):
        trouble = _segment_trouble(connection, path, known.get(path.name), seal)
        if trouble is None:
            continue
        if repair:
            path.unlink()
            jobs.enqueue(connection, "index", {}, at=from_micros(0))
        yield Finding("segments", f"{path.name}: {trouble}", repair)


def _segment_trouble(connection: apsw.Connection, path: Path, space: int | None, seal: Seal | None) -> str | None:
    if space is None:
        return "no embedding space has it"
    try:
        segment = Segment.open(path, seal)
        segment.scores(np.ones(segment.dim, np.float32))  # reads the second level, whose blocks have checksums too
    except VaultDamaged as error:
        return str(error)
    with snapshot(connection):
        changed = wide.changed_since(connection, segment.seq)
        held = [n for (n,) in query(connection, f"SELECT cube {wide.HELD}", (space,))]
    same = np.array_equal(np.setdiff1d(segment.numbers, changed), np.setdiff1d(held, changed))
    return None if same else "it does not hold the memories that the table holds"


def _numbers(connection: apsw.Connection) -> Iterator[int]:
    after = 0
    while rows := query(connection, "SELECT n FROM cubes WHERE n > ? ORDER BY n LIMIT ?", (after, BATCH)):
        yield from rising([n for (n,) in rows], after)
        after = rows[-1][0]


def _sound(connection: apsw.Connection, tenant: str) -> Iterator[tuple[int, int, MemCube]]:
    """Number, owner and newest version of every cube that can be read; the others are named by `_content`."""
    reader = Reader(connection, tenant)
    for n in _numbers(connection):
        try:
            [cube] = reader.cubes([n])
        except VaultDamaged:
            continue
        yield (
            n,
            scalar(connection, "SELECT s.owner FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?", (n,)),
            cube,
        )


def _commitment(detail: object) -> str | None:
    """What a journal line says of the version that was written with it; None if it says nothing one could read."""
    try:
        said = json.loads(detail) if isinstance(detail, str) else None
    except ValueError:
        return None
    return said.get("commitment") if isinstance(said, dict) else None


def _unit(blob: object, dim: object) -> bool:
    """Whether these are the bytes of vectors of that dimension and norm one."""
    if not isinstance(blob, bytes) or not isinstance(dim, int) or not blob or len(blob) % (2 * dim):
        return False
    norms = np.linalg.norm(unpack(blob, dim).astype(np.float32), axis=1)
    return bool((abs(norms - 1) < 0.01).all())  # fp16 rounds; NaN fails


def _guarded(name: str, connection: apsw.Connection, tenant: str, check: Check, *, repair: bool) -> list[Finding]:
    """What a check found; that it could not be done for damage is a finding too."""
    try:
        with translated(), atomic(connection) if repair else snapshot(connection):
            return list(check(connection, tenant, repair))
    except VaultBusy:
        raise
    except VaultError as error:
        return [Finding(name, str(error))]


def _file(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    for (line,) in query(connection, f"PRAGMA integrity_check({MOST_LINES})"):
        if line != "ok":
            yield Finding("file", line)
    # SQLite's check looks for each row in an index, and passes over entries of a partial index that no row has.
    parts = "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    for name, table, sql in query(connection, parts):
        where = sql.partition(" WHERE ")[2] or "TRUE"
        ways = (f'INDEXED BY "{name}"', "NOT INDEXED")
        by_index, by_row = (
            scalar(connection, f'SELECT count(*) FROM "{table}" {way} WHERE {where}')  # noqa: S608  # the schema's own
            for way in ways
        )
        if by_index != by_row:
            if repair:
                connection.execute(f'REINDEX "{name}"')
            yield Finding("file", f"index {name} has {by_index} entries for {by_row} rows", repair)


def _journal(connection: apsw.Connection, _tenant: str, _repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    lines = journal.verify(connection)
    # A chain that was cut at its end is whole as far as it goes; SQLite remembers the last number that it gave.
    given = scalar(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'journal'") or 0
    if given != lines:
        yield Finding("journal", f"it ends at line {lines} and went up to {given}")


def _content(connection: apsw.Connection, tenant: str, _repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    reader = Reader(connection, tenant)
    for n in _numbers(connection):
        try:
            reader.versions(n)
        except VaultDamaged as error:
            yield Finding("content", str(error))
    for (n,) in query(connection, "SELECT DISTINCT cube FROM versions WHERE cube NOT IN (SELECT n FROM cubes)"):
        yield Finding("content", f"cube number {n} has versions and no head")
    lost = "SELECT seq FROM versions WHERE piece IS NOT NULL AND piece NOT IN (SELECT n FROM episodes)"
    for (seq,) in query(connection, lost):
        yield Finding("content", f"the piece of an episode that version {seq} quotes is missing")


def _unlogged(connection: apsw.Connection, _tenant: str, _repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    kept = "SELECT v.seq, v.commitment, j.detail FROM versions v LEFT JOIN journal j ON j.seq = v.seq ORDER BY 1"
    for seq, commitment, detail in query(connection, kept):
        if not isinstance(commitment, bytes) or _commitment(detail) != commitment.hex():
            yield Finding("journal", f"line {seq} does not name the version that was written with it")
    # And the other way round: a version that was written, and whose cube was not erased, is there.
    logged = (
        "SELECT j.seq, j.version, j.detail FROM journal j WHERE j.version IS NOT NULL AND j.detail IS NOT NULL "
        "AND j.cube NOT IN (SELECT id FROM erased) AND j.seq NOT IN (SELECT seq FROM versions) "
        "AND j.number NOT IN (SELECT number FROM journal WHERE action = 'drop' AND number > 0) ORDER BY 1"
    )
    for seq, version, detail in query(connection, logged):
        if _commitment(detail) is not None:
            yield Finding("content", f"version {version} of a memory, written with line {seq}, is missing")


def _erased(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    missing = "FROM journal WHERE action = 'forget' AND cube NOT IN (SELECT id FROM erased)"
    count = scalar(connection, f"SELECT count(DISTINCT cube) {missing}")
    if count:
        if repair:
            connection.execute(f"INSERT OR IGNORE INTO erased SELECT cube, at {missing}")
        yield Finding("erased", f"{count} erased ids are not in the ledger", repair)
    for (n,) in query(connection, "SELECT n FROM cubes WHERE id IN (SELECT id FROM erased)"):
        yield Finding("erased", f"cube number {n} was erased and is there")


def _names(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    for table, unused in UNUSED_NAMES.items():
        [(count,)] = query(connection, f"SELECT count(*) FROM {table} WHERE {unused}")  # noqa: S608  # our own words
        if count:
            if repair:
                connection.execute(f"DELETE FROM {table} WHERE {unused}")  # noqa: S608  # our own words
            yield Finding("names", f"{count} rows of {table} name somebody of whom nothing is remembered", repair)


def _ends(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    waiting = scalar(connection, f"SELECT count(*) FROM cubes WHERE {_ENDING}")  # noqa: S608  # our own words
    yield from _wanted(connection, "sweep", "ends", waiting, repair=repair)


_ENDING = "(expires IS NOT NULL OR due IS NOT NULL) AND held = 0 AND branch = 0 AND state != 'frozen'"


def _heads(connection: apsw.Connection, tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    for n, version, newest, logged in query(connection, _ASTRAY):
        mended = repair and newest == logged  # else a version is lost, and an older one must not pass for the newest
        if mended:
            connection.execute("UPDATE cubes SET version = ? WHERE n = ?", (newest, n))
        detail = f"cube number {n} says version {version}, the newest kept is {newest}, the newest logged {logged}"
        yield Finding("heads", detail, mended)
    for n, _, cube in _sound(connection, tenant):
        wanted = heading(cube)
        [found] = query(connection, f"SELECT {', '.join(wanted)} FROM cubes WHERE n = ?", (n,))  # noqa: S608  # our names
        wrong = [name for (name, value), held in zip(wanted.items(), found, strict=True) if value != held]
        if wrong:
            if repair:
                names = ", ".join(f"{name} = ?" for name in wrong)
                values = [wanted[name] for name in wrong]
                connection.execute(f"UPDATE cubes SET {names} WHERE n = ?", (*values, n))  # noqa: S608
            yield Finding("heads", f"memory {cube.id}: the head says another {', '.join(wrong)}", repair)


_ASTRAY = """
SELECT c.n, c.version, max(v.version) AS newest, (
    SELECT max(j.version) FROM journal j WHERE j.cube = c.id AND j.number = c.n
) FROM cubes c LEFT JOIN versions v ON v.cube = c.n AND v.branch = c.branch GROUP BY c.n HAVING c.version IS NOT newest
"""


def _words(connection: apsw.Connection, tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    # Postings stand by owner and term: what a cube holds beyond its terms is seen only in a count over all of them.
    held = words.held(connection)
    wrong: list[tuple[int, int, Mapping[str, int]]] = []
    for n, owner, cube in _sound(connection, tenant):
        wanted, there = words.counts(cube.text), held.pop(n, 0)
        right = sum(words.times(connection, owner, n, term) == times for term, times in wanted.items())
        length = scalar(connection, "SELECT words FROM cubes WHERE n = ?", (n,))
        if right == len(wanted) == there and length == sum(wanted.values()):
            continue
        wrong.append((owner, n, wanted))
        detail = f"memory {cube.id}: {len(wanted)} terms wanted, {there} found, {right} of them right"
        yield Finding("words", detail, repair)
    strange = set(held) - {n for (n,) in query(connection, "SELECT n FROM cubes")}
    if strange:
        yield Finding("words", f"the index has {len(strange)} cubes that are no memory", repair)
    if repair and (wrong or strange):
        words.purge(connection, strange | {n for _, n, _ in wrong})
        words.add(connection, wrong)
        lengths = [(sum(wanted.values()), n) for _, n, wanted in wrong]
        connection.executemany("UPDATE cubes SET words = ? WHERE n = ?", lengths)


def _attributes(connection: apsw.Connection, tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    held: dict[int, set[tuple[int, str, Scalar]]] = {}
    for owner, key, value, n in query(connection, "SELECT owner, key, value, cube FROM attributes"):
        held.setdefault(n, set()).add((owner, key, value))
    for n, owner, cube in _sound(connection, tenant):
        wanted = {(owner, key, value) for key, value in attributes(cube)}
        if wanted == held.get(n, set()):
            continue
        if repair:
            connection.execute("DELETE FROM attributes WHERE cube = ?", (n,))
            connection.executemany("INSERT INTO attributes VALUES (?, ?, ?, ?)", [(*row, n) for row in wanted])
        detail = f"memory {cube.id}: {len(wanted)} labels wanted, {len(held.get(n, ()))} found"
        yield Finding("attributes", detail, repair)


def _derivations(connection: apsw.Connection, tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    reader = Reader(connection, tenant)
    rows = "SELECT d.product_version, c.id, d.source_version FROM derivations d JOIN cubes c ON c.n = d.source "
    made = {n for (n,) in query(connection, "SELECT product FROM derivations")}
    for n, _, head in _sound(connection, tenant):
        if n not in made and not head.behavioural.derivations:
            continue
        wanted = {
            (cube.version, parse_id(link.id), link.version)
            for cube in reader.versions(n)
            for link in cube.behavioural.derivations
        }
        if wanted != set(query(connection, f"{rows} WHERE d.product = ?", (n,))):
            if repair:
                connection.execute("DELETE FROM derivations WHERE product = ?", (n,))
                connection.executemany(_DERIVE, [(n, version, at, source) for version, source, at in wanted])
            yield Finding("derivations", f"memory {head.id}: {len(wanted)} sources wanted", repair)


_DERIVE = """
INSERT INTO derivations SELECT ?1, ?2, min(c.n), ?3
FROM cubes c JOIN versions v ON v.cube = c.n AND v.version = ?3 WHERE c.id = ?4
"""


def _vectors(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    rows = "SELECT v.n, v.cube, v.vectors, p.dim FROM vectors v LEFT JOIN spaces p ON p.n = v.space ORDER BY v.n"
    old = "SELECT v.rowid, v.cube, v.vectors, p.dim FROM old_vectors v LEFT JOIN spaces p ON p.n = v.space ORDER BY 1"
    for table, statement in (("vectors", rows), ("old_vectors", old)):
        bad = [n for n, _, blob, dim in connection.execute(statement) if not _unit(blob, dim)]
        if bad:
            if repair:
                connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(n,) for n in bad])  # noqa: S608
            yield Finding(table, f"{len(bad)} rows that are no unit vectors of their space", repair)
    lacking = scalar(
        connection, "SELECT count(*) FROM cubes WHERE kind = 'text' AND n NOT IN (SELECT cube FROM vectors)"
    )
    yield from _wanted(connection, "embed", "vectors", lacking, repair=repair)


def _scrubs(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    yield from _wanted(connection, "scrub", "scrubs", scalar(connection, "SELECT count(*) FROM scrubs"), repair=repair)


def _wanted(connection: apsw.Connection, job: str, what: str, waiting: int, *, repair: bool) -> Iterator[Finding]:
    """Work that waits for a job which is not there."""
    if waiting and not scalar(connection, "SELECT count(*) FROM jobs WHERE name = ?", (job,)):
        if repair:
            jobs.enqueue(connection, job, {}, at=from_micros(0))
        yield Finding(
            what, f"{waiting} wait for {'an' if job[0] in 'aeiou' else 'a'} {job} job, and there is none", repair
        )


_NO_VERSION = "(cube, version) NOT IN (SELECT cube, version FROM versions)"
_ORPHANS = {
    "attributes": "FROM attributes WHERE cube NOT IN (SELECT n FROM cubes)",
    "vectors": "FROM vectors WHERE cube NOT IN (SELECT n FROM cubes)",
    "old_vectors": f"FROM old_vectors WHERE {_NO_VERSION}",
    "blobs": f"FROM blobs WHERE {_NO_VERSION}",
    "exported": "FROM exported WHERE export NOT IN (SELECT n FROM exports) OR cube NOT IN (SELECT n FROM cubes)",
    "snapshots": "FROM snapshots WHERE branch <> 0 AND branch NOT IN (SELECT n FROM branches)",
    "episodes": "FROM episodes WHERE n NOT IN (SELECT piece FROM versions WHERE piece IS NOT NULL)",
    "uses": "FROM uses WHERE cube NOT IN (SELECT n FROM cubes)",
    "derivations": "FROM derivations WHERE product NOT IN (SELECT n FROM cubes) OR source NOT IN (SELECT n FROM cubes)",
}


def _flags(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    """Whether each row is hidden, and of the branch, that the journal says."""
    moved = "SELECT number, action = 'hide' FROM journal WHERE action IN ('hide', 'show') ORDER BY seq"
    said = dict(query(connection, moved))
    for n, hidden in query(connection, "SELECT n, hidden FROM cubes"):
        if hidden != said.get(n, 0):
            if repair:
                connection.execute("UPDATE cubes SET hidden = ? WHERE n = ?", (said.get(n, 0), n))
            yield Finding("hidden", f"cube number {n} says {hidden}, the journal {said.get(n, 0)}", repair)
    for n, branch, other in query(connection, _BRANCH):
        if branch != other:
            yield Finding("branches", f"cube number {n} says branch {branch}, its versions {other}")
    for (n,) in query(connection, _NAMELESS):
        yield Finding("branches", f"branch number {n} is spoken of and is not there")


_NAMELESS = """
SELECT n FROM (SELECT parent AS n FROM branches UNION SELECT branch FROM cubes UNION SELECT branch FROM snapshots)
WHERE n > 0 AND n NOT IN (SELECT n FROM branches)
"""
_BRANCH = "SELECT DISTINCT c.n, c.branch, v.branch FROM cubes c JOIN versions v ON v.cube = c.n"


def _orphans(connection: apsw.Connection, _tenant: str, repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    for name, rest in _ORPHANS.items():
        [(count,)] = query(connection, f"SELECT count(*) {rest}")
        if count:
            if repair:
                if name == "blobs":  # a file goes when nothing else names it
                    sound = f"SELECT sha256 FROM blobs WHERE NOT {_NO_VERSION}"  # noqa: S608  # our own words
                    connection.execute(
                        f"INSERT OR IGNORE INTO unlinks SELECT sha256 {rest} AND sha256 NOT IN ({sound})"
                    )
                connection.execute(f"DELETE {rest}")
            yield Finding(name, f"{count} rows that belong to no memory", repair)


def _branches(connection: apsw.Connection, _tenant: str, _repair: bool) -> Iterator[Finding]:  # noqa: FBT001  # a Check
    lost = "SELECT name FROM branches WHERE parent <> 0 AND parent NOT IN (SELECT n FROM branches)"
    for (name,) in query(connection, lost):
        yield Finding("branches", f"branch {name!r:.80} has lost its parent")
    count = scalar(
        connection, "SELECT count(*) FROM cubes WHERE branch <> 0 AND branch NOT IN (SELECT n FROM branches)"
    )
    if count:
        yield Finding("branches", f"{count} memories stand on a branch that is not there")


CHECKS: dict[str, Check] = {
    "journal": _journal,
    "heads": _heads,
    "erased": _erased,
    "content": _content,
    "log": _unlogged,
    "orphans": _orphans,
    "flags": _flags,
    "words": _words,
    "attributes": _attributes,
    "derivations": _derivations,
    "vectors": _vectors,
    "scrubs": _scrubs,
    "branches": _branches,
    "names": _names,
    "ends": _ends,
}
