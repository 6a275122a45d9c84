"""Who may do what: one question, asked in one place below every front door."""

from __future__ import annotations

from typing import Literal, Protocol

from tercet.scope import Caller, Scope

Right = Literal["read", "write", "revise", "forget", "administer"]


class Access(Protocol):
    """Decides. There is no switch that turns the question off; an embedded vault asks `AllowAll`."""

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
