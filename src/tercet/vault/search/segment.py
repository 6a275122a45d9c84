"""Coded vectors in one immutable file: all that a vault's embedding space held up to some moment.

The first level of the codes is in memory and is scanned; the second stays on disk and reranks. A segment of many
vectors is ordered by cells (see `cells`), so that a wide search reads near ones only. What came after the segment, and
what was deleted since, is the caller's to know: it scans newer rows itself and says which are still `allowed`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest
from tercet.vault.search import segment_build
from tercet.vault.search.cells import Cells, Ints, nearest_cells, to_open
from tercet.vault.search.lvq import LVQ, Codes, Floats, Rows
from tercet.vault.search.lvq_layout import Bytes
from tercet.vault.search.lvq_rows import ByNumber
from tercet.vault.search.lvq_scores import Kernel, Metric, Query, Scan, exact, flip, joined
from tercet.vault.search.segment_build import CELL_CODER, SHARES
from tercet.vault.search.segment_file import SegmentReader

Mask = NDArray[np.bool_]

GATHER = 8
"""Up to a GATHER-th of the rows are copied out and scanned; of more, all are, which reads memory in order."""

CHUNK = 2048
"""Rows copied out at once: a copy should stay in a core's cache."""

BRIDGE = 100
"""Rows between two cells that are read along: beginning anew takes as long."""


def file_name(space: int, generation: int) -> str:
    """What a segment of an embedding space is called; each rewriting takes a new generation."""
    return f"vectors-{space}-{generation}.lvq"


class Segment:
    """Coded vectors to search in: `write` a file, then `open` it. Safe to share between threads.

    Attributes
    ----------
    lvq, metric, dim, seq:
        As they were written.
    digest:
        SHA-256 of the file's header, which names all that is in the file.
    numbers:
        int64 (n,): whose vector each row is; a number may have several rows. The order is that of the file.
    """

    def __init__(self, reader: SegmentReader) -> None:
        meta = reader.meta
        self.path, self.digest = reader.path, reader.digest
        self.lvq = LVQ(meta["bits"], meta["residual"])
        self.metric: Metric = meta["metric"]
        self.dim, self.seq, self._first = int(meta["dim"]), int(meta["seq"]), int(meta["first"])
        self.mean: Floats = reader.array("mean")
        self.numbers: Ints = reader.array("numbers")
        norms = reader.array("norms") if "norms" in reader else None
        self._scan = Scan(
            self.lvq.bits,
            reader.array("signed"),
            reader.array("delta").astype(np.float32),
            reader.array("lo").astype(np.float32),
            norms,
        )
        self._second = reader.blocks("residual") if self.lvq.residual else None
        self._starts: Ints = reader.array("starts")
        self._gaps: Floats = reader.array("gaps")
        primary: Bytes = reader.array("cells")
        cells = Codes(self.dim, primary, primary[:, :0], reader.array("cell_delta"), reader.array("cell_lo"))
        self._cells = Scan.make(CELL_CODER, cells, self.metric)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a segment, checking everything but the second level, which is checked by the block when it is read.

        Raises
        ------
        VaultDamaged
            If the file is not there, or a byte of it is not what was written. For the second level, later calls raise
            it.
        VaultTooNew, VaultError
            If a newer Tercet wrote it; if the system cannot read it.
        """
        return cls(SegmentReader(path))

    @staticmethod
    def write(
        path: Path,
        numbers: Ints,
        vectors: Rows,
        lvq: LVQ,
        seq: int,
        *,
        metric: Metric = "cosine",
        cells: Cells | None = None,
    ) -> None:
        """Code vectors into a file, which appears under its name whole and on the disk, or not at all.

        The same arguments give the same bytes. Beside the first level, a few thousand vectors are in memory at a time.

        Parameters
        ----------
        numbers
            int64 (n,).
        vectors
            (n, dim) of any floating type; a memory map will do. Read several times.
        seq
            Up to where in the journal the segment goes.
        metric
            "cosine" normalises the vectors.
        cells
            How cells are made, by default `Cells()`.

        Raises
        ------
        InvalidRequest
            If shapes do not fit or a vector is not finite.
        VaultError
            If the system cannot write.
        """
        maker = cells or Cells()
        meta = {
            "bits": lvq.bits, "residual": lvq.residual, "metric": metric, "dim": vectors.shape[-1], "seq": seq,
            "first": maker.first,
        }  # fmt: skip
        segment_build.write(path, numbers, vectors, lvq, meta, metric, maker)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def has_cells(self) -> bool:
        """Whether a wide search can be quicker than a scan."""
        return len(self._cells) > self._first

    @property
    def nbytes(self) -> int:
        """Bytes in memory, what finds rows by their number included."""
        held = (self.mean, self.numbers, self._starts, self._gaps)
        return self._scan.nbytes + self._cells.nbytes + self._by_number.nbytes + sum(array.nbytes for array in held)

    @property
    def mapped(self) -> int:
        """Bytes of the second level, on disk."""
        return self._second.nbytes if self._second is not None else 0

    def coarse(self, rows: Ints | slice) -> Floats:
        """float32 (n, dim): what the first level says of some rows."""
        part = self._scan.take(rows)
        signed = flip(part.signed, self.lvq.bits)
        codes = Codes(self.dim, signed, signed[:, :0], part.delta.astype(np.float16), part.lo.astype(np.float16))
        return self.lvq.decode(codes, self.mean, both=False)

    def rows_of(self, numbers: Ints) -> Ints:
        """The rows of some numbers, ascending; a number that is not here has none."""
        return self._by_number.rows(numbers)

    def scores(self, query: NDArray[np.floating], rows: Ints | None = None) -> Floats:
        """float32: the score of each of some rows, or of all (n,), from all that is stored; larger is nearer.

        The inner product, the cosine, or -|q - x|^2. Raises InvalidRequest on a query that does not fit.
        """
        return self._exact(Query.make(query, self.mean, self.metric), np.arange(len(self)) if rows is None else rows)

    def search(
        self,
        query: NDArray[np.floating],
        k: int,
        *,
        allowed: Mask | Ints | None = None,
        share: float | None = None,
        pool: int | None = None,
    ) -> tuple[Ints, Floats]:
        """The k nearest numbers, best first, and their scores (see `scores`); of equals the lower number is first.

        Parameters
        ----------
        query
            (dim,) floats.
        allowed
            Which rows may be found: a mask (n,), or numbers (int64), of which few are quickest. All of them by default.
        share
            How many of the k nearest a search of cells should find, 0.9 to 1. By default all rows are scanned.
        pool
            How many rows that are roughly nearest are scored from all that is stored; default 4 k + 24, and twice that
            if the first level has 4 bits.

        Raises
        ------
        InvalidRequest
            If the query does not fit, or k is below 1.
        """
        if k < 1 or (share is not None and not 0 <= share <= 1):
            raise InvalidRequest(f"A search for {k} with share {share} cannot mean anything.")
        made = Query.make(query, self.mean, self.metric)
        size = pool or (4 * k + 24) * (1 if self.lvq.bits == 8 else 2)
        mask, few = self._allowed(allowed)
        if few is not None:
            chunks = [self._scan.take(few[at : at + CHUNK]).rough(made) for at in range(0, len(few), CHUNK)]
            rows = few[_top(np.concatenate(chunks or [few[:0].astype(np.float32)]), size)]
        elif share is None or not self.has_cells:
            rows, _ = self._open(made, Kernel(self._scan, made), [(0, len(self))], mask, size)
        else:
            rows = self._near(made, mask, k, share, size)
        rows = np.unique(rows)  # cells opened later may have bridged one that was opened at once
        return self._ranked(made, rows, k)

    def rank(self, query: NDArray[np.floating], rows: Ints, k: int) -> tuple[Ints, Floats]:
        """As `search`, among rows that something else has found."""
        return self._ranked(Query.make(query, self.mean, self.metric), rows, k)

    def _ranked(self, query: Query, rows: Ints, k: int) -> tuple[Ints, Floats]:
        return _best(self.numbers[rows], self._exact(query, rows), k)

    def _allowed(self, allowed: Mask | Ints | None) -> tuple[Mask | None, Ints | None]:
        """Either a mask of rows, or the rows themselves if they are few; neither if all are allowed."""
        if allowed is None:
            return None, None
        if allowed.dtype == np.bool_:
            if allowed.shape != (len(self),):
                raise InvalidRequest(f"A mask of shape {allowed.shape} does not fit {len(self)} rows.")
            if GATHER * np.count_nonzero(allowed) > len(self):
                return np.asarray(allowed, np.bool_), None
            return None, np.flatnonzero(allowed)
        rows = self.rows_of(np.asarray(allowed, np.int64))
        if GATHER * len(rows) <= len(self):
            return None, rows
        mask = np.zeros(len(self), np.bool_)
        mask[rows] = True
        return mask, None

    def _near(self, query: Query, mask: Mask | None, k: int, share: float, size: int) -> Ints:
        """Rows of the cells that are near, those opened at once and those that what they held makes worth opening."""
        near = self._cells.rough(query)
        kernel = Kernel(self._scan, query)
        first = nearest_cells(near, self._first)
        rows, rough = self._open(query, kernel, self._runs(np.sort(first)), mask, max(size, k))
        kth = float(np.partition(rough, len(rough) - k)[len(rough) - k]) if len(rough) >= k else -np.inf
        opened = to_open(near, kth, float(np.interp(share, SHARES, self._gaps)))
        opened[first] = False
        more, scores = self._open(query, kernel, self._runs(np.flatnonzero(opened)), mask, size)
        return np.concatenate([rows, more])[_top(np.concatenate([rough, scores]), size)]

    def _runs(self, cells: Ints) -> list[tuple[int, int]]:
        """Ranges of rows that hold some cells, ascending, and what little lies between two of them."""
        starts, stops = self._starts[cells], self._starts[cells + 1]
        apart = starts[1:] > stops[:-1] + BRIDGE
        starts, stops = starts[np.append(True, apart)[: len(cells)]], stops[np.append(apart, True)[: len(cells)]]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def _open(
        self, query: Query, kernel: Kernel, runs: list[tuple[int, int]], mask: Mask | None, size: int
    ) -> tuple[Ints, Floats]:
        """The `size` best rows of some ranges, and their rough scores."""
        rough = self._scan.between(kernel, query, runs)
        if mask is None:
            best = _top(rough, size)
        else:
            kept = np.flatnonzero(joined(mask, runs))
            best = kept[_top(rough[kept], size)]
        starts, stops = np.array(runs, np.int64).reshape(-1, 2).T
        ends = np.cumsum(stops - starts)
        part = np.searchsorted(ends, best, side="right")
        return stops[part] - ends[part] + best, rough[best]

    def _exact(self, query: Query, rows: Ints) -> Floats:
        part = self._scan.take(rows)
        first = flip(part.signed, self.lvq.bits)
        second = self._second.take(rows) if self._second is not None else first[:, :0]
        delta, lo = part.delta.astype(np.float16), part.lo.astype(np.float16)
        return exact(self.lvq, Codes(self.dim, first, second, delta, lo), query)

    @cached_property
    def _by_number(self) -> ByNumber:
        return ByNumber(self.numbers)


def _top(scores: Floats, count: int) -> Ints:
    """Where the `count` largest scores are, in no order."""
    return np.argpartition(scores, len(scores) - count)[-count:] if count < len(scores) else np.arange(len(scores))


def _best(numbers: Ints, scores: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best of different numbers, each with the best of its scores."""
    order = np.lexsort((numbers, -scores))
    _, first = np.unique(numbers[order], return_index=True)
    kept = order[np.sort(first)[:k]]
    return numbers[kept], scores[kept]
