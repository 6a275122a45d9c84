"""The sweep: what has reached its end is erased, what has faded is archived. A job, in bounded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tercet.errors import Refused
from tercet.lifecycle import RETENTION, State
from tercet.vault import states
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import query, scalar
from tercet.vault.erase import erase
from tercet.vault.ids import Clock
from tercet.vault.sqlite import Tenant
from tercet.vault.writer import Writer

BATCH = 200
"""Cubes a transaction looks at: others wait that long for the lock."""
AGAIN = timedelta(days=1)
"""When a cube is looked at again whose end has come, but from which something held or frozen was made."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Looks at what is due and at nothing else. Cubes that are frozen or on hold, on whichever branch, stay.

    An end holds for every branch, and for what a restore has hidden. Only the main line fades: it alone is used.

    Attributes
    ----------
    floor
        Strength below which a cube is archived; see `states.faded`.
    archive_timeout
        How long after that it is erased; None: never.
    kept, erased
        What it did: numbers of cubes whose end has come and which stay, and ids of those that went.
    """

    floor: float
    archive_timeout: timedelta | None
    kept: set[int] = field(default_factory=set)
    erased: list[str] = field(default_factory=list)

    def run(self, tenant: Tenant, clock: Clock) -> datetime | None:
        """Sweep until nothing is due; returns when the next end comes, None if there is none.

        Each batch is a transaction that reads what is due anew: a hold that came before it is seen.
        """
        begun = clock()
        for part in (self._expire, self._fade):
            after: tuple[int, int] | None = (-(2**63), 0)
            while after is not None:
                with tenant.writing(by="tercet") as writer:
                    after = part(writer, begun, after)
        with tenant.reading() as reader:
            later = scalar(reader.connection, _NEXT, (to_micros(begun),) * 2)
        ends = [begun + AGAIN] if self.kept else []
        return min([*ends, *([from_micros(later)] if later is not None else [])], default=None)

    def _expire(self, writer: Writer, now: datetime, after: tuple[int, int]) -> tuple[int, int] | None:
        rows = query(writer.connection, _ENDED, (to_micros(now), *after, BATCH))
        self._erase(writer, [n for n, _ in rows], "its end has come")
        return (rows[-1][1], rows[-1][0]) if len(rows) == BATCH else None

    def _fade(self, writer: Writer, now: datetime, after: tuple[int, int]) -> tuple[int, int] | None:
        rows = query(writer.connection, _DUE, (to_micros(now), *after, BATCH))
        timed_out = []
        for n, _, state, half_life, count, last in rows:
            if state == State.ARCHIVED:
                timed_out.append(n)
                continue
            due = None
            if half_life is not None:
                due = states.faded(last=last, uses=count, half_life=half_life, floor=self.floor)
            if due is None or due > to_micros(now):
                writer.connection.execute("UPDATE cubes SET due = ? WHERE n = ?", (due, n))
            else:
                until = None if self.archive_timeout is None else now + self.archive_timeout
                states.archive(writer, n, until=until, by=RETENTION)
        self._erase(writer, timed_out, "its time in the archive is over")
        return (rows[-1][1], rows[-1][0]) if len(rows) == BATCH else None

    def _erase(self, writer: Writer, numbers: Sequence[int], why: str) -> None:
        """Erase them; those that a hold keeps stay, and the others go all the same."""
        try:
            if numbers:
                self.erased.extend(erase(writer, numbers, by=RETENTION, cause=why).erased)
        except Refused:  # on hold, or frozen: itself, or something that was made from it
            if len(numbers) == 1:
                self.kept.update(numbers)
                return
            for n in numbers:
                if scalar(writer.connection, "SELECT 1 FROM cubes WHERE n = ?", (n,)):  # not gone with one before
                    self._erase(writer, [n], why)


_ENDED = """
SELECT n, expires FROM cubes
WHERE expires <= ? AND (expires, n) > (?, ?) AND held = 0 AND state != 'frozen'
ORDER BY expires, n LIMIT ?
"""
_DUE = """
SELECT c.n, c.due, c.state, c.half_life, coalesce(u.count, 0), max(coalesce(u.last, 0), j.at)
FROM cubes c LEFT JOIN uses u ON u.cube = c.n
JOIN versions v ON v.cube = c.n AND v.branch = c.branch AND v.version = c.version JOIN journal j ON j.seq = v.seq
WHERE c.due <= ? AND (c.due, c.n) > (?, ?) AND c.branch = 0
AND c.state != 'frozen' AND NOT (c.held AND c.state = 'archived')
ORDER BY c.due, c.n LIMIT ?
"""
_NEXT = """
SELECT min(least) FROM (
    SELECT min(expires) AS least FROM cubes WHERE expires > ? AND held = 0 AND state != 'frozen'
    UNION ALL SELECT min(due) FROM cubes WHERE due > ? AND branch = 0 AND state != 'frozen'
)
"""
