"""Moving what a model made of memories to another model: what is to be moved, one job each, and what came of it.

The state is a line of `meta` for each pair of models, so that a move that was cut off goes on and can be told of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from tercet.vault import jobs
from tercet.vault.codec import dump
from tercet.vault.connection import query, scalar, undamaged
from tercet.vault.ids import parse_id

if TYPE_CHECKING:
    from tercet.vault.reader import Reader
    from tercet.vault.writer import Writer

JOB, STATE = "migrate", "migration:"
Outcome = Literal["waiting", "moved", "refused", "withdrawn", "gone"]


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of one adapter or KV cache.

    moved       another stands in its place: `made`, the next version of the same adapter, or a cache of its own
    refused     the gate said no, or a text may not be trained on; the old one stays, and `why` says what it was
    withdrawn   its texts were revised, archived or quarantined since; there is nothing to move
    gone        it was erased meanwhile
    waiting     its job has not been done yet
    """

    id: str
    kind: str
    outcome: Outcome = "waiting"
    made: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A move from `old` to `new`, names of engines or models; `externalise` says whose words adapters are taught."""

    old: str
    new: str
    externalise: bool
    items: tuple[Moved, ...]

    @property
    def waiting(self) -> int:
        """How many are still to be done."""
        return sum(one.outcome == "waiting" for one in self.items)


def begin(
    writer: Writer, old: str, new: str, found: Sequence[tuple[str, str]], *, externalise: bool, at: datetime
) -> None:
    """Put down a job for each (id, kind), and take it down; what was moved or refused before is looked at again."""
    before = read(writer.reader, old, new)
    ids = {id for id, _ in found}
    kept = [one for one in (before.items if before else ()) if one.id not in ids]
    items = (*kept, *(Moved(id, kind) for id, kind in found))
    _write(writer, Plan(old, new, externalise, items))
    for id, _ in found:
        body = {"old": old, "new": new, "id": id, "externalise": externalise}
        jobs.enqueue(writer.connection, JOB, body, at=at, sooner=True)


def settled(writer: Writer, old: str, new: str, done: Moved) -> None:
    """Take down what came of one of them, here and in the journal."""
    plan = read(writer.reader, old, new) or Plan(old, new, False, ())
    others = [one for one in plan.items if one.id != done.id]
    _write(writer, Plan(old, new, plan.externalise, (*others, done)))
    rows = query(writer.connection, "SELECT n, scope FROM cubes WHERE n IN (SELECT max(n) FROM cubes WHERE id = ?)",
                 (parse_id(done.id),))  # fmt: skip
    place = rows[0] if rows else None
    writer.chain.append(JOB, done.id, place=place, outcome=done.outcome, made=done.made, old=old, new=new)


def read(reader: Reader, old: str, new: str) -> Plan | None:
    """What is known of a move; None if there was none. Raises VaultDamaged."""
    text = scalar(reader.connection, "SELECT value FROM meta WHERE key = ?", (_key(old, new),))
    if not isinstance(text, str):
        return None
    with undamaged("What is noted of moving to another model"):
        told: Mapping[str, object] = json.loads(text)
        items = told["items"]
        assert isinstance(items, list)  # noqa: S101  # `undamaged` says what it means if not
        return Plan(old, new, bool(told["externalise"]), tuple(Moved(**one) for one in items))


def _write(writer: Writer, plan: Plan) -> None:
    value = dump({"externalise": plan.externalise, "items": [asdict(one) for one in plan.items]})
    writer.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_key(plan.old, plan.new), value))


def _key(old: str, new: str) -> str:
    return STATE + json.dumps([old, new])
