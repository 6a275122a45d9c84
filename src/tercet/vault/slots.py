"""Facts of one slot (subject, attribute) along time: filed so that each holds until the next begins.

Nothing here reads a text: a fact takes the place of another only if both name the same slot and have the same user and
agent. The older gets a new version that says until when it held and what came after; nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tercet.cube import MemCube, Trust
from tercet.lifecycle import State
from tercet.scope import Scope

if TYPE_CHECKING:
    from tercet.vault.reader import Reader
    from tercet.vault.writer import Writer

SUPERSEDE, RELEASE = "supersede", "release"
"""Actions of the journal: an end was set to a fact's validity since another took its place, or taken away again."""
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Another value of the slot of a hit, with the interval in which it holds (None: open).

    `rule` says why the hit's cube was chosen before this one.
    """

    cube: MemCube
    valid_from: datetime
    valid_to: datetime | None
    rule: str


def file(writer: Writer, n: int, cube: MemCube) -> dict[str, MemCube]:
    """Put a new fact in its place among those of its slot; returns the new versions that this made, by id.

    It ends the one before it; if it comes late, the one after it ends it. One in quarantine is left out.
    """
    if cube.governance.trust is Trust.QUARANTINED:
        return {}
    rest = {m: other for m, other in _members(writer.reader, Scope(writer.tenant), cube).items() if m != n}
    before = [m for m, other in rest.items() if _rank(other) < _rank(cube)]
    after = [m for m, other in rest.items() if _rank(other) > _rank(cube)]
    made: dict[str, MemCube] = {}
    if before:
        last = max(before, key=lambda m: _rank(rest[m]))
        made |= _end(writer, last, rest[last], cube)
    if after:
        made |= _end(writer, n, cube, rest[min(after, key=lambda m: _rank(rest[m]))])
    return made


def release(writer: Writer, erased: Sequence[MemCube]) -> None:
    """Give slots back: what facts that are now erased had put an end to goes on, or until the next begins.

    Done for the writer's branch; elsewhere, and in the past, whoever reads sees that what came after is gone.
    """
    gone = {cube.id for cube in erased}
    for cube in erased:
        if cube.descriptive.slot is None:
            continue
        found = _members(writer.reader, Scope(writer.tenant), cube)
        # What a branch shows of its parent's past was read before the rows went.
        members = {n: other for n, other in found.items() if other.id not in gone}
        for n, other in members.items():
            if other.behavioural.superseded_by in gone and other.state is not State.FROZEN and writer.owns(n):
                declared = replace(other.behavioural, valid_to=_declared(writer.reader, other), superseded_by=None)
                freed = writer.restate(n, other, replace(other, behavioural=declared), RELEASE)
                later = [one for one in members.values() if _rank(one) > _rank(freed)]
                if later:
                    _end(writer, n, freed, min(later, key=_rank))


def choose(cube: MemCube, reader: Reader, scope: Scope, at: datetime) -> tuple[dict[int, MemCube], int]:
    """All facts of a cube's slot that a scope sees, by number, and the number of the one that held at a time.

    Where none did, it is the last that had begun, or else the first.
    """
    members = _members(reader, scope, cube)
    ids = {one.id for one in members.values()}
    held = [n for n, one in members.items() if begin(one) <= at < (end(one, ids) or LAST)]
    begun = [n for n, one in members.items() if begin(one) <= at]
    if held or begun:
        return members, max(held or begun, key=lambda n: _rank(members[n]))
    return members, min(members, key=lambda n: _rank(members[n]))


def contradictions(members: Mapping[int, MemCube], chosen: int, at: datetime) -> tuple[Contradiction, ...]:
    """The other values of a slot, the latest first; one that says the same is none."""
    winner, ids = members[chosen], {one.id for one in members.values()}
    others = [one for one in members.values() if _said(one) != _said(winner)]
    return tuple(
        Contradiction(one, begin(one), end(one, ids), _rule(winner, one, at))
        for one in sorted(others, key=_rank, reverse=True)
    )


def begin(cube: MemCube) -> datetime:
    """When a fact begins to hold: as it was declared, or when it was observed."""
    return cube.behavioural.valid_from or cube.observed or FIRST


def end(cube: MemCube, ids: set[str]) -> datetime | None:
    """When a fact ceases to hold; the end that a fact set which is not among `ids` any more is none."""
    follower = cube.behavioural.superseded_by
    return None if follower is not None and follower not in ids else cube.behavioural.valid_to


def _members(reader: Reader, scope: Scope, cube: MemCube) -> dict[int, MemCube]:
    """The facts of a cube's slot, of the same user and agent, by number."""
    slot, own = cube.descriptive.slot, cube.scope
    assert slot is not None  # noqa: S101  # asked of cubes that have one
    same = "c.subject = ? AND c.attribute = ? AND c.trust > ? AND o.user = ? AND s.agent = ?"
    bound = (slot.subject, slot.attribute, int(Trust.QUARANTINED), own.user or "", own.agent or "")
    numbers = reader.having(scope, same, bound)
    return dict(zip(numbers, reader.cubes(numbers), strict=True))


def _rank(cube: MemCube) -> tuple[datetime, datetime, int, str]:
    """What decides which of two facts is the later one; the id, so that it is always decided."""
    return begin(cube), cube.observed or FIRST, int(cube.governance.trust), cube.id


def _rule(winner: MemCube, other: MemCube, at: datetime) -> str:
    if begin(other) > at:
        return "the other begins later"
    names = ("later valid_from", "later observed", "higher trust", "later id")
    pairs = zip(names, _rank(winner), _rank(other), strict=True)
    name, mine, theirs = next(pair for pair in pairs if pair[1] != pair[2])
    return name if mine > theirs else "the other has ended"  # type: ignore[operator]  # of one type each


def _said(cube: MemCube) -> str:
    return " ".join(cube.text.casefold().split())


def _end(writer: Writer, n: int, cube: MemCube, by: MemCube) -> dict[str, MemCube]:
    """Let a fact hold until another begins, unless it is over by then, or frozen."""
    b, start = cube.behavioural, begin(by)
    over = b.superseded_by is None and b.valid_to is not None and b.valid_to <= start
    if over or cube.state is State.FROZEN or (b.superseded_by, b.valid_to) == (by.id, start):
        return {}
    ended = replace(b, valid_to=start, superseded_by=by.id, parent=None)
    return {cube.id: writer.restate(n, cube, replace(cube, behavioural=ended), SUPERSEDE)}


def _declared(reader: Reader, cube: MemCube) -> datetime | None:
    """The end that a fact had of its own, before another took its place."""
    for old in reversed(reader.history(cube.id, Scope(reader.tenant))):
        if old.behavioural.superseded_by is None:
            return old.behavioural.valid_to
    return None
