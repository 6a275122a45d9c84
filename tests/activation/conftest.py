"""One tiny engine and a vault over it."""

from __future__ import annotations

from tests.tiny_vault import Open, alice, opened, t, tiny

__all__ = ["Open", "alice", "opened", "t", "tiny"]
