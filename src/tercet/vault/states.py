"""Moves along the lifecycle's edges, holds, raised labels, and merging: each is legal or raises, and is journalled."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from math import log2

from tercet.cube import MemCube, Sensitivity
from tercet.errors import IllegalTransition, InvalidRequest, Refused
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.vault.codec import to_micros
from tercet.vault.connection import query
from tercet.vault.erase import closure
from tercet.vault.spaces import Space
from tercet.vault.writer import Entry, Writer

DAY = 86_400_000_000
"""Microseconds."""
LAST = to_micros(datetime.max.replace(tzinfo=UTC))
MAX_REASON = 1_000
"""Characters of the reason for a hold."""


def freeze(writer: Writer, n: int) -> None:
    """No edit, no decay and no end until it is unfrozen. Raises IllegalTransition."""
    writer.move(n, State.FROZEN, by="revise")


def unfreeze(writer: Writer, n: int, *, archived_until: datetime | None) -> None:
    """Back to the state it had. The time it was frozen counts neither as idle nor as time in the archive.

    Raises IllegalTransition if it is not frozen.
    """
    [(state, former)] = query(writer.connection, "SELECT state, former FROM cubes WHERE n = ?", (n,))
    target = State(former) if former is not None else State.GENERATED
    if state != State.FROZEN:
        raise IllegalTransition(f"This memory is {state}, not frozen: there is nothing to undo.")
    writer.connection.execute(
        "INSERT INTO uses VALUES (?, 0, ?) ON CONFLICT (cube) DO UPDATE SET last = max(last, excluded.last)",
        (n, to_micros(writer.at)),
    )
    writer.move(n, target, by="revise", due=archived_until if target is State.ARCHIVED else None)
    writer.wake(n)


def archive(writer: Writer, n: int, *, until: datetime | None, by: str = "revise") -> None:
    """Out of what recall looks at, until a use brings it back, or until its time there ends (None: never)."""
    writer.move(n, State.ARCHIVED, by=by, due=until)
    writer.wake(n)


def unarchive(writer: Writer, n: int) -> None:
    """Back from the archive, as by a use. Raises IllegalTransition if it is not there."""
    [(state,)] = query(writer.connection, "SELECT state FROM cubes WHERE n = ?", (n,))
    if state != State.ARCHIVED:
        raise IllegalTransition(f"This memory is {state}, not archived: there is nothing to undo.")
    writer.move(n, State.ACTIVATED, by="revise")
    writer.wake(n)


def hold(writer: Writer, n: int, cube: MemCube, reason: str) -> None:
    """Put a hold on a cube: nothing erases it until it is released. Raises InvalidRequest for no reason, or a held one.

    A hold is part of the header, so it makes a version; the text, its words and its vectors stay as they are. A frozen
    cube may be held: that edits nothing.
    """
    check_reason(reason)
    if cube.governance.hold is not None:
        raise InvalidRequest(f"Memory {cube.id} is on hold already ({cube.governance.hold}); release it first.")
    writer.restate(n, cube, replace(cube, governance=replace(cube.governance, hold=reason)), "hold")


def check_reason(reason: str) -> str:
    """Return a reason that can be kept. Raises InvalidRequest."""
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON or "\0" in reason:
        raise InvalidRequest(f"A reason is a text of 1 to {MAX_REASON:,} characters.")
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The reason is not valid Unicode.") from None
    return reason


def release(writer: Writer, n: int, cube: MemCube) -> None:
    """Take the hold off. Raises InvalidRequest if there is none."""
    if cube.governance.hold is None:
        raise InvalidRequest(f"There is no hold on memory {cube.id}.")
    writer.restate(n, cube, replace(cube, governance=replace(cube.governance, hold=None)), "release")
    writer.wake(n)


def raise_products(writer: Writer, n: int, label: Sensitivity) -> None:
    """Hold all that was made from a cube, whatever state it is in, to be at least as sensitive as that.

    Each gets a next version under another header, in the writer's branch: what that does not show stays as it is.
    """
    reached = json.dumps(closure(writer.connection, [n]))
    seen = writer.reader.having(Scope(writer.tenant), "c.n IN (SELECT value FROM json_each(?))", (reached,))
    for number, cube in zip(seen, writer.reader.cubes(seen), strict=True):
        if cube.governance.sensitivity < label:
            labelled = replace(cube, governance=replace(cube.governance, sensitivity=label))
            writer.restate(number, cube, labelled, "label")


def merge(writer: Writer, entry: Entry, space: Space | None, *, archived_until: datetime | None = None) -> MemCube:
    """Put in a cube made from others (see `derive`) as their head: merged, and they archived and superseded by it.

    Raises
    ------
    InvalidRequest
        If it names fewer than two sources.
    Refused
        If it and its sources do not all have one owner.
    IllegalTransition
        If a source is frozen, or archived already.
    MissingMemory
        If a source is not there.
    """
    links = entry.cube.behavioural.derivations
    if len({link.id for link in links}) < 2:
        raise InvalidRequest("Merging takes at least two memories.")
    sources = [writer.reader.head(link.id, Scope(writer.tenant)) for link in links]
    owners = {(cube.scope.tenant, cube.governance.owner) for _, cube in sources}
    if owners != {(entry.cube.scope.tenant, entry.cube.governance.owner)}:
        raise Refused("Only memories of one owner merge.")
    [head] = writer.put([entry], space, action="merge")
    number, _ = writer.reader.head(head.id, head.scope)
    writer.move(number, State.MERGED, by="revise")
    for n, cube in sources:
        writer.restate(n, cube, replace(cube, behavioural=replace(cube.behavioural, superseded_by=head.id)), "merge")
        archive(writer, n, until=archived_until)
    return writer.reader.cubes([number])[0]


def faded(*, last: int, uses: int, half_life: float, floor: float) -> int:
    """When a cube's strength falls below `floor`, in microseconds since 1970.

    strength = (1 + uses) · 2^(−idle / half-life), idle since the last use (or since it was recorded), so that

        idle at the floor = half-life · log2((1 + uses) / floor)

    Exponential forgetting as in Ebbinghaus (1885); that each use adds to the strength follows MemoryBank (Zhong et al.
    2024), where it adds to the half-life instead. `half_life` is in days, `floor` in (0, 1].
    """
    return min(int(last + half_life * DAY * log2((1 + uses) / floor)), LAST)
