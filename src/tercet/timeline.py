"""The time machine of a vault: snapshots, branches, what differs between two of them, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tercet.admin import administered_tenant
from tercet.scope import Caller
from tercet.vault import rewind
from tercet.vault.branches import (
    PRESENT,
    Branch,
    Snapshot,
    branches,
    make_branch,
    named_line,
    snapshots,
    take_snapshot,
)
from tercet.vault.rewind import Diff, Rewound

if TYPE_CHECKING:
    from tercet.govern.gate import Gate
    from tercet.vault.sqlite import SqliteVault, Tenant
    from tercet.vault.writer import Writer

OURS = "tercet"
"""By whom the journal says that something was done to a whole tenant, if nobody is named."""


class TimeMachine:
    """A part of `Tercet`. Every call asks for the right to administer the tenant (left out: "default")."""

    vault: SqliteVault
    gate: Gate

    def snapshot(
        self, name: str, *, tenant: str | None = None, branch: str | None = None, by: Caller | None = None
    ) -> Snapshot:
        """Name what a branch (left out: the main line) shows now. It copies nothing.

        Raises InvalidRequest for a name that is taken or cannot be one, MissingBranch.
        """
        with self._changing(tenant, by, branch) as (_, writer):
            return take_snapshot(writer, name)

    def branch(
        self, name: str, *, from_: str | None = None, tenant: str | None = None, by: Caller | None = None
    ) -> Branch:
        """Begin a branch at a snapshot, or where another branch (left out: the main line) is now. It copies nothing.

        Raises InvalidRequest for a name that is taken or cannot be one, MissingBranch.
        """
        with self._changing(tenant, by) as (_, writer):
            return make_branch(writer, name, from_)

    def snapshots(self, *, tenant: str | None = None, by: Caller | None = None) -> Sequence[Snapshot]:
        """All snapshots of a tenant, oldest first."""
        with administered_tenant(self, tenant, by).reading() as reader:
            return snapshots(reader.connection)

    def branches(self, *, tenant: str | None = None, by: Caller | None = None) -> Sequence[Branch]:
        """All branches of a tenant but the main line, oldest first."""
        with administered_tenant(self, tenant, by).reading() as reader:
            return branches(reader.connection)

    def diff(self, a: str, b: str = PRESENT, *, tenant: str | None = None, by: Caller | None = None) -> Diff:
        """What `b` shows otherwise than `a`; each names a snapshot or a branch, or is "now". Raises MissingBranch."""
        with administered_tenant(self, tenant, by).reading() as reader:
            return rewind.diff(reader.connection, reader.tenant, a, b)

    def restore(self, name: str, *, tenant: str | None = None, by: Caller | None = None) -> Rewound:
        """Bring the branch of a snapshot back to it: in one transaction, journalled, and undone by restoring `.undo`.

        Old content comes back as new versions, what was made since is hidden. Holds, access and retention stay as they
        are now, and what was erased since stays erased. Raises MissingBranch.
        """
        with administered_tenant(self, tenant, by).reading() as reader:
            branch = rewind.branch_of(reader.connection, name)
        with self._changing(tenant, by, branch) as (_, writer):
            return rewind.restore(writer, name, self.vault.marks)

    def drop(self, name: str, *, tenant: str | None = None, by: Caller | None = None) -> int:
        """Drop a snapshot, or a branch with its snapshots and what only it holds, which is erased.

        Returns how many rows of memories went. Raises MissingBranch, Held, and InvalidRequest if other branches begin
        on the branch.
        """
        with administered_tenant(self, tenant, by).reading() as reader:
            named_line(reader.connection, name)  # what is not there is said before a tenant's file is made
        with self._changing(tenant, by) as (held, writer):
            gone = rewind.drop(writer, name)
        held.forget_cache()
        held.scrub()
        return gone

    @contextmanager
    def _changing(
        self, tenant: str | None, by: Caller | None, branch: str | None = None
    ) -> Iterator[tuple[Tenant, Writer]]:
        """A transaction, for whoever administers the tenant before it and within it: a right may end in between."""
        held = administered_tenant(self, tenant, by)
        with held.writing(by=(by or Caller(OURS)).signed, branch=branch) as writer:
            self.gate.administer(writer.reader, by or Caller(), held.name)
            yield held, writer
