"""Files that payloads refer to, named by what they hold: `<vault>/blobs/<tenant's file>/<2 hex>/<sha256>`.

Those of a sealed tenant are sealed (see `sealed`), under names that follow from the SHA-256 and the tenant's key.

A file is written beside its place and synced, and takes its name inside the transaction that writes the rows which name
it; so none is named that is not whole. What no row names any more is put down to be unlinked in the transaction that
drops the last name, then overwritten and unlinked under the write lock: after a crash that is done again. A crash
between renaming and the commit leaves a file that nothing names; `doctor` finds it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from tercet.cube import BlobRef, MemCube, Text
from tercet.errors import VaultDamaged, VaultError
from tercet.vault import sealed
from tercet.vault.connection import atomic, query, scalar, undamaged
from tercet.vault.datakeys import DataKey, Keyring, Seal
from tercet.vault.files import make_folder, sync

PART = ".part"
CHUNK = 1 << 20
BEING_WRITTEN = 3600.0
"""Seconds for which an unnamed part is taken for one that a process is writing; an older one was left by a crash."""


def folder_of(path: Path) -> Path:
    """The folder of the blobs of a tenant's file."""
    return path.parent.parent / "blobs" / path.stem


def path_of(folder: Path, sha256: str) -> Path:
    """Where a blob lies. Raises VaultDamaged for what is no hash: such a name could lead out of the folder."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise VaultDamaged(f"{sha256!r:.80} is not the name of a blob.")
    return folder / sha256[:2] / sha256


@dataclass(frozen=True)
class Shelf:
    """The blobs of one tenant: their folder, and what opens them."""

    folder: Path
    keys: Keyring

    @property
    def sealing(self) -> DataKey | None:
        """What a new blob is sealed with; None where the tenant is clear."""
        seal = self.keys.seal()
        return seal.keys[0] if seal is not None else None

    def places(self, sha256: str) -> list[Path]:
        """Where a blob may lie: under the newest key's name first, then where a rotation has not come to it yet."""
        seal = self.keys.seal()
        plain = path_of(self.folder, sha256)
        if seal is None:
            return [plain]
        return [path_of(self.folder, key.name(sha256)) for key in seal.keys] + ([plain] if seal.clear else [])

    def place(self, sha256: str) -> Path:
        """Where a blob lies, or would if it were written now."""
        places = self.places(sha256)
        return next((one for one in places if one.exists()), places[0])

    def size(self, file: Path, plain: int) -> int:
        """Bytes that a file of so much content has on the disk; says 0 of one that is not there."""
        is_sealed = self.keys.seal() is not None and file.exists() and sealed.is_sealed(file)
        return sealed.size_of(plain) if is_sealed else plain


def shelf_of(path: Path, keys: Keyring) -> Shelf:
    """The blobs of a tenant's file."""
    return Shelf(folder_of(path), keys)


class Draft:
    """A blob being written: under no name yet, and sealed from its first byte on where the tenant is."""

    def __init__(self, shelf: Shelf, file: Any, part: Path) -> None:  # noqa: ANN401  # a binary file of tempfile's
        self.shelf, self._file, self.part = shelf, file, part
        self._digest, self._size = hashlib.sha256(), 0
        self._key = shelf.sealing
        self._sealer = None if self._key is None else sealed.Sealer(self._key, file.write)
        self.ref: BlobRef | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Raises VaultError if the disk is full or fails."""
        with _said(self.part):
            (self._file if self._sealer is None else self._sealer).write(data)
        self._digest.update(data)
        self._size += memoryview(data).nbytes

    def seal(self, role: str) -> BlobRef:
        """Put what was written on the disk; returns how it is referred to."""
        with _said(self.part):
            if self._sealer is not None:
                self._sealer.finish(self._digest.digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self.ref = BlobRef(self._digest.hexdigest(), self._size, role)
        return self.ref

    def place(self) -> None:
        """Give it its name; call it inside the transaction that names it."""
        if self.ref is None:
            raise VaultError("A blob is sealed before it is placed.")
        key = self.shelf.sealing
        if key is not None and (self._key is None or key.id != self._key.id):  # the keys were rotated meanwhile
            old = Seal(() if self._key is None else (self._key,), clear=self._key is None)
            identity = self._digest.digest()
            with _said(self.part):
                sealed.write(self.part, key, sealed.chunks(self.part, old, identity), identity)
        target = self.shelf.places(self.ref.sha256)[0]
        with _said(target):
            make_folder(target.parent)
            self.part.replace(target)
            sync(target.parent)


@contextmanager
def drafting(shelf: Shelf) -> Iterator[Draft]:
    """Write a blob; nothing of it is left unless it was placed."""
    with _said(shelf.folder):
        make_folder(shelf.folder)
        handle, name = tempfile.mkstemp(dir=shelf.folder, suffix=PART)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield Draft(shelf, file, part)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def find(shelf: Shelf, ref: BlobRef) -> Path:
    """The file of a blob that is there with the size it should have. Raises VaultDamaged."""
    path = shelf.place(ref.sha256)
    try:
        size, wanted = path.stat().st_size, shelf.size(path, ref.size)
    except FileNotFoundError:
        raise VaultDamaged(f"The file of blob {ref.sha256[:12]} is missing; promote the memory again.") from None
    if size != wanted:
        raise VaultDamaged(
            f"Blob {ref.sha256[:12]} has {size:,} bytes and was written with {wanted:,}; promote the memory again."
        )
    return path


def read(shelf: Shelf, ref: BlobRef) -> bytearray | None:
    """The content of a sealed blob, in memory and nowhere else; None where the tenant is clear: see `find`.

    Raises VaultDamaged; OSError if the system cannot read it.
    """
    for last in (False, True):  # a rotation may move the file just now
        if (seal := shelf.keys.seal()) is None:
            return None
        try:
            return sealed.read(find(shelf, ref), seal, bytes.fromhex(ref.sha256))
        except (VaultDamaged, FileNotFoundError):
            if last:
                raise
    return None


def name(connection: apsw.Connection, n: int, cube: MemCube) -> None:
    """Write down which blobs a version of a cube refers to; part of the transaction that writes the version."""
    if isinstance(cube.payload, Text):
        return
    connection.executemany(
        "INSERT INTO blobs VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(bytes.fromhex(one.sha256), n, cube.version, one.role, one.size) for one in cube.payload.blobs],
    )


def release(connection: apsw.Connection, n: int) -> int:
    """Drop the names that a cube gives, and put down to unlink what nothing else names; returns how many went."""
    connection.execute(
        "INSERT OR IGNORE INTO unlinks SELECT sha256 FROM blobs b WHERE cube = ? "
        "AND NOT EXISTS (SELECT 1 FROM blobs o WHERE o.sha256 = b.sha256 AND o.cube != ?)",
        (n, n),
    )
    connection.execute("DELETE FROM blobs WHERE cube = ?", (n,))
    return connection.changes()


def unlink_unnamed(connection: apsw.Connection, shelf: Shelf) -> None:
    """Overwrite and unlink what was put down to be unlinked, unless it was named again meanwhile."""
    if scalar(connection, "SELECT 1 FROM unlinks LIMIT 1") is None:
        return
    with atomic(connection):
        for (raw,) in query(connection, "SELECT sha256 FROM unlinks"):
            if scalar(connection, "SELECT 1 FROM blobs WHERE sha256 = ? LIMIT 1", (raw,)) is None:
                with undamaged("The list of files to unlink"):
                    files = shelf.places(raw.hex())
                for file in files:
                    destroy(file)
        connection.execute("DELETE FROM unlinks")


def destroy(file: Path) -> None:
    """Overwrite a file with zeros and unlink it. Whoever has it mapped sees zeros: what it held was withdrawn."""
    with _said(file), contextlib.suppress(FileNotFoundError):
        with file.open("r+b") as stream:
            left = file.stat().st_size
            while left > 0:
                left -= stream.write(bytes(min(CHUNK, left)))
            stream.flush()
            os.fsync(stream.fileno())
        file.unlink()
        sync(file.parent)


def examine(connection: apsw.Connection, shelf: Shelf, *, repair: bool) -> Iterator[tuple[str, bool]]:
    """What is wrong with a tenant's blobs, and whether it was put right: (detail, repaired).

    Every named file is read and compared with its SHA-256. With `repair`, files that nothing names are destroyed; a
    damaged one cannot be made again here, since that needs the model: demote its memory, or promote the text again.
    """
    folder = shelf.folder
    with atomic(connection):  # no writer places a file meanwhile
        named = _named(connection)
        for sha256, size in named.items():
            if (trouble := _trouble(shelf, sha256, size)) is not None:
                yield f"blob {sha256}: {trouble}", False
        placed = {place for sha256 in named for place in shelf.places(sha256)}
        for file in _files(folder):
            if file.suffix == PART and time.time() - file.stat().st_mtime < BEING_WRITTEN:
                continue
            if file not in placed:
                if repair:
                    destroy(file)
                yield f"{file.relative_to(folder).as_posix()}: no memory names it", repair


def copy_named(connection: apsw.Connection, shelf: Shelf, target: Path) -> dict[str, dict[str, Any]]:
    """Copy the blobs that a snapshot of a tenant's file names to where a copy of that file will look for them.

    Each is checked on the way. Returns facts by name below the copy's vault. Raises VaultDamaged, OSError.
    """
    home = folder_of(target)
    made: dict[str, dict[str, Any]] = {}
    for sha256, size in _named(connection).items():
        found = shelf.place(sha256)
        if (trouble := _trouble(shelf, sha256, size)) is not None:
            raise VaultDamaged(f"Blob {sha256[:12]} cannot be copied: {trouble}; see `tercet doctor`.")
        copy = path_of(home, found.name)
        make_folder(copy.parent)
        part = copy.with_suffix(PART)
        shutil.copyfile(found, part)
        sync(part)
        with part.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        part.replace(copy)
        sync(copy.parent)
        facts = {"bytes": copy.stat().st_size, "sha256": digest}
        made[copy.relative_to(target.parent.parent).as_posix()] = facts
    return made


def keep_only(connection: apsw.Connection, shelf: Shelf) -> None:
    """Destroy every file of a folder that no row names: after a restore, what was made since the backup."""
    placed = {place for sha256 in _named(connection) for place in shelf.places(sha256)}
    for file in _files(shelf.folder):
        if file not in placed:
            destroy(file)


def reseal(connection: apsw.Connection, shelf: Shelf) -> int:
    """Bring every blob under the newest key, one a transaction; returns how many were moved.

    What lay under an older name is overwritten and unlinked once the new file is on the disk.
    """
    moved = 0
    for sha256 in _named(connection):
        with atomic(connection):  # no erasure takes the name away meanwhile
            new, *old = shelf.places(sha256)
            seal, key = shelf.keys.seal(), shelf.sealing
            there = [file for file in old if file.exists()]
            if seal is None or key is None or not there or sha256 not in _named(connection, sha256):
                continue
            if not new.exists():
                identity = bytes.fromhex(sha256)
                with _said(new):
                    make_folder(new.parent)
                    sealed.write(new, key, sealed.chunks(there[0], seal, identity), identity)
            for file in there:
                destroy(file)
            moved += 1
    return moved


def _named(connection: apsw.Connection, sha256: str | None = None) -> dict[str, int]:
    """SHA-256 and size of each blob that rows name, or of that one."""
    with undamaged("The list of blobs"):
        only = "" if sha256 is None else "WHERE sha256 = ?"
        given = () if sha256 is None else (bytes.fromhex(sha256),)
        rows = query(connection, f"SELECT DISTINCT sha256, size FROM blobs {only} ORDER BY 1", given)  # noqa: S608
        return {raw.hex(): int(size) for raw, size in rows}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _trouble(shelf: Shelf, sha256: str, size: int) -> str | None:
    file = shelf.place(sha256)
    try:
        wanted = shelf.size(file, size)
        seal = shelf.keys.seal()
        with file.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            found = hashlib.file_digest(stream, "sha256").hexdigest() if seal is None else ""
        if length != wanted:
            return f"its file has {length:,} bytes, not {wanted:,}: it was cut short or written to"
        if seal is not None:
            found = hashlib.sha256(sealed.read(file, seal, bytes.fromhex(sha256))).hexdigest()
    except FileNotFoundError:
        return "its file is missing"
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"
    except VaultDamaged as error:
        return str(error)
    return None if found == sha256 else "its file holds something else than what was written"


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """The system's errors in our words."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        what = "The disk is full" if full else f"{error.strerror}"
        raise VaultError(f"{path} cannot be written: {what}. Nothing of it was kept.") from error
