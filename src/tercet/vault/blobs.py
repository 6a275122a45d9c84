"""Files that payloads refer to, named by what they hold: `<vault>/blobs/<tenant's file>/<2 hex>/<sha256>`.

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
from pathlib import Path
from typing import Any

import apsw

from tercet.cube import BlobRef, MemCube, Text
from tercet.errors import VaultDamaged, VaultError
from tercet.vault.connection import atomic, query, scalar, undamaged
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


class Draft:
    """A blob being written: under no name yet."""

    def __init__(self, folder: Path, file: Any, part: Path) -> None:  # noqa: ANN401  # a binary file of tempfile's
        self.folder, self._file, self.part = folder, file, part
        self._digest, self._size = hashlib.sha256(), 0
        self.ref: BlobRef | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Raises VaultError if the disk is full or fails."""
        with _said(self.part):
            self._file.write(data)
        self._digest.update(data)
        self._size += memoryview(data).nbytes

    def seal(self, role: str) -> BlobRef:
        """Put what was written on the disk; returns how it is referred to."""
        with _said(self.part):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self.ref = BlobRef(self._digest.hexdigest(), self._size, role)
        return self.ref

    def place(self) -> None:
        """Give it its name; call it inside the transaction that names it."""
        if self.ref is None:
            raise VaultError("A blob is sealed before it is placed.")
        target = path_of(self.folder, self.ref.sha256)
        with _said(target):
            make_folder(target.parent)
            self.part.replace(target)
            sync(target.parent)


@contextmanager
def drafting(folder: Path) -> Iterator[Draft]:
    """Write a blob; nothing of it is left unless it was placed."""
    with _said(folder):
        make_folder(folder)
        handle, name = tempfile.mkstemp(dir=folder, suffix=PART)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield Draft(folder, file, part)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def find(folder: Path, ref: BlobRef) -> Path:
    """The file of a blob that is there with the size it should have. Raises VaultDamaged."""
    path = path_of(folder, ref.sha256)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise VaultDamaged(f"The file of blob {ref.sha256[:12]} is missing; promote the memory again.") from None
    if size != ref.size:
        raise VaultDamaged(
            f"Blob {ref.sha256[:12]} has {size:,} bytes and was written with {ref.size:,}; promote the memory again."
        )
    return path


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


def unlink_unnamed(connection: apsw.Connection, path: Path) -> None:
    """Overwrite and unlink what was put down to be unlinked, unless it was named again meanwhile."""
    if scalar(connection, "SELECT 1 FROM unlinks LIMIT 1") is None:
        return
    with atomic(connection):
        for (raw,) in query(connection, "SELECT sha256 FROM unlinks"):
            if scalar(connection, "SELECT 1 FROM blobs WHERE sha256 = ? LIMIT 1", (raw,)) is None:
                with undamaged("The list of files to unlink"):
                    file = path_of(folder_of(path), raw.hex())
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


def examine(connection: apsw.Connection, path: Path, *, repair: bool) -> Iterator[tuple[str, bool]]:
    """What is wrong with a tenant's blobs, and whether it was put right: (detail, repaired).

    Every named file is read and compared with its SHA-256. With `repair`, files that nothing names are destroyed; a
    damaged one cannot be made again here, since that needs the model: demote its memory, or promote the text again.
    """
    folder = folder_of(path)
    with atomic(connection):  # no writer places a file meanwhile
        with undamaged("The list of blobs"):
            rows = query(connection, "SELECT DISTINCT sha256, size FROM blobs ORDER BY 1")
            named = {raw.hex(): int(size) for raw, size in rows}
        for sha256, size in named.items():
            if (trouble := _trouble(path_of(folder, sha256), sha256, size)) is not None:
                yield f"blob {sha256}: {trouble}", False
        for file in _files(folder):
            if file.suffix == PART and time.time() - file.stat().st_mtime < BEING_WRITTEN:
                continue
            if file.name not in named or file != path_of(folder, file.name):
                if repair:
                    destroy(file)
                yield f"{file.relative_to(folder).as_posix()}: no memory names it", repair


def copy_named(connection: apsw.Connection, path: Path, target: Path) -> dict[str, dict[str, Any]]:
    """Copy the blobs that a snapshot of a tenant's file names to where a copy of that file will look for them.

    Each is checked on the way. Returns facts by name below the copy's vault. Raises VaultDamaged, OSError.
    """
    source, home = folder_of(path), folder_of(target)
    made: dict[str, dict[str, Any]] = {}
    with undamaged("The list of blobs"):
        names = [(raw.hex(), int(size)) for raw, size in query(connection, "SELECT DISTINCT sha256, size FROM blobs")]
    for sha256, size in names:
        found, copy = path_of(source, sha256), path_of(home, sha256)
        if (trouble := _trouble(found, sha256, size)) is not None:
            raise VaultDamaged(f"Blob {sha256[:12]} cannot be copied: {trouble}; see `tercet doctor`.")
        make_folder(copy.parent)
        part = copy.with_suffix(PART)
        shutil.copyfile(found, part)
        sync(part)
        part.replace(copy)
        sync(copy.parent)
        made[copy.relative_to(target.parent.parent).as_posix()] = {"bytes": size, "sha256": sha256}
    return made


def keep_only(connection: apsw.Connection, folder: Path) -> None:
    """Destroy every file of a folder that no row names: after a restore, what was made since the backup."""
    with undamaged("The list of blobs"):
        named = {raw.hex() for (raw,) in query(connection, "SELECT DISTINCT sha256 FROM blobs")}
    for file in _files(folder):
        if file.name not in named:
            destroy(file)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _trouble(file: Path, sha256: str, size: int) -> str | None:
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            length = stream.tell()
    except FileNotFoundError:
        return "its file is missing"
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"
    if length != size:
        return f"its file has {length:,} bytes, not {size:,}: it was cut short or written to"
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
