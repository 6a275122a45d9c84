"""Tercet: the front door that every other door opens. It composes and computes nothing itself."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypedDict, Unpack

from tercet.cube import MemCube, Payload, derive
from tercet.errors import InvalidRequest, Unsupported, VaultError
from tercet.govern.access import Access, AllowAll
from tercet.govern.audit import Audited, anchor_document, audit, check_receipt
from tercet.govern.receipt import Signer, contents, find_signer, public_key, tenant_of, write_document
from tercet.govern.retention import Retention
from tercet.schedule.worker import Handler, run_due
from tercet.scope import Caller, Scope
from tercet.scoped import Progress, ScopedMemory
from tercet.text.embed import Wanted, built_in, find_embedder, find_embedder_of
from tercet.text.embed.base import Embedder
from tercet.text.embed.fill import fill, lacking, may_fill, want
from tercet.text.prepare import answering_space
from tercet.text.recall.query import marks
from tercet.vault import doctor, rewind, spaces, stats
from tercet.vault.backup import back_up
from tercet.vault.branches import (
    PRESENT,
    Branch,
    Moment,
    Snapshot,
    branches,
    make_branch,
    named_line,
    snapshots,
    take_snapshot,
)
from tercet.vault.doctor import Finding
from tercet.vault.erase import Receipt, receipt_at
from tercet.vault.ids import Clock, Entropy, IdSource, RandomIds, system_clock
from tercet.vault.journal import Line, lines
from tercet.vault.reader import check_limit
from tercet.vault.rewind import Diff, Rewound
from tercet.vault.spaces import Space
from tercet.vault.sqlite import SqliteVault, Tenant
from tercet.vault.sweep import Sweep

log = logging.getLogger(__name__)

RETRY = timedelta(minutes=1)
OURS = "tercet"
"""By whom the journal says that something was done to a whole tenant."""
UNKNOWN = timedelta(days=1)
"""When a job is asked for again whose method nobody here knows; it stays in `stats` meanwhile."""


class Sources(TypedDict, total=False):
    """Where ids, times and salts come from; seeded ones repeat a run exactly."""

    ids: IdSource | None
    clock: Clock
    entropy: Entropy


class Tercet:
    """A vault, opened. Use it in a `with`, or call `close`.

    Safe to share between threads; several processes may open one folder.
    """

    def __init__(
        self,
        vault: SqliteVault,
        *,
        embedder: Wanted,
        access: Access,
        clock: Clock,
        former: Wanted = None,
        retention: Retention | None = None,
        signing_key: str | os.PathLike[str] | None = "auto",
    ) -> None:
        self.vault, self.access, self.clock = vault, access, clock
        self.retention = retention or Retention()
        self._key = signing_key
        self._signer: Signer | None = None
        self._wanted, self._former = embedder, former
        self._embedder: Embedder | None = None
        self._looked = False
        self._others: dict[str, Embedder | None] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Wanted = "auto",
        former: Wanted = None,
        access: Access | None = None,
        retention: Retention | None = None,
        signing_key: str | os.PathLike[str] | None = "auto",
        **sources: Unpack[Sources],
    ) -> Self:
        """Open a folder as a vault, made if it is not there.

        Parameters
        ----------
        embedder
            "auto": all-MiniLM-L6-v2 if its weights are on this machine (nothing is downloaded), else recall is by
            words. Its name, "all-MiniLM-L6-v2": the same, downloaded if need be. None: by words. An `Embedder`, or
            any callable from a list of texts to a list of vectors.
        former
            The embedder that the vault had until now, while it moves to another: what has no vector of the new one yet
            is found by the old. The built-in one is found without being named.
        retention
            How long memories are kept that do not say so themselves; left out: until they are forgotten.
        signing_key
            The file of the key that signs receipts, made on first use; it may not lie in the vault's folder. "auto":
            TERCET_SIGNING_KEY, or else a file in the user's configuration folder. None: receipts are not signed.
        sources
            ids, clock, entropy: where ids, times and salts come from; seeded ones repeat a run exactly.

        Raises
        ------
        Unsupported
            For an address that needs a part which is not installed.
        VaultError
            If the folder cannot be made or read.
        """
        if "://" in str(path):
            raise Unsupported(f"{path!r} is no folder; this version keeps memories in a folder on disk.")
        entropy = sources.get("entropy", os.urandom)
        vault = SqliteVault(
            Path(path).expanduser(),
            ids=sources.get("ids") or RandomIds(entropy),
            clock=sources.get("clock", system_clock),
            entropy=entropy,
            marks=marks,
        )
        return cls(
            vault,
            embedder=embedder,
            former=former,
            access=access or AllowAll(),
            clock=vault.clock,
            retention=retention,
            signing_key=signing_key,
        )

    def scope(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        branch: str | None = None,
        by: Caller | None = None,
    ) -> ScopedMemory:
        """The memories of a tenant (left out: "default"), user, agent and session, as `by` may use them.

        `branch` is where they are read and written; left out: the main line. One that is not there raises MissingBranch
        when it is first read or written. Raises InvalidRequest for a name that is empty, too long or has control
        characters.
        """
        scope = Scope(**({"tenant": tenant} if tenant is not None else {}), user=user, agent=agent, session=session)
        return ScopedMemory(self, scope, by or Caller(), moment=Moment(branch))

    def admin(self, *, by: Caller | None = None) -> Admin:
        """What crosses tenants."""
        return Admin(self, by or Caller())

    def work(self, *, until_idle: bool = False, progress: Progress | None = None) -> int:
        """Run jobs that are due, of every tenant; returns how many were done.

        With `until_idle`, go on until none is due; else each tenant is visited once. A job that cannot be done yet
        stays: vectors wait for weights, a scrub for a reader that holds an old snapshot.

        Memories without a vector in the embedder's space get one. Where the vault is in another space, this is the
        move to the embedder's (see `reembed`); an embedder that was found and not asked for ("auto") begins none.
        """
        handlers: dict[str, Handler] = {name: partial(handler, self) for name, handler in JOBS.items()}
        resting = {name: handler for name, handler in handlers.items() if name != "embed"}
        filling, done = self._filling(), 0
        for name in self.vault.tenants():
            self.vault.tenant(name).want_index(self.clock())
        while True:
            ran = sum(
                run_due(self.vault.tenant(name), handlers if name in filling else resting, self.clock)
                for name in self.vault.tenants()
            )
            done += ran
            if progress is not None:
                progress(done, done)
            if not ran or not until_idle:
                return done

    def reembed(self, *, keep: bool = False, progress: Progress | None = None) -> int:
        """Move the vault to the embedder's space, also to one that it has left; returns how many vectors were made.

        Meanwhile it answers, and ids stay as they are. Once every memory has a vector in the new space, the vectors in
        others are dropped, unless they are to `keep`. After an interruption `work` goes on where it was.

        Raises
        ------
        Unsupported
            If there is no embedder.
        EmbeddingFailed
            If it does not answer, or cannot read some texts; the old vectors stay then.
        """
        embedder = self.embedder
        if embedder is None:
            raise Unsupported(f"There is no embedder to move to: recall is by {self.recall_by()}.")
        space, tenants = Space(embedder.space, embedder.dim), [self.vault.tenant(name) for name in self.vault.tenants()]
        for tenant in tenants:
            with tenant.maintaining() as connection:
                spaces.enter(connection, space, keep=keep, at=self.clock())
            want(tenant, space, at=self.clock())  # what is left if this is interrupted
        total, done = sum(len(lacking(tenant, space)) for tenant in tenants), 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, max(done, total))

        for tenant in tenants:
            fill(tenant, embedder, by="tercet", progress=step)
            run_due(tenant, {"embed": partial(_fill_vectors, self)}, self.clock)  # which finds nothing more to do
        return done

    def stats(self) -> dict[str, Any]:
        """Numbers about the vault and each tenant, and how memories are found."""
        tenants: dict[str, Any] = {}
        for name in self.vault.tenants():
            tenant = self.vault.tenant(name)
            with tenant.reading() as reader:
                tenants[name] = stats.collect(reader.connection)
            if (space := answering_space(self.embedder)) is not None:
                tenants[name]["without_vector"] = len(lacking(tenant, space))
        return {"folder": str(self.vault.folder), "recall_by": self.recall_by(), "tenants": tenants}

    def doctor(self, *, repair: bool = False) -> dict[str, list[Finding]]:
        """Check every tenant's file against itself; returns what was found, by tenant (empty lists: all is well)."""
        return doctor.examine_all(self.vault, repair=repair)

    def backup(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Copy the vault, while it is in use, into a new folder that opens as a vault; returns the files made.

        Raises VaultError if the folder is there and is not empty, or cannot be written.
        """
        return back_up(self.vault, Path(folder).expanduser())

    def snapshot(self, name: str, *, tenant: str | None = None, branch: str | None = None) -> Snapshot:
        """Name what a branch (left out: the main line) shows now. It copies nothing.

        Raises InvalidRequest for a name that is taken or cannot be one, MissingBranch.
        """
        with self._tenant(tenant).writing(by=OURS, branch=branch) as writer:
            return take_snapshot(writer, name)

    def branch(self, name: str, *, from_: str | None = None, tenant: str | None = None) -> Branch:
        """Begin a branch at a snapshot, or where another branch (left out: the main line) is now. It copies nothing.

        Raises InvalidRequest for a name that is taken or cannot be one, MissingBranch.
        """
        with self._tenant(tenant).writing(by=OURS) as writer:
            return make_branch(writer, name, from_)

    def snapshots(self, *, tenant: str | None = None) -> Sequence[Snapshot]:
        """All snapshots of a tenant, oldest first."""
        with self._tenant(tenant).reading() as reader:
            return snapshots(reader.connection)

    def branches(self, *, tenant: str | None = None) -> Sequence[Branch]:
        """All branches of a tenant but the main line, oldest first."""
        with self._tenant(tenant).reading() as reader:
            return branches(reader.connection)

    def diff(self, a: str, b: str = PRESENT, *, tenant: str | None = None) -> Diff:
        """What `b` shows otherwise than `a`; each names a snapshot or a branch, or is "now". Raises MissingBranch."""
        with self._tenant(tenant).reading() as reader:
            return rewind.diff(reader.connection, reader.tenant, a, b)

    def restore(self, name: str, *, tenant: str | None = None) -> Rewound:
        """Bring the branch of a snapshot back to it: in one transaction, journalled, and undone by restoring `.undo`.

        Old content comes back as new versions, what was made since is hidden. Holds, access and retention stay as they
        are now, and what was erased since stays erased. Raises MissingBranch.
        """
        held = self._tenant(tenant)
        with held.reading() as reader:
            branch = rewind.branch_of(reader.connection, name)
        with held.writing(by=OURS, branch=branch) as writer:
            return rewind.restore(writer, name, self.vault.marks)

    def drop(self, name: str, *, tenant: str | None = None) -> int:
        """Drop a snapshot, or a branch with its snapshots and what only it holds, which is erased.

        Returns how many rows of memories went. Raises MissingBranch, Held, and InvalidRequest if other branches begin
        on the branch.
        """
        held = self._tenant(tenant)
        with held.reading() as reader:
            named_line(reader.connection, name)  # what is not there is said before a tenant's file is made
        with held.writing(by=OURS) as writer:
            gone = rewind.drop(writer, name)
        held.forget_cache()
        held.scrub()
        return gone

    def receipt(self, seq: int, *, tenant: str | None = None, by: Caller | None = None) -> Receipt:
        """The receipt of the erasure that ended at that line of the journal, signed as things stand now.

        A receipt that had to wait for its scrub has a successor once the scrub is done. Raises InvalidRequest.
        """
        with self._administered(tenant, by).reading() as reader:
            receipt = receipt_at(reader, seq)
        return receipt if self.signer is None else self.signer.receipt(receipt)

    def verify(
        self,
        receipt: Receipt | bytes | str | os.PathLike[str],
        *,
        key: str | os.PathLike[str] | None = None,
        by: Caller | None = None,
    ) -> Audited:
        """Check a receipt (or its file): the signature, the journal, and that nothing of what it names is in the vault.

        `key` is the signer's public key (or its file); left out: the one that signs here. Raises InvalidRequest if
        there is no such file, or the key is none.
        """
        data = contents(receipt)
        return check_receipt(self._administered(tenant_of(data), by), data, self._public(key))

    def audit(
        self, *, tenant: str | None = None, since: int = 0, limit: int = 1000, by: Caller | None = None
    ) -> list[Line]:
        """Lines of a tenant's journal after `since`, oldest first: who did what. Pass the last `.seq` to go on."""
        check_limit(limit)
        with self._administered(tenant, by).reading() as reader:
            return lines(reader.connection, since=since, limit=limit)

    def verify_audit(
        self,
        papers: Sequence[Receipt | bytes | str | os.PathLike[str]] = (),
        *,
        tenant: str | None = None,
        key: str | os.PathLike[str] | None = None,
        by: Caller | None = None,
    ) -> Audited:
        """Check a tenant's whole journal, and hold it against its mark and against receipts and anchors.

        An edit, a removed or a swapped line breaks the chain; a journal that was chained anew, or cut off, contradicts
        every paper from before. Raises InvalidRequest as `verify` does.
        """
        held = [contents(paper) for paper in papers]
        return audit(self._administered(tenant, by), held, self._public(key))

    def anchor(
        self, path: str | os.PathLike[str], *, tenant: str | None = None, by: Caller | None = None
    ) -> Mapping[str, Any]:
        """Write the journal's head, signed, to a file to be kept elsewhere; returns what it says.

        Raises InvalidRequest if there is no signing key.
        """
        held = self._administered(tenant, by)
        if self.signer is None:
            raise InvalidRequest("An anchor that is not signed proves nothing: open the vault with a signing key.")
        document = self.signer.signed(anchor_document(held))
        write_document(Path(path).expanduser(), document)
        return document

    @property
    def signer(self) -> Signer | None:
        """What signs receipts, made on first use; None if nothing does. Raises VaultError for a named key of no use."""
        if self._key is None:
            return None
        with self._lock:
            if self._signer is None:
                self._signer = find_signer(self._key, apart_from=self.vault.folder)
                if self._signer is None:
                    self._key = None
            return self._signer

    def recall_by(self) -> str:
        """ "words and vectors", or "words" and why there are no vectors."""
        if self.embedder is not None:
            return "words and vectors"
        return "words" if self._wanted is None else "words (no embedding weights on this machine)"

    @property
    def embedder(self) -> Embedder | None:
        """What makes vectors, found on first use."""
        with self._lock:
            if not self._looked:
                self._embedder, self._looked = find_embedder(self._wanted), True
            return self._embedder

    def embedder_of(self, space: str) -> Embedder | None:
        """The embedder of another space than the current one, if it is at hand: the former one, or the built-in."""
        with self._lock:
            if space not in self._others:
                self._others[space] = find_embedder_of(space, self._former)
            return self._others[space]

    def _filling(self) -> set[str]:
        """The tenants that want vectors of the embedder; each has an `embed` job now if there is something to do."""
        found = set[str]()
        space = answering_space(self.embedder)
        for name in self.vault.tenants() if space is not None else ():
            assert space is not None  # noqa: S101  # or there is no tenant to look at
            tenant = self.vault.tenant(name)
            if may_fill(tenant, space, may_enter=self._may_leave, at=self.clock()):
                want(tenant, space, at=self.clock())
                found.add(name)
            else:
                log.warning("tenant %s has its vectors in another space than %s; see `reembed`", name, space.name)
        return found

    def _may_leave(self, space: Space) -> bool:
        """Whether a move away from a space may begin by itself: not to an embedder that nobody has asked for."""
        return self._wanted != "auto" or built_in(space.name)

    def _administered(self, tenant: str | None, by: Caller | None) -> Tenant:
        scope = Scope() if tenant is None else Scope(tenant)
        self.access.check(by or Caller(), "administer", scope)
        return self.vault.tenant(scope.tenant)

    def _public(self, key: str | os.PathLike[str] | None) -> str | None:
        if key is not None:
            return public_key(key)
        return None if self.signer is None else self.signer.public

    def close(self) -> None:
        """Write what is still gathered (use counts) and close every file."""
        for name in list(self.vault.open_tenants()):
            self.flush_uses(self.vault.tenant(name))
        self.vault.close()

    def _tenant(self, name: str | None) -> Tenant:
        return self.vault.tenant((Scope() if name is None else Scope(name)).tenant)

    def flush_uses(self, tenant: Tenant) -> None:
        """Write use counts. A vault that cannot be written keeps none: they order nothing."""
        uses = tenant.take_uses()
        if not uses:
            return
        try:
            with tenant.writing(by="tercet") as writer:
                writer.used(uses)
        except VaultError as error:
            log.info("use counts were not kept: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fill_vectors(tercet: Tercet, tenant: Tenant) -> datetime | None:
    if tercet.embedder is not None:
        fill(tenant, tercet.embedder, by="tercet")
    return None


def _index(tercet: Tercet, tenant: Tenant) -> datetime | None:  # noqa: ARG001  # a handler's shape
    tenant.index()
    return None


def _scrub(tercet: Tercet, tenant: Tenant) -> datetime | None:
    return tercet.clock() + RETRY if tenant.scrub(at_once=True) else None


def _sweep(tercet: Tercet, tenant: Tenant) -> datetime | None:
    tercet.flush_uses(tenant)  # a use that is still gathered counts against decay
    rules = tercet.retention
    sweep = Sweep(floor=rules.floor, archive_timeout=rules.archive_timeout)
    again = sweep.run(tenant, tercet.clock)
    if sweep.erased:
        tenant.forget_cache()
    return again


def _rebuild(tercet: Tercet, tenant: Tenant, *, method: str, sources: Sequence[str], type: str) -> datetime | None:
    if method not in REBUILDERS:
        return tercet.clock() + UNKNOWN
    memory = tercet.scope(tenant=tenant.name, by=Caller("tercet"))
    with tenant.reading() as reader:
        numbers = [n for id in sources for n in reader.find(id)]  # some may have been erased since
        left = reader.cubes(numbers)
    if left:
        memory.remember(derive(left, REBUILDERS[method](left), method=method, type=type))
    return None


JOBS: Mapping[str, Callable[..., datetime | None]] = MappingProxyType(
    {
        "embed": _fill_vectors,
        "index": _index,
        "scrub": _scrub,
        "sweep": _sweep,
        "rebuild": _rebuild,
    }
)
"""What each job does, given what its body holds; it returns when to try again if it cannot be done yet."""

REBUILDERS: Mapping[str, Callable[[Sequence[MemCube]], Payload]] = MappingProxyType({})
"""By method: how a product that lost a source is made again from those that are left."""


class Admin:
    """What crosses tenants: only an administrator sees it."""

    def __init__(self, tercet: Tercet, by: Caller) -> None:
        tercet.access.check(by, "administer", Scope())
        self.tercet, self.by = tercet, by

    def tenants(self) -> list[str]:
        """The names of all tenants."""
        return self.tercet.vault.tenants()
