"""Sealed files: bytes in authenticated chunks, each of which opens only in its place of its file.

    header (48 bytes): magic, format, id of the data key, id of the file
    chunks: 1 MiB each and a last one that is shorter or empty; AES-256-GCM with a tag of 16 bytes

The key of a file is derived from the data key and the file's random id, so a counter serves as the nonce. What goes
with every chunk is the header, its number and whether it is the last; with the last also what the file is of (a blob's
SHA-256). So chunks cannot be left out, added, put in another order or moved between files, and no file passes for
another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.errors import VaultDamaged, VaultTooNew
from tercet.vault.datakeys import DataKey, Seal, derived
from tercet.vault.files import sync

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC, FORMAT = b"TERCETSE", 1
HEADER = struct.Struct(">8sI4x16s16s")
CHUNK, TAG = 1 << 20, 16

Data = bytes | bytearray | memoryview


def size_of(plain: int) -> int:
    """Bytes on disk of so many bytes of content."""
    return HEADER.size + plain + TAG * (plain // CHUNK + 1)


class Sealer:
    """Seals a stream of bytes: `write` them, then `finish`."""

    def __init__(self, key: DataKey, write: Callable[[bytes], object]) -> None:
        self._out, self._index, self._held = write, 0, bytearray()
        salt = os.urandom(16)
        self._header = HEADER.pack(MAGIC, FORMAT, bytes.fromhex(key.id), salt)
        self._cipher = _cipher(key, salt)
        write(self._header)

    def write(self, data: Data) -> None:
        """Append bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            taken = view[: CHUNK - len(self._held)]
            self._held += taken
            view = view[len(taken) :]
            if len(self._held) == CHUNK:
                self._put(b"")

    def finish(self, identity: bytes) -> None:
        """Seal the last chunk, with what the file is of."""
        self._put(b"last " + identity)

    def _put(self, last: bytes) -> None:
        aad = _bound(self._header, self._index, last)
        self._out(self._cipher.encrypt(_nonce(self._index), bytes(self._held), aad))
        self._index, self._held = self._index + 1, bytearray()


def write(target: Path, key: DataKey, content: Iterable[Data], identity: bytes) -> None:
    """Put a sealed file in place, whole and on the disk on return. Raises OSError, and what `content` raises."""
    part = target.with_name(f"{target.name}.sealing.part")
    try:
        with part.open("wb") as stream:
            sealer = Sealer(key, stream.write)
            for data in content:
                sealer.write(data)
            sealer.finish(identity)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
        sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


def is_sealed(path: Path) -> bool:
    """Whether a file begins as a sealed one does. Raises OSError."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def key_of(path: Path) -> str | None:
    """The id of the data key that a file says it was sealed with; None of one that is clear. Raises OSError."""
    with path.open("rb") as stream:
        header = stream.read(HEADER.size)
    return header[16:32].hex() if header.startswith(MAGIC) and len(header) == HEADER.size else None


def read(path: Path, seal: Seal, identity: bytes) -> bytearray:
    """The content of a file, as `chunks` gives it."""
    content = bytearray()
    for chunk in chunks(path, seal, identity):
        content += chunk
    return content


def chunks(path: Path, seal: Seal, identity: bytes) -> Iterator[bytes]:
    """The content of a sealed file, each part checked before it is given; of a clear one while a vault is being sealed.

    Only when the last came without an error is it known that all of it was there, and of which file it was.

    Raises
    ------
    VaultDamaged
        If a byte of it is not what was written, its key is not here, or it is another file than `identity` says.
    VaultTooNew
        If a newer Tercet wrote it.
    OSError
        If the system cannot read it.
    """
    from cryptography.exceptions import InvalidTag

    with path.open("rb") as stream:
        header = stream.read(HEADER.size)
        if not header.startswith(MAGIC):
            if not seal.clear:
                raise _damaged(path, "it is not sealed, and all files of this tenant are")
            yield header
            while data := stream.read(CHUNK):
                yield data
            return
        cipher = _opening(path, header, seal)
        left, index, last = os.fstat(stream.fileno()).st_size - HEADER.size, 0, b""
        while not last:
            chunk = stream.read(CHUNK + TAG)
            left -= len(chunk)
            last = b"last " + identity if left <= 0 else b""
            try:
                yield cipher.decrypt(_nonce(index), chunk, _bound(header, index, last))
            except (InvalidTag, ValueError) as error:
                raise _damaged(path, f"chunk {index} does not open: changed, moved, or of another file") from error
            index += 1


def _opening(path: Path, header: bytes, seal: Seal) -> AESGCM:
    """What opens a file with that header."""
    if len(header) < HEADER.size:
        raise _damaged(path, "it is cut short")
    _, version, raw, salt = HEADER.unpack(header)
    if version != FORMAT:
        raise VaultTooNew(f"{path} is sealed in format {version}; this Tercet reads {FORMAT}.")
    try:
        return _cipher(seal.key(raw.hex()), salt)
    except VaultDamaged as error:
        raise _damaged(path, str(error)) from error


def _cipher(key: DataKey, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(derived(key.files, salt, b"tercet sealed file"))


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _bound(header: bytes, index: int, last: bytes) -> bytes:
    return header + index.to_bytes(8, "big") + last


def _damaged(path: Path, what: str) -> VaultDamaged:
    return VaultDamaged(f"{path} cannot be unsealed: {what}.")
