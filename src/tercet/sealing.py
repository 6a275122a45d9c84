"""Sealing a vault: its tenants' files under keys, other keys under way, and keys that are destroyed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tercet.admin import administered_tenant, require_all
from tercet.auditing import Auditing
from tercet.errors import Held, VaultSealed
from tercet.govern.destruction import CAUSE, destruction_document
from tercet.govern.master import Given, find_master
from tercet.parametric import runs
from tercet.scope import Caller
from tercet.vault import datakeys, reseal
from tercet.vault.connection import Connection
from tercet.vault.datakeys import HOW, DataKey, KeyFile, Master
from tercet.vault.reseal import Moved

if TYPE_CHECKING:
    from tercet.activation.memory import KVMemory
    from tercet.vault.ids import Clock
    from tercet.vault.sqlite import Tenant


class Sealing(Auditing):
    """A part of `Tercet`. Calls ask for the right to administer: every tenant, or the one that is destroyed."""

    clock: Clock
    kv: KVMemory

    def seal(self, *, by: Caller | None = None) -> Sequence[Moved]:
        """Seal every tenant that is clear; what was clear is overwritten. The master key was given on opening.

        Can be done again after an interruption. Its adapters' unfinished trainings are dropped.

        Raises
        ------
        VaultSealed
            If there is no master key.
        VaultBusy
            If another process has the vault open.
        """
        require_all(self, by or Caller())
        master = self._master()
        clear = [one for one in self._tenants() if datakeys.read(one.keys.file) is None]
        for tenant in clear:
            self.kv.tier.clear()  # what it maps is about to be overwritten
            for run in runs.runs_of(tenant.path):
                runs.destroy(run)
            reseal.begin(tenant, master)
        return self._finish(by)

    def rotate(self, *, by: Caller | None = None) -> Sequence[Moved]:
        """Give every sealed tenant a new data key and bring its files under it, while others read and write.

        What an interruption leaves undone, the next call of this, or of `work`, goes on with. Raises VaultSealed, and
        VaultBusy if calls are under way all the time.
        """
        require_all(self, by or Caller())
        master = self._master()
        for tenant in self._tenants():
            if datakeys.read(tenant.keys.file) is not None:
                reseal.begin(tenant, master)
        return self._finish(by)

    def rotate_master(self, new: Given, *, by: Caller | None = None) -> int:
        """Let another master key open the vault, and the one until now no more; returns of how many tenants.

        No content is touched. First every key file is wrapped for both, then for the new one alone: at any moment one
        of the two opens all of them. After an interruption, do it again with the key that opens the vault. Raises
        InvalidRequest, VaultSealed, VaultError.
        """
        require_all(self, by or Caller())
        old, master = self._master(), find_master(new, apart_from=self.vault.folder)
        if master is None:
            raise VaultSealed(f"There is no new master key. {HOW}")

        def both(said: KeyFile, keys: Sequence[DataKey]) -> KeyFile:
            return _wrapped(said, keys, [old, master])

        def one(said: KeyFile, keys: Sequence[DataKey]) -> KeyFile:
            return _wrapped(said, keys, [master])

        tenants = [each for each in self._tenants() if datakeys.read(each.keys.file) is not None]
        for change in (both, one):
            for tenant in tenants:
                reseal.rewrap(tenant, change)
        self.vault.take_master(master)
        return len(tenants)

    def destroy(
        self, *, tenant: str, cause: str = CAUSE, despite_hold: str | None = None, by: Caller | None = None
    ) -> Mapping[str, Any]:
        """Destroy a tenant's keys, and with them all its content, for ever; returns the receipt, signed.

        It reaches neither exports nor backups: a backup carries the wrapped keys. `verify` checks the receipt.

        Raises
        ------
        Held
            If a memory is on hold, unless a reason is given for doing it despite that.
        VaultError
            If the tenant is not sealed.
        """
        held = administered_tenant(self, tenant, by)

        def receipt(connection: Connection) -> dict[str, Any]:
            if despite_hold is None and (count := reseal.held(connection)):
                raise Held(f"{count} memories of {tenant!r} are on hold: release them, or say why despite that.")
            said = datakeys.read(held.keys.file)
            keys = [id for id, _ in said.keys] if said is not None else []
            at = self.clock()
            paper = destruction_document(connection, held.name, keys, at=at, cause=cause, despite_hold=despite_hold)
            return paper if self.signer is None else self.signer.signed(paper)

        paper = reseal.destroy(held, receipt)
        self.kv.tier.clear()
        for run in runs.runs_of(held.path):
            runs.destroy(run)
        return paper

    def sealing(self, *, by: Caller | None = None) -> Mapping[str, Any]:
        """Which tenants are sealed, whether a rotation waits to be finished, and which were destroyed."""
        require_all(self, by or Caller())
        tenants: dict[str, Any] = {}
        for tenant in self._tenants():
            said = datakeys.read(tenant.keys.file)
            tenants[tenant.name] = {
                "sealed": said is not None,
                "keys": [id for id, _ in said.keys] if said is not None else [],
                "unfinished": reseal.unfinished(said),
            }
        destroyed = [said.destroyed for file in self._key_files() if (said := datakeys.read(file)) and said.destroyed]
        master = self.vault.master
        return {"master": None if master is None else master.id, "tenants": tenants, "destroyed": destroyed}

    def _finish(self, by: Caller | None) -> list[Moved]:
        whom = (by or Caller("tercet")).signed
        return [
            reseal.finish(one, by=whom) for one in self._tenants() if reseal.unfinished(datakeys.read(one.keys.file))
        ]

    def _tenants(self) -> list[Tenant]:
        return [self.vault.tenant(name) for name in self.vault.tenants()]

    def _key_files(self) -> list[Any]:
        return sorted((self.vault.folder / "keys").glob("*.json"))

    def _master(self) -> Master:
        if self.vault.master is None:
            raise VaultSealed(f"There is no master key. {HOW}")
        return self.vault.master


def _wrapped(said: KeyFile, keys: Sequence[DataKey], masters: Sequence[Master]) -> KeyFile:
    return replace(said, keys=tuple((key.id, {one.id: one.wrap(key, said.tenant) for one in masters}) for key in keys))
