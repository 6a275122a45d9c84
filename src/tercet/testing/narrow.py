"""Limits of large vaults made small, so that a test reaches what a large vault does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tercet.text.embed import fill
from tercet.text.recall import scene
from tercet.vault import spaces, writer
from tercet.vault.search import columns, wide

LIMITS: tuple[tuple[ModuleType, str, float], ...] = (
    (columns, "WIDE", 20),
    (wide, "WIDE", 20),
    (writer, "WIDE", 20),
    (writer, "INDEX_EVERY", 20),
    (wide, "STALE", 0),
    (scene, "SMALL", 20),
    (fill, "BATCH", 16),
    (spaces, "BATCH", 64),
)


@contextmanager
def narrow() -> Iterator[None]:
    """From some twenty memories on, vectors stay on disk and segments are made and made anew; batches are small."""
    before = [getattr(module, name) for module, name, _ in LIMITS]
    for module, name, value in LIMITS:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(LIMITS, before, strict=True):
            setattr(module, name, value)
