"""What a recall may look at on a line other than the main one now: most rows as they are, some as they were."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.branches import Line
from tercet.vault.connection import query
from tercet.vault.journal import head
from tercet.vault.past import Marks, Overlay, overlay
from tercet.vault.reader import Reader
from tercet.vault.search import words
from tercet.vault.search.columns import Columns, Ints, Table, rows_of
from tercet.vault.search.view import ScopeView

KEPT = 4
"""Overlays, and tables with one laid over them, that are kept between recalls."""


@dataclass(frozen=True, eq=False)
class LineView(ScopeView):
    """A `ScopeView` whose rows stand, by the same numbers, in the file or in the vault in memory of `reader.past`."""

    reader: Reader

    def nearest(self, vector: NDArray[np.float32], count: int) -> Ints | None:
        """As in `ScopeView`: of a wide scope, the index knows the main line as it is, and the rest is scanned."""
        if self.table.vectors is not None:
            return super().nearest(vector, count)
        known = np.setdiff1d(self._in_order[0], self._apart, assume_unique=True)
        found = self.wide(self.connection, known, self.space[0], vector, count)
        if found is None:
            return super().nearest(vector, count)
        rows = rows_of(np.concatenate([found, np.intersect1d(self._apart, self.numbers)]), *self._in_order)
        scores = self.similarities(vector, rows)
        if scores is None:
            return None
        best = np.argsort(-scores, kind="stable")[: min(count, int((~np.isnan(scores)).sum()))]
        return rows[best]

    def _look_up(self, term: str) -> tuple[Ints, Ints]:
        there = self.reader.there
        found = [row for row in words.find(self.connection, self.owners, term) if row[0] not in there]
        if self.reader.past is not None:
            found += words.find(self.reader.past.connection, self.owners, term)
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        cubes, counts = np.array(found, dtype=np.int64).T
        at = rows_of(cubes, *self._in_order)
        kept = np.flatnonzero(at >= 0)
        kept = kept[np.argsort(at[kept], kind="stable")]
        return at[kept], counts[kept]

    def _rows_on_disk(self, rows: Ints) -> list[tuple[int, bytes, bytes | None]]:
        there = self.reader.there
        past = np.isin(self.numbers[rows], np.array(sorted(there), dtype=np.int64))
        read = super()._rows_on_disk(rows[~past])
        if self.reader.past is not None and past.any():
            wanted = set(self.numbers[rows[past]].tolist())
            statement = "SELECT cube, vectors, states FROM vectors WHERE space = ?"
            held = query(self.reader.past.connection, statement, (self.space[0],))
            read += [row for row in held if row[0] in wanted]
        return read

    @cached_property
    def _apart(self) -> Ints:
        """Numbers of rows of which the index does not know, or knows something else."""
        own = query(self.connection, "SELECT n FROM cubes WHERE branch > 0")
        return np.array(sorted(self.reader.there | {n for (n,) in own}), dtype=np.int64)


class Pasts:
    """What was worked out of lines lately, each up to the journal's end. Guarded by the tenant's cache lock."""

    def __init__(self) -> None:
        self._overlays: OrderedDict[tuple[Any, ...], Overlay] = OrderedDict()
        self._tables: OrderedDict[tuple[Any, ...], Table] = OrderedDict()

    def overlay(self, connection: apsw.Connection, tenant: str, line: Line, seq: int, of: Marks) -> Overlay:
        """What a line shows otherwise than the rows are, as of `seq`, the journal's end."""
        key = (line, seq)
        if key not in self._overlays:
            _room(self._overlays, seq)
            self._overlays[key] = overlay(connection, tenant, line, of)
        return self._overlays[key]

    def table(self, reader: Reader, columns: Columns, now: Table) -> Table:
        """The columns of a line, given those of its branches' rows as they are now."""
        seq = head(reader.connection)[0]
        key = (reader.line, seq, columns)  # whose codes it is in
        if key not in self._tables:
            kept = np.flatnonzero(~np.isin(now.n, np.array(reader.left_out, dtype=np.int64)))
            table = now if len(kept) == len(now) else now.take(kept)
            if reader.past is not None:
                more = columns.read(reader.past.connection, wide=now.vectors is None)
                table = table.insert(more.sort()) if len(more) else table
            _room(self._tables, seq)
            self._tables[key] = table
        return self._tables[key]

    def clear(self) -> None:
        """Forget it all, with whatever erased content it may hold."""
        self._overlays.clear()
        self._tables.clear()


def _room(kept: OrderedDict[tuple[Any, ...], Any], seq: int) -> None:
    """Drop what was worked out before the journal's end, and the oldest of too many."""
    for key in [key for key in kept if key[1] != seq]:
        del kept[key]
    while len(kept) >= KEPT:
        kept.popitem(last=False)
