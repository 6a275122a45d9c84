"""Tercet: the front door that every other door opens. It composes and computes nothing itself."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from tercet.activation.memory import KVMemory
from tercet.activation.tier import BUDGET
from tercet.admin import Admin, administered, require_all
from tercet.chores import JOBS, fill_vectors, tended
from tercet.engine.find import Engines, configured
from tercet.engine.find import Wanted as WantedEngine
from tercet.errors import Unsupported, VaultError
from tercet.govern.access import Access, AllowAll
from tercet.govern.gate import Gate
from tercet.govern.injections import InjectionLog
from tercet.govern.intake import Intake
from tercet.govern.keys import open_with, tenant_of
from tercet.govern.master import Given, find_master
from tercet.govern.policy import Rules
from tercet.govern.receipt import public_key
from tercet.govern.retention import Retention
from tercet.parametric.memory import AdapterMemory
from tercet.relearning import cooled
from tercet.schedule import promotion
from tercet.schedule.promotion import kv_numbers
from tercet.schedule.worker import Handler, run_due
from tercet.scope import DEFAULT_TENANT, Caller, Scope
from tercet.scoped import Progress, ScopedMemory
from tercet.sealing import Sealing
from tercet.text.embed import Wanted, built_in, find_embedder, find_embedder_of
from tercet.text.embed.base import Embedder
from tercet.text.embed.fill import fill, lacking, may_fill, want
from tercet.text.prepare import answering_space
from tercet.text.recall.query import marks
from tercet.timeline import TimeMachine
from tercet.vault import doctor, reseal, spaces, stats
from tercet.vault.backup import back_up
from tercet.vault.branches import Moment
from tercet.vault.doctor import Finding
from tercet.vault.ids import Clock, Entropy, IdSource, RandomIds, system_clock
from tercet.vault.spaces import Space
from tercet.vault.sqlite import SqliteVault, Tenant

if TYPE_CHECKING:
    from tercet.parametric.promote import Teaching

log = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """What few callers say when they open a vault."""

    former: Wanted
    """The embedder that the vault had until now, while it moves to another: what has no vector of the new one yet is
    found by the old. The built-in one is found without being named."""
    signing_key: str | os.PathLike[str] | None
    """The file of the key that signs receipts, made on first use; it may not lie in the vault's folder. "auto", or left
    out: TERCET_SIGNING_KEY, or else a file in the user's configuration folder. None: receipts are not signed."""
    trusted: Sequence[str | os.PathLike[str]]
    """Public keys (64 hex digits, or files that hold them) whose adapters are taken beside those of `signing_key`."""
    kv_bytes: int
    """Bytes of KV caches that this process keeps in memory; the rest is read from disk."""
    ids: IdSource | None
    """Where ids come from."""
    clock: Clock
    """Where times come from; with seeded `ids` and `entropy` a run can be repeated exactly."""
    entropy: Entropy
    """Where salts come from."""
    sealing: Given
    """The master key of a sealed vault, or where it is: a file that holds 64 hex digits, or "keyring" or
    "keyring:NAME". Given to a new vault, or for new tenants, it seals them. "auto", or left out: TERCET_MASTER_KEY, or
    the file that TERCET_MASTER_KEY_FILE names. None: there is none."""


class Tercet(TimeMachine, Sealing):
    """A vault, opened. Use it in a `with`, or call `close`.

    Safe to share between threads; several processes may open one folder. `teaching` is how adapters are made where a
    call, or a job that makes one again, says nothing else. `cool_after` is how long an adapter may lie unused before
    the worker brings it down to text; None: for ever.
    """

    def __init__(
        self,
        vault: SqliteVault,
        *,
        embedder: Wanted,
        access: Access | Rules | None = None,
        retention: Retention | None = None,
        intake: Intake | None = None,
        engines: Mapping[str, WantedEngine] | None = None,
        options: Options | None = None,
    ) -> None:
        given: Options = options or {}
        super().__init__(given.get("signing_key", "auto"))
        self.vault, self.clock, self.gate = vault, vault.clock, Gate(access or AllowAll(), vault.clock)
        self.retention, self.intake, self.injections = retention or Retention(), intake or Intake(), InjectionLog()
        self.engines = Engines({**configured(vault.folder), **(engines or {})})
        self.kv = KVMemory(given.get("kv_bytes", BUDGET))
        self._other_keys = frozenset(public_key(one) for one in given.get("trusted", ()))
        self.lora = AdapterMemory(trusted=self._trusted)
        self.teaching: Teaching | None = None
        self.cool_after: timedelta | None = None
        self.paces: dict[str, promotion.Pace] = {}
        self._wanted, self._former = embedder, given.get("former")
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
        access: Access | Rules | None = None,
        redaction: Mapping[str, str] | None = None,
        retention: Retention | None = None,
        engines: Mapping[str, WantedEngine] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Open a folder as a vault, made if it is not there.

        Parameters
        ----------
        embedder
            "auto": all-MiniLM-L6-v2 if its weights are on this machine (nothing is downloaded), else recall is by
            words. Its name, "all-MiniLM-L6-v2": the same, downloaded if need be. None: by words. An `Embedder`, or
            any callable from a list of texts to a list of vectors.
        access
            A policy: `Rules`, or an object that decides by scope. Left out, all is allowed. The rules that stand in a
            tenant's file (`admin`) hold in any case.
        redaction
            What is done with what texts hold before they are stored: kind or group -> "allow", "mask" or "refuse".
            Left out: credentials are masked, personal data is allowed (see the manual's page on redaction).
        retention
            How long memories are kept that do not say so themselves; left out: until they are forgotten.
        engines
            Models by name, beside those in the folder's `tercet.toml`: an engine, a table as there, or the model of a
            transformers engine. Each is loaded when it is first used.
        options
            sealing (the master key, or where it is: see the manual's page on sealing), former (the embedder until now,
            while a vault moves to another), signing_key (the file of the key that signs receipts and adapters; None:
            they are not signed), trusted (public keys whose adapters are taken, too), kv_bytes (of KV caches kept in
            memory), and ids, clock, entropy (where ids, times and salts come from; seeded ones repeat a run exactly).
            See `Options`.

        Raises
        ------
        Unsupported
            For an address that needs a part which is not installed.
        VaultSealed
            If the vault is sealed, and there is no master key or another one.
        VaultError
            If the folder cannot be made or read, or the master key cannot be.
        """
        if "://" in str(path):
            raise Unsupported(f"{path!r} is no folder; this version keeps memories in a folder on disk.")
        entropy, intake = options.get("entropy", os.urandom), Intake(redaction)
        folder = Path(path).expanduser()
        vault = SqliteVault(
            folder,
            ids=options.get("ids") or RandomIds(entropy),
            clock=options.get("clock", system_clock),
            entropy=entropy,
            marks=marks,
            master=find_master(options.get("sealing", "auto"), apart_from=folder),
        )
        return cls(
            vault,
            embedder=embedder,
            access=access,
            retention=retention,
            intake=intake,
            engines=engines,
            options=options,
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

        A caller that is bound to a scope, as one made from a key is, has its own parts where they are left out.
        `branch` is where they are read and written; left out: the main line. One that is not there raises MissingBranch
        when it is first read or written.

        Raises InvalidRequest for a name that is empty, too long or has control characters.
        """
        caller = by or Caller()
        begin = caller.within or Scope()
        scope = begin.within(tenant=tenant, user=user, agent=agent, session=session)
        return ScopedMemory(self, scope, caller, moment=Moment(branch))

    def caller(self, key: str, *, purpose: str | None = None, network: str | None = None) -> Caller:
        """Who comes with an API key, for a purpose, from an IP address. The key is looked up again at each use.

        Raises
        ------
        Refused
            If the key is wrong, of another vault, expired or revoked, all in the same words; if it is not for that
            purpose.
        """
        with self.vault.tenant(tenant_of(key)).reading() as reader:
            return open_with(reader.connection, key, at=self.clock(), purpose=purpose, network=network)

    def admin(self, *, tenant: str | None = None, by: Caller | None = None) -> Admin:
        """Rules and keys of a tenant (left out: "default"), and the names of all tenants that `by` administers.

        Raises Refused if it does not administer that one.
        """
        caller = by or Caller()
        own = caller.within.tenant if caller.within is not None else DEFAULT_TENANT
        return Admin(self, caller, Scope(tenant or own).tenant)

    def work(self, *, until_idle: bool = False, progress: Progress | None = None) -> int:
        """Run jobs that are due, of every tenant; returns how many were done.

        With `until_idle`, go on until none is due; else each tenant is visited once. A job that cannot be done yet
        stays: vectors wait for weights, a scrub for a reader that holds an old snapshot.

        Memories without a vector in the embedder's space get one. Where the vault is in another space, this is the
        move to the embedder's (see `reembed`); an embedder that was found and not asked for ("auto") begins none.
        """
        handlers: dict[str, Handler] = {name: partial(handler, self) for name, handler in JOBS.items()}
        resting = {name: handler for name, handler in handlers.items() if name != "embed"}
        tending = len(self.engines.names()) == 1
        if not tending:  # nobody said which model should read what is used
            del handlers["tend"], resting["tend"]
        filling, done = self._filling(), 0
        for name in self.vault.tenants():
            self.vault.tenant(name).want_index(self.clock())
            reseal.want(self.vault.tenant(name), at=self.clock())
            if tending:
                promotion.want(self.vault.tenant(name), at=self.clock())
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

    def reembed(self, *, keep: bool = False, progress: Progress | None = None, by: Caller | None = None) -> int:
        """Move the vault to the embedder's space, also to one that it has left; returns how many vectors were made.

        Meanwhile it answers, and ids stay as they are. Once every memory has a vector in the new space, the vectors in
        others are dropped, unless they are to `keep`. After an interruption `work` goes on where it was.

        Raises
        ------
        Unsupported
            If there is no embedder.
        EmbeddingFailed
            If it does not answer, or cannot read some texts; the old vectors stay then.
        Refused
            If `by` does not administer every tenant.
        """
        require_all(self, by or Caller())
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
            run_due(tenant, {"embed": partial(fill_vectors, self)}, self.clock)  # which finds nothing more to do
        return done

    def tend(
        self, *, engine: str | None = None, precision: str = "bf16", cool_after: timedelta | None = None,
        by: Caller | None = None,
    ) -> dict[str, dict[str, list[str]]]:  # fmt: skip
        """Give KV caches to what is read often and take them from what went cold, by measured cost, in every tenant.

        Returns the ids of caches made ("promoted") and dropped ("demoted") by tenant. With `cool_after`, adapters that
        nobody has used for so long are asked for what they know and dropped ("cooled"), the texts kept
        ("externalised"). The worker does it every hour
        where there is one engine. What is in quarantine gets none; a use of a cache asks for the right to read it and
        all that it was made from.

        Raises
        ------
        InvalidRequest
            For an unknown engine, or where it must be said which.
        Refused
            If `by` does not administer every tenant.
        Unsupported
            If the engine keeps no caches.
        """
        require_all(self, by or Caller())
        found = {}
        for name in self.vault.tenants():
            tenant = self.vault.tenant(name)
            cold = {} if cool_after is None else cooled(self, tenant, cool_after)
            found[name] = {**tended(self, tenant, engine, precision), **cold}
        return found

    def stats(self, *, by: Caller | None = None) -> dict[str, Any]:
        """Numbers about the vault and each tenant that `by` administers, and how memories are found.

        Raises Refused if it administers none.
        """
        tenants: dict[str, Any] = {}
        for name in administered(self, by or Caller()):
            tenant = self.vault.tenant(name)
            with tenant.reading() as reader:
                tenants[name] = stats.collect(reader.connection)
            if (space := answering_space(self.embedder)) is not None:
                tenants[name]["without_vector"] = len(lacking(tenant, space))
            tenants[name]["kv"] = kv_numbers(tenant)
        return {
            "folder": str(self.vault.folder),
            "recall_by": self.recall_by(),
            "kv_memory": self.kv.tier.stats(),
            "kv_paces": {name: asdict(one) for name, one in self.paces.items()},
            "kv_policy": asdict(promotion.POLICY),
            "tenants": tenants,
        }

    def doctor(self, *, repair: bool = False, by: Caller | None = None) -> dict[str, list[Finding]]:
        """Check every tenant's file against itself; returns what was found, by tenant (empty lists: all is well).

        Raises Refused if `by` does not administer every tenant whose rules can be read.
        """
        require_all(self, by or Caller())
        return doctor.examine_all(self.vault, repair=repair)

    def backup(self, folder: str | os.PathLike[str], *, by: Caller | None = None) -> list[Path]:
        """Copy the vault, while it is in use, into a new folder that opens as a vault; returns the files made.

        Raises VaultError if the folder is there and is not empty, or cannot be written; Refused if `by` does not
        administer every tenant.
        """
        require_all(self, by or Caller())
        return back_up(self.vault, Path(folder).expanduser())

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

    def _trusted(self) -> frozenset[str]:
        """The public keys that an adapter may be signed with; none: it is held against its hashes alone."""
        return self._other_keys if self.signer is None else self._other_keys | {self.signer.public}

    def _may_leave(self, space: Space) -> bool:
        """Whether a move away from a space may begin by itself: not to an embedder that nobody has asked for."""
        return self._wanted != "auto" or built_in(space.name)

    def close(self) -> None:
        """Write what is still gathered (use counts, what entered prompts) and close every file."""
        for name in list(self.vault.open_tenants()):
            self.flush_uses(self.vault.tenant(name))
            self.injections.flush(self.vault.tenant(name))
        self.engines.close()
        self.kv.tier.clear()
        self.vault.close()

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
