"""Tercet: a memory operating system for AI.

from tercet import Tercet

with Tercet.open("./memory") as t:
    alice = t.scope(user="alice")
    alice.remember("I moved to Oslo in May.")
    print(alice.recall("where does she live?")[0].cube.text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tercet.aio import AsyncTercet
    from tercet.converse import Reply
    from tercet.cube import MemCube, Text, derive
    from tercet.errors import (
        EmbeddingFailed,
        EngineFailed,
        Held,
        IllegalTransition,
        InvalidRequest,
        MissingMemory,
        Refused,
        StaleWrite,
        TercetError,
        Unsupported,
        VaultBusy,
        VaultDamaged,
        VaultError,
        VaultTooNew,
    )
    from tercet.kernel import Tercet
    from tercet.scope import Caller, Scope
    from tercet.scoped import ScopedMemory
    from tercet.text.read.message import Message
    from tercet.text.recall.hits import Hit, Hits
    from tercet.vault.erase import Receipt
    from tercet.vault.reader import Page

__version__ = "0.1.0"

_HOMES = {
    "tercet.aio": ("AsyncTercet",),
    "tercet.converse": ("Reply",),
    "tercet.kernel": ("Tercet",),
    "tercet.scoped": ("ScopedMemory",),
    "tercet.cube": ("MemCube", "Text", "derive"),
    "tercet.errors": (
        "EmbeddingFailed",
        "EngineFailed",
        "Held",
        "IllegalTransition",
        "InvalidRequest",
        "MissingMemory",
        "Refused",
        "StaleWrite",
        "TercetError",
        "Unsupported",
        "VaultBusy",
        "VaultDamaged",
        "VaultError",
        "VaultTooNew",
    ),
    "tercet.scope": ("Caller", "Scope"),
    "tercet.text.read.message": ("Message",),
    "tercet.text.recall.hits": ("Hit", "Hits"),
    "tercet.vault.erase": ("Receipt",),
    "tercet.vault.reader": ("Page",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncTercet",
    "Caller",
    "EmbeddingFailed",
    "EngineFailed",
    "Held",
    "Hit",
    "Hits",
    "IllegalTransition",
    "InvalidRequest",
    "MemCube",
    "Message",
    "MissingMemory",
    "Page",
    "Receipt",
    "Refused",
    "Reply",
    "Scope",
    "ScopedMemory",
    "StaleWrite",
    "Tercet",
    "TercetError",
    "Text",
    "Unsupported",
    "VaultBusy",
    "VaultDamaged",
    "VaultError",
    "VaultTooNew",
    "derive",
]


def __getattr__(name: str) -> object:
    # Names are imported when they are used: `import tercet` must not pay for numpy and SQLite.
    if name not in _HOME:
        raise AttributeError(f"module 'tercet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
