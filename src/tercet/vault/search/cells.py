"""An inverted file: vectors in cells around centroids, so that a search looks into the cells near the query only.

Centroids come from k-means (spherical, unless the metric is L2; Lloyd 1982, Jegou et al. 2011), whose products are
exact in integers: the cells of given vectors do not depend on the number of threads.

How many cells a search opens depends on the query. Some are opened at once; with s_k the k-th best score found there,
and s the score of a centroid, the rest of the search opens every cell with

    s >= (max s + s_k) / 2 - gap

The gap is measured when the cells are made, for each share of nearest neighbours that one may want to find: vectors
themselves are the queries, and their true neighbours say how far down a search has to go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numkong
import numpy as np
from numpy.typing import NDArray

from tercet.vault.search.lvq import Floats, Rows
from tercet.vault.search.lvq_scores import Metric

Ints = NDArray[np.int64]

STEP = 4096
"""Vectors worked on at once."""
TILE = 1024
"""Vectors of one product with all centroids: its integers should stay in a core's cache."""


@dataclass(frozen=True)
class Cells:
    """How cells are made.

    Attributes
    ----------
    per_root:
        Cells for each square root of the number of vectors; 4 makes 1,265 cells of 79 for 100,000.
    passes:
        Passes of k-means.
    sample:
        Vectors for each cell that k-means looks at, evenly spaced in the order given.
    first:
        Cells opened at once.
    least:
        Fewer vectors than these get no cells: reading them all is as quick.
    """

    per_root: float = 4
    passes: int = 8
    sample: int = 100
    first: int = 12
    least: int = 10_000

    def count(self, n: int) -> int:
        """How many cells n vectors get; 0 if none."""
        return 0 if n < self.least else max(1, round(self.per_root * n**0.5))

    def fit(self, vectors: Rows, metric: Metric) -> tuple[Floats, Ints]:
        """Centroids (cells, dim), neighbours near each other, and the cell (n,) of each vector (n, dim)."""
        n = len(vectors)
        cells = self.count(n)
        if not cells:
            return np.zeros((0, vectors.shape[1]), np.float32), np.zeros(n, np.int64)
        chosen = np.linspace(0, n - 1, min(n, cells * self.sample)).astype(np.int64)
        centroids = _means(vectors, chosen, cells, self.passes, metric)
        centroids = centroids[_tour(centroids)]
        return centroids, assign(vectors, centroids, metric)


def assign(vectors: Rows, centroids: Floats, metric: Metric) -> Ints:
    """The cell (n,) whose centroid is nearest to each vector; the first of equals."""
    nearest = [near for _, near, _ in _nearest(vectors, np.arange(len(vectors)), centroids, metric)]
    return np.concatenate(nearest) if nearest else np.zeros(0, np.int64)


def nearest_cells(centroid_scores: Floats, count: int) -> Ints:
    """The `count` cells that are nearest, in no order."""
    return np.argpartition(-centroid_scores, count)[:count] if count < len(centroid_scores) else np.arange(
        len(centroid_scores)
    )  # fmt: skip


def gap_needed(centroid_scores: Floats, own: Ints, kth: float) -> Floats:
    """How large the gap must be for a search to open each of some cells (`own`), s_k being `kth`."""
    base = (float(centroid_scores.max()) + kth) / 2
    return np.asarray(base - centroid_scores[own], np.float32)


def to_open(centroid_scores: Floats, kth: float, gap: float) -> NDArray[np.bool_]:
    """Which cells (cells,) a search opens."""
    return np.asarray(centroid_scores >= (float(centroid_scores.max()) + kth) / 2 - gap, np.bool_)


def _tour(centroids: Floats) -> Ints:
    """An order in which each centroid is followed by the nearest that is left: cells opened together lie together."""
    unit = _unit(centroids)
    coded = np.rint(unit * (127 / (np.abs(unit).max(initial=0) or 1.0))).astype(np.int8)
    order, taken = np.zeros(len(coded), np.int64), np.zeros(len(coded))
    for step in range(1, len(coded)):
        last = order[step - 1]
        taken[last] = -np.inf
        products = np.asarray(numkong.cdist(coded[last : last + 1], coded, metric="dot"))[0]
        order[step] = int(np.argmax(products + taken))
    return order


def _means(vectors: Rows, chosen: Ints, count: int, passes: int, metric: Metric) -> Floats:
    """k-means over some rows of `vectors`, beginning with evenly spaced ones."""
    centroids = np.asarray(vectors[chosen[np.linspace(0, len(chosen) - 1, count).astype(np.int64)]], np.float32)
    if metric != "l2":
        centroids = _unit(centroids)
    for _ in range(passes):
        sums, sizes = np.zeros(centroids.shape, np.float64), np.zeros(count, np.int64)
        worst = []
        for rows, nearest, scores in _nearest(vectors, chosen, centroids, metric):
            order = np.argsort(nearest, kind="stable")
            cells, starts = np.unique(nearest[order], return_index=True)
            sums[cells] += np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
            sizes += np.bincount(nearest, minlength=count)
            worst.append(scores)
        empty = np.flatnonzero(sizes == 0)
        centroids = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
        # An empty cell starts again at the vector that is worst served.
        far = np.argsort(np.concatenate(worst), kind="stable")[: len(empty)]
        centroids[empty] = np.asarray(vectors[chosen[far]], np.float32)
        if metric != "l2":
            centroids = _unit(centroids)
    return centroids


def _nearest(
    vectors: Rows, chosen: Ints, centroids: Floats, metric: Metric
) -> Iterator[tuple[Floats, Ints, NDArray[np.float64]]]:
    """(rows, the cell of each, how near it is) of chosen vectors, a block after another."""
    scale = float(np.abs(centroids).max(initial=0)) / 127 or 1.0
    packed = numkong.dots_pack(np.rint(centroids / scale).astype(np.int8))
    lengths = np.square(centroids.astype(np.float64)).sum(axis=1) / 2 if metric == "l2" else None
    for start in range(0, len(chosen), STEP):
        rows = np.asarray(vectors[chosen[start : start + STEP]], np.float32)
        if metric != "l2":
            rows = _unit(rows)
        step = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
        coded = np.rint(rows / np.where(step == 0, 1, step)).astype(np.int8)
        nearest, scores = np.empty(len(rows), np.int64), np.empty(len(rows))
        for at in range(0, len(rows), TILE):
            tile = slice(at, at + TILE)
            products = np.asarray(numkong.dots_packed(coded[tile], packed))
            if lengths is not None:  # |x - c|^2 is least where <x, c> - |c|^2 / 2 is most
                products = products * (step[tile] * scale).astype(np.float64) - lengths
            nearest[tile] = products.argmax(axis=1)
            best = np.take_along_axis(products, nearest[tile, None], axis=1)[:, 0]
            scores[tile] = best if lengths is not None else best * (step[tile, 0] * scale)
        if lengths is not None:
            scores -= np.square(rows.astype(np.float64)).sum(axis=1) / 2
        yield rows, nearest, scores


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)
