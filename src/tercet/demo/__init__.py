"""A conversation written for Tercet, with questions and the turns that answer them: what the demo runs on.

It has LoCoMo's form, so that `tercet eval locomo` measures recall on it, too; nothing in it comes from LoCoMo.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path


def conversation() -> Path:
    """The file, on the disk (a wheel is always unpacked there)."""
    with as_file(files(__name__) / "conversation.json") as path:
        return path
