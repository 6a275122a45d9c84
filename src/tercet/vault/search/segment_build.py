"""What a segment's file holds, made from vectors: see `segment`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidRequest
from tercet.vault.datakeys import Seal
from tercet.vault.search.graph import Graph, Ints
from tercet.vault.search.lvq import LVQ, Floats, Rows, mean_of
from tercet.vault.search.lvq_layout import width
from tercet.vault.search.lvq_scores import Metric, Scan, normalised
from tercet.vault.search.segment_file import Section, writing

STEP = 4096
"""Vectors coded at once; a multiple of the rows that share a digest."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """Vectors in the order of the file, normalised if the metric is the cosine."""

    vectors: Rows
    order: Ints
    metric: Metric

    def blocks(self) -> Iterator[Floats]:
        """All of them, float32, 4,096 at a time."""
        for start in range(0, len(self.order), STEP):
            rows = np.asarray(self.vectors[self.order[start : start + STEP]], np.float32)
            yield normalised(rows) if self.metric == "cosine" else rows


def write(
    path: Path, numbers: Ints, vectors: Rows, lvq: LVQ, meta: Mapping[str, Any], graph: Graph | None, seal: Seal | None
) -> None:
    """Make the arrays of a segment and write them; `Segment.write` says what is what."""
    if vectors.ndim != 2 or numbers.shape != vectors.shape[:1]:
        raise InvalidRequest(f"{len(numbers)} numbers do not fit vectors of shape {vectors.shape}.")
    n, dim = vectors.shape
    metric: Metric = meta["metric"]
    for start in range(0, n, STEP):
        if not np.isfinite(vectors[start : start + STEP]).all():
            raise InvalidRequest("A vector that is not finite cannot be coded.")
    order = np.argsort(numbers, kind="stable")
    ordered = Ordered(vectors, order, metric)
    mean = mean_of(ordered.blocks(), dim)
    scan = _scan(ordered, lvq, mean)
    arrays: dict[str, NDArray[Any]] = {"mean": mean, "numbers": _narrow(numbers[order]), "delta": scan.delta}
    if graph is not None and lvq.bits == 8 and lvq.symmetric and metric == "cosine" and n >= graph.least:
        arrays["graph"] = graph.build(scan.signed.view(np.int8))
    else:
        arrays["signed"] = scan.signed
    if scan.lo is not None:
        arrays["lo"] = scan.lo
    if scan.norms is not None:
        arrays["norms"] = scan.norms
    sections = {name: Section(array.dtype.newbyteorder("<").str, array.shape) for name, array in arrays.items()}
    if lvq.residual:
        sections["residual"] = Section("|u1", (n, width(dim, lvq.residual)), blocks=True)
    with writing(path, meta, sections, seal) as file:
        for name, array in arrays.items():
            file.append(name, array)
        if lvq.residual:
            for block in ordered.blocks():
                file.append("residual", lvq.encode(block, mean).residual)


def _narrow(numbers: Ints) -> NDArray[Any]:
    """In four bytes each, if they fit."""
    small = not len(numbers) or (numbers[0] >= 0 and numbers[-1] <= np.iinfo(np.int32).max)
    return numbers.astype(np.int32) if small else numbers


def _scan(ordered: Ordered, lvq: LVQ, mean: Floats) -> Scan:
    n, l2 = len(ordered.order), ordered.metric == "l2"
    whole = Scan(
        lvq.bits,
        np.empty((n, width(len(mean), lvq.bits)), np.uint8),
        np.empty(n, np.float16),
        None if lvq.symmetric else np.empty(n, np.float16),
        np.empty(n, np.float32) if l2 else None,
    )
    first = LVQ(lvq.bits, symmetric=lvq.symmetric)
    for at, block in enumerate(ordered.blocks()):
        rows = slice(at * STEP, at * STEP + len(block))
        made = Scan.make(first, first.encode(block, mean), ordered.metric)
        whole.signed[rows], whole.delta[rows] = made.signed, made.delta
        for every, part in ((whole.lo, made.lo), (whole.norms, made.norms)):
            if every is not None and part is not None:
                every[rows] = part
    return whole
