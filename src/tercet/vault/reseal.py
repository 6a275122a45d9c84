"""Bringing a tenant's files under another key: sealing what was clear, rotating keys, destroying them.

A rotation puts a new data key before the old one in the key file; from then on whatever is written is sealed with it.
Then the SQLite file is copied into one under the new key and put in place while nobody is in the middle of a call; then
blobs and segments follow, one a transaction. When none is left the old key goes. After a crash at any moment both keys
are in the key file, so all can be read, and the next `finish` goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from tercet.errors import VaultBusy, VaultDamaged, VaultError
from tercet.vault import blobs, datakeys, jobs, ledger, mark
from tercet.vault.connection import (
    ALGORITHM,
    CIPHER,
    Connection,
    atomic,
    connect,
    connect_sealed,
    key_of,
    query,
    scalar,
    translated,
)
from tercet.vault.datakeys import DataKey, KeyFile, Master, Seal
from tercet.vault.files import sync
from tercet.vault.journal import Chain, head
from tercet.vault.search import wide
from tercet.vault.sqlite import Tenant, segments_of

PART, FORMER = ".sealing", ".clear"
"""A file that is being made to take the tenant's place, and the clear one whose place was taken."""
WAIT = 10.0
"""Seconds for which a rotation waits until no call is in the middle of anything."""
ALONE_MS = 2000
"""How long sealing waits for other processes to close a clear file."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was brought under the newest key: whether the SQLite file was, and how many blobs and segments."""

    tenant: str
    database: bool
    blobs: int
    segments: int


def unfinished(said: KeyFile | None) -> bool:
    """Whether files may still be under an older key than the newest, or clear."""
    return said is not None and said.destroyed is None and (said.clear or len(said.keys) > 1)


def want(tenant: Tenant, *, at: datetime) -> None:
    """Put down a `reseal` job if a rotation, or a sealing, was interrupted."""
    if unfinished(datakeys.read(tenant.keys.file)):
        with tenant.maintaining() as connection:
            jobs.enqueue(connection, "reseal", {}, at=at)


def begin(tenant: Tenant, master: Master, *, wait: float = WAIT) -> None:
    """Put a new data key before the others, unless a rotation runs already. Seals a tenant that was clear.

    Raises
    ------
    VaultBusy
        If calls are under way all the time; for a clear tenant, if another process has it open: it may have files of it
        in memory, which are going to be overwritten.
    VaultSealed, VaultDestroyed
        If its keys cannot be read.
    """
    with tenant.turnstile.alone(wait=wait):
        tenant.drop_idle()
        said = datakeys.read(tenant.keys.file)
        if unfinished(said):
            return
        if said is None:
            with _only_one(tenant.path):
                pass
        else:
            tenant.keys.opened(said)
        old = replace(tenant.keys.blank, clear=True) if said is None else said
        datakeys.write(tenant.keys.file, old.adding(DataKey.new(tenant.keys.entropy), [master]))


def finish(tenant: Tenant, *, by: str = "tercet", wait: float = WAIT) -> Moved:
    """Bring every file of a tenant under its newest key, and let the older ones go.

    Can be called again after any interruption. Raises as `begin` does.
    """
    with tenant.turnstile.alone(wait=wait):
        tenant.drop_idle()
        if not unfinished(datakeys.read(tenant.keys.file)):
            return Moved(tenant.name, False, 0, 0)
        moved = _move(tenant)
    with tenant.maintaining() as connection:
        if (seal := tenant.keys.seal()) is None:
            raise VaultDamaged(f"The key file of {tenant.path} is gone.")
        held = blobs.reseal(connection, tenant.blobs)
        segments = wide.reseal(connection, segments_of(tenant.path), seal)
        with atomic(connection):
            chain = Chain(connection, by=by, at=tenant.vault.clock())
            chain.append("reseal", key=seal.keys[0].id)
        mark.write(tenant.path, *head(connection))
    with tenant.turnstile.alone(wait=wait):
        said = datakeys.read(tenant.keys.file)
        if said is not None and said.keys[0][0] == seal.keys[0].id:  # else somebody began the next one
            datakeys.write(tenant.keys.file, replace(said, keys=said.keys[:1], clear=False))
    return Moved(tenant.name, moved, held, segments)


def rewrap(tenant: Tenant, change: Callable[[KeyFile, Sequence[DataKey]], KeyFile], *, wait: float = WAIT) -> None:
    """Change who can open a tenant's data keys, which stay what they are. Raises as `begin` does."""
    with tenant.turnstile.alone(wait=wait):
        said = datakeys.read(tenant.keys.file)
        if said is not None and said.destroyed is None:
            datakeys.write(tenant.keys.file, change(said, tenant.keys.opened(said).keys))


def destroy(tenant: Tenant, receipt: Callable[[Connection], dict[str, Any]], *, wait: float = WAIT) -> dict[str, Any]:
    """Overwrite a tenant's data keys by a receipt, which is made while the file can still be read; then drop its files.

    Raises as `begin` does, and what `receipt` raises; nothing was changed then.
    """
    with tenant.turnstile.alone(wait=wait):
        tenant.drop_idle()
        said = datakeys.read(tenant.keys.file)
        if said is None:
            raise VaultError(
                f"{tenant.path.name} is not sealed: it has no key to destroy. Forget its memories instead."
            )
        with translated(tenant.path), closing(tenant.vault.connect(tenant.path)) as connection:
            paper = receipt(connection)
        with tenant.keys.file.open("r+b") as stream:  # the receipt takes the name; these bytes would stay on the disk
            datakeys.write(tenant.keys.file, replace(tenant.keys.blank, destroyed=paper))
            stream.write(bytes(os.fstat(stream.fileno()).st_size))
            stream.flush()
            os.fsync(stream.fileno())
        for left in tenant.keys.file.parent.glob(f"{tenant.keys.file.name}.*.part"):  # of one that was killed
            blobs.destroy(left)
        tenant.keys.forget()
        clear_away(tenant.path)
    tenant.forget_cache()
    return paper


def clear_away(path: Path) -> None:
    """Unlink what is left of a tenant whose keys are destroyed; its bytes are nobody's to read. Raises VaultError."""
    try:
        left = [path.with_suffix(kind) for kind in (PART, FORMER)]
        for file in (path, *_beside(path), *left, mark.mark_of(path), ledger.ledger_of(path)):
            file.unlink(missing_ok=True)
        for folder in (segments_of(path), blobs.folder_of(path)):
            shutil.rmtree(folder, ignore_errors=True)
        sync(path.parent)
    except OSError as error:
        raise VaultError(f"The files of {path} cannot be removed: {error.strerror}.") from error


def _move(tenant: Tenant) -> bool:
    """Put a copy of the SQLite file under the newest key in its place; whether there was anything to do.

    Nobody is in the middle of a call. Its log is emptied first. Then the key file changes, so that no process goes on
    with a connection from before; then the empty log goes, so that none is taken for the new file's; then the file.
    """
    path, seal = tenant.path, tenant.keys.seal()
    if seal is None:
        raise VaultDamaged(f"The key file of {path} is gone.")
    part, former = path.with_suffix(PART), path.with_suffix(FORMER)
    for left in (part, *_beside(part)):
        left.unlink(missing_ok=True)
    if former.exists():  # a crash came in between: it is the file itself, or the one before
        former.unlink() if former.samefile(path) else blobs.destroy(former)
    with closing(connect_sealed(path, seal.pages, vfs=tenant.vault.vfs)) as source:
        key = key_of(source)
        if key == seal.keys[0].pages:
            return False
        with translated(path):
            if query(source, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:
                raise VaultBusy(f"{path} is being read or written all the time; try again.")
    if key is None:
        with _only_one(path):
            _copy(path, part, seal, tenant.vault.vfs)
    else:
        _copy(path, part, seal, tenant.vault.vfs)
    said = datakeys.read(tenant.keys.file)
    assert said is not None  # noqa: S101  # `seal` came from it
    datakeys.write(tenant.keys.file, said)
    try:
        for left in _beside(path):
            left.unlink(missing_ok=True)
        if key is None:
            os.link(path, former)
        sync(path.parent)
        part.replace(path)
        sync(path.parent)
        if key is None:
            blobs.destroy(former)
    except OSError as error:
        raise VaultError(f"{path} cannot be replaced: {error.strerror}.") from error
    return True


def _copy(path: Path, part: Path, seal: Seal, vfs: str | None) -> None:
    """A whole copy under the newest key, on the disk. Raises VaultError, VaultDamaged; no message holds the key."""
    wanted = seal.keys[0].pages
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    layer = f"&vfs=multipleciphers-{vfs}" if vfs is not None else ""
    target = f"file:{quote(str(part.absolute()))}?cipher={CIPHER}&algorithm={ALGORITHM}&key=raw:{wanted}{layer}"
    with closing(connect_sealed(path, seal.pages, vfs=vfs, flags=flags)) as source:
        try:
            source.execute("VACUUM INTO ?", (target,))
        except apsw.Error as error:
            full = isinstance(error, apsw.FullError)
            why = "the disk is full" if full else f"SQLite says {type(error).__name__}"
            raise VaultError(f"{path} cannot be copied under its new key: {why}. Nothing was changed.") from None
        with closing(connect(part, vfs=vfs, key=wanted)) as copy:
            same = "SELECT count(*), coalesce(sum(seq), 0) FROM versions"
            if head(copy) != head(source) or query(copy, same) != query(source, same):
                raise VaultDamaged(f"The copy of {path} under its new key is not the same; nothing was changed.")
    sync(part)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Nobody else has a clear file open. Raises VaultBusy."""
    with closing(connect(path)) as connection:
        connection.set_busy_timeout(ALONE_MS)
        try:
            with translated(path):
                connection.pragma("journal_mode", "delete")
        except VaultBusy:
            raise VaultBusy(
                f"{path} is in use; close every process that has this vault open, then seal it: what is clear now is "
                "going to be overwritten."
            ) from None
        yield


def _beside(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm", "journal")]


def held(connection: apsw.Connection) -> int:
    """How many memories are on hold."""
    return int(scalar(connection, "SELECT count(DISTINCT id) FROM cubes WHERE held != 0"))
