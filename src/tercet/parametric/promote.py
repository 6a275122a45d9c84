"""Texts to an adapter cube: read, teach, judge, keep; and again, without what was erased.

Whatever makes an adapter ends here: a `Candidate` passes its gate and becomes a cube, or leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.cube import BlobRef, Kind, Link, MemCube, Parameters, Source, Trust, derive
from tercet.engine.base import require
from tercet.errors import EngineFailed, GateFailed, InvalidRequest, MissingMemory, Refused, StaleWrite
from tercet.lifecycle import READABLE
from tercet.parametric import adapter as files
from tercet.parametric.adapter import Adapter, Pair
from tercet.parametric.distil import Systems, distil
from tercet.parametric.facts import Contradiction, Fact, read, settle
from tercet.parametric.gate import TAUGHT, Advice, Bounds, Report, judge
from tercet.parametric.memory import CONFIG, DATA, METHOD, PLOT, REPORT
from tercet.parametric.picture import drawn
from tercet.parametric.runs import SOURCES, destroy, training_folder
from tercet.parametric.signature import MANIFEST, SIGNATURE, Signer
from tercet.parametric.train import Progress, Recipe, Record
from tercet.parametric.wording import worded
from tercet.vault import blobs
from tercet.vault.codec import dump
from tercet.vault.writer import Entry

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine, Engine
    from tercet.parametric.samples import Sample
    from tercet.scope import Scope
    from tercet.vault.sqlite import Tenant

FORMAT = "adapter/1"


@dataclass(frozen=True)
class Teaching:
    """How adapters are made: recipe, or what gives one for a number of facts; bounds of the gate, prompts, who signs.

    Without a `signer` the vault's own key signs, if it has one. `replaces` is the id of an adapter whose next version
    this becomes. `stored` is the form in which its tensors are kept: "bf16", or in fewer bytes "int8" or "nf4"; what
    comes back from it is what the gate judges. `writer`, an engine or the name of one of the vault's, words further
    questions about each text (see `wording.py`); without one the templates' are all.
    """

    recipe: Recipe | Callable[[int], Recipe] = Recipe.suited
    bounds: Bounds = field(default_factory=Bounds)
    systems: Systems = (None,)
    signer: Signer | None = None
    replaces: str | None = None
    progress: Progress | None = None
    stored: str = files.PLAIN
    writer: Engine | str | None = None

    def __post_init__(self) -> None:
        if self.stored not in files.FORMS:
            raise InvalidRequest(f"An adapter is stored as {', '.join(files.FORMS)}, not as {self.stored!r:.80}.")


@dataclass(frozen=True)
class Candidate:
    """An adapter before its gate: what it was made from and how.

    It is judged by `facts`; `told` goes into its report, and `name` is the ref that it is found again by.
    """

    adapter: Adapter
    facts: Sequence[Fact]
    sources: Sequence[MemCube]
    method: str
    told: Mapping[str, Any]
    name: str
    advice: Advice = TAUGHT


def promote(
    tenant: Tenant, scope: Scope, sources: Sequence[MemCube], engine: AdapterEngine, how: Teaching, *, by: str
) -> MemCube:
    """Teach texts to an adapter and keep it as a cube made from them, if it passes its gate.

    The same sources, model and recipe give the cube that is there already.

    Raises
    ------
    InvalidRequest
        If a source is no text, or nothing can be learnt from any.
    Refused
        If a source is quarantined or not readable, or the gate cannot be computed; nothing of the adapter is left.
    EngineFailed
        If memory runs out; the same call goes on from its last checkpoint.
    GateFailed
        If the adapter does not pass; nothing of it is left.
    StaleWrite
        If a source was revised meanwhile.
    """
    require(engine, "adapters", "An adapter")
    require(engine, "logits", "Training an adapter")
    check_sources(sources)
    facts, clashes, taught = lesson(sources)
    links = [[cube.id, cube.version] for cube in taught]
    writer = _writer(how)
    recipe = how.recipe if isinstance(how.recipe, Recipe) else how.recipe(len(facts))
    names = [links, repr(engine.base), asdict(replace(recipe, checkpoint_every=1))]
    names += [] if writer is None else [repr(writer.identity)]
    run, twin = begun(tenant, names, taught, engine, how, METHOD)
    if twin is not None:
        return twin
    folder = running(tenant, run, taught)
    written = [] if writer is None else worded(writer, facts, folder)
    made, record = _distilled(engine, facts, recipe, how, written, folder)
    told = {
        "contradictions": clashed(clashes), "record": vars(record), "recipe": asdict(recipe),
        "writer": None if writer is None else writer.identity.name,
        "written": [{"question": one.question, "answer": one.answer, "source": astuple(one.source)} for one in written],
    }  # fmt: skip
    return kept(tenant, scope, engine, Candidate(made, facts, taught, METHOD, told, run), how, folder=folder, by=by)


def begun(
    tenant: Tenant, names: list[Any], sources: Sequence[MemCube], engine: AdapterEngine, how: Teaching, method: str
) -> tuple[str, MemCube | None]:
    """The name of what is to be made, from all that decides what it will be, and the cube that is that already.

    `replaces` writes a version; without it the same work is the same cube. Raises Refused for sources of two owners.
    """
    names = names if how.stored == files.PLAIN else [*names, how.stored]
    run = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]
    scope = derive(sources, Parameters((), engine.base, 0), method=method).scope
    with tenant.reading() as reader:
        return run, None if how.replaces else reader.named(scope, _ref(run))


def running(tenant: Tenant, run: str, sources: Sequence[MemCube]) -> Path:
    """The folder of a run, with a note of whose content it will hold."""
    folder = training_folder(tenant.path, sealed=tenant.keys.seal() is not None) / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCES).write_text(json.dumps([cube.id for cube in sources]), encoding="utf-8")
    return folder


def kept(
    tenant: Tenant, scope: Scope, engine: AdapterEngine, made: Candidate, how: Teaching, *, folder: Path, by: str
) -> MemCube:
    """Judge an adapter as it will be served, and keep it if it passes; then, or if not, its run's folder goes.

    Raises Refused, GateFailed, StaleWrite, as `promote` does.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        ready = served(made.adapter)
        try:
            files.check_finite(ready.modules)
            files.save(ready, Path(name), base=engine.base.name, stored=how.stored)
            judged, report = _judged(engine, Path(name), made, how)
        except Refused:  # it cannot be measured, and what cannot be measured does not pass
            destroy(folder)
            raise
        told = {
            **report.json(), **made.told,
            "stored": how.stored, "adapter_bytes": (Path(name) / files.WEIGHTS).stat().st_size,
        }  # fmt: skip
        if not report.passed:
            destroy(folder)
            raise GateFailed(f"The adapter was not kept: {'; '.join(report.reasons)}.", told)
        cube = _keep(tenant, scope, engine, made, how, _parts(Path(name), made, engine, told, judged, how), by)
    destroy(folder)
    return cube


def _writer(how: Teaching) -> Engine | None:
    if isinstance(how.writer, str):
        raise InvalidRequest(
            f"The writer {how.writer!r:.80} is the name of an engine; here it takes the engine itself."
        )
    if how.writer is not None:
        require(how.writer, "generate", "Wording questions")
    return how.writer


def _distilled(
    engine: AdapterEngine, facts: Sequence[Fact], recipe: Recipe, how: Teaching, written: Sequence[Sample], folder: Path
) -> tuple[Adapter, Record]:
    try:
        return distil(engine, facts, recipe, systems=how.systems, written=written, folder=folder, progress=how.progress)
    except (MemoryError, RuntimeError) as error:  # torch has no class of its own for it on a processor
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise EngineFailed(
            "Training ran out of memory: set `memory_mb` in the recipe, or take a lower rank or `pack`; or free some, "
            f"and the same call goes on from its last checkpoint. ({str(error) or 'MemoryError'})"
        ) from error


def check_sources(sources: Sequence[MemCube]) -> None:
    """Raises InvalidRequest for what is no text; Refused for what must not be learnt: quarantined, or not readable."""
    if not sources:
        raise InvalidRequest("Say what to promote: ids, or cubes.")
    for cube in sources:
        if cube.kind is not Kind.TEXT:
            raise InvalidRequest(f"Memory {cube.id} is a {cube.kind}; only texts are promoted to parameters.")
        if cube.governance.trust is Trust.QUARANTINED:
            raise Refused(f"Memory {cube.id} is quarantined; a model is never trained on it.")
        if cube.state not in READABLE:
            raise Refused(f"Memory {cube.id} is {cube.state}; a model is not trained on it.")


def lesson(sources: Sequence[MemCube]) -> tuple[list[Fact], list[Contradiction], list[MemCube]]:
    """What is taught, what clashed with it and is not, and the sources of the former. Raises InvalidRequest."""
    unique = list({cube.id: cube for cube in sources}.values())
    every = [fact for cube in unique for fact in read(cube)]
    facts, clashes = settle(every)
    if not facts:
        raise InvalidRequest("There is nothing to learn in these texts; a fact needs a sentence of four words or more.")
    values = {(fact.slot, fact.value.casefold()) for fact in facts}
    supporting = {fact.source for fact in every if (fact.slot, fact.value.casefold()) in values}
    return facts, clashes, [cube for cube in unique if Link(cube.id, cube.version) in supporting]


def served(adapter: Adapter) -> Adapter:
    """An adapter as it is kept: bfloat16, the scale in B."""
    import torch

    return Adapter(
        {
            name: Pair(one.a.to(torch.bfloat16), (one.b * one.scale).to(torch.bfloat16))
            for name, one in adapter.modules.items()
        }
    )


def retrain(
    tenant: Tenant, scope: Scope, engine: AdapterEngine, sources: Sequence[str], how: Teaching, *, by: str
) -> MemCube | None:
    """What a `rebuild` job of an adapter does, taught or merged: teach what is left of its sources."""
    cubes = list[MemCube]()
    with tenant.reading() as reader:
        for id in sources:
            try:
                cubes.append(reader.head(id, scope)[1])
            except MissingMemory:  # erased since the job was put down
                continue
    fit = [one for one in cubes if one.state in READABLE and one.governance.trust is not Trust.QUARANTINED]
    return promote(tenant, scope, fit, engine, how, by=by) if fit else None


def _judged(engine: AdapterEngine, folder: Path, made: Candidate, how: Teaching) -> tuple[str, Report]:
    """The gate's report on what will be served: the files, read back."""
    config = json.loads((folder / files.CONFIG).read_text(encoding="utf-8"))
    key = engine.adapters.attach(files.read(config, folder / files.WEIGHTS, engine.adapters.shapes).modules)
    try:
        return key, judge(engine, key, made.facts, how.bounds, system=how.systems[0], advice=made.advice)
    finally:
        engine.adapters.detach(key)


def _parts(
    folder: Path, made: Candidate, engine: AdapterEngine, report: dict[str, Any], key: str, how: Teaching
) -> dict[str, bytes]:
    """An adapter's files by role; the manifest names the others by their hashes, and is what is signed."""
    parts = {
        DATA: (folder / files.WEIGHTS).read_bytes(), CONFIG: (folder / files.CONFIG).read_bytes(),
        REPORT: dump(report).encode(), PLOT: drawn(report).encode(),
    }  # fmt: skip
    manifest = {
        "format": FORMAT, "content": key, "base": asdict(engine.base), "rank": made.adapter.rank,
        "sources": [[cube.id, cube.version, cube.descriptive.commitment] for cube in made.sources],
        "files": {role: hashlib.sha256(data).hexdigest() for role, data in parts.items()},
    }  # fmt: skip
    parts[MANIFEST] = dump(manifest).encode()
    if how.signer is not None:
        parts[SIGNATURE] = how.signer.sign(parts[MANIFEST])
    return parts


def _keep(
    tenant: Tenant, scope: Scope, engine: AdapterEngine, made: Candidate, how: Teaching, parts: Mapping[str, bytes],
    by: str,
) -> MemCube:  # fmt: skip
    with _drafted(tenant.blobs, parts) as (refs, place):
        payload = Parameters(refs, engine.base, made.adapter.rank)
        draft = derive(made.sources, payload, method=made.method, type="adapter")
        with tenant.writing(by=by) as writer:
            for cube in made.sources:
                found = writer.reader.head(cube.id, scope)[1]
                if found.version != cube.version:
                    raise StaleWrite(cube.id, expected=cube.version, found=found.version)
                check_sources([found])
            place()
            if how.replaces is None:
                [cube] = writer.put([Entry(_tuned(draft, _ref(made.name)), {})], None, action="promote")
                return cube
            old = writer.reader.head(how.replaces, scope)[1]
            if not isinstance(old.payload, Parameters) or old.scope != draft.scope:
                raise InvalidRequest(f"Memory {how.replaces} is no adapter of these memories' owner.")
            return writer.revise(old.id, Entry(_tuned(draft, old.ref), {}), None, expect=None, action="promote")


def _tuned(draft: MemCube, name: str | None) -> MemCube:
    d = draft.descriptive
    return replace(draft, descriptive=replace(d, origin=replace(d.origin, source=Source.TUNING, ref=name)))


@contextmanager
def _drafted(
    shelf: blobs.Shelf, parts: Mapping[str, bytes]
) -> Iterator[tuple[tuple[BlobRef, ...], Callable[[], None]]]:
    """Blobs being written: their references, and a call that places them all."""
    with ExitStack() as stack:
        drafts, refs = [], []
        for role, data in parts.items():
            draft = stack.enter_context(blobs.drafting(shelf))
            draft.write(data)
            refs.append(draft.seal(role))
            drafts.append(draft)

        def place() -> None:
            for draft in drafts:
                draft.place()

        yield tuple(refs), place


def _ref(run: str) -> str:
    return f"adapter:{run}"


def clashed(clashes: Sequence[Contradiction]) -> list[dict[str, Any]]:
    """Contradictions as a report tells them."""
    return [
        {"subject": one.subject, "relation": one.relation, "kept": asdict(one.kept), "left": asdict(one.left)}
        for one in clashes
    ]
