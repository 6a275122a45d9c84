"""The loop that every index goes through: build with one thread, then one query at a time, for each search parameter.

Needs nothing but numpy and the standard library, so that it runs in the peers' environment too.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from benchmarks.common import peak_rss_mb, percentile
from numpy.typing import NDArray

Floats = NDArray[np.float32]
K = 10
WARM_UP = 20
ROUNDS = 3


SELECTIVITIES = (0.5, 0.05, 0.005, 0.0005)
FILTERED = 100  # queries asked under each filter


class Index(Protocol):
    """What is measured. Vectors are of length one; the inner product says what is near."""

    sweep: Sequence[float | None]
    """Search parameters, those that find most last; None where there is nothing to choose."""

    def build(self, vectors: Floats, folder: Path, /) -> None:
        """Make the index of (n, dim) float32 vectors with one thread; files go into the folder."""

    def sizes(self) -> tuple[int, int]:
        """Bytes that must be in memory to search, and bytes beside them that are read from disk."""

    def search(self, query: Floats, parameter: float | None, /) -> NDArray[np.int64]:
        """Ids of the ten nearest to a query (dim,)."""


@runtime_checkable
class Filtered(Protocol):
    """An index that can be asked under a filter, by its own means or by leaving out what does not fit."""

    def filtered(self, query: Floats, allowed: NDArray[np.bool_], /) -> NDArray[np.int64]:
        """Ids of the ten nearest among those allowed (n,), at the breadth that found most without a filter."""


def leave_out(search: Callable[[int], NDArray[np.int64]], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What is done where an index knows no filter: ask it for more, up to 1,000, and leave out what does not fit."""
    found = search(min(1000, round(2 * K * len(allowed) / max(int(allowed.sum()), 1))))
    return found[allowed[found]][:K]


def measure(index: Index, data: Path) -> dict[str, Any]:
    """Build, sizes, and a point for each parameter: mean recall@10, and the p50 and p95 of its best round."""
    vectors, queries, nearest = (np.load(data / f"{name}.npy") for name in ("vectors", "queries", "nearest"))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        index.build(vectors, Path(folder))
        built = time.perf_counter() - begin
        memory, disk = index.sizes()
        count = len(vectors)
        del vectors
        gc.collect()
        points: dict[float | None, dict[str, Any]] = {}
        for _ in range(ROUNDS):  # other work on the machine only ever makes a round slower
            for parameter in index.sweep:
                point = _ask(index, queries, nearest, parameter)
                known = points.get(parameter)
                if known is None or point["p50_ms"] < known["p50_ms"]:
                    points[parameter] = point
    return {
        "build_s": built,
        "memory_per_vector": memory / count,
        "disk_per_vector": disk / count,
        "peak_rss_mb": peak_rss_mb(),
        "points": list(points.values()),
        "filters": _filters(index, data) if isinstance(index, Filtered) else [],
    }


def _filters(index: Filtered, data: Path) -> list[dict[str, Any]]:
    vectors, queries = np.load(data / "vectors.npy", mmap_mode="r"), np.load(data / "queries.npy")[:FILTERED]
    measured = []
    for selectivity in SELECTIVITIES:
        allowed = np.random.default_rng(0).random(len(vectors)) < selectivity
        kept = np.flatnonzero(allowed)
        nearest = [kept[part] for part in np.argsort(-(queries @ vectors[kept].T), axis=1, kind="stable")[:, :K]]
        index.filtered(queries[0], allowed)
        times, shared = [], []
        for query, wanted in zip(queries, nearest, strict=True):
            begin = time.perf_counter()
            ids = index.filtered(query, allowed)
            times.append((time.perf_counter() - begin) * 1000)
            shared.append(len(np.intersect1d(ids, wanted)) / max(len(wanted), 1))
        point = {"selectivity": selectivity, "recall@10": float(np.mean(shared)), "p50_ms": percentile(times, 50)}
        measured.append(point)
    return measured


def _ask(index: Index, queries: Floats, nearest: NDArray[np.int64], parameter: float | None) -> dict[str, Any]:
    for query in queries[:WARM_UP]:
        index.search(query, parameter)
    times, found = [], 0
    for query, wanted in zip(queries, nearest, strict=True):
        begin = time.perf_counter()
        ids = index.search(query, parameter)
        times.append((time.perf_counter() - begin) * 1000)
        found += len(np.intersect1d(ids, wanted))
    return {
        "parameter": parameter,
        "recall@10": found / nearest.size,
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
    }


def main(indexes: Mapping[str, type[Index]]) -> None:
    """Measure one index: `NAME --data FOLDER`; prints one JSON document on standard output and nothing else there."""
    options = argparse.ArgumentParser()
    options.add_argument("name", choices=list(indexes))
    options.add_argument("--data", type=Path, required=True)
    given = options.parse_args()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answer
    result = measure(indexes[given.name](), given.data)
    answer.write(json.dumps(result) + "\n")
    answer.close()
    sys.stdout.flush()
