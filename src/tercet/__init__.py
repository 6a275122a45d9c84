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
    from tercet.cube import MemCube, Text, derive
    from tercet.errors import (
        EmbeddingFailed,
        Held,
        IllegalTransition,
        InvalidRequest,
        MissingBranch,
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
    from tercet.govern.retention import Retention
    from tercet.kernel import Tercet
    from tercet.scope import Caller, Scope
    from tercet.scoped import ScopedMemory
    from tercet.text.read.message import Message
    from tercet.text.recall.hits import Hit, Hits
    from tercet.vault.branches import Branch, Snapshot
    from tercet.vault.erase import Receipt
    from tercet.vault.reader import Page
    from tercet.vault.rewind import Diff, Difference, Rewound
    from tercet.vault.slots import Contradiction

__version__ = "0.1.0"

_HOMES = {
    "tercet.aio": ("AsyncTercet",),
    "tercet.kernel": ("Tercet",),
    "tercet.scoped": ("ScopedMemory",),
    "tercet.cube": ("MemCube", "Text", "derive"),
    "tercet.errors": (
        "EmbeddingFailed",
        "Held",
        "IllegalTransition",
        "InvalidRequest",
        "MissingBranch",
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
    "tercet.govern.retention": ("Retention",),
    "tercet.scope": ("Caller", "Scope"),
    "tercet.text.read.message": ("Message",),
    "tercet.text.recall.hits": ("Hit", "Hits"),
    "tercet.vault.branches": ("Branch", "Snapshot"),
    "tercet.vault.erase": ("Receipt",),
    "tercet.vault.reader": ("Page",),
    "tercet.vault.rewind": ("Diff", "Difference", "Rewound"),
    "tercet.vault.slots": ("Contradiction",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncTercet",
    "Branch",
    "Caller",
    "Contradiction",
    "Diff",
    "Difference",
    "EmbeddingFailed",
    "Held",
    "Hit",
    "Hits",
    "IllegalTransition",
    "InvalidRequest",
    "MemCube",
    "Message",
    "MissingBranch",
    "MissingMemory",
    "Page",
    "Receipt",
    "Refused",
    "Retention",
    "Rewound",
    "Scope",
    "ScopedMemory",
    "Snapshot",
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
