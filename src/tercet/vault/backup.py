"""A copy of the vault, made while it is in use, and the way back, on which what was erased since stays erased."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw

from tercet.errors import VaultBusy, VaultDamaged, VaultError
from tercet.vault import blobs, datakeys, mark
from tercet.vault import ledger as ledgers
from tercet.vault.codec import dump
from tercet.vault.connection import Connection, another, atomic, connect_sealed, marks, query, scalar, translated
from tercet.vault.datakeys import Keyring, Master, check_master, key_file_of
from tercet.vault.erase import erase
from tercet.vault.files import make_folder, sync
from tercet.vault.ids import RandomIds, system_clock
from tercet.vault.journal import head
from tercet.vault.schema import migrate
from tercet.vault.sqlite import SqliteVault, file_name, segments_of

MANIFEST = "manifest.json"
PAGES_AT_ONCE = 1024
ALONE_MS = 2000
"""How long a restore waits for other processes to let go of a file that it is about to replace."""


def back_up(vault: SqliteVault, folder: Path) -> list[Path]:
    """Copy each tenant's file, as of one moment each, into a folder that opens as a vault; returns the files made.

    Others may read and write meanwhile. A file appears under its name only when it is whole and on the disk; the
    manifest, with the SHA-256 of each, comes last: a folder without one is not a whole backup.

    Raises
    ------
    VaultError
        If the folder holds something already or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VaultError(f"{folder} is there already and is not an empty folder; give a new one.")
    made: dict[str, Any] = {}
    held: dict[str, Any] = {}
    try:
        make_folder(folder / "tenants")
        for name in vault.tenants():
            target = folder / "tenants" / f"{file_name(name)}.db"
            part = target.with_suffix(".part")
            with vault.tenant(name).reading() as reader, translated(part):
                seq, _ = head(reader.connection)
                held[name] = blobs.copy_named(reader.connection, vault.tenant(name).blobs, target)
                wrapped = _copy_keys(vault.tenant(name).path, target)
                _copy(reader.connection, part)
            sync(part)
            part.replace(target)
            facts = {"tenant": name, "seq": seq, "bytes": target.stat().st_size, "sha256": _hash(target)}
            made[target.relative_to(folder).as_posix()] = {**facts, **wrapped}
        sync(folder / "tenants")
        manifest = {
            "format": "tercet backup",
            "version": 1,
            "at": vault.clock().isoformat(),
            "files": made,
            "blobs": held,
        }
        part = folder / f"{MANIFEST}.part"
        part.write_text(dump(manifest), encoding="utf-8")
        sync(part)
        part.replace(folder / MANIFEST)
        sync(folder)
    except OSError as error:
        raise VaultError(f"The backup to {folder} failed: {error.strerror}.") from error
    return [folder / name for name in made]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: the files put in place, when the backup was made, the ids erased from it again."""

    files: tuple[Path, ...]
    made: datetime
    erased: tuple[str, ...]


def restore(backup: Path, target: Path, *, ledger: bool = True, master: Master | None = None) -> Restored:
    """Put a backup back into a folder, which may be empty or hold the vault that was backed up.

    Whatever was erased there since is erased from the copy, with everything made from it, and scrubbed, before the
    copy takes the place of the vault's file: it never comes back. Memories that were written since the backup are lost;
    tenants that the backup does not have stay as they are. Each tenant's file is replaced in one step: after an
    interruption it is the old or the new one, and the restore can be done again.

    Parameters
    ----------
    ledger
        False goes by the ledger beside the vault's file alone, and leaves aside the rules and keys at the target, for a
        vault so damaged that its own cannot be read. If that file is lost, too, say again what has to be forgotten; and
        look at the keys.
    master
        Opens the backup of a sealed vault, and the vault at the target. A sealed tenant takes the place of a sealed one
        only, and a clear one of a clear one.

    Raises
    ------
    VaultSealed
        If the master key is missing or another one, or the tenant's keys at the target were destroyed.
    VaultDamaged
        If the backup is not what was written, or the ledger in the target's file cannot be read; nothing was changed.
    VaultBusy
        If another process has the vault at the target open.
    VaultError
        If there is no whole backup, or the target cannot be written.
    """
    manifest = verify(backup)
    for folder in (backup, target):
        check_master(folder, master)
    staging = target / "restoring"
    erased: list[str] = []
    files: list[Path] = []
    try:
        make_folder(target / "tenants")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with ExitStack() as stack:
                for name, facts in manifest["files"].items():
                    live, new = target / name, staging / name
                    here = Keyring(live, master)
                    _check_sort(here, sealed="keys" in facts)
                    known = stack.enter_context(closing(_alone(here, ledger=ledger))) if live.exists() else None
                    make_folder(new.parent)
                    shutil.copyfile(backup / name, new)
                    if "keys" in facts:
                        _copy_file(key_file_of(backup / name), key_file_of(new))
                    for one in manifest.get("blobs", {}).get(facts["tenant"], {}):
                        _copy_file(backup / one, staging / one)
                    gone = _ledger(known, live) if known is not None and ledger else {}
                    gone |= {one.id: one.at for one in ledgers.read(live)[0]}
                    if known is not None and ledger:
                        _keep_access(known, Keyring(new, master))
                    if gone:
                        erased += _replay(gone, staging, facts["tenant"], master)
                    sync(new)
                for name in manifest["files"]:
                    mark.mark_of(target / name).unlink(missing_ok=True)
                    shutil.rmtree(segments_of(target / name), ignore_errors=True)  # of other rows than the copy's
                    _bring_blobs(staging / name, target / name)
                    with _opened_by_both(staging / name, target / name):
                        (staging / name).replace(target / name)
                        sync((target / name).parent)
                    files.append(target / name)
                    keys = Keyring(target / name, master)
                    with closing(_connect(keys)) as restored:
                        blobs.keep_only(restored, blobs.shelf_of(target / name, keys))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise VaultError(f"The restore to {target} failed: {error.strerror}.") from error
    return Restored(tuple(files), datetime.fromisoformat(manifest["at"]), tuple(erased))


def _connect(keys: Keyring) -> Connection:
    """A connection to the file that a keyring opens."""
    seal = keys.seal()
    return connect_sealed(keys.path, [None] if seal is None else seal.pages)


def _check_sort(keys: Keyring, *, sealed: bool) -> None:
    """Raises VaultSealed for a tenant that was destroyed; VaultError if one is sealed and the other is clear."""
    seal = keys.seal()
    if keys.path.exists() and (seal is not None) is not sealed:
        there, this = ("sealed", "clear") if seal is not None else ("clear", "sealed")
        raise VaultError(
            f"{keys.path.name} is {there} and the backup's is {this}: restore it into a new folder, and seal that if "
            "need be."
        )


def _copy_keys(path: Path, target: Path) -> dict[str, Any]:
    """Bring the wrapped keys of a sealed tenant along; returns what the manifest says of them."""
    source, copy = key_file_of(path), key_file_of(target)
    if not source.exists():
        return {}
    _copy_file(source, copy)
    sync(copy.parent)
    return {"keys": {"name": copy.relative_to(target.parent.parent).as_posix(), "sha256": _hash(copy)}}


@contextmanager
def _opened_by_both(staged: Path, live: Path) -> Iterator[None]:
    """While the file is replaced, the key file opens the old one and the new one; afterwards the new one."""
    new, old = datakeys.read(key_file_of(staged)), datakeys.read(key_file_of(live))
    if new is not None:
        known = {id for id, _ in new.keys}
        older = tuple(one for one in old.keys if one[0] not in known) if old is not None else ()
        datakeys.write(key_file_of(live), replace(new, keys=(*new.keys, *older)))
    yield
    if new is not None:
        datakeys.write(key_file_of(live), new)


def _copy_file(source: Path, target: Path) -> None:
    make_folder(target.parent)
    shutil.copyfile(source, target)
    sync(target)


def _bring_blobs(staged: Path, live: Path) -> None:
    """Move what a staged file names to where the live one will look for it; what is there already is as good."""
    for file in sorted(blobs.folder_of(staged).rglob("*")):
        if file.is_file():
            place = blobs.path_of(blobs.folder_of(live), file.name)
            make_folder(place.parent)
            file.replace(place)
            sync(place.parent)


def verify(backup: Path) -> dict[str, Any]:
    """The manifest of a backup whose files are what was written. Raises VaultDamaged, VaultError."""
    try:
        manifest: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        listed = {name: facts["sha256"] for name, facts in manifest["files"].items()}
        wrapped = [facts["keys"] for facts in manifest["files"].values() if "keys" in facts]
        listed |= {one["name"]: one["sha256"] for one in wrapped}
        listed |= {name: one["sha256"] for held in manifest.get("blobs", {}).values() for name, one in held.items()}
        datetime.fromisoformat(manifest["at"])
    except FileNotFoundError:
        raise VaultError(f"{backup} is no whole backup: it has no {MANIFEST}.") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise VaultDamaged(f"The manifest of {backup} is damaged: {error}.") from error
    for name, wanted in listed.items():
        path = backup / name
        if not path.is_file() or _hash(path) != wanted or path.with_name(f"{path.name}-wal").exists():
            raise VaultDamaged(f"{path} is missing, or is not what the backup wrote; use another backup.")
    return manifest


def _alone(keys: Keyring, *, ledger: bool) -> apsw.Connection:
    """A connection that shuts out every other until it is closed, on a file without a log beside it."""
    live = keys.path
    try:
        connection = _connect(keys)
    except VaultDamaged as error:
        if ledger:
            raise _unread(live) from error
        for name in (f"{live.name}-wal", f"{live.name}-shm"):  # of no use without the file, and wrong beside another
            live.with_name(name).unlink(missing_ok=True)
        return apsw.Connection(":memory:")
    try:
        with translated(live):
            connection.set_busy_timeout(ALONE_MS)
            connection.pragma("journal_mode", "delete")
            connection.execute("BEGIN EXCLUSIVE")
    except VaultBusy:
        connection.close()
        raise VaultBusy(f"{live} is in use; close every process that has this vault open, then restore.") from None
    return connection


def _ledger(known: apsw.Connection, live: Path) -> dict[bytes, int]:
    """Ids that were erased from a file, and when."""
    said = "SELECT id, at FROM erased UNION SELECT cube, at FROM journal WHERE action = 'forget'"
    try:
        return dict(query(known, said))
    except apsw.Error as error:
        raise _unread(live) from error


def _keep_access(known: apsw.Connection, keys: Keyring) -> None:
    """A restore brings memories back, not who may see them: a key or a grant that was revoked since must stay so."""
    with closing(_connect(keys)) as connection, translated(keys.path):
        migrate(connection)
        with atomic(connection):
            for table, width in (("rules", 3), ("keys", 6), ("shares", 13), ("shared", 2)):
                if scalar(known, "SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)) is None:
                    continue  # damaged, or older than the table
                rows = query(known, f"SELECT * FROM {table}")  # noqa: S608  # one of four words
                if not rows and table in {"rules", "keys"}:  # no tenant goes back to having no rules: this one is new
                    continue
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
                connection.executemany(f"INSERT INTO {table} VALUES ({marks(range(width))})", rows)  # noqa: S608


def _unread(live: Path) -> VaultDamaged:
    return VaultDamaged(
        f"{live} is damaged: what was erased there cannot be read, and would come back. To restore all the same, "
        "leave the ledger aside and forget again what has to be forgotten."
    )


def _replay(ledger: dict[bytes, int], staging: Path, name: str, master: Master | None) -> list[str]:
    """Erase from the copy in a folder what a ledger names; returns what was still there, by id."""
    vault = SqliteVault(staging, ids=RandomIds(), clock=system_clock, master=master)
    with closing(vault):
        tenant = vault.tenant(name)
        with tenant.writing(by="restore") as writer:
            find = "SELECT n FROM cubes WHERE id = ?"
            numbers = [n for id in ledger for (n,) in query(writer.connection, find, (id,))]
            gone = erase(writer, numbers, cause=ledgers.AGAIN, despite_hold=ledgers.AGAIN).erased if numbers else ()
            writer.connection.executemany("INSERT OR IGNORE INTO erased VALUES (?, ?)", list(ledger.items()))
        waiting = tenant.scrub(at_once=True) if numbers else None
        if waiting is not None:
            raise VaultError(f"What was erased since the backup could not be scrubbed: {waiting}")
    mark.mark_of(staging / "tenants" / f"{file_name(name)}.db").unlink(missing_ok=True)
    return list(gone)


def _copy(source: apsw.Connection, target: Path) -> None:
    with closing(another(source, target)) as copy, copy.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(PAGES_AT_ONCE)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
