"""Tercet's own: exact scans in float32 and half precision, segments of LVQ by scan and by graph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.peers.vectors.loop import Floats, K, main

from tercet.vault.search.graph import Graph
from tercet.vault.search.lvq import LVQ
from tercet.vault.search.segment import Segment
from tercet.vault.search.vectors import dots
from tercet.vault.search.wide import BREADTH, measured


class Single:
    """float32 rows and a matrix product: what exact means here."""

    sweep: Sequence[float | None] = (None,)

    def build(self, vectors: Floats, _folder: Path) -> None:
        self.rows = vectors.copy()

    def sizes(self) -> tuple[int, int]:
        return self.rows.nbytes, 0

    def search(self, query: Floats, _parameter: float | None) -> NDArray[np.int64]:
        scores = self.rows @ query
        return np.argpartition(scores, len(scores) - K)[-K:]


class Half:
    """The rows as a vault keeps them, and the kernel it scans them with."""

    sweep: Sequence[float | None] = (None,)

    def build(self, vectors: Floats, _folder: Path) -> None:
        self.rows = vectors.astype(np.float16)

    def sizes(self) -> tuple[int, int]:
        return self.rows.nbytes, 0

    def search(self, query: Floats, _parameter: float | None) -> NDArray[np.int64]:
        scores = dots(self.rows, query)
        return np.argpartition(scores, len(scores) - K)[-K:]


class Scanned:
    """A segment, all of it scanned; what is roughly nearest is scored from all that is stored."""

    lvq = LVQ(8)
    sweep: Sequence[float | None] = (None,)

    def build(self, vectors: Floats, folder: Path) -> None:
        path = folder / "vectors.lvq"
        Segment.write(path, np.arange(len(vectors)), vectors, self.lvq, 0, graph=Graph(least=1))
        self.segment = Segment.open(path)

    def sizes(self) -> tuple[int, int]:
        return self.segment.nbytes, self.segment.mapped

    def search(self, query: Floats, parameter: float | None) -> NDArray[np.int64]:
        if parameter is None:
            return self.segment.search(query, K)[0]
        found = self.segment.near(query, K, breadth=int(parameter))
        assert found is not None
        return found[0]


class Scanned4(Scanned):
    lvq = LVQ(4)


class Scanned44(Scanned):
    lvq = LVQ(4, 4)


class Scanned48(Scanned):
    lvq = LVQ(4, 8)


class Scanned84(Scanned):
    lvq = LVQ(8, 4)


class Linked(Scanned):
    """A segment searched by the graph over its codes."""

    lvq = LVQ(8, symmetric=True)
    sweep: Sequence[float | None] = (48, 64, 72, 80, 96, 128, 192, 256, 512)


class Linked84(Linked):
    """As a vault does."""

    lvq = LVQ(8, 4, symmetric=True)

    def filtered(self, query: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        found = self.segment.near(query, K, breadth=BREADTH, allowed=allowed) if allowed.sum() > self.scanned else None
        return (found or self.segment.search(query, K, allowed=allowed))[0]

    @cached_property
    def scanned(self) -> int:
        return measured(self.segment)


OWN = {
    "float32": Single,
    "fp16": Half,
    "lvq8": Scanned,
    "lvq4": Scanned4,
    "lvq4x4": Scanned44,
    "lvq4x8": Scanned48,
    "lvq8x4": Scanned84,
    "lvq8-graph": Linked,
    "lvq8x4-graph": Linked84,
}

if __name__ == "__main__":
    main(OWN)
