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
    from tercet.admin import Admin
    from tercet.aio import AsyncTercet
    from tercet.converse import Reply
    from tercet.cube import MemCube, Text, derive
    from tercet.errors import (
        EmbeddingFailed,
        EngineFailed,
        Held,
        IllegalTransition,
        InvalidRequest,
        MissingBranch,
        MissingGrant,
        MissingMemory,
        Refused,
        StaleWrite,
        TercetError,
        Unsupported,
        VaultBusy,
        VaultDamaged,
        VaultDestroyed,
        VaultError,
        VaultSealed,
        VaultTooNew,
    )
    from tercet.govern.injections import Injected, Injection
    from tercet.govern.keys import Key
    from tercet.govern.policy import Rules
    from tercet.govern.retention import Retention
    from tercet.govern.rules import Rule
    from tercet.govern.shares import Share
    from tercet.kernel import Tercet
    from tercet.scope import Caller, Scope
    from tercet.scoped import ScopedMemory
    from tercet.text.read.message import Message
    from tercet.text.recall.context import Context
    from tercet.text.recall.hits import Hit, Hits
    from tercet.vault.branches import Branch, Snapshot
    from tercet.vault.erase import Receipt
    from tercet.vault.reader import Page
    from tercet.vault.rewind import Diff, Difference, Rewound
    from tercet.vault.slots import Contradiction

__version__ = "0.1.0"

_HOMES = {
    "tercet.admin": ("Admin",),
    "tercet.aio": ("AsyncTercet",),
    "tercet.converse": ("Reply",),
    "tercet.kernel": ("Tercet",),
    "tercet.govern.injections": ("Injected", "Injection"),
    "tercet.text.recall.context": ("Context",),
    "tercet.scoped": ("ScopedMemory",),
    "tercet.cube": ("MemCube", "Text", "derive"),
    "tercet.errors": (
        "EmbeddingFailed",
        "EngineFailed",
        "Held",
        "IllegalTransition",
        "InvalidRequest",
        "MissingBranch",
        "MissingGrant",
        "MissingMemory",
        "Refused",
        "StaleWrite",
        "TercetError",
        "Unsupported",
        "VaultBusy",
        "VaultDamaged",
        "VaultDestroyed",
        "VaultError",
        "VaultSealed",
        "VaultTooNew",
    ),
    "tercet.govern.keys": ("Key",),
    "tercet.govern.policy": ("Rules",),
    "tercet.govern.rules": ("Rule",),
    "tercet.govern.shares": ("Share",),
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
    "Admin",
    "AsyncTercet",
    "Branch",
    "Caller",
    "Context",
    "Contradiction",
    "Diff",
    "Difference",
    "EmbeddingFailed",
    "EngineFailed",
    "Held",
    "Hit",
    "Hits",
    "IllegalTransition",
    "Injected",
    "Injection",
    "InvalidRequest",
    "Key",
    "MemCube",
    "Message",
    "MissingBranch",
    "MissingGrant",
    "MissingMemory",
    "Page",
    "Receipt",
    "Refused",
    "Reply",
    "Retention",
    "Rewound",
    "Rule",
    "Rules",
    "Scope",
    "ScopedMemory",
    "Share",
    "Snapshot",
    "StaleWrite",
    "Tercet",
    "TercetError",
    "Text",
    "Unsupported",
    "VaultBusy",
    "VaultDamaged",
    "VaultDestroyed",
    "VaultError",
    "VaultSealed",
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
