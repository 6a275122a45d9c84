"""The same contract for `await`: each call runs on a pool of threads, over the one implementation.

Cancelling an awaited call stops the waiting, not the work: a write that has begun ends whole, done or undone, on its
thread; one that has not begun does not happen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from tercet.admin import Admin
from tercet.kernel import Tercet
from tercet.scope import Caller
from tercet.scoped import ScopedMemory

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class _Threaded(Protocol):
    _sync: Any
    _pool: ThreadPoolExecutor


def _awaitable(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[_Threaded, P], Coroutine[Any, Any, R]]:
    """The method as a coroutine of the same name, signature and docstring."""

    @wraps(method)
    async def call(self: _Threaded, /, *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(method, self._sync, *args, **kwargs))

    return call


class AsyncTercet:
    """`Tercet`, awaitable. Use it in an `async with`, or await `close`."""

    def __init__(self, sync: Tercet) -> None:
        self._sync = sync
        # Recall spends its time in SQLite and ONNX Runtime, which let other threads run.
        self._pool = ThreadPoolExecutor((os.cpu_count() or 1) + 2, thread_name_prefix="tercet")

    @classmethod
    async def open(cls, path: str | os.PathLike[str], **options: Any) -> Self:  # noqa: ANN401  # as Tercet.open
        """As `Tercet.open`."""
        return cls(await asyncio.to_thread(partial(Tercet.open, path, **options)))

    def scope(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        branch: str | None = None,
        by: Caller | None = None,
    ) -> AsyncScopedMemory:
        """As `Tercet.scope`; it does nothing that need be awaited."""
        made = self._sync.scope(tenant=tenant, user=user, agent=agent, session=session, branch=branch, by=by)
        return AsyncScopedMemory(made, self._pool)

    def admin(self, *, tenant: str | None = None, by: Caller | None = None) -> AsyncAdmin:
        """As `Tercet.admin`; it reads the tenant's rules, which is quick."""
        return AsyncAdmin(self._sync.admin(tenant=tenant, by=by), self._pool)

    caller = _awaitable(Tercet.caller)

    work = _awaitable(Tercet.work)
    reembed = _awaitable(Tercet.reembed)
    tend = _awaitable(Tercet.tend)
    stats = _awaitable(Tercet.stats)
    doctor = _awaitable(Tercet.doctor)
    backup = _awaitable(Tercet.backup)
    snapshot = _awaitable(Tercet.snapshot)
    branch = _awaitable(Tercet.branch)
    snapshots = _awaitable(Tercet.snapshots)
    branches = _awaitable(Tercet.branches)
    diff = _awaitable(Tercet.diff)
    restore = _awaitable(Tercet.restore)
    drop = _awaitable(Tercet.drop)
    receipt = _awaitable(Tercet.receipt)
    verify = _awaitable(Tercet.verify)
    audit = _awaitable(Tercet.audit)
    verify_audit = _awaitable(Tercet.verify_audit)
    anchor = _awaitable(Tercet.anchor)
    seal = _awaitable(Tercet.seal)
    rotate = _awaitable(Tercet.rotate)
    rotate_master = _awaitable(Tercet.rotate_master)
    destroy = _awaitable(Tercet.destroy)
    sealing = _awaitable(Tercet.sealing)

    async def close(self) -> None:
        """Wait for calls that are under way, then close the vault."""
        await asyncio.to_thread(self._pool.shutdown, wait=True)
        await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncScopedMemory:
    """`ScopedMemory`, awaitable."""

    def __init__(self, sync: ScopedMemory, pool: ThreadPoolExecutor) -> None:
        self._sync, self._pool = sync, pool

    remember = _awaitable(ScopedMemory.remember)
    remember_many = _awaitable(ScopedMemory.remember_many)
    remember_document = _awaitable(ScopedMemory.remember_document)
    recall = _awaitable(ScopedMemory.recall)
    context = _awaitable(ScopedMemory.context)
    get = _awaitable(ScopedMemory.get)
    list = _awaitable(ScopedMemory.list)
    history = _awaitable(ScopedMemory.history)
    changes = _awaitable(ScopedMemory.changes)
    revise = _awaitable(ScopedMemory.revise)
    rollback = _awaitable(ScopedMemory.rollback)
    quarantined = _awaitable(ScopedMemory.quarantined)
    admit = _awaitable(ScopedMemory.admit)
    trace = _awaitable(ScopedMemory.trace)

    def as_of(self, *, known: datetime | str | int | None = None, valid: datetime | str | None = None) -> Self:
        """As `ScopedMemory.as_of`; it does nothing that need be awaited."""
        return type(self)(self._sync.as_of(known=known, valid=valid), self._pool)

    forget = _awaitable(ScopedMemory.forget)
    freeze = _awaitable(ScopedMemory.freeze)
    unfreeze = _awaitable(ScopedMemory.unfreeze)
    archive = _awaitable(ScopedMemory.archive)
    unarchive = _awaitable(ScopedMemory.unarchive)
    hold = _awaitable(ScopedMemory.hold)
    release = _awaitable(ScopedMemory.release)
    share = _awaitable(ScopedMemory.share)
    grants = _awaitable(ScopedMemory.grants)
    revoke = _awaitable(ScopedMemory.revoke)
    promote = _awaitable(ScopedMemory.promote)
    demote = _awaitable(ScopedMemory.demote)
    chat = _awaitable(ScopedMemory.chat)
    merge = _awaitable(ScopedMemory.merge)
    externalise = _awaitable(ScopedMemory.externalise)
    report = _awaitable(ScopedMemory.report)
    migrate_model = _awaitable(ScopedMemory.migrate_model)
    migrated = _awaitable(ScopedMemory.migrated)
    learn = _awaitable(ScopedMemory.learn)
    learnt = _awaitable(ScopedMemory.learnt)


class AsyncAdmin:
    """`Admin`, awaitable."""

    def __init__(self, sync: Admin, pool: ThreadPoolExecutor) -> None:
        self._sync, self._pool = sync, pool

    tenants = _awaitable(Admin.tenants)
    rules = _awaitable(Admin.rules)
    add_rule = _awaitable(Admin.add_rule)
    remove_rule = _awaitable(Admin.remove_rule)
    keys = _awaitable(Admin.keys)
    create_key = _awaitable(Admin.create_key)
    rotate_key = _awaitable(Admin.rotate_key)
    revoke_key = _awaitable(Admin.revoke_key)
