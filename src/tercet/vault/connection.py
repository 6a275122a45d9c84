"""Opening SQLite files the way the vault needs them, and the one way to write: `atomic`."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from tercet.errors import TercetError, Unsupported, VaultBusy, VaultDamaged, VaultError

BUSY_MS = 30_000
"""How long a writer waits for another process's transaction."""
RETRY_MS = 5
"""How long it waits before it asks again, where SQLite itself does not wait."""


class Connection(apsw.Connection):
    """A connection that knows what opened its file."""

    key: str | None = None


_AS_USUAL = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
CIPHER, ALGORITHM = "aegis", "aegis-256"
"""An authenticated page cipher: a nonce and a tag of 256 bits each stand at the end of every page."""


def connect(path: Path | None, *, vfs: str | None = None, key: str | None = None, flags: int = _AS_USUAL) -> Connection:
    """Open (and create) a file in WAL mode with full synchronisation; None opens an empty vault in memory.

    `vfs` names the SQLite layer that reads and writes files, where it is not the system's own. `key` opens a sealed
    file (see `DataKey.pages`). Where the folder or the file may not be written, the connection only reads.
    """
    if vfs is not None and key is not None:
        vfs = f"multipleciphers-{vfs}"  # the layer that seals pages, over the one that is named
    with translated(path):
        if path is None:
            connection = Connection(":memory:")
        elif not path.exists() or _writable(path):
            connection = Connection(str(path), vfs=vfs, flags=flags)
        else:
            connection = _reader(path, vfs)
        with closed_on_error(connection):
            unlock(connection, key)
            connection.set_busy_timeout(BUSY_MS)
            # A commit is on the disk when it returns; nothing erased is left in freed pages; nothing spills to files.
            for name, value in (("synchronous", "FULL"), ("secure_delete", "ON"), ("temp_store", "MEMORY")):
                connection.pragma(name, value)
            connection.pragma("trusted_schema", "OFF")
            connection.pragma("cell_size_check", "ON")  # a damaged page is found when it is read, not when it misleads
            connection.pragma("cache_size", -8192)
            if path is not None:
                _log_ahead(connection)
        return connection


def _log_ahead(connection: apsw.Connection) -> None:
    """Bring a file into WAL mode, where it is not yet: of several processes that make it at once, one does."""
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            if connection.pragma("journal_mode") != "wal":
                connection.pragma("journal_mode", "wal")  # where nothing may be written it stays as it is
            return
        except apsw.BusyError:  # SQLite does not wait here: it holds a lock that the other one may wait for
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_MS / 1000)


def connect_sealed(
    path: Path, keys: Sequence[str | None], *, vfs: str | None = None, flags: int = _AS_USUAL
) -> Connection:
    """As `connect`, with the first of some keys that opens the file (None: it is clear). Raises as the last one does.

    There are several only while a vault is being sealed or its keys are rotated.
    """
    for key in keys[:-1]:
        try:
            return connect(path, vfs=vfs, key=key, flags=flags)
        except VaultDamaged:
            continue
    return connect(path, vfs=vfs, key=keys[-1], flags=flags)


def unlock(connection: Connection, key: str | None) -> None:
    """Let a connection that was just opened read and write a sealed file; None leaves it as it is."""
    connection.key = key
    if key is not None:
        if getattr(apsw, "mc_version", None) is None:  # plain apsw passes over the key and writes the file in clear
            raise Unsupported(
                "The apsw that is installed cannot seal files; apsw-sqlite3mc takes its place: pip uninstall apsw, "
                "then pip install --force-reinstall apsw-sqlite3mc."
            )
        for name, value in (("cipher", CIPHER), ("algorithm", ALGORITHM), ("key", f"raw:{key}")):
            connection.pragma(name, value)


def another(connection: apsw.Connection, path: Path | str | None = None) -> Connection:
    """A bare connection beside one: to the same file, or to another one that the same key seals."""
    key = key_of(connection)
    made = Connection(str(path or connection.filename), vfs=connection.open_vfs if key is None and not path else None)
    with closed_on_error(made):
        unlock(made, key)
        made.pragma("synchronous", "FULL")
    return made


def key_of(connection: apsw.Connection) -> str | None:
    """What opened a connection's file; None if it is clear."""
    return connection.key if isinstance(connection, Connection) else None


def _writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(one, os.W_OK, effective_ids=effective) for one in (path, path.parent))


def _reader(path: Path, vfs: str | None) -> Connection:
    """A connection that needs to write nothing, not even the index of a log."""
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        # Nobody is writing: whoever did would have a log. A later writer is met by a later connection.
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        return Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags, vfs=vfs)
    if not path.with_name(f"{path.name}-shm").exists():
        raise VaultError(
            f"{path} was not closed by whoever wrote it, and its log cannot be read where nothing may be written: open "
            "it once where it can be written, or copy it there."
        )
    return Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)


@contextmanager
def closed_on_error(connection: apsw.Connection) -> Iterator[None]:
    """Close a connection that is not fit for use, instead of leaving its locks to the garbage collector."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def moved(connection: apsw.Connection) -> bool:
    """Whether a connection's file was deleted or replaced: what is written through it reaches nobody."""
    answer = ctypes.c_int(0)
    connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(answer))
    return bool(answer.value)


@contextmanager
def translated(path: Path | str | None = None) -> Iterator[None]:
    """Turn SQLite's exceptions, and the system's, into ours, with what to do about them."""
    where = f" ({path})" if path else ""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise VaultBusy(
            f"Another process has held the vault's write lock for over {BUSY_MS // 1000} s{where}; try again, or see "
            "which process keeps a transaction open."
        ) from error
    except apsw.NotADBError as error:
        raise VaultDamaged(
            f"The vault's file is damaged{where}, or is sealed with a key that is not here: {error}. Restore a backup; "
            "keep this file."
        ) from error
    except (apsw.CorruptError, apsw.FormatError, apsw.SchemaChangeError, UnicodeDecodeError) as error:
        raise VaultDamaged(f"The vault's file is damaged{where}: {error}. Restore a backup; keep this file.") from error
    except apsw.ConstraintError as error:
        raise VaultDamaged(f"The vault's file contradicts itself{where}: {error}; see `tercet doctor`.") from error
    except apsw.FullError as error:
        raise VaultError(f"The disk is full{where}; nothing of this write was kept. Free some space.") from error
    except (apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise VaultError(f"The vault cannot be written here{where}: {error}.") from error
    except (apsw.CantOpenError, apsw.IOError) as error:
        raise VaultError(f"The vault's file cannot be opened or read{where}: {error}.") from error
    except OSError as error:
        if isinstance(error, TercetError):  # Refused is a PermissionError too
            raise
        raise VaultError(f"The vault's files cannot be read or written{where}: {error}.") from error
    except apsw.Error as error:
        raise VaultError(f"The vault could not do this{where}: {error}; see `tercet doctor`.") from error


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Around the reading of values that were valid when they were written: a wrong type or value is damage.

    `what` begins the message of the VaultDamaged it raises.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise VaultDamaged(f"{what} is not what was written ({error}); `tercet doctor` tells more.") from error


@contextmanager
def atomic(connection: apsw.Connection) -> Iterator[None]:
    """One transaction that takes the write lock first; anything raised inside undoes all of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # COMMIT itself may have failed and rolled back already (a full disk, say).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """One read transaction: everything inside sees the same moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def query(connection: apsw.Connection, statement: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """All rows of a statement, as tuples."""
    return connection.execute(statement, bindings).fetchall()


def scalar(connection: apsw.Connection, statement: str, bindings: Sequence[Any] = ()) -> Any:  # noqa: ANN401
    """The first value of the first row, or None."""
    return connection.execute(statement, bindings).get


def rising(numbers: Sequence[int], after: int) -> Sequence[int]:
    """The numbers of a page that should grow from `after` on: whoever reads page after page then comes to an end.

    Raises VaultDamaged if they do not: a damaged tree gives its rows out of order, or the same ones again.
    """
    for n in numbers:
        if not isinstance(n, int) or n <= after:
            raise VaultDamaged(f"Row {n!r:.40} came after row {after}: a table is damaged; see `tercet doctor`.")
        after = n
    return numbers


def marks(values: Sequence[object]) -> str:
    """As many placeholders as there are values: "?,?,?"."""
    return ",".join("?" * len(values))
