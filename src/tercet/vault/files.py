"""Folders and files that are still there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; what was made is on the disk on return. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Put a file's content, or a folder's list of names, on the disk. Raises OSError."""
    if os.name == "nt" and path.is_dir():
        return  # Windows writes names by itself and opens no folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
