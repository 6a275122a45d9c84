"""What a segment's file holds, made from vectors: see `segment`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest
from tercet.vault.search.cells import Cells, Ints, gap_needed, nearest_cells
from tercet.vault.search.lvq import LVQ, Codes, Floats, Rows, mean_of
from tercet.vault.search.lvq_layout import width
from tercet.vault.search.lvq_scores import Metric, Query, Scan, normalised
from tercet.vault.search.segment_file import Section, writing

STEP = 4096
"""Vectors coded at once; a multiple of the rows that share a digest."""
TRIALS = 400
"""Vectors that serve as queries when the gap of the cells is measured."""
NEAREST = 10
"""Neighbours looked for then."""
SHARES = (0.9, 0.95, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Shares of the nearest neighbours for which the gap is kept."""
CELL_CODER = LVQ(8)
"""Centroids are coded too: they are scanned as rows are."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """Vectors in the order of the file, normalised if the metric is the cosine."""

    vectors: Rows
    order: Ints
    metric: Metric

    def blocks(self) -> Iterator[Floats]:
        """All of them, float32, 4,096 at a time."""
        for start in range(0, len(self.order), STEP):
            yield self[self.order[start : start + STEP]]

    def __getitem__(self, chosen: Ints) -> Floats:
        rows = np.asarray(self.vectors[chosen], np.float32)
        return normalised(rows) if self.metric == "cosine" else rows


def write(
    path: Path, numbers: Ints, vectors: Rows, lvq: LVQ, meta: Mapping[str, Any], metric: Metric, maker: Cells
) -> None:
    """Make the arrays of a segment and write them; `Segment.write` says what is what."""
    if vectors.ndim != 2 or numbers.shape != vectors.shape[:1]:
        raise InvalidRequest(f"{len(numbers)} numbers do not fit vectors of shape {vectors.shape}.")
    n, dim = vectors.shape
    for start in range(0, n, STEP):
        if not np.isfinite(vectors[start : start + STEP]).all():
            raise InvalidRequest("A vector that is not finite cannot be coded.")
    centroids, own = maker.fit(vectors, metric)
    order = np.lexsort((numbers, own))
    ordered = Ordered(vectors, order, metric)
    mean = mean_of(ordered.blocks(), dim)
    scan = _scan(ordered, lvq, mean)
    cells = CELL_CODER.encode(centroids, mean)
    starts = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=len(centroids) or 1))])
    gaps = _gaps(ordered, scan, Scan.make(CELL_CODER, cells, metric), starts, mean, maker.first)
    arrays: dict[str, NDArray[Any]] = {
        "mean": mean, "numbers": numbers[order], "starts": starts, "gaps": gaps,
        "cells": cells.primary, "cell_delta": cells.delta, "cell_lo": cells.lo,
        "signed": scan.signed, "delta": scan.delta.astype(np.float16), "lo": scan.lo.astype(np.float16),
    }  # fmt: skip
    if scan.norms is not None:
        arrays["norms"] = scan.norms
    sections = {name: Section(array.dtype.newbyteorder("<").str, array.shape) for name, array in arrays.items()}
    if lvq.residual:
        sections["residual"] = Section("|u1", (n, width(dim, lvq.residual)), blocks=True)
    with writing(path, meta, sections) as file:
        for name, array in arrays.items():
            file.append(name, array)
        if lvq.residual:
            for block in ordered.blocks():
                file.append("residual", lvq.encode(block, mean).residual)


def _scan(ordered: Ordered, lvq: LVQ, mean: Floats) -> Scan:
    n = len(ordered.order)
    whole = Scan(
        lvq.bits,
        np.empty((n, width(len(mean), lvq.bits)), np.uint8),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float32) if ordered.metric == "l2" else None,
    )
    first = LVQ(lvq.bits)
    for at, block in enumerate(ordered.blocks()):
        rows = slice(at * STEP, at * STEP + len(block))
        codes: Codes = first.encode(block, mean)
        made = Scan.make(first, codes, ordered.metric)
        whole.signed[rows], whole.delta[rows], whole.lo[rows] = made.signed, made.delta, made.lo
        if whole.norms is not None and made.norms is not None:
            whole.norms[rows] = made.norms
    return whole


def _gaps(ordered: Ordered, scan: Scan, cells: Scan, starts: Ints, mean: Floats, first: int) -> Floats:
    """The gap (len(SHARES),) that finds each share of the nearest neighbours; see `cells`."""
    n = len(scan)
    if len(cells) <= first:
        return np.full(len(SHARES), np.inf, np.float32)
    trials = np.linspace(0, n - 1, min(n, TRIALS)).astype(np.int64)
    needed: list[NDArray[np.float32]] = []
    for row, vector in zip(trials.tolist(), ordered[ordered.order[trials]], strict=True):
        query = Query.make(vector, mean, ordered.metric)
        scores, centroid_scores = scan.rough(query), cells.rough(query)
        scores[row] = -np.inf  # it is its own nearest, which says nothing
        nearest = np.argpartition(-scores, NEAREST)[:NEAREST]
        opened = nearest_cells(centroid_scores, first)
        found = np.concatenate([scores[starts[cell] : starts[cell + 1]] for cell in opened])
        kth = float(np.sort(found)[-NEAREST:][0]) if len(found) else -np.inf
        own = np.searchsorted(starts, nearest, side="right") - 1
        gap = gap_needed(centroid_scores, own, kth)
        gap[np.isin(own, opened)] = -np.inf
        needed.append(gap)
    return np.quantile(np.concatenate(needed), SHARES, method="higher").astype(np.float32)
