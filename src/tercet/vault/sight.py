"""Which cubes of a scope a caller may see, kept between calls: rules judge a cube once, and again when it changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.scope import Scope
from tercet.vault.allowed import Allowed
from tercet.vault.branches import TRUNK
from tercet.vault.connection import marks, query, scalar, undamaged
from tercet.vault.filters import Where
from tercet.vault.journal import head
from tercet.vault.select import FROM, Selection, select

Ints = NDArray[np.int64]

KEPT = 64
"""Scopes, each for callers who may see the same, that a tenant keeps numbers of."""
FEW = 1_000
"""How many changed cubes are judged one by one; from that or a quarter of what is kept on, all are judged anew."""


@dataclass(slots=True)
class _Seen:
    seq: int
    numbers: Ints


class Sight:
    """The numbers, in order, of what the main line shows of a scope to whom it is allowed.

    The journal says which cubes changed since they were judged: a list then costs what changed, and not a judgement of
    every cube that there is. It holds numbers and no content.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Allowed, str | None, str | None, str | None], _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()

    def numbers(self, connection: apsw.Connection, scope: Scope, allowed: Allowed, where: Where | None = None) -> Ints:
        """As of the connection's read transaction; `where` leaves out more of them."""
        found = self._all(connection, scope, allowed)
        if where:
            found = np.intersect1d(found, _read(connection, select(scope, where)), assume_unique=True)
        return found

    def _all(self, connection: apsw.Connection, scope: Scope, allowed: Allowed) -> Ints:
        key = (allowed, scope.user, scope.agent, scope.session)
        chosen, (seq, _) = select(scope, None, allowed), head(connection)
        with self._lock:
            kept = self._kept.get(key)
        if kept is None or kept.seq > seq:  # somebody asks of an older moment than what is kept
            found = _read(connection, chosen)
        elif kept.seq < seq:
            found = _renewed(connection, chosen, kept)
        else:
            found = kept.numbers
        with self._lock:
            held = self._kept.get(key)
            if held is None or held.seq <= seq:
                self._kept[key] = _Seen(seq, found)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def _renewed(connection: apsw.Connection, chosen: Selection, kept: _Seen) -> Ints:
    """What is kept, with whatever the journal tells of since judged again."""
    told = "SELECT DISTINCT number FROM journal WHERE seq > ? AND number > 0 LIMIT ?"
    limit = max(FEW, len(kept.numbers) // 4)
    changed = [n for (n,) in query(connection, told, (kept.seq, limit + 1))]
    if len(changed) > limit:
        return _read(connection, chosen)
    parts = [kept.numbers[~np.isin(kept.numbers, np.array(changed, dtype=np.int64))]]
    for start in range(0, len(changed), 500):
        part = changed[start : start + 500]
        narrowed = Selection(f"c.n IN ({marks(part)}) AND {chosen.condition}", (*part, *chosen.bindings))
        parts.append(_read(connection, narrowed))
    return np.sort(np.concatenate(parts))


def _read(connection: apsw.Connection, chosen: Selection) -> Ints:
    # One text of all numbers: a tuple for each would take longer than to find them.
    statement = f"SELECT group_concat(c.n) {FROM} WHERE {TRUNK.seen} AND {chosen.condition}"  # every value is bound
    found = scalar(connection, statement, chosen.bindings)
    with undamaged("The list of memories"):
        return np.sort(np.fromstring(found or "", dtype=np.int64, sep=","))
