"""Which ids were erased, in a file beside the tenant's, so that an older copy of that file brings nothing back.

The table `erased` travels with the rows: whoever puts an old file in place puts back an old table. This file is
appended to and synced by every erasure, after its commit, and held against the tenant's file when that is opened: what
was erased since that file was written is erased from it again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from tercet.vault.connection import query, scalar
from tercet.vault.files import make_folder, sync

_RECORD = struct.Struct(">qq16s8s")  # line of the journal, microseconds since 1970, id, the line's hash (its beginning)
SIZE = _RECORD.size + 4
AGAIN = "it was erased before, and an older file brought it back"


@dataclass(frozen=True, slots=True)
class Erased:
    """An erasure: the journal's line, when, the id, and the beginning of the line's hash."""

    seq: int
    at: int
    id: bytes
    hash: bytes

    def packed(self) -> bytes:
        """The record with its checksum."""
        body = _RECORD.pack(self.seq, self.at, self.id, self.hash)
        return body + zlib.crc32(body).to_bytes(4, "big")


def ledger_of(path: Path) -> Path:
    """Where the ledger of a tenant's file is."""
    return path.parent.parent / "ledger" / f"{path.stem}.log"


def read(path: Path) -> tuple[list[Erased], bool]:
    """Every erasure that a tenant's ledger tells of, and whether all of it could be read. Raises OSError."""
    file = ledger_of(path)
    data = file.read_bytes() if file.exists() else b""
    found = [_unpacked(data[at : at + SIZE]) for at in range(0, len(data), SIZE)]
    return [one for one in found if one is not None], None not in found


def missing(connection: apsw.Connection, path: Path) -> list[Erased]:
    """Erasures of the ledger that the tenant's file knows nothing of; quick where it knows the last. Raises OSError."""
    last = _last(path)
    if last is not None and _known(connection, last):
        return []
    found, _ = read(path)
    return [one for one in found if scalar(connection, "SELECT 1 FROM erased WHERE id = ?", (one.id,)) is None]


def append(connection: apsw.Connection, path: Path, *, anew: bool = False) -> None:
    """Take down the erasures of the journal that the ledger does not have yet; on return they are on the disk. OSError.

    Where the ledger does not end with a line of this journal (the file was restored, or the ledger is damaged), or with
    `anew`, it is written anew, with what it told.
    """
    file = ledger_of(path)
    last = None if anew else _last(path)
    if last is not None and _known(connection, last):
        rows = query(connection, f"{_LINES} AND seq > ? ORDER BY seq", (last.seq,))
        if rows:
            _write(file, os.O_APPEND, [_from(row) for row in rows])
        return
    lines = [_from(row) for row in query(connection, f"{_LINES} ORDER BY seq")]
    there = {one.id: one for one in read(path)[0]}
    there |= {id: Erased(0, at, id, bytes(8)) for id, at in query(connection, _ERASED) if id not in there}
    told = [there[id] for id in there.keys() - {one.id for one in lines}]
    if not lines and not told:
        return
    make_folder(file.parent)
    part = file.with_suffix(f".{os.getpid()}.part")
    _write(part, os.O_TRUNC, [*sorted(told, key=lambda one: one.id), *lines])
    part.replace(file)
    sync(file.parent)


_ERASED = "SELECT id, at FROM erased"
_LINES = "SELECT seq, at, cube, hash FROM journal WHERE action = 'forget'"


def _from(row: tuple[int, int, bytes, bytes]) -> Erased:
    seq, at, id, hash = row
    return Erased(seq, at, id, hash[:8])


def _known(connection: apsw.Connection, one: Erased) -> bool:
    hash = scalar(connection, "SELECT hash FROM journal WHERE seq = ?", (one.seq,))
    return isinstance(hash, bytes) and hash[:8] == one.hash


def _last(path: Path) -> Erased | None:
    """The last record; None if there is none, or it is not whole."""
    file = ledger_of(path)
    size = file.stat().st_size if file.exists() else 0
    if not size or size % SIZE:
        return None
    with file.open("rb") as stream:
        stream.seek(size - SIZE)
        return _unpacked(stream.read(SIZE))


def _unpacked(data: bytes) -> Erased | None:
    body = data[: _RECORD.size]
    if len(data) != SIZE or zlib.crc32(body).to_bytes(4, "big") != data[_RECORD.size :]:
        return None
    return Erased(*_RECORD.unpack(body))


def _write(file: Path, flag: int, records: Sequence[Erased]) -> None:
    new = not file.exists()
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    try:
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(b"".join(one.packed() for one in records))
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync(file.parent)
