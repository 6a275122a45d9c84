"""Taking an archive in: ids, versions and times are kept, and what was erased here stays erased."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import IO, TYPE_CHECKING, TypeAlias

from tercet.cube import MemCube, Trust
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.exchange.archive import BATCH, Record, header, opened, records_of, without_episode
from tercet.exchange.provenance import UNTOLD, Provenance, check
from tercet.govern.gate import granting
from tercet.govern.quarantine import with_trust
from tercet.keeping import secret
from tercet.lifecycle import State
from tercet.scope import Right, Scope
from tercet.text.prepare import prepare, space_of
from tercet.text.read.drafts import drafts
from tercet.vault.allowed import NOTHING, Allowed
from tercet.vault.reader import Reader
from tercet.vault.spaces import Space
from tercet.vault.writer import Entry, Writer

if TYPE_CHECKING:
    from tercet.scoped import Progress, ScopedMemory


@dataclass(frozen=True, slots=True)
class Skipped:
    """A cube that was not taken in."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, by id: `added`, `updated` (later versions came), `unchanged` (here already), and the rest.

    `provenance` is where the archive says that it comes from.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    provenance: Provenance = field(default=UNTOLD, compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a record: versions from `first` on are written; none, if it is here already or is refused."""

    record: Record
    first: int
    refused: str | None = None


Prepared: TypeAlias = list[Entry]


def import_archive(
    memory: ScopedMemory, stream: IO[bytes], *, progress: Progress | None = None, key: str | None = None
) -> Imported:
    """Take in an archive. To do it twice changes nothing; after an interruption, do it again.

    A cube that is here with the same versions is left alone, one with earlier versions gets the later ones. One that
    says something else here, was erased here, or was made from something that is not here, is skipped, with the reason.

    Raises
    ------
    InvalidRequest
        If the archive is damaged, or holds something outside this scope; if its provenance line does not fit it, or was
        not signed with a public `key` that is given. Nothing is changed then.
    Refused
        If the caller may not write all that it holds; nothing is changed then, either.
    """
    gate, by = memory.tercet.gate, memory.by
    memory.enter("write")
    tenant = memory.tercet.vault.tenant(memory.scope.tenant)
    archive = opened(stream)
    source = check(archive.last, key)
    if source.problems:
        raise InvalidRequest(f"The archive is not what it says it is: {'; '.join(source.problems)}.")
    records = [_placed(record, memory) for record in records_of(archive, tenant=memory.scope.tenant)]
    records = _admitted(records, memory)
    with tenant.reading(memory.moment) as reader:
        gate.vet(reader, by, "write", memory.scope, [one for record in records for one in record.versions])
        plans = _plans(reader, _sight(memory, reader), records)
    wanted = [plan for plan in plans if plan.refused is None and plan.first < len(plan.record.versions)]
    space = None
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        embedder = memory.tercet.embedder
        space = space_of(embedder)
        versions = [version for plan in part for version in plan.record.versions[plan.first :]]
        # Only the newest version keeps its vectors, but one written without any would leave an embed job behind.
        entries = iter(prepare(versions, embedder))
        prepared = [(plan, [next(entries) for _ in plan.record.versions[plan.first :]]) for plan in part]
        with tenant.writing(by=by.signed, branch=memory.moment.branch) as writer:
            gate.vet(writer.reader, by, "write", memory.scope, versions)
            _write(writer, prepared, space)
        if progress is not None:
            progress(start + len(part), len(wanted))
    return Imported(
        added=tuple(plan.record.id for plan in wanted if plan.first == 0),
        updated=tuple(plan.record.id for plan in wanted if plan.first > 0),
        unchanged=tuple(p.record.id for p in plans if p.refused is None and p.first == len(p.record.versions)),
        skipped=tuple(Skipped(plan.record.id, plan.refused) for plan in plans if plan.refused is not None),
        provenance=source,
    )


def _placed(record: Record, memory: ScopedMemory) -> Record:
    """The record with what every draft is held to, in the scope it belongs in."""
    try:
        versions = drafts(record.versions, scope=memory.scope, now=memory.tercet.clock())
    except InvalidRequest as error:
        raise InvalidRequest(f"Memory {record.id} of the archive: {error}") from None
    if not memory.scope.covers(versions[0].scope):
        raise InvalidRequest(
            f"Memory {record.id} of the archive belongs to {versions[0].scope}, outside of {memory.scope}; "
            "import without naming that part of the scope."
        )
    return Record(tuple(versions), record.state)


def _admitted(records: Sequence[Record], memory: ScopedMemory) -> list[Record]:
    """The records redacted and screened as whatever comes in is; what an archive says of its origin is not believed."""
    versions = [version for record in records for version in record.versions]
    admitted = iter(memory.tercet.intake.admit(versions, lambda: secret(memory, "write"), foreign=True))
    gate, tenant = memory.tercet.gate, memory.tercet.vault.tenant(memory.scope.tenant)
    with tenant.reading(memory.moment) as reader:  # nor that somebody has confirmed it there
        admitted = iter(
            [
                one
                if one.governance.trust is not Trust.CONFIRMED
                or gate.may(reader, memory.by, "administer", memory.scope, one)
                else with_trust(one, Trust.OBSERVED)
                for one in admitted
            ]
        )
    return [replace(record, versions=tuple(next(admitted) for _ in record.versions)) for record in records]


@dataclass(frozen=True, slots=True)
class Sight:
    """What the caller may read, and what it may bring up to date."""

    read: Allowed
    revise: Allowed


def _sight(memory: ScopedMemory, reader: Reader) -> Sight:
    def of(right: Right) -> Allowed:
        try:
            return memory.tercet.gate.allowed(reader, memory.by, right, memory.scope)
        except Refused:
            return NOTHING

    return Sight(of("read"), of("revise"))


def _plans(reader: Reader, sight: Sight, records: Sequence[Record]) -> list[Plan]:
    plans, coming = list[Plan](), set[str]()
    refs = set[tuple[Scope, str]]()
    for record in records:
        plan = _plan(reader, sight, record, coming, refs)
        if plan.refused is None:
            coming.add(record.id)
            refs |= {(record.scope, ref) for ref in [record.versions[0].ref] if ref is not None}
        plans.append(plan)
    return plans


def _plan(reader: Reader, sight: Sight, record: Record, coming: set[str], refs: set[tuple[Scope, str]]) -> Plan:
    anywhere = Scope(reader.tenant)
    here = _history(reader, record.id, anywhere)
    shared = min(len(here), len(record.versions))
    ref, behind = record.versions[0].ref, len(here) < len(record.versions)
    sources = [link.id for link in record.versions[-1].behavioural.derivations]
    seen = reader.under(sight.read)
    missing = next((id for id in sources if id not in coming and not _history(seen, id, anywhere)), None)
    refused = None
    if reader.erased(record.id):
        refused = "it was erased here, and erased memories do not come back"
    elif reader.hidden(record.id):
        refused = "it is here, hidden by a restore that can be undone"
    elif record.state is State.EXPIRED:
        refused = "it has expired"
    elif missing is not None:
        refused = f"it was made from {missing}, which is not here"
    elif not here and ref is not None and ((record.scope, ref) in refs or reader.named(record.scope, ref) is not None):
        refused = f"its ref {ref!r} names another memory"
    elif here and not all(map(sight.read.covers, here)):
        refused = "its id is taken by another memory"
    elif here and (here[0].scope != record.scope or not all(map(_same, here[:shared], record.versions[:shared]))):
        refused = "it is here with another content"
    elif here and behind and here[-1].state is State.FROZEN:
        refused = "it is frozen here, so its later versions do not come in"
    elif here and behind and not all(map(sight.revise.covers, (here[-1], *_later(record, here)))):
        refused = "it is here, and this caller may not revise it"
    return Plan(record, shared if behind else len(record.versions), refused)


def _later(record: Record, here: Sequence[MemCube]) -> list[MemCube]:
    """The versions that would come, with the grants that the memory has here: those of an archive give no right."""
    return [granting(version, here[-1].governance.access) for version in record.versions[len(here) :]]


def _history(reader: Reader, id: str, anywhere: Scope) -> list[MemCube]:
    """Every version that is here; none, if the cube is not."""
    try:
        return reader.history(id, anywhere)
    except MissingMemory:
        return []


def _same(mine: MemCube, theirs: MemCube) -> bool:
    def compared(cube: MemCube) -> object:
        # How far it is believed is decided here, where it may have been released since.
        bare = with_trust(without_episode(cube), Trust.OBSERVED)
        # Nor does it matter through whose hands it came.
        return header(replace(bare, governance=replace(bare.governance, watermark=None)))

    return mine.text == theirs.text and compared(mine) == compared(theirs)


def _write(writer: Writer, prepared: Iterable[tuple[Plan, Prepared]], space: Space | None) -> None:
    # Passages of one document share an episode, so those that stood together are put in together.
    for _, group in groupby(prepared, key=lambda pair: _episode(pair[0])):
        several = list(group)
        new = [(plan, entries) for plan, entries in several if plan.first == 0]
        put = writer.put([entries[0] for _, entries in new], space, action="import") if new else []
        episodes = {cube.id: cube.descriptive.origin.episode for cube in put}
        for plan, entries in several:
            for entry in entries[1:] if plan.first == 0 else entries:
                cube = _in_episode(entry.cube, plan, episodes.get(plan.record.id))
                expect = cube.version - 1
                writer.revise(plan.record.id, replace(entry, cube=cube), space, expect=expect, action="import")
            if plan.first == 0 and plan.record.state is not State.GENERATED:
                writer.place(writer.reader.head(plan.record.id, plan.record.scope)[0], plan.record.state)


def _episode(plan: Plan) -> str | None:
    return plan.record.versions[0].descriptive.origin.episode


def _in_episode(cube: MemCube, plan: Plan, episode: str | None) -> MemCube:
    """A later version that quotes the episode of the first (after a rollback) quotes the one that this import made."""
    origin = cube.descriptive.origin
    if origin.episode is None or origin.episode != _episode(plan):
        return cube
    return replace(cube, descriptive=replace(cube.descriptive, origin=replace(origin, episode=episode)))
