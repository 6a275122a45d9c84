"""The embedded vault: a folder with one SQLite file a tenant, so that isolation, statistics and destruction are local.

Several threads and processes may use one folder: each read sees one moment, writes queue for the lock.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest, VaultDamaged, VaultError
from tercet.scope import Scope
from tercet.vault import blobs, jobs, ledger, mark
from tercet.vault.allowed import Allowed, everything
from tercet.vault.branches import HERE, Moment, line_at
from tercet.vault.codec import to_micros
from tercet.vault.connection import (
    Connection,
    atomic,
    closed_on_error,
    connect,
    connect_sealed,
    moved,
    query,
    scalar,
    snapshot,
    translated,
)
from tercet.vault.datakeys import Keyring, Master, check_master
from tercet.vault.erase import erase
from tercet.vault.files import make_folder
from tercet.vault.filters import Where
from tercet.vault.ids import Clock, Entropy, IdSource
from tercet.vault.journal import head
from tercet.vault.past import Marks
from tercet.vault.probe import ASKED, Evidence, Probe, look
from tercet.vault.reader import Reader
from tercet.vault.schema import migrate
from tercet.vault.scrub import AT_ONCE, scrub, scrub_waits
from tercet.vault.search import wide
from tercet.vault.search.columns import Columns, Ints, among
from tercet.vault.search.lines import LineView, Pasts
from tercet.vault.search.vectors import unpack
from tercet.vault.search.view import ScopeView
from tercet.vault.search.wide import Wide
from tercet.vault.sight import Sight
from tercet.vault.spaces import Space
from tercet.vault.turnstile import Turnstile
from tercet.vault.writer import Writer

log = logging.getLogger(__name__)

IDLE = 8
"""Connections kept open between calls."""
CACHE_BYTES = 1 << 30
"""How much of the columns in memory is kept between recalls."""


class SqliteVault:
    """A folder of tenants.

    Parameters
    ----------
    folder
        Made if it is not there.
    ids, clock, entropy
        Where ids, times and salts come from; give seeded ones to repeat a run exactly.
    vfs
        The SQLite layer that reads and writes the files; left out, the system's own.
    marks
        What recall keeps of a text beside its words, for texts that come back from the past.
    master
        Opens what is sealed, and seals each new tenant; left out, new tenants are clear.

    Raises VaultSealed if the folder has sealed tenants and there is no master key.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ids: IdSource,
        clock: Clock,
        entropy: Entropy = os.urandom,
        vfs: str | None = None,
        marks: Marks = lambda _: 0,
        master: Master | None = None,
    ) -> None:
        self.folder, self.ids, self.clock, self.entropy, self.vfs = folder, ids, clock, entropy, vfs
        self.marks, self.master = marks, master
        check_master(folder, master)
        try:
            make_folder(folder / "tenants")
        except OSError as error:
            raise VaultError(f"The vault's folder {folder} cannot be made: {error.strerror}.") from error
        self._tenants: dict[str, Tenant] = {}
        self._keyrings: dict[Path, Keyring] = {}
        self._closed = False
        self._lock = threading.Lock()

    def tenant(self, name: str) -> Tenant:
        """The file of one tenant; it is made by the first write. Raises InvalidRequest if the vault is closed."""
        with self._lock:
            if self._closed:
                raise InvalidRequest("This Tercet is closed; open the vault again.")
            if name not in self._tenants:
                self._tenants[name] = Tenant(self, name)
            return self._tenants[name]

    def tenant_path(self, name: str) -> Path:
        """Where a tenant's file is, if there is one."""
        return self.folder / "tenants" / f"{file_name(name)}.db"

    def tenants(self) -> list[str]:
        """The names of all tenants that have a file."""
        return [name for path in self.paths() if (name := self.owner(path)) is not None]

    def paths(self) -> list[Path]:
        """The tenants' files."""
        return sorted((self.folder / "tenants").glob("*.db"))

    def owner(self, path: Path) -> str | None:
        """The name of the tenant that a file holds; None if its first writer was killed before it wrote anything."""
        with Turnstile(path).using(), translated(path), closing(self.connect(path)) as connection:
            migrate(connection)
            name = scalar(connection, "SELECT value FROM meta WHERE key = 'tenant'")
            return None if name is None else str(name)

    def keyring(self, path: Path) -> Keyring:
        """The data keys of a tenant's file."""
        return self._keyrings.setdefault(path, Keyring(path, self.master, self.entropy))

    def take_master(self, master: Master) -> None:
        """From now on this master key opens what is sealed."""
        self.master = master
        for one in self._keyrings.values():
            one.master = master

    def connect(self, path: Path) -> Connection:
        """A connection to a tenant's file that is there, sealed or not. Raises VaultSealed, VaultDestroyed."""
        seal = self.keyring(path).seal()
        return connect_sealed(path, [None] if seal is None else seal.pages, vfs=self.vfs)

    def open_tenants(self) -> list[str]:
        """The tenants this process has asked for."""
        with self._lock:
            return list(self._tenants)

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            self._closed = True
            for tenant in self._tenants.values():
                tenant.close()
            self._tenants.clear()


class Tenant:
    """One tenant's file: read with `reading`, changed with `writing`."""

    def __init__(self, vault: SqliteVault, name: str) -> None:
        self.vault, self.name = vault, name
        self.path = vault.tenant_path(name)
        self.keys, self.turnstile = vault.keyring(self.path), Turnstile(self.path)
        self.blobs = blobs.shelf_of(self.path, self.keys)
        self._stamp = self.keys.stamp()
        self._write_lock = threading.RLock()
        self._cache_lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._columns: OrderedDict[tuple[Any, ...], Columns] = OrderedDict()
        self._wide = Wide(segments_of(self.path), self.keys)
        self._pasts = Pasts()
        self._sight = Sight()
        self._uses: dict[str, tuple[int, datetime]] = {}
        self._closed = False
        self._checked = False
        self._known = False

    @contextmanager
    def reading(self, moment: Moment = HERE) -> Iterator[Reader]:
        """One snapshot of the file, at a moment of a branch. Raises MissingBranch."""
        with (
            self._connection() as connection,
            translated(self.path),
            snapshot(connection),
            closing(self._reader(connection, moment)) as reader,
        ):
            yield reader

    @contextmanager
    def writing(self, *, by: str, branch: str | None = None) -> Iterator[Writer]:
        """One transaction on a branch (None: the main line); whatever is raised inside undoes it whole.

        On return it is on the disk. Raises MissingBranch.
        """
        vault = self.vault
        with self._write_lock:
            with self._connection(create=True) as connection, translated(self.path), atomic(connection):
                if moved(connection):  # while it waited for the lock
                    raise VaultError(f"The vault's file {self.path} was moved or replaced just now; try again.")
                with closing(self._reader(connection, Moment(branch))) as reader:
                    writer = Writer(reader, by=by, at=vault.clock(), ids=vault.ids, entropy=vault.entropy)
                    yield writer
                    writer.flush()
            mark.write(self.path, writer.chain.seq, writer.chain.hash)
            if writer.erased:
                self._note_erasures()

    @contextmanager
    def maintaining(self, *, trusting: bool = False) -> Iterator[apsw.Connection]:
        """A connection outside any transaction, for jobs, scrubs and checks; `trusting` to a file that lost writes."""
        with (
            self._write_lock,
            self._connection(create=True, trusting=trusting) as connection,
            translated(self.path),
        ):
            yield connection

    def view(
        self,
        reader: Reader,
        scope: Scope,
        space: Space | None,
        *,
        where: Where | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        now: datetime | None = None,
        allowed: Callable[[Reader], Allowed] = everything,
    ) -> ScopeView:
        """The rows of a scope that recall may look at, as of the reader's snapshot.

        Where the conditions name a state, cubes of that state, archived ones too; else those that are `READABLE`. What
        has reached its end by `now` is left out, though the sweep may not have come by yet. `allowed` says which rows
        the caller may see; it is asked within the snapshot.
        """
        connection = reader.connection
        statement, bound = ("SELECT n FROM owners", ()) if scope.user is None else (
            "SELECT n FROM owners WHERE user = ?", (scope.user,)
        )  # fmt: skip
        with self._cache_lock:
            # The transaction's first read: begun under the lock, a snapshot is not older than what is cached.
            owners = [n for (n,) in query(connection, statement, bound)]
            chosen = None if scope.user is None else tuple(owners)
            space_n, dim = _space_number(connection, space), space.dim if space else 1
            key = (chosen, space_n, dim, reader.line.numbers, allowed(reader))
            columns = self._cached(*key)
            if columns.seq > head(connection)[0]:  # somebody read earlier in this transaction
                columns = Columns(*key)
            table = columns.at(connection)
            if not reader.line.plain:
                table = self._pasts.table(reader, columns, table)
            seen = table if where and "state" in where else columns.readable(table)
        keep = np.ones(len(seen), dtype=np.bool_)
        left_out = query(connection, _ENDED, (to_micros(now),)) if now is not None else []
        if (where or {}).get("quarantined") is not True:  # nothing else brings one into an answer
            # Nor what is in quarantine now, nor what was then: a person has released another version.
            both = [connection, *([reader.past.connection] if reader.past is not None else [])]
            left_out += [row for one in both for row in query(one, "SELECT n FROM cubes WHERE trust = 0")]
        if left_out:
            rows = seen.rows_of(np.array([n for (n,) in left_out], dtype=np.int64))
            keep[rows[rows >= 0]] = False
        if not where or "kind" not in where:  # what has no words or vectors is no answer, unless it is asked for
            keep &= among(seen.kind, columns.kinds.names, {"text"})
        for numbers, wanted in reader.sets(scope, where):
            inside = np.zeros(len(seen), dtype=np.bool_)
            rows = seen.rows_of(numbers)
            inside[rows[rows >= 0]] = True
            keep &= inside == wanted
        if since is not None:
            keep &= seen.observed >= since.timestamp()
        if until is not None:
            keep &= seen.observed < until.timestamp()
        if not keep.all():
            seen = seen.take(np.flatnonzero(keep))
        basis = (connection, chosen, seen, columns.names(seen), (space_n, dim), self._nearest)
        return ScopeView(*basis) if reader.line.plain else LineView(*basis, reader)

    def secret(self) -> bytes:
        """32 bytes of this tenant's own, made when first asked for, that never leave its file but in a backup."""
        held = "SELECT value FROM meta WHERE key = 'secret'"
        with self.maintaining() as connection:
            if scalar(connection, held) is None:
                with atomic(connection):
                    made = self.vault.entropy(32).hex()
                    connection.execute("INSERT INTO meta VALUES ('secret', ?) ON CONFLICT DO NOTHING", (made,))
            return bytes.fromhex(str(scalar(connection, held)))

    def index(self) -> None:
        """Write the segments that wide searches want and do not have, or that too much has changed since.

        Others search and write meanwhile. If something is erased then, the work is done again.
        """
        folder = self._wide.folder
        done: set[tuple[int, int]] = set()
        while True:
            with self.maintaining() as connection:
                wanted = [each for each in wide.wanted(connection, folder) if each not in done]
            if not wanted:
                return
            with self._connection() as connection, translated(self.path):
                built = wide.build(connection, folder, *wanted[0], seal=self.keys.seal())
            with self.maintaining() as connection:
                seal = self.keys.seal()
                if built is None or wide.register(connection, folder, built, seal):
                    wide.calibrate(connection, folder, wanted[0][0], seal)
                    done.add(wanted[0])

    def want_index(self, at: datetime) -> None:
        """Put down an `index` job if a segment is gone that should be there: it was damaged, or was not restored."""
        with self.reading() as reader:
            gone = wide.gone(reader.connection, self._wide.folder)
        if gone:
            with self.maintaining() as connection:
                jobs.enqueue(connection, "index", {}, at=at)

    @property
    def scrubs_at_once(self) -> bool:
        """Whether the file is small enough to be scrubbed within a call."""
        return self.path.exists() and self.path.stat().st_size <= AT_ONCE

    def scrub(self, *, at_once: bool = False) -> str | None:
        """Run the scrub if the file is small or `at_once` is set; returns what it waits for, None when it is done.

        The erasure is committed: a disk that is full or fails does not undo it, and the scrub is tried again by a job.
        """
        try:
            with self.maintaining() as connection:
                blobs.unlink_unnamed(connection, self.blobs)
                if not at_once and not self.scrubs_at_once:
                    return "the scrub job (the file is large)"
                if scrub_waits(connection) and wide.renew(connection, self._wide.folder, self.keys.seal()):
                    jobs.enqueue(connection, "index", {}, at=self.vault.clock())
                self.drop_idle()
                waits = scrub(connection, self.path, at=self.vault.clock())
                if waits is None:
                    mark.write(self.path, *head(connection))
                return waits
        except VaultError as error:
            return str(error)

    def probe(self, evidence: Evidence) -> Probe:
        """Look for what was erased and scrubbed: by words, by vectors and in the bytes of every file."""
        try:
            with self.reading() as reader:
                found = look(reader.connection, self.path, evidence, vfs=self.vault.vfs)
                return replace(found, found=(*found.found, *self._met(reader, evidence)))
        except VaultError as error:
            return Probe(0, 0, 0, 0, 0, (f"it could not be looked for: {error}",))

    def _met(self, reader: Reader, evidence: Evidence) -> Iterator[str]:
        """What a search by the erased vectors meets of what was erased."""
        for user, name, dim, blob in evidence.vectors[:ASKED]:
            view = self.view(reader, Scope(self.name, user=user or None), Space(name, dim))
            rows = view.nearest(unpack(blob, dim)[0].astype(np.float32), 10)
            for n in () if rows is None else view.numbers[rows].tolist():
                if n in evidence.numbers:
                    yield f"memory number {n} is found by its vector"

    def recheck(self) -> list[str]:
        """Hold the file against the ledger of erasures; erase again what it holds of them. Returns the ids that went.

        Raises
        ------
        VaultError
            If the file has to be changed for that and cannot be written.
        """
        with self._write_lock, self._connection(create=True, trusting=True) as connection, translated(self.path):
            gone = self._erase_again(connection)
            self._note_erasures(connection, anew=True)
            return gone

    def _erase_again(self, connection: apsw.Connection) -> list[str]:
        if not ledger.missing(connection, self.path):
            if not connection.readonly("main"):
                self._note_erasures(connection)
            return []
        with atomic(connection):
            vault = self.vault
            reader = Reader(connection, self.name)
            writer = Writer(reader, by="tercet", at=vault.clock(), ids=vault.ids, entropy=vault.entropy)
            again = ledger.missing(connection, self.path)
            find = "SELECT n FROM cubes WHERE id = ?"
            numbers = [n for one in again for (n,) in query(connection, find, (one.id,))]
            gone = erase(writer, numbers, cause=ledger.AGAIN, despite_hold=ledger.AGAIN).erased if numbers else ()
            rows = [(one.id, one.at) for one in again]
            connection.executemany("INSERT OR IGNORE INTO erased VALUES (?, ?)", rows)
        mark.write(self.path, *head(connection))
        self._note_erasures(connection)
        log.warning("%s was an older file: %d memories that were erased since are erased again", self.path, len(gone))
        return list(gone)

    def _note_erasures(self, connection: apsw.Connection | None = None, *, anew: bool = False) -> None:
        """Bring the ledger up to date. If it cannot be written now, the next to open the vault does it."""
        try:
            if connection is not None:
                ledger.append(connection, self.path, anew=anew)
                return
            with self._connection() as other, translated(self.path):
                ledger.append(other, self.path)
        except (OSError, VaultError) as error:
            log.warning("the ledger of %s was not written: %s", self.path, error)

    def use(self, ids: Sequence[str], at: datetime) -> int:
        """Count uses in memory; returns of how many cubes uses are gathered."""
        with self._cache_lock:
            for id in ids:
                count, _ = self._uses.get(id, (0, at))
                self._uses[id] = (count + 1, at)
            return len(self._uses)

    def take_uses(self) -> dict[str, tuple[int, datetime]]:
        """The uses gathered, which are then gathered no more."""
        with self._cache_lock:
            taken, self._uses = self._uses, {}
            return taken

    def forget_cache(self) -> None:
        """Drop the columns in memory, with whatever erased content they still hold."""
        with self._cache_lock:
            self._columns.clear()
            self._pasts.clear()
            self._sight.clear()
            self._wide.close()

    def close(self) -> None:
        """Close every idle connection; later calls raise."""
        self._closed = True
        self.drop_idle()
        self.forget_cache()

    def _nearest(
        self, connection: apsw.Connection, numbers: Ints, space: int, vector: NDArray[np.float32], count: int
    ) -> tuple[Ints, str] | None:
        with self._cache_lock:
            return self._wide.nearest(connection, numbers, space, vector, count)

    def _reader(self, connection: apsw.Connection, moment: Moment) -> Reader:
        if moment == HERE:
            return Reader(connection, self.name, sight=self._sight)
        line = line_at(connection, moment)
        seq, _ = head(connection)
        with self._cache_lock:
            found = self._pasts.overlay(connection, self.name, line, seq, self.vault.marks)
        past = None if found.image is None else Reader(found.open(), self.name)
        return Reader(connection, self.name, line=line, past=past, overlay=found)

    def _cached(
        self, owners: tuple[int, ...] | None, space: int, dim: int, branches: tuple[int, ...], allowed: Allowed
    ) -> Columns:
        key = (owners, space, branches, allowed)
        if key not in self._columns:
            self._columns[key] = Columns(owners, space, dim, branches, allowed)
        self._columns.move_to_end(key)
        while len(self._columns) > 1 and sum(held.size for held in self._columns.values()) > CACHE_BYTES:
            self._columns.popitem(last=False)
        return self._columns[key]

    @contextmanager
    def _connection(self, *, create: bool = False, trusting: bool = False) -> Iterator[apsw.Connection]:
        if self._closed:
            raise InvalidRequest("This Tercet is closed; open the vault again.")
        with ExitStack() as stack:
            if create or self.path.exists():
                stack.enter_context(self.turnstile.using())
            connection = self._take() or self._open(create=create)
            if connection.filename or not create:
                stack.callback(self._give_back, connection)
            if connection.filename and not trusting and not self._checked:
                with translated(self.path):
                    mark.check(connection, self.path)
                    wide.tidy(connection, self._wide.folder)
                    self._erase_again(connection)
                self._checked = True
            yield connection

    def _take(self) -> apsw.Connection | None:
        """An idle connection, if there is one, to the file that is there now."""
        if (stamp := self.keys.stamp()) != self._stamp:  # the file may be sealed with other keys by now
            self._stamp = stamp
            self.drop_idle()
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if moved(connection):
            self._checked = False
            connection.close()
            self.drop_idle()
            self.forget_cache()
            return None
        return connection

    def _open(self, *, create: bool) -> apsw.Connection:
        # Reading a tenant that was never written to must not make a file: it sees an empty vault in memory.
        there = self.path.exists()
        seal = self.keys.seal()  # first: of one whose keys were destroyed nothing else is worth saying
        if not there and (self._known or mark.mark_of(self.path).exists()):
            raise VaultError(
                f"The vault's file {self.path} is gone: it was moved or deleted. Put it back or restore a backup; to "
                f"begin anew, delete {mark.mark_of(self.path).name} too and open the vault again."
            )
        exists = create or there
        if not there and create:
            seal = self.keys.begin()
        keys = [None] if seal is None else seal.pages
        connection = connect_sealed(self.path, keys, vfs=self.vault.vfs) if exists else connect(None)
        with translated(self.path), closed_on_error(connection):
            migrate(connection)
            if exists:
                self._claim(connection)
        self._known = self._known or exists
        return connection

    def _claim(self, connection: apsw.Connection) -> None:
        """Write the tenant's name into its file, or see that it is there. Raises VaultDamaged for another's file."""
        held = "SELECT value FROM meta WHERE key = 'tenant'"
        if scalar(connection, held) is None:
            connection.execute("INSERT INTO meta VALUES ('tenant', ?) ON CONFLICT DO NOTHING", (self.name,))
        if scalar(connection, held) != self.name:
            raise VaultDamaged(f"{self.path} holds another tenant than {self.name!r}; was the file renamed?")

    def _give_back(self, connection: apsw.Connection) -> None:
        # An interrupt may come between BEGIN and the block that undoes it: such a connection is not used again.
        # One that only reads is not kept: it would not notice if somebody else began to write.
        usable = connection.filename and not connection.readonly("main") and not connection.in_transaction
        if usable and not self._closed and len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def drop_idle(self) -> None:
        """Close the connections that no call is using."""
        while self._idle:
            self._idle.pop().close()


_ENDED = "SELECT n FROM cubes WHERE expires <= ? AND state != 'frozen'"


def segments_of(path: Path) -> Path:
    """The folder of what is made from a tenant's file for wide searches."""
    return path.parent.parent / "segments" / path.stem


def file_name(tenant: str) -> str:
    """A file's name for a tenant's: safe on every file system, and never the same for two tenants."""
    # Some file systems take A.db and a.db for one file. No plain name has the sign that stands before a hash.
    if re.fullmatch("[a-z0-9_-]{1,100}", tenant):
        return tenant
    plain = re.sub("[^a-z0-9_-]+", "-", tenant.lower())[:60]
    return f"{plain}~{hashlib.sha256(tenant.encode()).hexdigest()[:24]}"


def _space_number(connection: apsw.Connection, space: Space | None) -> int:
    if space is None:
        return 0
    n = scalar(connection, "SELECT n FROM spaces WHERE name = ? AND dim = ?", (space.name, space.dim))
    return int(n or 0)
