"""What a person decides about a memory: that it goes back, freezes, rests, is held, or comes out of quarantine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from tercet import keeping
from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.vault import states
from tercet.vault.reader import Page

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.scoped import ScopedMemory


class Steering:
    """A part of `ScopedMemory`."""

    tercet: Tercet

    @property
    def _view(self) -> ScopedMemory:
        return cast("ScopedMemory", self)

    def rollback(self, id: str, *, version: int) -> MemCube:
        """Make an earlier version the newest again, as a new version. Raises MissingMemory, InvalidRequest."""
        view = self._view
        view.enter("revise")
        versions = view.history(id)
        chosen = next((cube for cube in versions if cube.version == version), None)
        if chosen is None:
            raise InvalidRequest(
                f"Memory {id} has versions 1 to {versions[-1].version}; there is no version {version}."
            )
        again = replace(chosen, descriptive=replace(chosen.descriptive, recorded=None))
        return keeping.revise(view, versions[-1], again, versions[-1].version, "rollback")

    def freeze(self, id: str) -> MemCube:
        """Let nothing change a cube: no edit, no decay, no end, until `unfreeze`. Forgetting it stays possible.

        Raises MissingMemory, IllegalTransition (it is frozen already).
        """
        return keeping.steer(self._view, id, "revise", lambda writer, n, _: states.freeze(writer, n))

    def unfreeze(self, id: str) -> MemCube:
        """Give a frozen cube back the state that it had. Raises MissingMemory, IllegalTransition."""
        until = self.tercet.retention.archived_until(self.tercet.clock())
        return keeping.steer(
            self._view, id, "revise", lambda writer, n, _: states.unfreeze(writer, n, archived_until=until)
        )

    def archive(self, id: str) -> MemCube:
        """Take a cube out of what recall looks at, unless it is asked for by `where={"state": "archived"}`.

        A use brings it back; the vault's `Retention` says how long it waits for one. Raises MissingMemory,
        IllegalTransition (it is archived, or frozen).
        """
        until = self.tercet.retention.archived_until(self.tercet.clock())
        return keeping.steer(self._view, id, "revise", lambda writer, n, _: states.archive(writer, n, until=until))

    def unarchive(self, id: str) -> MemCube:
        """Bring a cube back from the archive, as a use does. Raises MissingMemory, IllegalTransition."""
        return keeping.steer(self._view, id, "revise", lambda writer, n, _: states.unarchive(writer, n))

    def hold(self, id: str, reason: str) -> MemCube:
        """Let nothing erase a cube, nor anything that would drag it along, until `release`. It makes a version.

        Raises MissingMemory, InvalidRequest (no reason is given, or a hold stands already).
        """
        return keeping.steer(self._view, id, "administer", lambda writer, n, cube: states.hold(writer, n, cube, reason))

    def release(self, id: str) -> MemCube:
        """Take the hold off. Raises MissingMemory, InvalidRequest (there is none)."""
        return keeping.steer(self._view, id, "administer", states.release)

    def quarantined(self, *, limit: int = 100, cursor: str | None = None) -> Page:
        """What is in quarantine, oldest first, a page at a time: for a person to read, release or forget."""
        return self._view.list(limit=limit, cursor=cursor, where={"quarantined": True})

    def admit(self, id: str) -> MemCube:
        """Let a memory out of quarantine, as its next version; the journal says who did. Needs the right to administer.

        Raises
        ------
        MissingMemory
            If this scope does not see it.
        InvalidRequest
            If it is not in quarantine.
        """
        return keeping.admit(self._view, id)
