"""Adapters beyond one promotion: merged, back to text, on to another model, away when cold; one learns by itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from tercet import converse, keeping
from tercet.activation import memory as kv
from tercet.cube import Activation, Kind, Link, MemCube, ModelIdentity, Parameters, Trust
from tercet.engine.base import require
from tercet.errors import IllegalTransition, InvalidRequest, MissingMemory, Refused, VaultDamaged
from tercet.govern.gate import HOUSE
from tercet.lifecycle import READABLE, State
from tercet.parametric.memory import PLOT, REPORT, pinned, read_blob, standing
from tercet.schedule import migration, personal
from tercet.schedule.migration import Moved
from tercet.text.read.drafts import drafts
from tercet.vault.branches import HERE
from tercet.vault.codec import to_micros
from tercet.vault.connection import query

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine
    from tercet.kernel import Tercet
    from tercet.parametric.merging import Merge
    from tercet.parametric.promote import Teaching
    from tercet.scoped import ScopedMemory
    from tercet.vault.sqlite import Tenant

log = logging.getLogger(__name__)

AGREE = 0.6
"""The share of wordings in which an adapter must give a value for it to count as known."""
UNKNOWN = timedelta(days=1)
"""When it is asked again for an engine that nobody here has."""


def externalised(view: ScopedMemory, id: str, engine: str | None, agree: float) -> list[MemCube]:
    """See `ScopedMemory.externalise`."""
    view.enter("promote")
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading() as reader:
        keeping.find(view, reader, id, "promote")
    model = view.tercet.engines.get(engine)
    require(model, "adapters", "An adapter")
    require(model, "logits", "Asking an adapter for all it knows")
    able = cast("AdapterEngine", model)
    from tercet.parametric.externalise import externalise, supporting

    with tenant.reading() as reader:
        adapter, sources = supporting(reader.under(keeping.allowed(view, reader)), view.scope, id)
    with view.tercet.lora.attached(tenant, adapter, able) as key:
        found = externalise(able, key, adapter, sources, agree=agree)
    return keeping.put(view, drafts(found, scope=view.scope, now=view.tercet.clock()))


def merged(
    view: ScopedMemory, ids: Sequence[str], way: Merge, engine: str | None, teaching: Teaching | None
) -> MemCube:
    """See `ScopedMemory.merge`."""
    from tercet.parametric.merging import merge

    view.enter("promote")
    if view.moment != HERE:
        raise InvalidRequest("Adapters are merged on the main line as it is now; merge there.")
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading() as reader:
        seen = reader.under(keeping.allowed(view, reader))
        cubes = [standing(seen, view.scope, *pinned(id)) for id in ids]
        for cube in cubes:
            keeping.find(view, reader, cube.id, "promote")
        taught = dict.fromkeys(link.id for cube in cubes for link in cube.behavioural.derivations)
        sources = keeping.promotable(view, list(taught), reader)  # their words go into something new
    if len({(cube.id, cube.version) for cube in cubes}) < len(cubes):
        raise InvalidRequest(f"Each adapter is merged once; give it a weight instead: {', '.join(ids)}.")
    model = view.tercet.engines.get(engine)
    require(model, "adapters", "An adapter")
    require(model, "logits", "The gate of an adapter")
    able = cast("AdapterEngine", model)
    parts = [(cube, view.tercet.lora.checked(tenant, cube, cast("Parameters", cube.payload), able)) for cube in cubes]
    how = converse.how_taught(cast("Any", view), teaching)
    return merge(tenant, view.scope, parts, sources, able, way, how, by=view.by.signed)


def reported(view: ScopedMemory, name: str) -> tuple[dict[str, Any], str]:
    """See `ScopedMemory.report`: the report, and its picture."""
    from tercet.parametric.picture import drawn

    view.enter("read")
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading() as reader:  # it tells what was taught, word for word
        cube = standing(reader.under(keeping.allowed(view, reader)), view.scope, *pinned(name))
    payload = cast("Parameters", cube.payload)
    report: dict[str, Any] = json.loads(read_blob(tenant, payload, REPORT))
    if not any(one.role == PLOT for one in payload.blobs):  # kept before there were pictures
        return report, drawn(report)
    return report, read_blob(tenant, payload, PLOT).decode()


def the_able(tercet: Tercet, name: str | None = None) -> AdapterEngine | None:
    """The engine of a name, or else the only one that trains adapters; None if there is none, or several."""
    names = [name] if name is not None else tercet.engines.names()
    able = [one for one in names if tercet.engines.get(one).abilities >= {"adapters", "logits"}]
    return cast("AdapterEngine", tercet.engines.get(able[0])) if len(able) == 1 else None


def cooled(tercet: Tercet, tenant: Tenant, after: timedelta) -> dict[str, list[str]]:
    """Bring down to text the adapters of a tenant that nobody has used for so long; ids dropped and texts kept.

    Frozen and held ones stay, and those that a user wants learnt; and those of a model that is not here, since nobody
    could ask them.
    """
    dropped, kept = list[str](), list[str]()
    view = tercet.scope(tenant=tenant.name, by=HOUSE)
    for cube in _idle(tercet, tenant, after):
        name = _engine_of(tercet, cube)
        if name is None:
            log.info("adapter %s is cold, and its model is not here; it stays", cube.id)
            continue
        try:
            kept += [text.id for text in view.externalise(cube.id, engine=name)]
            view.demote(cube.id)
        except (Refused, VaultDamaged) as error:
            log.warning("adapter %s is cold and stays: %s", cube.id, error)
            continue
        dropped.append(cube.id)
    return {"cooled": dropped, "externalised": kept}


def _idle(tercet: Tercet, tenant: Tenant, after: timedelta) -> list[MemCube]:
    tercet.flush_uses(tenant)
    before = tercet.clock() - after
    with tenant.reading() as reader:
        wished = {wish.adapter for wish in personal.every(reader)}
        numbers = reader.numbers(tercet.scope(tenant=tenant.name).scope, {"kind": Kind.PARAMETERS.value})
        used = dict(query(reader.connection, "SELECT cube, last FROM uses"))
        return [
            cube
            for n, cube in zip(numbers, reader.cubes(numbers), strict=True)
            if cube.id not in wished
            and cube.state is not State.FROZEN
            and cube.governance.hold is None
            and (cube.descriptive.recorded or before) <= before
            and used.get(n, 0) <= to_micros(before)
        ]


def _engine_of(tercet: Tercet, cube: MemCube) -> str | None:
    """The name of an engine that can be asked with an adapter; None if its model is not here."""
    for name in tercet.engines.names():
        engine = tercet.engines.get(name)
        able = engine.abilities >= {"adapters", "logits"}
        if able and isinstance(cube.payload, Parameters) and cast("AdapterEngine", engine).base == cube.payload.model:
            return name
    return None


def to_migrate(view: ScopedMemory, old: str, new: str, *, externalise: bool) -> list[tuple[str, str]]:
    """The (id, kind) of what is to be made again for another model; see `ScopedMemory.migrate_model` for errors."""
    tercet = view.tercet
    model = tercet.engines.get(new)
    wanted = getattr(model, "base", model.identity)
    former = _former(tercet, old)
    if former == wanted:
        raise InvalidRequest(f"{old} and {new} are the same model, so there is nothing to move.")
    if externalise and former is None:
        raise InvalidRequest(f"To ask adapters of {old} what they know takes an engine of it; there is none here.")
    with tercet.vault.tenant(view.scope.tenant).reading() as reader:
        seen = reader.under(keeping.allowed(view, reader))
        found = []
        for cube in seen.cubes(seen.numbers(view.scope, {"kind": [Kind.PARAMETERS.value, Kind.ACTIVATION.value]})):
            payload = cube.payload
            if isinstance(payload, Activation | Parameters) and _of(payload.model, old, former):
                keeping.find(view, reader, cube.id, "promote")
                found.append((cube.id, cube.kind.value))
    for kind, ability, what in (("parameters", "adapters", "An adapter"), ("activation", "cache", "A KV memory")):
        if any(held == kind for _, held in found):
            require(model, cast("Any", ability), what)
    return found


def _former(tercet: Tercet, old: str) -> ModelIdentity | None:
    """The identity of the engine that is moved from, if it is one that is named here."""
    if old not in tercet.engines.names():
        return None
    engine = tercet.engines.get(old)
    found: ModelIdentity = getattr(engine, "base", engine.identity)
    return found


def _of(model: ModelIdentity, old: str, former: ModelIdentity | None) -> bool:
    return model == former if former is not None else old in {model.name, model.revision}


def migrate(tercet: Tercet, tenant: Tenant, *, old: str, new: str, id: str, externalise: bool) -> datetime | None:
    """What a `migrate` job does: one adapter or KV cache. It may be done twice; a cut-off one goes on."""
    view = tercet.scope(tenant=tenant.name, by=HOUSE)
    with tenant.reading() as reader:
        plan = migration.read(reader, old, new)
        try:
            _, cube = reader.head(id, view.scope)
        except MissingMemory:
            cube = None
    before = next((one for one in plan.items if one.id == id), None) if plan else None
    if cube is None:
        done = before if before and before.outcome == "moved" else Moved(id, before.kind if before else "", "gone")
    elif isinstance(cube.payload, Parameters):
        done = _adapter(view, cube, cube.payload, old, new, externalise=externalise)
    else:
        done = _cache(view, cube, new)
    if done != before:
        with tenant.writing(by="tercet") as writer:
            migration.settled(writer, old, new, done)
            personal.move(writer, old, new)
    if cube is not None and cube.kind is Kind.ACTIVATION and done.outcome == "moved":
        view.demote(id)  # only now: the new one is in, and that is written down
    return None


def _adapter(view: ScopedMemory, cube: MemCube, payload: Parameters, old: str, new: str, *, externalise: bool) -> Moved:
    kind, engine = cube.kind.value, view.tercet.engines.get(new)
    require(engine, "adapters", "An adapter")
    able = cast("AdapterEngine", engine)
    if payload.model == able.base:  # a move that was cut off once this was done
        return Moved(cube.id, kind, "moved", f"{cube.id}@{cube.version}")
    try:
        if externalise:
            sources = externalised(view, cube.id, old, AGREE)
            if not sources:
                return Moved(cube.id, kind, "refused", why="it says nothing that its sources support")
        else:
            sources = _fit(view, [link.id for link in cube.behavioural.derivations])
        if not sources:
            return Moved(cube.id, kind, "withdrawn", why="none of its sources may be learnt any more")
        how = replace(_recorded(view, payload), replaces=cube.id)
        made = converse.teach(cast("Any", view), sources, able, how)
    except (Refused, InvalidRequest, IllegalTransition, VaultDamaged) as error:
        return Moved(cube.id, kind, "refused", why=str(error))
    return Moved(cube.id, kind, "moved", f"{made.id}@{made.version}")


def _fit(view: ScopedMemory, ids: Sequence[str]) -> list[MemCube]:
    """Those of these texts that are there and may be learnt, as they are now."""
    found = []
    with view.tercet.vault.tenant(view.scope.tenant).reading() as reader:
        for id in ids:
            try:
                cube = reader.head(id, view.scope)[1]
            except MissingMemory:
                continue
            if cube.state in READABLE and cube.governance.trust is not Trust.QUARANTINED:
                found.append(cube)
    return found


def _recorded(view: ScopedMemory, payload: Parameters) -> Teaching:
    """How an adapter was made, by its report, where the vault says nothing else; settings that went are left out.

    A merged one was not taught: it has no recipe, so the default counts. Its form is kept.
    """
    from tercet.parametric.promote import Teaching
    from tercet.parametric.train import Recipe

    if view.tercet.teaching is not None:
        return view.tercet.teaching
    told = json.loads(read_blob(view.tercet.vault.tenant(view.scope.tenant), payload, REPORT))
    recipe = told.get("recipe", {})
    known = {one.name: recipe[one.name] for one in fields(Recipe) if one.name in recipe}
    return Teaching(Recipe(**known) if known else Recipe.suited, stored=told.get("stored", Teaching.stored))


def _cache(view: ScopedMemory, cube: MemCube, new: str) -> Moved:
    kind, tenant = cube.kind.value, view.tercet.vault.tenant(view.scope.tenant)
    try:
        with tenant.reading() as reader:
            kv.standing(reader, view.scope, cube.id)
    except (Refused, MissingMemory) as error:
        return Moved(cube.id, kind, "withdrawn", why=str(error))
    payload = cast("Activation", cube.payload)
    try:
        form = view.tercet.kv.manifest(tenant, cube)
        made = view.promote(
            [link.id for link in cube.behavioural.derivations], engine=new, precision=form.precision,
            joinable=any(one.role == kv.JOINED for one in payload.blobs), compressor=form.compressor or None,
            share=form.share,
        )  # fmt: skip
    except (Refused, InvalidRequest, VaultDamaged) as error:
        return Moved(cube.id, kind, "refused", why=str(error))
    return Moved(cube.id, kind, "moved", made.id)


def learn(tercet: Tercet, tenant: Tenant, *, owner: int) -> datetime | None:
    """What a `learn` job does: look at a user's texts, and train the adapter anew if they are others."""
    now = tercet.clock()
    with tenant.reading() as reader:
        wish, scope = personal.read(reader, owner), personal.scope_of(reader.connection, tenant.name, owner)
        found = personal.sentences(reader, scope, wish, at=now) if wish and scope else []
    if wish is None or scope is None:  # taken back; or the last memory has gone, and the name with it
        with tenant.writing(by="tercet") as writer:
            personal.drop(writer, owner)
        return None
    model = the_able(tercet, wish.engine)
    if model is None:
        return now + UNKNOWN
    view = tercet.scope(tenant=tenant.name, user=scope.user, by=HOUSE)
    done = _learnt(view, found, model, wish)
    with tenant.writing(by="tercet") as writer:
        if personal.read(writer.reader, owner) is not None:
            personal.keep(writer, owner, done)
    return tercet.clock() + wish.every


def _learnt(
    view: ScopedMemory, found: Sequence[MemCube], model: AdapterEngine, wish: personal.Personal
) -> personal.Personal:
    from tercet.parametric.facts import read
    from tercet.parametric.promote import Teaching, lesson

    # A turn that says no fact would be taught as a sentence to complete: that is no knowledge of the user.
    facts = [cube for cube in found if any(fact.relation != "text" for fact in read(cube))]
    if len(facts) < personal.LEAST:
        return replace(wish, outcome="nothing new", why=f"{len(facts)} of these memories say a fact")
    taught = [Link(cube.id, cube.version) for cube in lesson(facts)[2]]
    now = _there(view, wish.adapter)
    tried = hashlib.sha256(repr((taught, model.base)).encode()).hexdigest()
    if tried == wish.tried and (now is not None or wish.outcome == "refused"):
        return replace(wish, outcome=wish.outcome if wish.outcome == "refused" else "nothing new")
    how = replace(view.tercet.teaching or Teaching(), replaces=None if now is None else now.id)
    try:
        made = converse.teach(cast("Any", view), facts, model, how)
    except Refused as error:  # the gate, most likely: what there was stays
        return replace(wish, outcome="refused", why=str(error), tried=tried)
    return replace(wish, adapter=made.id, outcome="learnt", why="", tried=tried)


def _there(view: ScopedMemory, id: str | None) -> MemCube | None:
    """The adapter of an id, unless it was forgotten."""
    try:
        return None if id is None else view.get(id)
    except MissingMemory:
        return None
