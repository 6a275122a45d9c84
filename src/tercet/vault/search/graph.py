"""A graph of near neighbours over coded vectors, so that a wide search looks at a few hundred of them only.

The graph is a hierarchical navigable small world (Malkov and Yashunin 2016, arXiv 1603.09320) in the form that usearch
writes: a matrix of signed one-byte codes, then the links of each. What it compares are directions of codes, the query
being coded too; that is not quite the order asked for, so it proposes candidates, which `segment` scores exactly.

Codes must have no lower bound of their own (`LVQ.symmetric`), for a code then is its vector but for a factor, which
the cosine does not see. The matrix is the one that scans read: codes are in memory once.

One thread builds, in the order of the rows, from a fixed seed: on one processor the same codes give the same bytes.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tercet.vault.search.lvq_layout import Bytes

if TYPE_CHECKING:
    from usearch.index import Index

Ints = NDArray[np.int64]
Signed = NDArray[np.int8]

STEP = 4096
"""Codes added at once; the interpreter is free meanwhile."""
MATRIX = struct.Struct("<II")
"""Rows and columns, before the matrix."""
POINTERS = 16
"""Bytes a vector that usearch holds beside what is in the file: where its links lie, and where its code."""


@dataclass(frozen=True)
class Graph:
    """How a graph is made.

    Attributes
    ----------
    degree:
        Links of a vector in the upper layers; twice as many in the lowest.
    breadth:
        Vectors kept in sight while the neighbours of a new one are looked for.
    least:
        Fewer vectors than these get no graph: reading them all is as quick.
    """

    degree: int = 16
    breadth: int = 256
    least: int = 10_000

    def build(self, codes: Signed) -> Bytes:
        """The bytes of the graph of codes (n, dim)."""
        index = _index(codes.shape[1], self.degree, self.breadth)
        for start in range(0, len(codes), STEP):
            part = codes[start : start + STEP]
            index.add(np.arange(start, start + len(part), dtype=np.uint64), part, threads=1)
        made = np.frombuffer(index.save() or b"", np.uint8)
        del index  # as large as what was made
        if not np.array_equal(matrix(made, *codes.shape), codes):
            raise RuntimeError("This version of usearch writes graphs in another form; Tercet cannot use it.")
        return made


def matrix(graph: Bytes, n: int, dim: int) -> Signed:
    """The codes (n, dim) in the bytes of a graph, a view. Raises ValueError if it does not begin with so many."""
    if len(graph) < MATRIX.size + n * dim or MATRIX.unpack_from(graph.data) != (n, dim):
        raise ValueError(f"the graph is not of {n} vectors of {dim}")
    return graph[MATRIX.size : MATRIX.size + n * dim].view(np.int8).reshape(n, dim)


class OpenGraph:
    """A graph to search in, over bytes whose checksum was verified and that nobody changes. Safe between threads."""

    def __init__(self, made: Bytes, n: int, dim: int) -> None:
        self.codes, self._made = matrix(made, n, dim), made  # usearch reads the bytes where they are
        self._index = _index(dim)
        self._index.view(made.data)
        self._lock = threading.Lock()  # a search writes down in the index where it has been

    @property
    def nbytes(self) -> int:
        """Bytes in memory, the codes included."""
        return self._made.nbytes + POINTERS * len(self.codes)

    def near(self, query: NDArray[np.float32], count: int, breadth: int) -> Ints:
        """About the `count` rows whose direction is nearest to a vector's (dim,), keeping `breadth` in sight."""
        largest = float(np.abs(query).max(initial=0))
        code = np.rint(query * np.float32(127 / largest if largest else 0)).astype(np.int8)
        with self._lock:
            self._index.expansion_search = breadth  # type: ignore[misc]  # mypy loses its setter
            return self._index.search(code, count, threads=1).keys.astype(np.int64)


def _index(dim: int, degree: int = 16, breadth: int = 64) -> Index:
    from usearch.index import Index

    return Index(
        ndim=dim, metric="cos", dtype="i8", connectivity=degree, expansion_add=breadth, enable_key_lookups=False
    )
