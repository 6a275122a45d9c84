"""Who may do what: one question, asked in one place below every front door (`gate`)."""

from __future__ import annotations

from typing import Protocol

from tercet.scope import Caller, Right, Scope

__all__ = ["Access", "AllowAll", "Right"]


class Access(Protocol):
    """Decides by scope. There is no switch that turns the question off; an embedded vault asks `AllowAll`.

    `Rules` decide cube by cube. Whatever this says, the rules of a tenant's own file hold, too.
    """

    def check(self, caller: Caller, right: Right, scope: Scope) -> None:
        """Return if `caller` may use `right` on what `scope` holds.

        Raises
        ------
        Refused
            If not.
        """


class AllowAll:
    """Whoever can open the folder may do anything in it: the file system has decided already."""

    def check(self, caller: Caller, right: Right, scope: Scope) -> None:
        """Return."""
