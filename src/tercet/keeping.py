"""How a scoped view writes: past the gate, through redaction and quarantine, to vectors, into one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from tercet.cube import Kind, MemCube
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.govern import quarantine
from tercet.govern.forgetting import forget
from tercet.govern.policy import refuse
from tercet.govern.shares import Lent
from tercet.parametric.runs import purge
from tercet.scope import Right
from tercet.text.embed.base import Embedder
from tercet.text.prepare import answering_space, prepare
from tercet.vault import spaces, states
from tercet.vault.allowed import EVERYTHING, NOTHING, Allowed
from tercet.vault.connection import query
from tercet.vault.erase import Receipt, closure
from tercet.vault.filters import Where
from tercet.vault.reader import Reader
from tercet.vault.shares import spend
from tercet.vault.spaces import Space
from tercet.vault.writer import Writer

if TYPE_CHECKING:
    from tercet.scoped import ScopedMemory

Answer = TypeVar("Answer")
WaitFor = Literal["vectors", "words"]


def allowed(view: ScopedMemory, reader: Reader, right: Right = "read") -> Allowed:
    """What of the reader's snapshot the view's caller may use a right on. Raises Refused if that is nothing."""
    return view.tercet.gate.allowed(reader, view.by, right, view.scope)


def answered(
    view: ScopedMemory, ask: Callable[[Reader, Callable[[], Lent]], Answer], told: Callable[[Answer], Sequence[MemCube]]
) -> Answer:
    """An answer out of one snapshot, of what the caller may read by its own right and by grants.

    `told` are the cubes that the answer hands out. Before it does, a read is taken of each grant that it stands on;
    where another call has taken the last one, or the grant has ended, the answer is worked out anew without it.
    """
    view.enter("read", lent=True)
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    while True:
        with tenant.reading(view.moment) as reader:
            lend = cache(partial(view.tercet.gate.lent, reader, view.by, view.scope))
            answer = ask(reader, lend)
            due = lend().due(reader.connection, told(answer))
        if not due:
            return answer
        with tenant.writing(by=view.by.signed) as writer:
            if spend(writer, due):
                return answer


def seen(view: ScopedMemory, ask: Callable[[Reader], Answer], told: Callable[[Answer], Sequence[MemCube]]) -> Answer:
    """As `answered`, of a reader that shows no more than the caller may read."""
    return answered(view, lambda reader, lend: ask(reader.under(lend().allowed)), told)


def beside(
    view: ScopedMemory, reader: Reader, space: Space | None
) -> list[tuple[Space, Callable[[], Embedder | None]]]:
    """The spaces beside the embedder's that the vault is not done with, and how to find the embedder of each."""
    return [
        (one.space, partial(view.tercet.embedder_of, one.space.name))
        for one in (spaces.known(reader.connection) if space is not None else ())
        if one.space != space and not (one.left and one.left.keep)
    ]


def find(view: ScopedMemory, reader: Reader, id: str, right: Right) -> int:
    """The number of a cube on which the view's caller may use a right.

    Raises Refused if it may only read it, and MissingMemory if it may not even do that: whether there is such a cube is
    then not told, and looked for by the same statements.
    """
    may = allowed(view, reader, right)
    try:
        return reader.under(may).head(id, view.scope)[0]
    except MissingMemory as missing:
        if may is EVERYTHING:
            raise
        try:
            reader.under(allowed(view, reader)).head(id, view.scope)
        except (Refused, MissingMemory):
            raise missing from None
    raise refuse(view.by, right, f"memory {id}")


def secret(view: ScopedMemory, right: Right) -> bytes:
    """The tenant's secret, which is made when it is first asked for: not for a caller who may write nothing there."""
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading(view.moment) as reader:
        allowed(view, reader, right)
    return tenant.secret()


def put(view: ScopedMemory, found: Sequence[MemCube], wait_for: WaitFor = "vectors") -> list[MemCube]:
    """Keep drafts; those that only repeat what `context` gave are left out. See `ScopedMemory.remember_many`."""
    gate = view.tercet.gate
    view.enter("write")
    if wait_for not in get_args(WaitFor):
        raise InvalidRequest(f"wait_for is 'vectors' or 'words', not {wait_for!r}.")
    for draft in found:
        if not view.scope.covers(draft.scope):
            raise InvalidRequest(f"The draft's scope {draft.scope} lies outside this one, {view.scope}.")
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    # Rules judge what would be stored, which is what is left after redaction.
    found = view.tercet.intake.admit(found, lambda: secret(view, "write"))
    if not found:
        return []
    now = view.tercet.clock()
    found = [view.tercet.retention.applied(draft, now=now) for draft in found]
    with tenant.reading(view.moment) as reader:  # before an embedder, maybe not ours, sees the words
        vetted = gate.vet(reader, view.by, "write", view.scope, found)
    embedder = view.tercet.embedder if wait_for == "vectors" else None
    entries, space = prepare(found, embedder), answering_space(embedder)
    with tenant.writing(by=view.by.signed, branch=view.moment.branch) as writer:
        if allowed(view, writer.reader, "write") != vetted:  # the rules have changed meanwhile
            gate.vet(writer.reader, view.by, "write", view.scope, found)
        _check_named(view, writer.reader, found)
        return writer.put(entries, space)


def revise(view: ScopedMemory, old: MemCube, new: MemCube, expect: int | None, action: str) -> MemCube:
    """Write the next version of a cube. See `ScopedMemory.revise`."""
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    trust = min(old.governance.trust, new.governance.trust)  # a rollback brings back that of its version
    label = new.governance.sensitivity  # which a rollback never lowers
    label = label if action == "revise" else max(label, old.governance.sensitivity)
    made = new if new.kind is Kind.PARAMETERS else old  # an adapter's next version is built from memories of its own
    behavioural = replace(old.behavioural, parent=None, derivations=made.behavioural.derivations)
    governance = replace(old.governance, trust=trust, sensitivity=label)
    draft = replace(new, governance=governance, behavioural=behavioural)
    draft = view.tercet.intake.revise(draft, lambda: secret(view, "revise"))
    with tenant.reading(view.moment) as reader:
        _check_change(view, reader, old.id, draft)
    embedder = view.tercet.embedder
    [entry], space = prepare([draft], embedder), answering_space(embedder)
    with tenant.writing(by=view.by.signed, branch=view.moment.branch) as writer:
        n, before = _check_change(view, writer.reader, old.id, draft)
        made = writer.revise(old.id, entry, space, expect=expect, action=action)
        if made.governance.sensitivity > before.governance.sensitivity:
            states.raise_products(writer, n, made.governance.sensitivity)
        return made


def admit(view: ScopedMemory, id: str) -> MemCube:
    """Let a memory out of quarantine. See `ScopedMemory.admit`."""
    view.enter("administer")
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading(view.moment) as reader:
        _, old = reader.under(allowed(view, reader)).head(id, view.scope)  # nobody releases what he cannot read
        find(view, reader, id, "administer")
    embedder = view.tercet.embedder
    [entry], space = prepare([quarantine.released(old)], embedder), answering_space(embedder)
    with tenant.writing(by=view.by.signed, branch=view.moment.branch) as writer:
        find(view, writer.reader, id, "administer")
        return writer.revise(old.id, entry, space, expect=old.version, action="admit")


def promotable(view: ScopedMemory, ids: Sequence[str], reader: Reader) -> list[MemCube]:
    """The cubes of these ids, if all of them may be built upon: read and promoted by this caller, not in quarantine."""
    seen = reader.under(allowed(view, reader))
    cubes = []
    for id in ids:
        cubes.append(seen.head(id, view.scope)[1])
        find(view, reader, id, "promote")
    quarantine.check_trainable(cubes)
    return cubes


def steer(view: ScopedMemory, id: str, right: Right, change: Callable[[Writer, int, MemCube], object]) -> MemCube:
    """Change the state or the hold of a cube; returns it as it is then."""
    view.enter(right)
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading(view.moment) as reader:  # what is not there is said before a tenant's file is made
        find(view, reader, id, right)
    view.tercet.flush_uses(tenant)  # a use that is still gathered came before
    with tenant.writing(by=view.by.signed, branch=view.moment.branch) as writer:
        n = find(view, writer.reader, id, right)
        [cube] = writer.reader.cubes([n])
        change(writer, n, cube)
        return writer.reader.head(id, view.scope)[1]


def erase(
    view: ScopedMemory,
    asked: Callable[[Reader], list[int]],
    *,
    despite_hold: str | None = None,
    probe: bool = True,
) -> Receipt:
    """Erase the cubes of those numbers, which are asked for within the transaction. See `ScopedMemory.forget`."""
    tenant = view.tercet.vault.tenant(view.scope.tenant)
    with tenant.reading(view.moment) as reader:
        asked(reader)  # what is not there is said before a tenant's file is made
    signer = view.tercet.signer  # a key that cannot be read is told of before anything is erased
    by, branch = view.by.signed, view.moment.branch
    receipt = forget(tenant, asked, by=by, branch=branch, despite_hold=despite_hold, probe=probe)
    for gone in receipt.erased:
        view.tercet.kv.forget(gone)
        view.tercet.lora.forget(gone)
    purge(tenant.path, receipt.erased)
    return receipt if signer is None else signer.receipt(receipt)


def reached(view: ScopedMemory, where: Where | None = None) -> tuple[int, int]:
    """How many memories an erasure of what meets `where` names, and how many more would go with them.

    On every branch, and where a restore has hidden them: more than `list` shows. Raises Refused.
    """
    view.enter("forget")
    with view.tercet.vault.tenant(view.scope.tenant).reading(view.moment) as reader:
        rows = reader.under(allowed(view, reader, "forget")).reach(view.scope, where)
        named, gone = (_ids_of(reader, numbers) for numbers in (rows, closure(reader.connection, rows)))
    return len(named), len(gone - named)


def _ids_of(reader: Reader, numbers: Sequence[int]) -> set[bytes]:
    found = "SELECT id FROM cubes WHERE n IN (SELECT value FROM json_each(?))"
    return {id for (id,) in query(reader.connection, found, (json.dumps(list(numbers)),))}


def _check_named(view: ScopedMemory, reader: Reader, found: Sequence[MemCube]) -> None:
    """Sources and refs of drafts name cubes; those that this caller may not read are not there, or not told."""
    links = {link for draft in found for link in draft.behavioural.derivations}
    refs = [(draft.scope, draft.ref) for draft in found if draft.ref is not None]
    if not links and not refs:
        return
    try:
        may = allowed(view, reader)
    except Refused:
        may = NOTHING
    sources = {link: reader.under(may).head(link.id, view.scope)[1].governance.sensitivity for link in links}
    for draft in found:
        for link in draft.behavioural.derivations:
            if draft.governance.sensitivity < sources[link]:  # `derive` took the strictest; it was lowered since
                find(view, reader, link.id, "share")
    for scope, ref in refs if may is not EVERYTHING else ():
        twin = reader.named(scope, ref)
        if twin is not None and not may.covers(twin):
            raise Refused(f"The ref {ref!r} is taken, and {view.by.name!r} may not read what it names.")


def _check_change(view: ScopedMemory, reader: Reader, id: str, draft: MemCube) -> tuple[int, MemCube]:
    """The number of a cube and what it is now, if both that and what it would become may be revised.

    Raises Refused, MissingMemory.
    """
    n, old = reader.head(id, view.scope)
    if draft.governance.sensitivity < old.governance.sensitivity:
        find(view, reader, id, "share")
    may = allowed(view, reader, "revise")
    if may is EVERYTHING:
        return n, old
    find(view, reader, id, "revise")
    if not may.covers(replace(draft, descriptive=replace(draft.descriptive, id=id))):
        raise refuse(view.by, "revise", f"memory {id} into this")
    return n, old
