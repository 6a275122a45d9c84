"""A file of named arrays that is written once, checksummed throughout, and never trusted before it is checked.

    prelude (64 bytes): magic, format, where the header lies, its SHA-256
    sections: arrays, little endian, each beginning at a multiple of 64 bytes
    header: JSON; what the caller says about the file, and name, type, shape, place and SHA-256 of each section

A section may have a digest a block of rows besides, itself a section: such a one is read through the page cache, and
each block is checked when it is first looked at; all others are checked when the file is opened. Nothing is unpickled.
The file is written beside its name, synced, renamed, and its folder synced: under its name it is whole or absent.

That of a sealed tenant is made and read in memory, and sealed on the disk (see `sealed`): nothing of it is mapped.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tercet.errors import VaultDamaged, VaultError, VaultTooNew
from tercet.vault import sealed
from tercet.vault.datakeys import Seal

MAGIC = b"TERCETSG"
FORMAT = 1
PRELUDE = struct.Struct("<8sIIQQ32s")  # magic, format, zero, header's place, its length, its SHA-256
ALIGN = 64
BLOCK = 64
"""Rows of a section read by the block that share a digest."""
DIGEST = 16
"""Bytes kept of a block's SHA-256: against damage, not against a forger."""

IDENTITY = b"segment"
"""What a sealed one says it is of."""

Array = NDArray[Any]
TYPES = frozenset({"|u1", "|i1", "<f2", "<f4", "<i4", "<i8"})


@dataclass(frozen=True)
class Section:
    """What is declared of an array before it is written; with `blocks`, it is read and checked by the block."""

    dtype: str
    shape: tuple[int, ...]
    blocks: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@contextmanager
def writing(
    path: Path, meta: Mapping[str, Any], sections: Mapping[str, Section], seal: Seal | None = None
) -> Iterator[SegmentWriter]:
    """Write a file: it appears under its name when the `with` ends, and not at all if that raises.

    Raises VaultError where the system cannot write, and ValueError if a section was not filled.
    """
    if seal is not None:
        memory = io.BytesIO()
        writer = SegmentWriter(memory, meta, sections)
        yield writer
        writer.finish()
        with _named(path):
            sealed.write(path, seal.keys[0], [memory.getbuffer()], IDENTITY)
        return
    part = path.with_name(path.name + ".part")
    with _named(part):
        file = part.open("wb")
    try:
        writer = SegmentWriter(file, meta, sections)
        yield writer
        writer.finish()
        with _named(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            part.replace(path)
            sync_folder(path.parent)
    finally:
        file.close()
        part.unlink(missing_ok=True)


class SegmentWriter:
    """Fills the sections of a file, in any order, each from its first row to its last."""

    def __init__(self, file: BinaryIO, meta: Mapping[str, Any], sections: Mapping[str, Section]) -> None:
        self._file, self.meta = file, dict(meta)
        self.sections = dict(sections)
        for name, section in sections.items():
            if section.blocks:
                self.sections[f"{name}.digests"] = Section("|u1", (-(-section.shape[0] // BLOCK), DIGEST))
        self.offsets: dict[str, int] = {}
        end = PRELUDE.size
        for name, section in self.sections.items():
            self.offsets[name] = end = _aligned(end)
            end += section.size
        self.end = _aligned(end)
        self._written = dict.fromkeys(self.sections, 0)
        self._hashes = {name: hashlib.sha256() for name in self.sections}

    def append(self, name: str, rows: Array) -> None:
        """The next rows of a section; of one with blocks, a multiple of 64 rows each time but the last."""
        section = self.sections[name]
        data = np.ascontiguousarray(rows, dtype=section.dtype)
        if data.shape[1:] != section.shape[1:]:
            raise ValueError(f"{name} has rows of shape {section.shape[1:]}, not {data.shape[1:]}")
        self._write(self.offsets[name] + self._written[name], data.data)
        self._hashes[name].update(data.data)
        self._written[name] += data.nbytes
        if section.blocks:
            starts = range(0, len(data), BLOCK)
            digests = b"".join(_digest(data[start : start + BLOCK]) for start in starts)
            self.append(f"{name}.digests", np.frombuffer(digests, np.uint8).reshape(-1, DIGEST))

    def finish(self) -> None:
        """Write the header. Raises ValueError if a section was not filled."""
        for name, section in self.sections.items():
            if self._written[name] != section.size:
                raise ValueError(f"{name} was given {self._written[name]} bytes of {section.size}")
        described = {
            name: {
                "dtype": section.dtype,
                "shape": section.shape,
                "offset": self.offsets[name],
                "sha256": self._hashes[name].hexdigest(),
            }
            for name, section in self.sections.items()
        }
        header = json.dumps({"format": FORMAT, "meta": self.meta, "sections": described}).encode()
        self._write(self.end, header)
        self._write(0, PRELUDE.pack(MAGIC, FORMAT, 0, self.end, len(header), hashlib.sha256(header).digest()))

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        with _named(Path(getattr(self._file, "name", "memory"))):
            self._file.seek(offset)
            self._file.write(data)


class SegmentReader:
    """An open file: `meta`, and its arrays by name. Raises VaultDamaged where the bytes are not what was written."""

    def __init__(self, path: Path, seal: Seal | None = None) -> None:
        self.path = path
        with _named(path):
            try:
                self._map = self._content(seal)
            except FileNotFoundError as error:  # another process may have written the next one at any moment
                raise self._damaged("it is not there") from error
        size = len(self._map)
        if size < PRELUDE.size:
            raise self._damaged("it is cut short")
        magic, version, zero, offset, length, digest = PRELUDE.unpack_from(self._map)
        if magic != MAGIC:
            raise self._damaged("it is no such file")
        if zero or offset + length != size:
            raise self._damaged("its beginning is not what was written, or it is cut short")
        header = self._map[offset : offset + length]
        self.digest: str = digest.hex()
        """Names what the file says: SHA-256 of the header, which holds those of the sections."""
        if hashlib.sha256(header).digest() != digest:
            raise self._damaged("its header is not what was written")
        described = json.loads(header)
        if described.get("format") != version:
            raise self._damaged("its beginning is not what was written")
        if version != FORMAT:
            raise VaultTooNew(f"{path} is of format {version}; this Tercet reads {FORMAT}.")
        self.meta: dict[str, Any] = described["meta"]
        self._sections: dict[str, dict[str, Any]] = described["sections"]
        for name, section in self._sections.items():
            if (
                section["dtype"] not in TYPES
                or section["offset"] + Section(section["dtype"], section["shape"]).size > size
            ):
                raise self._damaged(f"{name} does not fit")  # fmt: skip

    def _content(self, seal: Seal | None) -> mmap.mmap | bytes:
        if seal is not None:
            return bytes(sealed.read(self.path, seal, IDENTITY))
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < PRELUDE.size:
                raise self._damaged("it is cut short")
            # The mapping keeps the file's bytes even after another generation has taken its name or it was deleted.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def array(self, name: str) -> Array:
        """A section, checked, as a read-only copy in memory."""
        found = self._mapped(name).copy()
        if hashlib.sha256(found.data).hexdigest() != self._sections[name]["sha256"]:
            raise self._damaged(f"{name} is not what was written")
        found.flags.writeable = False
        return found

    def blocks(self, name: str) -> Blocks:
        """A section that stays on disk, checked by the block."""
        return Blocks(self._mapped(name), self.array(f"{name}.digests"), f"{name} in {self.path}")

    def verify(self) -> None:
        """Check every byte."""
        for name in self._sections:
            self.array(name)

    def _mapped(self, name: str) -> Array:
        section = self._sections[name]
        shape = tuple(section["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, section["dtype"], count, section["offset"]).reshape(shape)

    def _damaged(self, what: str) -> VaultDamaged:
        return VaultDamaged(f"{self.path} is damaged: {what}. It can be rebuilt from the rows of the vault.")


class Blocks:
    """Rows that are read from disk when wanted; each block of 64 is checked the first time. Safe between threads."""

    def __init__(self, rows: Array, digests: Array, name: str) -> None:
        self._rows, self._digests, self._name = rows, digests, name
        self._seen = np.zeros(len(digests), np.bool_)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self._rows.nbytes

    def take(self, rows: NDArray[np.int64]) -> Array:
        """Some rows, as a copy. Raises VaultDamaged where a block is not what was written."""
        blocks = rows // BLOCK
        for block in np.unique(blocks[~self._seen[blocks]]).tolist():
            if _digest(self._rows[block * BLOCK : (block + 1) * BLOCK]) != self._digests[block].tobytes():
                raise VaultDamaged(
                    f"Rows {block * BLOCK} and after of {self._name} are damaged. "
                    "They can be rebuilt from the rows of the vault."
                )
            self._seen[block] = True
        return np.asarray(self._rows[rows])


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    if os.name != "posix":  # other systems cannot open a folder, and sync names with their files
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def _digest(rows: Array) -> bytes:
    return hashlib.sha256(rows.data).digest()[:DIGEST]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of which file the system complained."""
    try:
        yield
    except OSError as error:
        raise VaultError(f"{path} cannot be used: {error.strerror}.") from error
