"""Every error Tercet raises on purpose.

    TercetError
    ├── InvalidRequest (ValueError)      the call cannot mean anything; nothing was changed
    ├── MissingMemory (LookupError)      no such cube for this scope
    ├── MissingBranch (LookupError)      no such branch or snapshot
    ├── MissingGrant (LookupError)       no such grant, or none of this caller's
    ├── StaleWrite                       the cube has moved on since it was read
    ├── IllegalTransition                the lifecycle has no such edge
    ├── Refused (PermissionError)        a policy says no
    │   ├── Held                         a hold stands on the cube
    │   └── GateFailed                   an adapter did not show what it must
    ├── EmbeddingFailed                  an embedder raised, or answered with something that is no vector
    ├── EngineFailed                     a model's endpoint or process failed, or answered with something else
    ├── Unsupported                      a part that is not installed, or not there on this machine
    └── VaultError                       the store itself
        ├── VaultBusy                    another writer kept the lock for too long
        ├── VaultDamaged                 bytes on disk are not what was written
        ├── VaultSealed                  it is sealed, and its master key was not given, or another one
        │   └── VaultDestroyed           its keys were destroyed: nobody can read it any more
        └── VaultTooNew                  written by a newer Tercet

A message says what was wrong and what to do about it. Each edge (CLI, server) translates a class once.
"""

from __future__ import annotations


class TercetError(Exception):
    """The root of the tree."""


class InvalidRequest(TercetError, ValueError):
    """The arguments cannot be used; nothing was changed."""


class MissingMemory(TercetError, LookupError):
    """There is no such cube in this scope. Says the same whether the id is foreign, erased or made up."""

    def __init__(self, id: str) -> None:
        super().__init__(f"No memory {id!r} here. `tercet list` shows what a scope holds.")
        self.id = id


class MissingBranch(TercetError, LookupError):
    """There is no branch or snapshot of that name in this tenant."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No branch or snapshot {name!r} here; `tercet branch` and `tercet snapshot` list them.")
        self.name = name


class MissingGrant(TercetError, LookupError):
    """There is no grant of that id which the caller made; says the same where it is somebody else's."""

    def __init__(self, id: object) -> None:
        super().__init__(f"No grant {id!r:.40} of yours here; `tercet grants` lists them.")
        self.id = id


class StaleWrite(TercetError):
    """A write expected a version that is no longer the newest."""

    def __init__(self, id: str, *, expected: int, found: int) -> None:
        super().__init__(
            f"Memory {id!r} is at version {found}, not {expected}: read it again, then revise what you find."
        )
        self.id, self.expected, self.found = id, expected, found


class IllegalTransition(TercetError):
    """The lifecycle table has no such edge; nothing was changed."""


class Refused(TercetError, PermissionError):
    """A policy does not allow this."""


class Held(Refused):
    """A hold stands on the cube, so it may not be erased."""


class GateFailed(Refused):
    """A trained adapter did not pass its gate and was not kept. `report` holds what was measured."""

    def __init__(self, message: str, report: dict[str, object]) -> None:
        super().__init__(message)
        self.report = report


class EmbeddingFailed(TercetError):
    """An embedder raised, or returned something that is not a finite, non-zero vector of its dimension."""


class EngineFailed(TercetError):
    """What runs a model failed or could not be reached, or answered with something that is no answer."""


class Unsupported(TercetError):
    """Something is not installed, or cannot be done here; the message says what to install or use instead."""


class VaultError(TercetError):
    """The vault could not do its work."""


class VaultBusy(VaultError):
    """Another process kept the write lock for longer than the time-out."""


class VaultDamaged(VaultError):
    """Something on disk is not what was written. `tercet doctor` says what, and repairs what it can."""


class VaultSealed(VaultError):
    """The tenant's files are sealed, and the master key was not given, or is another one; nothing was changed."""


class VaultDestroyed(VaultSealed):
    """The tenant's keys were destroyed, so that nobody can read its content any more."""


class VaultTooNew(VaultError):
    """The vault was written by a newer version of Tercet."""
