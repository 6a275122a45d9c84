"""Which cubes a call may see and asks for, as one condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tercet.scope import Scope
from tercet.vault.allowed import EVERYTHING, Allowed
from tercet.vault.filters import Where, compile_where

FROM = "FROM cubes c JOIN scopes s ON s.n = c.scope JOIN owners o ON o.n = s.owner"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cubes a call may see and asks for, as a condition over `cubes c`, `scopes s` and `owners o`."""

    condition: str
    bindings: tuple[Any, ...]


def select(scope: Scope, where: Where | None = None, allowed: Allowed = EVERYTHING) -> Selection:
    """The cubes of a scope that meet `where`, of those that are allowed."""
    condition, bindings = compile_where(where, scope.user)
    parts = [("o.user", scope.user), ("s.agent", scope.agent), ("s.session", scope.session)]
    given = [(column, value) for column, value in parts if value is not None]
    condition = " AND ".join([*(f"{column} = ?" for column, _ in given), condition, allowed.condition])
    return Selection(condition, (*(value for _, value in given), *bindings, *allowed.bindings))
