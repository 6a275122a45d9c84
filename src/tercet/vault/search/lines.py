"""What a recall may look at on a line other than the main one now: most rows as they are, some as they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
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
from tercet.vault.search.columns import Columns, Ints, Table
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
        known = np.setdiff1d(self.table.ascending, self._apart, assume_unique=True)
        found = self.wide(self.connection, known, self.space[0], vector, count)
        if found is None:
            return super().nearest(vector, count)
        numbers, self._ways["vectors"] = found
        rows = self.table.rows_of(np.concatenate([numbers, np.intersect1d(self._apart, self.numbers)]))
        scores = self.similarities(vector, rows)
        if scores is None:
            return None
        best = np.argsort(-scores, kind="stable")[: min(count, int((~np.isnan(scores)).sum()))]
        return rows[best]

    def _found(self, term: str) -> tuple[Ints, Ints]:
        cubes, counts = super()._found(term)
        now = ~np.isin(cubes, self._there)
        cubes, counts = cubes[now], counts[now]
        if self.reader.past is not None:
            others = words.find(self.reader.past.connection, self.owners, term)
            cubes, counts = np.concatenate([cubes, others[0]]), np.concatenate([counts, others[1]])
        return cubes, counts

    def _on_disk(self, column: str, rows: Ints) -> Iterator[tuple[int, bytes | None]]:
        past = np.isin(self.numbers[rows], self._there)
        yield from super()._on_disk(column, rows[~past])
        if self.reader.past is not None and past.any():
            wanted = set(self.numbers[rows[past]].tolist())
            statement = f"SELECT cube, {column} FROM vectors WHERE space = ?"  # noqa: S608  # our names
            held = query(self.reader.past.connection, statement, (self.space[0],))
            yield from (row for row in held if row[0] in wanted)

    @cached_property
    def _there(self) -> Ints:
        """Numbers of the rows that stand in the vault in memory."""
        return np.array(sorted(self.reader.there), dtype=np.int64)

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
            kept = np.flatnonzero(~np.isin(now.n, np.fromiter(reader.left_out, dtype=np.int64)))
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
