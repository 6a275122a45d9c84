"""What training keeps on disk while it runs: `<vault>/training/<tenant's file>/<run>/`, with whose content it holds.

The same call after a crash goes on from there, and forgetting any of those memories destroys it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tercet.vault import blobs

TRAINING, SOURCES = "training", "sources.json"


def training_folder(path: Path) -> Path:
    """Where the checkpoints of a tenant's runs lie."""
    return path.parent.parent / TRAINING / path.stem


def purge(path: Path, erased: Iterable[str]) -> int:
    """Destroy the checkpoints of runs that were taught any of these memories; returns how many runs that were."""
    gone, count = set(erased), 0
    for note in sorted(training_folder(path).glob(f"*/{SOURCES}")):
        if gone & set(json.loads(note.read_text(encoding="utf-8"))):
            destroy(note.parent)
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
