"""Tercet: the front door that every other door opens. It composes and computes nothing itself."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from tercet import converse
from tercet.activation import tend
from tercet.activation.memory import KVMemory
from tercet.activation.tier import BUDGET
from tercet.engine.base import require
from tercet.engine.find import Engines, Wanted, configured
from tercet.errors import Unsupported, VaultError
from tercet.govern.access import Access, AllowAll
from tercet.parametric.memory import METHOD as DISTIL
from tercet.parametric.memory import AdapterMemory
from tercet.schedule import promotion
from tercet.schedule.promotion import kv_numbers
from tercet.schedule.worker import Handler, run_due
from tercet.scope import Caller, Scope
from tercet.scoped import Progress, ScopedMemory
from tercet.text.embed import find_embedder
from tercet.text.embed.base import Embedder
from tercet.text.embed.fill import fill, lacking, want
from tercet.text.prepare import answering_space
from tercet.vault import doctor, stats
from tercet.vault.backup import back_up
from tercet.vault.doctor import Finding
from tercet.vault.ids import Clock, Entropy, IdSource, RandomIds, system_clock
from tercet.vault.sqlite import SqliteVault, Tenant

if TYPE_CHECKING:
    from tercet.engine.base import CacheEngine
    from tercet.parametric.promote import Teaching

log = logging.getLogger(__name__)

RETRY = timedelta(minutes=1)
UNKNOWN = timedelta(hours=1)
"""When a job is looked at again that nothing here can do yet."""


class Tercet:
    """A vault, opened. Use it in a `with`, or call `close`.

    Safe to share between threads; several processes may open one folder. `teaching` is how adapters are made where a
    call, or a job that makes one again, says nothing else.
    """

    def __init__(
        self,
        vault: SqliteVault,
        *,
        embedder: Embedder | Callable[..., Any] | str | None,
        access: Access,
        clock: Clock,
        engines: Mapping[str, Wanted] | None = None,
        kv_bytes: int = BUDGET,
    ) -> None:
        self.vault, self.access, self.clock = vault, access, clock
        self.engines = Engines({**configured(vault.folder), **(engines or {})})
        self.kv = KVMemory(kv_bytes)
        self.lora = AdapterMemory()
        self.teaching: Teaching | None = None
        self.paces: dict[str, promotion.Pace] = {}
        self._wanted = embedder
        self._embedder: Embedder | None = None
        self._looked = False
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | Callable[..., Any] | str | None = "auto",
        access: Access | None = None,
        ids: IdSource | None = None,
        clock: Clock = system_clock,
        entropy: Entropy = os.urandom,
        engines: Mapping[str, Wanted] | None = None,
        kv_bytes: int = BUDGET,
    ) -> Self:
        """Open a folder as a vault, made if it is not there.

        Parameters
        ----------
        embedder
            "auto": all-MiniLM-L6-v2 if its weights are on this machine (nothing is downloaded), else recall is by
            words. Its name, "all-MiniLM-L6-v2": the same, downloaded if need be. None: by words. An `Embedder`, or
            any callable from a list of texts to a list of vectors.
        ids, clock, entropy
            Where ids, times and salts come from; seeded ones repeat a run exactly.
        engines
            Models by name, beside those in the folder's `tercet.toml`: an engine, a table as there, or the model of a
            transformers engine. Each is loaded when it is first used.
        kv_bytes
            Bytes of KV caches that this process keeps in memory; the rest is read from disk.

        Raises
        ------
        Unsupported
            For an address that needs a part which is not installed.
        VaultError
            If the folder cannot be made or read.
        """
        if "://" in str(path):
            raise Unsupported(f"{path!r} is no folder; this version keeps memories in a folder on disk.")
        vault = SqliteVault(Path(path).expanduser(), ids=ids or RandomIds(entropy), clock=clock, entropy=entropy)
        return cls(
            vault, embedder=embedder, access=access or AllowAll(), clock=clock, engines=engines, kv_bytes=kv_bytes
        )

    def scope(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        by: Caller | None = None,
    ) -> ScopedMemory:
        """The memories of a tenant (left out: "default"), user, agent and session, as `by` may use them.

        Raises InvalidRequest for a name that is empty, too long or has control characters.
        """
        scope = Scope(**({"tenant": tenant} if tenant is not None else {}), user=user, agent=agent, session=session)
        return ScopedMemory(self, scope, by or Caller())

    def admin(self, *, by: Caller | None = None) -> Admin:
        """What crosses tenants."""
        return Admin(self, by or Caller())

    def work(self, *, until_idle: bool = False, progress: Progress | None = None) -> int:
        """Run jobs that are due, of every tenant; returns how many were done.

        With `until_idle`, go on until none is due; else each tenant is visited once. A job that cannot be done yet
        stays: vectors wait for weights, a scrub for a reader that holds an old snapshot. Memories without a vector in
        the embedder's space, because it is new here, get one.
        """
        handlers: dict[str, Handler] = {name: partial(handler, self) for name, handler in JOBS.items()}
        if (space := answering_space(self.embedder)) is None:
            del handlers["embed"]
        else:
            for name in self.vault.tenants():
                want(self.vault.tenant(name), space, at=self.clock())
        if len(self.engines.names()) != 1:
            del handlers["tend"]  # nobody said which model should read what is used
        else:
            for name in self.vault.tenants():
                promotion.want(self.vault.tenant(name), at=self.clock())
        done = 0
        while True:
            ran = sum(run_due(self.vault.tenant(name), handlers, self.clock) for name in self.vault.tenants())
            done += ran
            if progress is not None:
                progress(done, done)
            if not ran or not until_idle:
                return done

    def tend(self, *, engine: str | None = None, precision: str = "bf16") -> dict[str, dict[str, list[str]]]:
        """Give KV caches to what is read often and take them from what went cold, by measured cost, in every tenant.

        Returns the ids of caches made ("promoted") and dropped ("demoted") by tenant. The worker does it every hour
        where there is one engine.

        Raises
        ------
        InvalidRequest
            For an unknown engine, or where it must be said which.
        Unsupported
            If the engine keeps no caches.
        """
        return {name: _tended(self, self.vault.tenant(name), engine, precision) for name in self.vault.tenants()}

    def stats(self) -> dict[str, Any]:
        """Numbers about the vault and each tenant, and how memories are found."""
        tenants: dict[str, Any] = {}
        for name in self.vault.tenants():
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

    def doctor(self, *, repair: bool = False) -> dict[str, list[Finding]]:
        """Check every tenant's file against itself; returns what was found, by tenant (empty lists: all is well)."""
        return doctor.examine_all(self.vault, repair=repair)

    def backup(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Copy the vault, while it is in use, into a new folder that opens as a vault; returns the files made.

        Raises VaultError if the folder is there and is not empty, or cannot be written.
        """
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

    def close(self) -> None:
        """Write what is still gathered (use counts) and close every file."""
        for name in list(self.vault.open_tenants()):
            self.flush_uses(self.vault.tenant(name))
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


def _fill_vectors(tercet: Tercet, tenant: Tenant) -> datetime | None:
    if tercet.embedder is not None:
        fill(tenant, tercet.embedder, by="tercet")
    return None


def _index(tercet: Tercet, tenant: Tenant) -> datetime | None:  # noqa: ARG001  # a handler's shape
    tenant.index()
    return None


def _tended(tercet: Tercet, tenant: Tenant, engine: str | None, precision: str) -> dict[str, list[str]]:
    view, policy = tercet.scope(tenant=tenant.name, by=Caller("tercet")), promotion.POLICY
    tercet.flush_uses(tenant)
    heats = promotion.observe(tenant, policy, at=tercet.clock(), by="tercet")
    gone = tend.fallen(tenant, view.scope)
    if not heats and not kv_numbers(tenant)["caches"]:
        return tend.carry_out([], [], view.promote, view.demote)  # no model is loaded for nothing
    model = tercet.engines.get(engine)
    require(model, "cache", "Promotion by measured cost")
    reads = cast("CacheEngine", model)
    held = tend.survey(tenant, view.scope, reads, heats, tercet.kv)
    if not held:
        return tend.carry_out([], gone, view.promote, view.demote)
    measured = _pace(tercet, reads, precision)
    up, down = policy.decide(
        [promotion.Candidate(one.text.id, one.tokens, one.heat, kept=one.cache is not None) for one in held], measured
    )
    caches = {one.text.id: one.cache.id for one in held if one.cache is not None}
    promote = partial(view.promote, engine=engine, precision=precision)
    return tend.carry_out(up, [*gone, *(caches[id] for id in down)], promote, view.demote)


def _pace(tercet: Tercet, engine: CacheEngine, precision: str) -> promotion.Pace:
    key = f"{engine.identity.name} {engine.identity.dtype} {precision}"
    if key not in tercet.paces:
        tercet.paces[key] = promotion.Pace(*tend.pace(engine, precision))
    return tercet.paces[key]


def _tend(tercet: Tercet, tenant: Tenant) -> datetime | None:
    try:
        _tended(tercet, tenant, None, "bf16")
    except Unsupported as error:  # an engine that keeps no caches, or is not installed here: nothing to do, ever
        log.info("KV caches are not tended: %s", error)
    return None


def _rebuild(tercet: Tercet, tenant: Tenant, *, method: str, sources: list[str], type: str) -> datetime | None:  # noqa: ARG001  # the job's body
    """Train again what an erasure took a source from; it waits for an engine, and for a method that is known."""
    able = [name for name in tercet.engines.names() if "adapters" in tercet.engines.get(name).abilities]
    if method != DISTIL or len(able) != 1:
        return tercet.clock() + UNKNOWN
    view = tercet.scope(tenant=tenant.name, by=Caller("tercet"))
    converse.teach_again(view, sources, tercet.engines.get(able[0]))
    return None


def _scrub(tercet: Tercet, tenant: Tenant) -> datetime | None:
    return tercet.clock() + RETRY if tenant.scrub(at_once=True) else None


JOBS: Mapping[str, Callable[..., datetime | None]] = MappingProxyType(
    {
        "embed": _fill_vectors,
        "index": _index,
        "scrub": _scrub,
        "tend": _tend,
        "rebuild": _rebuild,
    }
)
"""What each job does; it returns when to try again if it cannot be done yet."""


class Admin:
    """What crosses tenants: only an administrator sees it."""

    def __init__(self, tercet: Tercet, by: Caller) -> None:
        tercet.access.check(by, "administer", Scope())
        self.tercet, self.by = tercet, by

    def tenants(self) -> list[str]:
        """The names of all tenants."""
        return self.tercet.vault.tenants()
