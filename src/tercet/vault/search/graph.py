"""A graph over a segment's codes (HNSW, Malkov and Yashunin 2016, in usearch), for wide searches.

The graph walks over one byte a dimension, each vector with a scale of its own, which the cosine does not see; what it
finds is ranked by the segment. It is built by one thread in the order of the segment's rows, so the same segment gives
the same bytes, and it lies in a file that is checked before the native library sees a byte of it. Rows are never taken
out: a search leaves out what is not allowed, and the graph is built anew with the next generation of its segment.

usearch is an optional dependency; cells (see `cells`) need less memory and are built ten times sooner.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest, Unsupported, VaultDamaged
from tercet.vault.search.cells import Ints
from tercet.vault.search.lvq import Floats
from tercet.vault.search.segment import Mask, Segment
from tercet.vault.search.segment_file import Section, SegmentReader, writing

if TYPE_CHECKING:
    from usearch.index import Index

STEP = 4096
"""Rows added at once."""


class Graph:
    """A graph to search in: `write` a file, then `open` it with its segment. Safe to share between threads."""

    def __init__(self, index: Index, segment: Segment) -> None:
        self._index, self.segment = index, segment

    @staticmethod
    def write(path: Path, segment: Segment, *, degree: int = 16, window: int = 128) -> None:
        """Build the graph of a segment and write it; the file appears under its name whole, or not at all.

        Parameters
        ----------
        segment
            Its metric must be the cosine.
        degree
            Neighbours of a row; twice as many on the lowest level.
        window
            Candidates kept while a row is added: more makes a better graph, and takes longer.

        Raises
        ------
        Unsupported
            If usearch is not installed.
        InvalidRequest
            If the segment has another metric than the cosine.
        VaultError
            If the system cannot write.
        """
        if segment.metric != "cosine":
            raise InvalidRequest(f"A graph needs a segment of the cosine, not of {segment.metric!r}.")
        index = _empty(segment.dim, degree, window)
        for start in range(0, len(segment), STEP):
            rows = np.arange(start, min(start + STEP, len(segment)))
            index.add(rows, _coded(segment.coarse(rows)), threads=1)  # more would add in an order of their own
        saved = np.frombuffer(index.save() or b"", np.uint8)
        meta = {"of": segment.digest, "degree": degree, "window": window, "dim": segment.dim, "rows": len(segment)}
        with writing(path, meta, {"graph": Section("|u1", saved.shape)}) as file:
            file.append("graph", saved)

    @classmethod
    def open(cls, path: Path, segment: Segment) -> Self:
        """Read a graph, every byte of it checked first.

        Raises
        ------
        VaultDamaged
            If the file is not there, is not what was written, or belongs to another segment.
        Unsupported
            If usearch is not installed.
        """
        reader = SegmentReader(path)
        meta = reader.meta
        if meta.get("of") != segment.digest:
            raise VaultDamaged(f"{path} is the graph of another segment than {segment.path}; build it again.")
        index = _empty(segment.dim, int(meta["degree"]), int(meta["window"]))
        index.load(reader.array("graph").tobytes())
        if len(index) != len(segment):
            raise VaultDamaged(f"{path} has {len(index)} rows and its segment {len(segment)}; build it again.")
        return cls(index, segment)

    def __len__(self) -> int:
        return len(self.segment)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, the segment not counted."""
        return int(self._index.memory_usage)

    def search(
        self, query: NDArray[np.floating], k: int, *, allowed: Mask | None = None, window: int = 64
    ) -> tuple[Ints, Floats]:
        """The k nearest numbers and their scores, as `Segment.search` gives them.

        Parameters
        ----------
        query
            (dim,) floats.
        allowed
            Mask (n,) of the rows that may be found. Where too few of those that the graph finds are allowed, the
            segment is scanned instead: what is left out never costs recall.
        window
            Candidates kept on the walk, at least k: more finds more, and takes longer.
        """
        vector = np.asarray(query, np.float32)
        if vector.shape != (self.segment.dim,) or not np.isfinite(vector).all() or k < 1:
            raise InvalidRequest(f"A search for {k} with a query of shape {vector.shape} cannot be made here.")
        wanted = min(max(window, k), len(self))
        if not wanted:
            return self.segment.search(query, k)
        matches = self._index.search(_coded(vector[None])[0], wanted, threads=1)
        rows = np.sort(np.asarray(matches.keys).astype(np.int64))
        if allowed is not None:
            rows = rows[allowed[rows]]
            # Of a window w, the ring walked to is about as wide as w of all rows; its k nearest allowed are safe while
            # a good part of it is allowed.
            if 2 * len(rows) < wanted and len(rows) < len(self):
                return self.segment.search(query, k, allowed=allowed)
        return self.segment.rank(query, rows, k)


def _coded(vectors: Floats) -> NDArray[np.int8]:
    """One byte a dimension, the largest component of each vector being 127 or -127."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (np.float32(127) / np.where(largest == 0, 1, largest))).astype(np.int8)


def _empty(dim: int, degree: int, window: int) -> Index:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise Unsupported("A graph needs usearch: pip install 'usearch>=2.20'.") from error
    index = Index(
        ndim=dim, metric="cos", dtype="i8", connectivity=degree, expansion_add=window, enable_key_lookups=False
    )
    index.expansion_search = 1  # so that the window of a search is the number of matches it asks for
    return index
