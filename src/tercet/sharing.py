"""What somebody lets another read: grants on memories or on a scope, their list, and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from tercet import keeping
from tercet.cube import MemCube, common_scope
from tercet.errors import InvalidRequest, MissingGrant, Refused
from tercet.govern import shares
from tercet.govern.quarantine import check_shareable
from tercet.govern.shares import MAX_CUBES, Share
from tercet.scope import Caller
from tercet.vault.branches import HERE
from tercet.vault.filters import Where, check_where
from tercet.vault.reader import Reader
from tercet.vault.shares import add_share, revoke_share, share_row, share_rows

if TYPE_CHECKING:
    from tercet.scoped import ScopedMemory


class Limits(TypedDict, total=False):
    """What a grant is for, how many calls it answers, and when it ends: a moment with a zone, or a span from now."""

    purpose: str | None
    reads: int | None
    until: datetime | timedelta | str | None


class Sharing:
    """A part of `ScopedMemory`."""

    @property
    def _lender(self) -> ScopedMemory:
        return cast("ScopedMemory", self)

    def share(
        self,
        what: str | MemCube | Sequence[str | MemCube] | None = None,
        *,
        with_: str | Caller,
        where: Where | None = None,
        everything: bool = False,
        **limits: Unpack[Limits],
    ) -> Share:
        """Let another caller of this tenant read memories, by id or all that meet `where`, those to come among them.

        The grant gives what the caller of this view may itself read and share, as its rights are at each use, and no
        deny gives way to it. It opens `get`, `list`, `recall`, `context` and `chat` on the main line as it is now:
        nothing of the past, no branch, archive or trace, nothing in quarantine and, by `where`, nothing that was made
        from memories. Nothing can be built upon what is only lent.

        Parameters
        ----------
        with_
            A caller, or its name; "role:NAME", "key:ID".
        everything
            All that this scope holds and will hold.
        purpose
            What the reader must say that it reads for; left out, whatever for.
        reads
            How many calls it answers; a call that gives several memories on its strength is one. Left out, any number.
        until
            When it ends: a moment with a zone, or how long from now. Left out, when it is revoked.

        Raises
        ------
        MissingMemory
            If this caller does not see a memory.
        Refused
            If this caller has no right to share it, or it is in quarantine.
        InvalidRequest
            For a grant to oneself or to nobody, or limits that cannot be; if it is not said what to share, or in two
            ways.
        """
        view = self._lender
        view.enter("share")
        ids = _ids(what, where, everything=everything)
        if view.moment != HERE:
            raise InvalidRequest("What is shared is the main line as it is now; share there.")
        now = view.tercet.clock()
        terms = shares.read_terms(
            with_, view.by, purpose=limits.get("purpose"), reads=limits.get("reads"), until=limits.get("until"), now=now
        )
        tenant = view.tercet.vault.tenant(view.scope.tenant)
        with tenant.reading() as reader:  # what is not there is said before a tenant's file is made
            _shareable(view, reader, ids)
        with tenant.writing(by=view.by.signed) as writer:
            cubes = _shareable(view, writer.reader, ids)
            scope = common_scope([cube.scope for cube in cubes]) if cubes else view.scope
            row = shares.draft_row(terms, view.by, scope, None if cubes else check_where(where), at=writer.at)
            n = add_share(writer, row, [cube.id for cube in cubes])
            made = share_row(writer.connection, n)
            assert made is not None  # noqa: S101  # it was written a line ago
            return shares.shown(writer.connection, made, tenant.name)

    def grants(self) -> list[Share]:
        """Grants on memories of this scope that the caller made or was given, oldest first, ended ones among them.

        Whoever administers the tenant sees all of them.
        """
        view = self._lender
        view.enter("read", lent=True)
        own = shares.subjects(view.by)
        with view.tercet.vault.tenant(view.scope.tenant).reading() as reader:
            every = _administers(view, reader)
            found = [shares.shown(reader.connection, row, reader.tenant) for row in share_rows(reader.connection)]
            found = [one for one in found if view.scope.covers(one.scope)]
            return [one for one in found if every or one.by == view.by.name or one.to in own]

    def revoke(self, grant: str | Share) -> Share:
        """Take back a grant that the caller made, or any for whoever administers the tenant; it gives nothing any more.

        To do it twice changes nothing. Raises MissingGrant.
        """
        view = self._lender
        view.enter("read", lent=True)
        id = grant.id if isinstance(grant, Share) else grant
        n = shares.number(id)
        tenant = view.tercet.vault.tenant(view.scope.tenant)

        def found(reader: Reader) -> Share:
            row = None if n is None else share_row(reader.connection, n)
            one = None if row is None else shares.shown(reader.connection, row, reader.tenant)
            if one is None or not (one.by == view.by.name or _administers(view, reader)):
                raise MissingGrant(id)
            return one

        with tenant.reading() as reader:
            found(reader)
        with tenant.writing(by=view.by.signed) as writer:
            if found(writer.reader).revoked is None:
                revoke_share(writer, cast("int", n))
            return found(writer.reader)


def _ids(
    what: str | MemCube | Sequence[str | MemCube] | None, where: Where | None, *, everything: bool
) -> list[str] | None:
    """The ids that are to be shared; None for all that a condition meets. Raises InvalidRequest."""
    if (what is not None) + (where is not None) + bool(everything) != 1:
        raise InvalidRequest("Say what to share: an id, a list of ids, or a condition (`where`), or `everything`.")
    if where is not None and not check_where(where):
        raise InvalidRequest("An empty condition would share everything here; say everything=True to mean that.")
    if what is None:
        return None
    given = [what] if isinstance(what, str | MemCube) else list(what)
    ids = [one.id if isinstance(one, MemCube) else one for one in given]
    if not ids or len(ids) > MAX_CUBES or not all(isinstance(one, str) for one in ids):
        raise InvalidRequest(f"A grant names 1 to {MAX_CUBES:,} ids, which are strings; for more, give a condition.")
    return list(dict.fromkeys(ids))


def _shareable(view: ScopedMemory, reader: Reader, ids: Sequence[str] | None) -> list[MemCube]:
    """The memories of these ids, if this caller may read and share them; of a condition, if it may share any at all."""
    read = keeping.allowed(view, reader)
    if ids is None:
        keeping.allowed(view, reader, "share")
        return []
    cubes = [reader.under(read).head(id, view.scope)[1] for id in ids]
    for id in ids:
        keeping.find(view, reader, id, "share")
    check_shareable(cubes)
    return cubes


def _administers(view: ScopedMemory, reader: Reader) -> bool:
    try:
        view.tercet.gate.administer(reader, view.by, view.scope.tenant)
    except Refused:
        return False
    return True
