"""How soon, how surely and in how many bytes the nearest of 100,000 vectors are found: Tercet's ways and its peers.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb .
    python benchmarks/vectors.py --wordnet usr/share/wordnet

Two sets of 100,000 vectors of 384 dimensions: `real`, glosses of WordNet 3.0 (Debian's wordnet-base) embedded with
all-MiniLM-L6-v2, every 101st being a query, and `synthetic`, seeded Gaussian vectors of length one, which no index
likes. The vectors are kept in a cache folder (`TERCET_BENCH_CACHE`, by default `~/.cache/tercet/bench-data`). Every
index is built and searched with one thread, in a process of its own; peers have their own environment. Each search
parameter is timed in three rounds, and the best p50 is reported, because other work on the machine only ever makes a
round slower. Indexes that can be asked under a filter, by their own means or by leaving out what does not fit, are
asked for a random 50 %, 5 %, 0.5 % and 0.05 % of the vectors, too. Exit codes: 0 measured, 1 an index failed, 2 bad
usage, or the data of a set is absent, which is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import RESULTS, ROOT, DataMissingError, machine, parser, save, show, table
from benchmarks.peers.compare import environment
from benchmarks.peers.vectors.loop import SELECTIVITIES

Floats = NDArray[np.float32]

OWN = (
    "float32", "fp16", "lvq8", "lvq4", "lvq4x4", "lvq4x8", "lvq8x4", "lvq8-graph", "lvq8x4-graph",
)  # fmt: skip
PEERS = (
    "faiss-flat", "faiss-sq8", "faiss-hnsw", "hnswlib", "usearch-f32", "usearch-f16", "usearch-i8", "svs-vamana",
)  # fmt: skip
SETS = ("real", "synthetic")
TARGETS = (0.985, 0.99)
COUNT, QUERIES, DIM = 100_000, 500, 384
COUNT_QUICK, QUERIES_QUICK = 10_000, 100
ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def glosses(folder: Path, count: int) -> list[str]:
    """`count` different glosses, evenly spaced over the dictionary."""
    found: dict[str, None] = {}
    for part in ("noun", "verb", "adj", "adv"):
        path = folder / f"data.{part}"
        if not path.is_file():
            raise DataMissingError(f"no {path}; give the folder of Debian's wordnet-base with --wordnet")
        for line in path.read_text("utf-8").splitlines():
            if not line.startswith("  "):
                found[line.partition("|")[2].strip()] = None
    every = list(found)
    return [every[i] for i in np.linspace(0, len(every) - 1, count).astype(int)]


def real(cache: Path, wordnet: Path) -> Floats:
    """(101,000, 384) embeddings of glosses; made once, which takes some minutes."""
    from tercet.text.embed.minilm import MiniLM

    embedder = MiniLM.find(threads=1)
    if embedder is None:
        raise DataMissingError("no weights of all-MiniLM-L6-v2 on this machine; see the manual on embedders")
    count = COUNT + COUNT // 100
    path = cache / f"glosses-{count}-{hashlib.sha256(embedder.space.encode()).hexdigest()[:8]}.npy"
    if not path.is_file():
        texts = glosses(wordnet, count)
        made = np.empty((count, embedder.dim), np.float32)
        for start in range(0, count, 2000):
            print(f"embedding: {start} of {count}", file=sys.stderr)
            for at, each in enumerate(embedder.embed(texts[start : start + 2000]), start):
                made[at] = each.vectors[0]
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, made)
        part.replace(path)
    return np.asarray(np.load(path), np.float32)


def synthetic() -> Floats:
    """(101,000, 384) Gaussian vectors of length one."""
    made = np.random.default_rng(0).standard_normal((COUNT + COUNT // 100, DIM), np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def prepare(name: str, cache: Path, wordnet: Path, *, quick: bool) -> Path:
    """The folder with vectors, queries and their true neighbours of one set."""
    folder = cache / f"{name}{'-quick' if quick else ''}"
    if (folder / "nearest.npy").is_file():
        return folder
    every = real(cache, wordnet) if name == "real" else synthetic()
    count, asked = (COUNT_QUICK, QUERIES_QUICK) if quick else (COUNT, QUERIES)
    chosen = np.arange(50, len(every), 101)
    vectors = np.delete(every, chosen, axis=0)[:: COUNT // count][:count]
    queries = every[chosen[:: len(chosen) // asked][:asked]]
    nearest = np.concatenate(
        [np.argsort(-(vectors @ part.T), axis=0, kind="stable")[:10].T for part in np.array_split(queries, 20)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in (("vectors", vectors), ("queries", queries), ("nearest", nearest)):
        np.save(folder / f"{key}.npy", np.ascontiguousarray(array))
    return folder


def run(name: str, data: Path) -> dict[str, Any]:
    """One index over one set. Raises RuntimeError with the end of what it said when it fails."""
    python = Path(sys.executable) if name in OWN else environment("vectors")
    script = ROOT / "benchmarks" / "peers" / "vectors" / ("own.py" if name in OWN else "run.py")
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    settings = os.environ | ONE | ({"PYTHONPATH": paths} if name in OWN else {})
    done = subprocess.run(
        [python, script, name, "--data", data], env=settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} exited with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def quickest(result: Mapping[str, Any], recall: float) -> dict[str, Any] | None:
    """The quickest point of an index that finds at least so much."""
    enough = [point for point in result["points"] if point["recall@10"] >= recall]
    return min(enough, key=lambda point: float(point["p50_ms"])) if enough else None


def row(name: str, result: Mapping[str, Any]) -> list[object]:
    """A line of the table."""
    best = max(result["points"], key=lambda point: (point["recall@10"], -point["p50_ms"]))
    cells: list[object] = [
        name,
        result["build_s"],
        result["memory_per_vector"],
        result["disk_per_vector"],
        f"{best['recall@10']:.4f}",
        best["p50_ms"],
    ]
    for target in TARGETS:
        point = quickest(result, target)
        cells += [point["p50_ms"], point["p95_ms"]] if point else [None, None]
    return cells


def filters(indexes: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """The lines of the table of filters."""
    return [
        [name, *[f"{point['recall@10']:.3f}, {show(point['p50_ms'])}" for point in result["filters"]]]
        for name, result in indexes.items()
        if result["filters"]
    ]


def plot(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Recall against p50, a panel for each set."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 5), squeeze=False)
    for axis, (name, indexes) in zip(axes[0], results.items(), strict=True):
        for index, result in indexes.items():
            points = sorted(result["points"], key=lambda point: float(point["p50_ms"]))
            axis.plot(
                [point["p50_ms"] for point in points],
                [point["recall@10"] for point in points],
                marker="o" if index in OWN else "x",
                linestyle="-" if index in OWN else ":",
                label=f"{index} ({result['memory_per_vector']:,.0f} B)",
            )
        axis.set(title=f"{name}: 100,000 x 384, one thread", xlabel="p50, ms", ylabel="recall@10", xscale="log")
        axis.axhline(0.99, color="grey", linewidth=0.5)
        axis.legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__, [*OWN, *PEERS])
    options.add_argument("--sets", default=",".join(SETS), help="real, synthetic or both, with a comma between")
    options.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of the dictionary")
    return options.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    options = arguments(given)
    cache = Path(os.environ.get("TERCET_BENCH_CACHE", Path.home() / ".cache" / "tercet" / "bench-data"))
    sets = [name for name in options.sets.split(",") if name in SETS]
    if not sets:
        print(f"unknown set {options.sets!r}; known: {', '.join(SETS)}", file=sys.stderr)
        return 2
    results: dict[str, dict[str, Any]] = {}
    failed = missing = False
    for name in sets:
        try:
            data = prepare(name, cache, options.wordnet, quick=options.quick)
        except DataMissingError as error:  # the other set needs no data
            print(f"{name} is left out: {error}", file=sys.stderr)
            missing = True
            continue
        results[name] = {}
        for index in options.only:
            begin = time.perf_counter()
            try:
                results[name][index] = run(index, data)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                failed = True
                print(f"{name}, {index}: {error}", file=sys.stderr)
            print(f"{name}, {index}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
            document = {"machine": machine(), "quick": options.quick, "load": os.getloadavg(), "results": results}
            save("vectors", document)  # after each, so that a run broken off has not been for nothing
    if not results:
        return 2
    plot(results, RESULTS / "vectors.png")
    if options.json:
        print(json.dumps(document))
    else:
        columns = ["index", "build s", "memory B/vector", "disk B/vector", "best recall@10", "its p50 ms"]
        for target in TARGETS:
            columns += [f"p50 ms at {target}", f"p95 ms at {target}"]
        for name, indexes in results.items():
            print(f"\n{name}\n")
            print(table(columns, [row(index, result) for index, result in indexes.items()]))
            print(f"\n{name}, recall@10 and p50 in ms of those that a filter leaves\n")
            print(table(["index", *[f"{each:g}" for each in SELECTIVITIES]], filters(indexes)))
    return 1 if failed else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
