"""Writing an archive to a file: whole under its name or not there, and on record before it is."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.exchange.archive import Sink, put_on_record, write_archive
from tercet.exchange.watermark import Recipient

if TYPE_CHECKING:
    from tercet.scoped import Progress, ScopedMemory


def export_file(
    memory: ScopedMemory, path: Path, *, progress: Progress | None = None, to: Recipient | None = None
) -> int:
    """Write what a scope holds to a file (compressed if it ends in .gz), and take it down; returns how many cubes.

    The file appears under its name only when it is whole and on the disk, and on record with its path and SHA-256: a
    receipt of a later erasure names it. Its owner alone may read it. `to` is for whom it is. Raises OSError.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with _new_file(part, packed=path.suffix == ".gz") as stream:
            numbers = write_archive(memory, stream, progress=progress, to=to)
        with part.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").digest()
        put_on_record(memory, str(path.absolute()), digest, numbers, to)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(numbers)


@contextmanager
def _new_file(part: Path, *, packed: bool) -> Iterator[Sink]:
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
        if packed:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                yield stream
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())
