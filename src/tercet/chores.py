"""What each job does. A body's entries are its handler's keyword arguments; a handler says when to try again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tercet import converse, relearning
from tercet.activation import tend
from tercet.cube import MemCube, Payload, derive
from tercet.engine.base import require
from tercet.errors import Unsupported, VaultBusy
from tercet.govern.gate import HOUSE
from tercet.parametric.memory import METHODS
from tercet.schedule import migration, personal, promotion
from tercet.text.embed.fill import fill
from tercet.vault import reseal
from tercet.vault.sqlite import Tenant
from tercet.vault.sweep import Sweep

if TYPE_CHECKING:
    from tercet.engine.base import CacheEngine
    from tercet.kernel import Tercet

log = logging.getLogger(__name__)

RETRY = timedelta(minutes=1)
UNKNOWN = timedelta(days=1)
"""When a job is asked for again whose method nobody here knows; it stays in `stats` meanwhile."""


def fill_vectors(tercet: Tercet, tenant: Tenant) -> datetime | None:
    if tercet.embedder is not None:
        fill(tenant, tercet.embedder, by="tercet")
    return None


def _index(tercet: Tercet, tenant: Tenant) -> datetime | None:  # noqa: ARG001  # a handler's shape
    tenant.index()
    return None


def _sweep(tercet: Tercet, tenant: Tenant) -> datetime | None:
    tercet.flush_uses(tenant)  # a use that is still gathered counts against decay
    rules = tercet.retention
    sweep = Sweep(floor=rules.floor, archive_timeout=rules.archive_timeout)
    again = sweep.run(tenant, tercet.clock)
    if sweep.erased:
        tenant.forget_cache()
    return again


def _rebuild(tercet: Tercet, tenant: Tenant, *, method: str, sources: Sequence[str], type: str) -> datetime | None:
    if method in METHODS and type == "adapter":  # a text may have been made by a method of that name
        return _taught_again(tercet, tenant, sources)
    if method not in REBUILDERS:
        return tercet.clock() + UNKNOWN
    memory = tercet.scope(tenant=tenant.name, by=HOUSE)
    with tenant.reading() as reader:
        numbers = [n for id in sources for n in reader.find(id)]  # some may have been erased since
        left = reader.cubes(numbers)
    if left:
        memory.remember(derive(left, REBUILDERS[method](left), method=method, type=type))
    return None


def _taught_again(tercet: Tercet, tenant: Tenant, sources: Sequence[str]) -> datetime | None:
    """Train an adapter again without the source that it lost; waits for the one engine that can."""
    model = relearning.the_able(tercet)
    if model is None:
        return tercet.clock() + UNKNOWN
    view = tercet.scope(tenant=tenant.name, by=HOUSE)
    converse.teach_again(view, sources, model)
    return None


def tended(tercet: Tercet, tenant: Tenant, engine: str | None, precision: str) -> dict[str, list[str]]:
    """Give and take KV caches of a tenant by measured cost; returns the ids promoted and demoted."""
    view, policy = tercet.scope(tenant=tenant.name, by=HOUSE), promotion.POLICY
    tercet.flush_uses(tenant)
    heats = promotion.observe(tenant, policy, at=tercet.clock(), by="tercet")
    gone = tend.fallen(tenant, view.scope)
    if not heats and not promotion.kv_numbers(tenant)["caches"]:
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
    if tercet.cool_after is not None:
        relearning.cooled(tercet, tenant, tercet.cool_after)
    try:
        tended(tercet, tenant, None, "bf16")
    except Unsupported as error:  # an engine that keeps no caches, or is not installed here: nothing to do, ever
        log.info("KV caches are not tended: %s", error)
    return None


def _scrub(tercet: Tercet, tenant: Tenant) -> datetime | None:
    return tercet.clock() + RETRY if tenant.scrub(at_once=True) else None


def _reseal(tercet: Tercet, tenant: Tenant) -> datetime | None:
    tercet.kv.tier.clear()  # clear files that it maps are overwritten when they are sealed
    try:
        reseal.finish(tenant)
    except VaultBusy as error:
        log.info("files of %s wait to be brought under its newest key: %s", tenant.name, error)
        return tercet.clock() + RETRY
    return None


JOBS: Mapping[str, Callable[..., datetime | None]] = MappingProxyType(
    {
        "embed": fill_vectors,
        "index": _index,
        "scrub": _scrub,
        "reseal": _reseal,
        "sweep": _sweep,
        "rebuild": _rebuild,
        "tend": _tend,
        migration.JOB: relearning.migrate,
        personal.JOB: relearning.learn,
    }
)
"""What each job does, given what its body holds; it returns when to try again if it cannot be done yet."""

REBUILDERS: Mapping[str, Callable[[Sequence[MemCube]], Payload]] = MappingProxyType({})
"""By method: how a product that lost a source is made again from those that are left."""
