"""Coded vectors in one immutable file: all that a vault's embedding space held up to some moment.

The first level of the codes is in memory, where it is scanned, or searched by a graph over it (see `graph`); the second
stays on disk and reranks. What came after the segment, and what was deleted since, is the caller's to know: it scans
newer rows itself and says which are still `allowed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest, VaultDamaged
from tercet.vault.datakeys import Seal
from tercet.vault.search import segment_build
from tercet.vault.search.graph import Graph, Ints, OpenGraph
from tercet.vault.search.lvq import LVQ, Floats, Rows
from tercet.vault.search.lvq_scores import Metric, Query, Scan, exact
from tercet.vault.search.segment_file import SegmentReader

Mask = NDArray[np.bool_]

GATHER = 8
"""Up to a GATHER-th of the rows are copied out and scanned; of more, all are, which reads memory in order."""

CHUNK = 2048
"""Rows copied out at once: a copy should stay in a core's cache."""

SPARE = 1.25
"""How many more rows than expected a graph is asked for when only some are allowed."""


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
        self.lvq = LVQ(meta["bits"], meta["residual"], symmetric=meta["symmetric"])
        self.metric: Metric = meta["metric"]
        self.dim, self.seq = int(meta["dim"]), int(meta["seq"])
        self.mean: Floats = reader.array("mean")
        self.numbers: NDArray[np.int64 | np.int32] = reader.array("numbers")
        self._graph = self._opened(reader) if "graph" in reader else None
        self._scan = Scan(
            self.lvq.bits,
            reader.array("signed") if self._graph is None else self._graph.codes.view(np.uint8),
            reader.array("delta"),
            reader.array("lo") if "lo" in reader else None,
            reader.array("norms") if "norms" in reader else None,
        )
        self._second = reader.blocks("residual") if self.lvq.residual else None

    def _opened(self, reader: SegmentReader) -> OpenGraph:
        try:
            return OpenGraph(reader.array("graph"), len(self.numbers), self.dim)
        except (ValueError, RuntimeError) as error:  # usearch has one kind of error for all that it cannot read
            raise VaultDamaged(f"{self.path} has a graph that cannot be read: {error}. It can be rebuilt.") from error

    @classmethod
    def open(cls, path: Path, seal: Seal | None = None) -> Self:
        """Read a segment, checking everything but the second level, which is checked by the block when it is read.

        A tenant's `seal` opens its sealed ones; those are checked whole, and are in memory with both levels.

        Raises
        ------
        VaultDamaged
            If the file is not there, or a byte of it is not what was written. For the second level, later calls raise
            it.
        VaultTooNew, VaultError
            If a newer Tercet wrote it; if the system cannot read it.
        """
        return cls(SegmentReader(path, seal))

    @staticmethod
    def write(
        path: Path,
        numbers: Ints,
        vectors: Rows,
        lvq: LVQ,
        seq: int,
        *,
        metric: Metric = "cosine",
        graph: Graph | None = None,
        seal: Seal | None = None,
    ) -> None:
        """Code vectors into a file, which appears under its name whole and on the disk, or not at all.

        On one processor the same arguments give the same bytes. Beside the first level and the graph, a few thousand
        vectors are in memory at a time.

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
        graph
            How a graph is made, if there should be one: for the cosine, of a symmetric coder of 8 bits.
        seal
            What the file is sealed with, if the tenant is.

        Raises
        ------
        InvalidRequest
            If shapes do not fit or a vector is not finite.
        VaultError
            If the system cannot write.
        """
        meta = {
            "bits": lvq.bits, "residual": lvq.residual, "symmetric": lvq.symmetric, "metric": metric,
            "dim": vectors.shape[-1], "seq": seq,
        }  # fmt: skip
        segment_build.write(path, numbers, vectors, lvq, meta, graph, seal)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def has_graph(self) -> bool:
        """Whether a wide search can be quicker than a scan."""
        return self._graph is not None

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        links = 0 if self._graph is None else self._graph.nbytes - self._scan.signed.nbytes
        return self._scan.nbytes + links + self.mean.nbytes + self.numbers.nbytes

    @property
    def mapped(self) -> int:
        """Bytes of the second level, on disk."""
        return self._second.nbytes if self._second is not None else 0

    def coarse(self, rows: Ints | slice) -> Floats:
        """float32 (n, dim): what the first level says of some rows."""
        part = self._scan.take(rows)
        return self.lvq.decode(part.codes(self.dim, part.signed[:, :0]), self.mean, both=False)

    def rows_of(self, numbers: Ints) -> Ints:
        """The rows of some numbers, ascending; a number that is not here has none."""
        wanted = np.sort(numbers).astype(self.numbers.dtype)
        wanted = wanted[np.append(True, wanted[1:] != wanted[:-1])[: len(wanted)]]  # np.unique takes 20 times as long
        low = np.searchsorted(self.numbers, wanted)
        lengths = np.searchsorted(self.numbers, wanted, "right") - low
        ends = np.cumsum(lengths)
        return np.repeat(low - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)

    def scores(self, query: NDArray[np.floating], rows: Ints | None = None) -> Floats:
        """float32: the score of each of some rows, or of all (n,), from all that is stored; larger is nearer.

        The inner product, the cosine, or -|q - x|^2. Raises InvalidRequest on a query that does not fit.
        """
        made = Query.make(query, self.mean, self.metric)
        every = np.arange(len(self)) if rows is None else rows
        parts = [self._exact(made, every[start : start + CHUNK]) for start in range(0, len(every), CHUNK)]
        return np.concatenate(parts or [np.zeros(0, np.float32)])

    def search(
        self,
        query: NDArray[np.floating],
        k: int,
        *,
        allowed: Mask | Ints | None = None,
        pool: int | None = None,
    ) -> tuple[Ints, Floats]:
        """The k nearest numbers, best first, and their scores (see `scores`); of equals the lower number is first.

        All rows that may be found are scanned.

        Parameters
        ----------
        query
            (dim,) floats.
        allowed
            Which rows may be found: a mask (n,), or numbers (int64), of which few are quickest. All of them by default.
        pool
            How many rows that are roughly nearest are scored from all that is stored; default 2 k + 44, and twice that
            if the first level has 4 bits.

        Raises
        ------
        InvalidRequest
            If the query does not fit, or k is below 1.
        """
        made, size = self._asked(query, k, pool)
        mask, few = self._allowed(allowed)
        if few is not None:
            chunks = [self._scan.take(few[at : at + CHUNK]).rough(made) for at in range(0, len(few), CHUNK)]
            rows = few[_top(np.concatenate(chunks or [few[:0].astype(np.float32)]), size)]
        elif mask is None:
            rows = _top(self._scan.rough(made), size)
        else:
            kept = np.flatnonzero(mask)
            rows = kept[_top(self._scan.rough(made)[kept], size)]
        return self._ranked(made, rows, k)

    def near(
        self,
        query: NDArray[np.floating],
        k: int,
        *,
        breadth: int,
        allowed: Mask | Ints | None = None,
        pool: int | None = None,
    ) -> tuple[Ints, Floats] | None:
        """As `search`, by the graph, which keeps `breadth` rows in sight, or `pool` if that is more.

        None where a scan is better: there is no graph, few rows are allowed, or the graph found too few of them. Of the
        nearest of all, those allowed are the nearest of them: so a filter costs breadth, not recall.
        """
        made, size = self._asked(query, k, pool)
        mask, few = self._allowed(allowed)
        if self._graph is None or few is not None:
            return None
        wider = 1.0 if mask is None else SPARE * len(self) / np.count_nonzero(mask)
        rows = self._graph.near(made.vector - self.mean, round(wider * size), round(wider * breadth))
        if mask is not None:
            rows = rows[mask[rows]][:size]
        return self._ranked(made, rows, k) if len(rows) >= min(size, len(self)) else None

    def _asked(self, query: NDArray[np.floating], k: int, pool: int | None) -> tuple[Query, int]:
        if k < 1:
            raise InvalidRequest(f"A search for {k} cannot mean anything.")
        return Query.make(query, self.mean, self.metric), pool or (2 * k + 44) * (1 if self.lvq.bits == 8 else 2)

    def rank(self, query: NDArray[np.floating], rows: Ints, k: int) -> tuple[Ints, Floats]:
        """As `search`, among rows that something else has found."""
        return self._ranked(Query.make(query, self.mean, self.metric), rows, k)

    def _ranked(self, query: Query, rows: Ints, k: int) -> tuple[Ints, Floats]:
        rows = np.sort(rows)
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

    def _exact(self, query: Query, rows: Ints) -> Floats:
        part = self._scan.take(rows)
        second = part.signed[:, :0] if self._second is None else self._second.take(rows)
        return exact(self.lvq, part.codes(self.dim, second), query)


def _top(scores: Floats, count: int) -> Ints:
    """Where the `count` largest scores are, in no order."""
    return np.argpartition(scores, len(scores) - count)[-count:] if count < len(scores) else np.arange(len(scores))


def _best(numbers: NDArray[np.int64 | np.int32], scores: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best of different numbers, given in ascending order, each with the best of its scores."""
    order = np.argsort(-scores, kind="stable")
    first: dict[int, int] = {}
    for place, number in zip(order.tolist(), numbers[order].tolist(), strict=True):
        first.setdefault(number, place)
        if len(first) == k:
            break
    return np.array(list(first), np.int64), scores[list(first.values())]
