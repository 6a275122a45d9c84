"""The tables of a tenant's file, as ordered steps. Each step commits with the record that it ran."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw

from tercet.errors import VaultDamaged, VaultError, VaultTooNew
from tercet.vault.codec import to_micros
from tercet.vault.connection import another, atomic, query, scalar
from tercet.vault.files import sync

STEPS: Mapping[int, str] = {
    1: """
    -- Names are kept once; '' stands for "none". AUTOINCREMENT: a number is never given twice, so a cache that still
    -- holds an erased one can never meet a stranger under it.
    CREATE TABLE owners (n INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL UNIQUE);
    CREATE TABLE scopes (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL REFERENCES owners, agent TEXT NOT NULL, session TEXT NOT NULL,
        UNIQUE (owner, agent, session)
    );
    -- What was observed, verbatim. An episode is one call of remember; a piece is one message or passage of it.
    CREATE TABLE episodes (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL, start INTEGER NOT NULL, text TEXT NOT NULL
    );
    CREATE INDEX episodes_by_id ON episodes (id);
    -- The head of each cube: what lists, filters and indexes need without opening a version.
    CREATE TABLE cubes (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        scope INTEGER NOT NULL REFERENCES scopes,
        kind TEXT NOT NULL, type TEXT NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL,
        ref TEXT, speaker TEXT, role TEXT, run BLOB,
        observed INTEGER NOT NULL, happened_from INTEGER, happened_to INTEGER,
        words INTEGER NOT NULL, marks INTEGER NOT NULL
    );
    CREATE INDEX cubes_by_scope ON cubes (scope, n);
    CREATE UNIQUE INDEX cubes_by_ref ON cubes (scope, ref) WHERE ref IS NOT NULL;
    -- A change is a row here, never an update. Text is NULL where the piece of the episode says it word for word.
    CREATE TABLE versions (
        seq INTEGER PRIMARY KEY,
        cube INTEGER NOT NULL REFERENCES cubes, version INTEGER NOT NULL, branch INTEGER NOT NULL DEFAULT 0,
        piece INTEGER, text TEXT, header TEXT NOT NULL, salt BLOB NOT NULL, commitment BLOB NOT NULL,
        UNIQUE (cube, branch, version)
    );
    CREATE INDEX versions_by_piece ON versions (piece) WHERE piece IS NOT NULL;
    CREATE TABLE derivations (
        product INTEGER NOT NULL, product_version INTEGER NOT NULL,
        source INTEGER NOT NULL, source_version INTEGER NOT NULL,
        PRIMARY KEY (product, product_version, source, source_version)
    ) WITHOUT ROWID;
    CREATE INDEX derivations_by_source ON derivations (source);
    -- The words: owner first, so that a look-up costs what the owner holds, whatever others hold. Terms stand in the
    -- clear in the key; a dictionary table would keep an erased word alive.
    CREATE TABLE postings (
        owner INTEGER NOT NULL, term TEXT NOT NULL, cube INTEGER NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (owner, term, cube)
    ) WITHOUT ROWID;
    CREATE TABLE attributes (
        owner INTEGER NOT NULL, key TEXT NOT NULL, value, cube INTEGER NOT NULL,
        PRIMARY KEY (owner, key, value, cube)
    ) WITHOUT ROWID;
    CREATE TABLE spaces (n INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, dim INTEGER NOT NULL);
    -- All windows of a text in one row, fp16; `states` are the coded token states of late interaction.
    CREATE TABLE vectors (
        n INTEGER PRIMARY KEY, cube INTEGER NOT NULL REFERENCES cubes, space INTEGER NOT NULL REFERENCES spaces,
        vectors BLOB NOT NULL, states BLOB,
        UNIQUE (cube, space)
    );
    -- What happened, in order, each line chained to the one before by its hash. Ids and commitments, never content.
    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL, action TEXT NOT NULL, cube BLOB, number INTEGER, version INTEGER, scope INTEGER,
        by TEXT NOT NULL,
        detail TEXT, hash BLOB NOT NULL
    );
    CREATE TABLE jobs (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL, body TEXT NOT NULL, due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, lease INTEGER, worker TEXT, error TEXT, dead INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX jobs_once ON jobs (name, body) WHERE dead = 0;
    -- Ids that must never come back; it outlives restores and imports.
    CREATE TABLE erased (id BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE scrubs (n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL);
    CREATE TABLE uses (cube INTEGER PRIMARY KEY, count INTEGER NOT NULL, last INTEGER NOT NULL);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    2: """
    -- 0 is the main line. Any other branch is an overlay: it shows its parent as of a line of the journal (`fork`) and
    -- has rows of its own, in `cubes` and all that hangs on their numbers, only for what differs.
    CREATE TABLE branches (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE, parent INTEGER NOT NULL, fork INTEGER NOT NULL, at INTEGER NOT NULL
    );
    CREATE TABLE snapshots (
        name TEXT PRIMARY KEY, branch INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE cubes_2 (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL, branch INTEGER NOT NULL DEFAULT 0,
        scope INTEGER NOT NULL REFERENCES scopes,
        kind TEXT NOT NULL, type TEXT NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL,
        ref TEXT, speaker TEXT, role TEXT, run BLOB,
        observed INTEGER NOT NULL, happened_from INTEGER, happened_to INTEGER,
        words INTEGER NOT NULL, marks INTEGER NOT NULL,
        hidden INTEGER NOT NULL DEFAULT 0, -- withdrawn by a restore, which another restore may undo
        former TEXT, -- what a frozen cube was before
        due INTEGER, -- when a sweep looks at it next for idleness, or the end of its time in the archive
        expires INTEGER, half_life REAL, held INTEGER NOT NULL DEFAULT 0,
        sensitivity INTEGER NOT NULL DEFAULT 2, trust INTEGER NOT NULL DEFAULT 2,
        subject TEXT, attribute TEXT, valid_from INTEGER, valid_to INTEGER,
        UNIQUE (id, branch)
    );
    INSERT INTO cubes_2 (n, id, scope, kind, type, state, version, ref, speaker, role, run, observed, happened_from,
        happened_to, words, marks, due, expires, half_life, held, sensitivity, trust, subject, attribute,
        valid_from, valid_to)
    SELECT c.n, c.id, c.scope, c.kind, c.type, c.state, c.version, c.ref, c.speaker, c.role, c.run, c.observed,
        c.happened_from, c.happened_to, c.words, c.marks,
        iif(v.header ->> '$.half_life_days' IS NULL, NULL, c.observed), micros(v.header ->> '$.expires'),
        v.header ->> '$.half_life_days', v.header ->> '$.hold' IS NOT NULL,
        coalesce(v.header ->> '$.sensitivity', 2), coalesce(v.header ->> '$.trust', 2),
        v.header ->> '$.slot[0]', v.header ->> '$.slot[1]',
        micros(v.header ->> '$.valid[0]'), micros(v.header ->> '$.valid[1]')
    FROM cubes c LEFT JOIN versions v ON v.cube = c.n AND v.branch = 0 AND v.version = c.version ORDER BY c.n;
    -- No number is given twice, not even one whose cube is gone.
    DELETE FROM sqlite_sequence WHERE name = 'cubes_2';
    INSERT INTO sqlite_sequence SELECT 'cubes_2', seq FROM sqlite_sequence WHERE name = 'cubes';
    DROP TABLE cubes;
    ALTER TABLE cubes_2 RENAME TO cubes;
    CREATE INDEX cubes_by_scope ON cubes (scope, branch, hidden, n);
    CREATE UNIQUE INDEX cubes_by_ref ON cubes (scope, branch, ref) WHERE ref IS NOT NULL AND hidden = 0;
    CREATE INDEX cubes_by_branch ON cubes (branch) WHERE branch > 0;
    CREATE INDEX journal_by_time ON journal (at); -- the first line after a moment is where a look into the past begins
    CREATE INDEX cubes_by_end ON cubes (expires) WHERE expires IS NOT NULL;
    CREATE INDEX cubes_by_decay ON cubes (due) WHERE due IS NOT NULL;
    CREATE INDEX cubes_by_slot ON cubes (subject, attribute) WHERE subject IS NOT NULL;
    -- What the ledger file and receipts look for; both stay small beside the journal.
    CREATE INDEX journal_by_forget ON journal (seq) WHERE action = 'forget';
    CREATE INDEX journal_by_scrub ON journal (seq) WHERE action = 'scrub';
    -- Vectors of versions that are no longer the newest: a look into the past is by meaning, too.
    CREATE TABLE old_vectors (
        cube INTEGER NOT NULL, version INTEGER NOT NULL, space INTEGER NOT NULL, vectors BLOB NOT NULL, states BLOB,
        UNIQUE (cube, version, space)
    );
    -- Archives that were written from here: an erasure names those that it cannot reach.
    CREATE TABLE exports (
        n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, path TEXT NOT NULL, sha256 BLOB NOT NULL
    );
    CREATE TABLE exported (cube INTEGER NOT NULL, export INTEGER NOT NULL, PRIMARY KEY (cube, export)) WITHOUT ROWID;
    -- Access: what a cube grants (key 'access'), found by whom it is granted to; rules as JSON; keys by the hash of
    -- their text.
    INSERT OR IGNORE INTO attributes
    SELECT s.owner, 'access', g.value, c.n
    FROM cubes c JOIN scopes s ON s.n = c.scope
    JOIN versions v ON v.cube = c.n AND v.branch = 0 AND v.version = c.version
    JOIN json_each(v.header, '$.access') g;
    CREATE INDEX attributes_by_grant ON attributes (value) WHERE key = 'access';
    CREATE TABLE rules (n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE keys (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, body TEXT NOT NULL,
        at INTEGER NOT NULL, expires INTEGER, revoked INTEGER
    ) WITHOUT ROWID;
    -- Files that payloads refer to, by what they hold; a file goes when nothing names it any more.
    CREATE TABLE blobs (
        sha256 BLOB NOT NULL, cube INTEGER NOT NULL, version INTEGER NOT NULL, role TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (sha256, cube, version, role)
    ) WITHOUT ROWID;
    CREATE INDEX blobs_by_cube ON blobs (cube);
    CREATE TABLE unlinks (sha256 BLOB PRIMARY KEY) WITHOUT ROWID;
    -- Postings in blocks, see `search/words.py`: a row for up to 112 cubes that have an owner's term.
    CREATE TABLE blocks (
        owner INTEGER NOT NULL, term TEXT NOT NULL, first INTEGER NOT NULL, cubes BLOB NOT NULL,
        PRIMARY KEY (owner, term, first)
    ) WITHOUT ROWID;
    INSERT INTO blocks SELECT owner, term, min(cube), packed(cube, count) FROM (
        SELECT *, (row_number() OVER (PARTITION BY owner, term ORDER BY cube) - 1) / 112 AS block FROM postings
    ) GROUP BY owner, term, block;
    DROP TABLE postings;
    ALTER TABLE blocks RENAME TO postings;
    -- What entered which prompt: ids, versions and scores, and the question's salted hash; never content.
    CREATE TABLE injections (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        answer BLOB NOT NULL UNIQUE, at INTEGER NOT NULL, by TEXT NOT NULL,
        user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL, salt BLOB NOT NULL, question BLOB NOT NULL
    );
    CREATE TABLE injected (
        injection INTEGER NOT NULL, place INTEGER NOT NULL, cube BLOB NOT NULL, version INTEGER, score REAL,
        PRIMARY KEY (injection, place)
    ) WITHOUT ROWID;
    CREATE INDEX injected_by_cube ON injected (cube);
    CREATE INDEX cubes_in_quarantine ON cubes (n) WHERE trust = 0;
    """,
    3: """
    -- To whom an archive went, and what in it names him.
    ALTER TABLE exports ADD COLUMN recipient TEXT;
    ALTER TABLE exports ADD COLUMN mark TEXT;
    -- Grants: who may read what on whose word (`by`), for what, how often and until when. A row names cubes in
    -- `shared`, or else meets a scope and a filter (`condition`, as JSON).
    CREATE TABLE shares (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL, subject TEXT NOT NULL, by TEXT NOT NULL,
        user TEXT, agent TEXT, session TEXT, condition TEXT,
        purpose TEXT, reads INTEGER, used INTEGER NOT NULL DEFAULT 0, expires INTEGER, revoked INTEGER
    );
    CREATE INDEX shares_by_subject ON shares (subject);
    CREATE TABLE shared (cube BLOB NOT NULL, share INTEGER NOT NULL, PRIMARY KEY (cube, share)) WITHOUT ROWID;
    CREATE INDEX shared_by_share ON shared (share);
    """,
}


NEWEST = max(STEPS)
"""The schema that this Tercet writes."""


def migrate(connection: apsw.Connection) -> None:
    """Bring a file to the newest schema; takes no lock when it is there already.

    All of it is one transaction, which is proved before it is committed. Beside the file there is a copy of it as it
    was, until the new one has been read through: what a migration does wrong must not be all that is left.

    Raises
    ------
    VaultTooNew
        If a newer Tercet has written the file.
    VaultDamaged
        If the file is damaged, before or after.
    VaultError
        If the file is older and cannot be written.
    """
    newest = max(STEPS)
    version = _version(connection)
    if version != newest:
        if version < newest and connection.readonly("main"):
            raise VaultError(
                f"This vault has schema {version} and has to be brought to {newest}: open it where it can be written."
            )
        _migrate(connection, newest)
    _drop_copies(connection, newest)  # also those of a migration that was killed


def _migrate(connection: apsw.Connection, newest: int) -> None:
    with atomic(connection):
        version = _version(connection)  # another process may have been quicker
        if version > newest:
            raise VaultTooNew(
                f"This vault has schema {version} and this Tercet knows up to {newest}: upgrade tercet to open it."
            )
        if version == newest:
            return
        if version and connection.filename:  # a vault in memory has nothing to go back to
            _copy(connection, version)
        before = _counts(connection)
        connection.execute("CREATE TABLE IF NOT EXISTS migrations (step INTEGER PRIMARY KEY)")
        connection.create_scalar_function("micros", _micros, 1, deterministic=True)
        connection.create_aggregate_function("packed", _Packed)
        for step in range(version + 1, newest + 1):
            connection.execute(STEPS[step])
            connection.execute("INSERT INTO migrations VALUES (?)", (step,))
        after = _counts(connection)
        lost = [name for name, count in before.items() if name not in CHANGED and after.get(name) != count]
        if lost:
            raise VaultDamaged(f"Schema {version} could not be brought to {newest}: {lost} would not have all rows.")
    if version and (found := scalar(connection, "PRAGMA quick_check(1)")) != "ok":
        raise VaultDamaged(
            f"The file was brought from schema {version} to {newest} and is damaged ({found}); as it was before, it is "
            f"kept beside it ({_copy_of(connection, version).name})."
        )


CHANGED = frozenset({"migrations", "postings", "attributes"})
"""Tables whose number of rows a step may change: step 2 packs postings in blocks and files access lists."""


def _counts(connection: apsw.Connection) -> dict[str, int]:
    """How many rows each table has."""
    names = query(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name: scalar(connection, f"SELECT count(*) FROM {name}") for (name,) in names}  # noqa: S608  # our names


def _copy_of(connection: apsw.Connection, version: int) -> Path:
    path = Path(connection.filename)
    return path.with_name(f"{path.name}.schema-{version}")


def _copy(connection: apsw.Connection, version: int) -> None:
    """The file as it is on the disk, beside it. The caller holds the write lock; another connection still reads."""
    target = _copy_of(connection, version)
    target.unlink(missing_ok=True)
    with closing(another(connection)) as source:  # what it writes is sealed as its own file is
        source.execute("VACUUM INTO ?", (str(target),))
    sync(target)


def _drop_copies(connection: apsw.Connection, newest: int) -> None:
    # One more file with everything in it must not outlive what is erased from the vault.
    if connection.filename and not connection.readonly("main"):
        for version in range(1, newest):
            for left in ("", "-journal"):
                path = _copy_of(connection, version)
                path.with_name(path.name + left).unlink(missing_ok=True)


def _micros(*iso: object) -> int | None:
    return to_micros(datetime.fromisoformat(iso[0])) if isinstance(iso[0], str) else None


class _Packed:
    """An aggregate of (cube, count): a block of postings, keyed by the least cube."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def step(self, *row: Any) -> None:  # noqa: ANN401  # SQLite's values
        self.rows.append(row)

    def final(self) -> bytes:
        self.rows.sort()
        return b"".join(struct.pack("<II", cube - self.rows[0][0], count) for cube, count in self.rows)


def _version(connection: apsw.Connection) -> int:
    # Asked in SQL: `table_exists` answers from what this connection knew before another process made the tables.
    if scalar(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'") is None:
        return 0
    return int(scalar(connection, "SELECT coalesce(max(step), 0) FROM migrations"))
