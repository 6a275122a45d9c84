"""How far a tenant's journal has come, kept in a file beside it, so that lost writes are noticed.

SQLite takes a damaged write-ahead log for one that ends early: whatever was acknowledged after the damage would be gone
without a word, and an older text pass for the newest. The mark is written after each commit and is not synced: it may
lag behind after a power cut, and never runs ahead.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path

import apsw

from tercet.errors import VaultDamaged
from tercet.vault.connection import scalar

_LAYOUT = struct.Struct(">Q32s")

log = logging.getLogger(__name__)


def mark_of(path: Path) -> Path:
    """Where the mark of a tenant's file is."""
    return path.with_suffix(".mark")


def write(path: Path, seq: int, hash: bytes) -> None:
    """Note the journal's end. A mark that cannot be written lags; nothing is lost by it."""
    body = _LAYOUT.pack(seq, hash)
    try:
        if not seq:
            mark_of(path).unlink(missing_ok=True)
            return
        handle = os.open(mark_of(path), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(handle, body + zlib.crc32(body).to_bytes(4, "big"))
        finally:
            os.close(handle)
    except OSError as error:
        log.info("the mark of %s was not written: %s", path, error)


def read(path: Path) -> tuple[int, bytes] | None:
    """Sequence number and hash; None if there is no mark that can be read."""
    try:
        data = mark_of(path).read_bytes()
    except OSError:
        return None
    body = data[: _LAYOUT.size]
    if len(body) < _LAYOUT.size or zlib.crc32(body).to_bytes(4, "big") != data[_LAYOUT.size :]:
        return None
    seq, hash = _LAYOUT.unpack(body)
    return seq, hash


def check(connection: apsw.Connection, path: Path) -> None:
    """Hold a file against its mark.

    Raises
    ------
    VaultDamaged
        If lines that were acknowledged are not in the journal any more.
    """
    noted = read(path)  # first: what is committed after this may only be more
    if noted is None or scalar(connection, "SELECT hash FROM journal WHERE seq = ?", (noted[0],)) == noted[1]:
        return
    raise VaultDamaged(
        f"{path} has lost writes that were acknowledged: line {noted[0]} of its journal is not there any more. Its "
        f"write-ahead log ({path.name}-wal) was damaged or removed, or an older file was put in its place. Restore a "
        "backup, or go on with what is left: `tercet doctor --repair`."
    )
