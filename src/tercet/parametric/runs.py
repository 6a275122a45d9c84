"""What training keeps on disk while it runs: `<vault>/training/<tenant's file>/<run>/`, with whose content it holds.

The same call after a crash goes on from there, and forgetting any of those memories destroys it. Of a sealed tenant
nothing clear is put on a disk: its runs lie in the system's memory (`/dev/shm`), and are gone with a reboot.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from tercet.errors import Unsupported
from tercet.vault import blobs

TRAINING, SOURCES = "training", "sources.json"


MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of this user's own is made in it


def training_folder(path: Path, *, sealed: bool = False) -> Path:
    """Where the checkpoints of a tenant's runs lie. Raises Unsupported for a sealed one without files in memory."""
    if not sealed:
        return path.parent.parent / TRAINING / path.stem
    if not os.access(MEMORY, os.W_OK):
        raise Unsupported(f"Adapters of a sealed tenant are trained in memory, and there is no {MEMORY} here.")
    home = MEMORY / f"tercet-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    return home / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]


def runs_of(path: Path) -> list[Path]:
    """The folders of all of a tenant's runs that are not finished."""
    folders = [training_folder(path), *([training_folder(path, sealed=True)] if os.access(MEMORY, os.W_OK) else [])]
    return [note.parent for folder in folders for note in sorted(folder.glob(f"*/{SOURCES}"))]


def purge(path: Path, erased: Iterable[str]) -> int:
    """Destroy the checkpoints of runs that were taught any of these memories; returns how many runs that were."""
    gone, count = set(erased), 0
    for run in runs_of(path):
        if gone & set(json.loads((run / SOURCES).read_text(encoding="utf-8"))):
            destroy(run)
            count += 1
    return count


def destroy(folder: Path) -> None:
    """Overwrite and remove all files of a run."""
    for file in sorted(folder.rglob("*"), reverse=True):
        if file.is_dir():
            file.rmdir()
        else:
            blobs.destroy(file)
    if folder.is_dir():
        folder.rmdir()
