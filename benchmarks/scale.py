"""A vault from a thousand to a million memories: latency, bytes, memory, filters.

python benchmarks/scale.py [--json] [--quick] [--only sizes,filters] [--sizes 1000,10000,100000,1000000] [--keep FOLDER]

Vectors come from a seeded callable (384 dimensions, 1,000 topics with noise), so that no model is timed. Each user has
1,000 memories, one a day; a scoped recall asks one user's, an unscoped one everybody's. `scoped_ratio` is that of the
medians of scoped recalls in this vault and in one of 1,000 memories, asked in turn by one process. `filters` compares
with brute force, and with peers over the same vectors and filters (`--only peers`; they read no words, no rows and no
journal). `--keep` keeps the vaults in a folder and finds them there again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine, parser, peak_rss_mb, percentile, save, store_bytes, table

DIM, TOPICS, USER = 384, 1000, 1000
SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK = (1_000, 10_000)
SHARES = (0.5, 0.05, 0.005, 0.0005)
DRAWS = 2000
WARM, ASKED, PROBES = 30, 200, 20  # questions to warm up with, asked, and asked with each filter
PEERS = {
    "faiss-flat": "vectors",
    "faiss-hnsw": "vectors",
    "hnswlib": "vectors",
    "usearch": "vectors",
    "lancedb": "lancedb",
}
"""Names that `peers/filters/run.py` knows, and whose environment each runs in."""
GRAPHS = ("faiss-hnsw", "hnswlib", "usearch")
BEGAN = datetime(2023, 1, 1, 12, tzinfo=UTC)  # when each user's first memory was said; one a day
VOCABULARY = 50_000  # words, drawn by a Zipf law as in real text


def embed(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector for each text, from the number in it alone."""
    rows = np.empty((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        i = int((re.findall(r"\d+", text) or ["0"])[-1])
        topic = np.random.default_rng(i % TOPICS).standard_normal(DIM, np.float32)
        row[:] = topic + np.random.default_rng(1_000_000 + i).standard_normal(DIM, np.float32)
    return rows


def words(rng: np.random.Generator, count: int) -> list[str]:
    """Made-up words, few of them frequent and most rare."""
    return [f"w{rank}x" for rank in np.minimum(rng.zipf(1.25, count), VOCABULARY).tolist()]


def draw_of(i: int) -> int:
    """A label from 0 to DRAWS - 1 for each memory, evenly spread within users and topics: what filters ask for."""
    return (i * 7919 + i // DRAWS * 613) % DRAWS


def text_of(i: int) -> str:
    """Some fourteen words that differ from memory to memory."""
    return " ".join(words(np.random.default_rng(i), 12)) + f" topic{i % TOPICS} memory {i}"


def fill(size: int, folder: Path) -> dict[str, float]:
    """Make a vault of `size` memories: half the users keep turns of a conversation, the others notes."""
    from tercet import MemCube, Tercet, Text
    from tercet.cube import Descriptive

    began = time.perf_counter()
    with Tercet.open(folder, embedder=embed) as t:
        for user in range(size // USER):
            items: list[Any] = []
            for i in range(user * USER, (user + 1) * USER):
                at, label = BEGAN + timedelta(days=i % USER), {"draw": draw_of(i)}
                if user % 2:
                    items.append(MemCube(Text(text_of(i)), Descriptive(observed=at, metadata=label)))
                else:
                    items.append({"role": "user", "content": text_of(i), "at": at, "metadata": label})
            t.scope(user=f"user{user}").remember_many(items)
        kept = time.perf_counter()
        t.work(until_idle=True)
    return {"ingest_per_s": size / (kept - began), "index_s": time.perf_counter() - kept}


def measure(folder: Path, size: int) -> dict[str, Any]:
    """Time a vault of `size` memories; run in a process of its own."""
    from tercet import Tercet

    out: dict[str, Any] = {}
    began = time.perf_counter()
    with Tercet.open(folder, embedder=embed) as t:
        t.scope(user="user0").get(t.scope(user="user0").list(limit=1)[0].id)
        out["open_ms"] = 1000 * (time.perf_counter() - began)
        _latency(t, "user0", WARM, first=ASKED)  # other questions than those that are timed
        out |= {f"scoped_{name}": value for name, value in _latency(t, "user0", ASKED).items()}
        out["scoped_rss_mb"] = peak_rss_mb()
        began = time.perf_counter()
        t.scope().recall("topic1 memory 1")
        out["unscoped_first_s"] = time.perf_counter() - began
        _latency(t, None, WARM, first=ASKED)
        out |= {f"unscoped_{name}": value for name, value in _latency(t, None, ASKED // 2).items()}
    out["peak_rss_mb"] = peak_rss_mb()
    out["bytes"] = store_bytes(folder)
    out["size"] = size
    return out


def compare(folder: Path, base: Path) -> dict[str, float]:
    """Scoped recalls in a vault and in one of a thousand memories, in turn, so that both meet the same machine."""
    from tercet import Tercet

    took: tuple[list[float], list[float]] = ([], [])
    with Tercet.open(folder, embedder=embed) as large, Tercet.open(base, embedder=embed) as small:
        scopes = large.scope(user="user0"), small.scope(user="user0")
        for i in range(WARM + 2 * ASKED):
            for which in (0, 1) if i % 2 else (1, 0):
                began = time.perf_counter()
                scopes[which].recall(_question(i), limit=10)
                if i >= WARM:
                    took[which].append(1000 * (time.perf_counter() - began))
    medians = [percentile(part, 50) for part in took]
    return {"pair_p50_ms": medians[0], "pair_base_p50_ms": medians[1], "scoped_ratio": medians[0] / medians[1]}


def _question(i: int) -> str:
    asked = " ".join(words(np.random.default_rng(7_000_000 + i), 3))
    return f"where is {asked} of topic{i} memory {i}"


def _latency(t: Any, user: str | None, count: int, *, first: int = 0) -> dict[str, float]:  # noqa: ANN401
    """Milliseconds by the clock and of the processor; where other work shares the machine, the latter tell more."""
    scope = t.scope(user=user)
    took, spent = [], []
    for i in range(first, first + count):
        began, worked = time.perf_counter(), time.process_time()
        scope.recall(_question(i), limit=10)
        took.append(1000 * (time.perf_counter() - began))
        spent.append(1000 * (time.process_time() - worked))
    return {
        "p50_ms": percentile(took, 50),
        "p95_ms": percentile(took, 95),
        "cpu_p50_ms": percentile(spent, 50),
        "cpu_p95_ms": percentile(spent, 95),
    }


def probe(size: int, folder: Path) -> None:
    """Write what filters are asked: vectors, labels, questions, and the exact ten nearest of each filter."""
    path = folder / "vectors.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (size, DIM))
    for start in range(0, size, 10_000):
        rows = embed([f"memory {i}" for i in range(start, min(start + 10_000, size))])
        vectors[start : start + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    draws = np.array([draw_of(i) for i in range(size)])
    queries = embed([_probe(q) for q in range(PROBES)])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    best: dict[str, list[list[int]]] = {str(share): [] for share in SHARES}
    for query in queries:
        scores = np.concatenate([vectors[at : at + 50_000] @ query for at in range(0, size, 50_000)])
        for share in SHARES:
            inside = np.flatnonzero(draws < DRAWS * share)
            best[str(share)].append(inside[np.argsort(-scores[inside], kind="stable")[:10]].tolist())
    np.save(folder / "draws.npy", draws)
    np.save(folder / "queries.npy", queries)
    (folder / "nearest.json").write_text(json.dumps(best))


def _probe(q: int) -> str:
    return f"memory {q * 7 + 3}"


def filters(vault: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Recall of the vectors policy against brute force over the rows that a filter leaves, and its latency."""
    from tercet import Tercet

    nearest, found = json.loads((folder / "nearest.json").read_text()), {}
    with Tercet.open(vault, embedder=embed) as t:
        t.scope().recall("memory 1", policy="vectors")
        for share in SHARES:
            shares, took, spent = [], [], []
            for q in range(-3, PROBES):  # three to warm up
                began, worked = time.perf_counter(), time.process_time()
                hits = t.scope().recall(
                    _probe(q % PROBES), limit=10, where={"draw": {"$lt": DRAWS * share}}, policy="vectors"
                )
                if q >= 0:
                    took.append(1000 * (time.perf_counter() - began))
                    spent.append(1000 * (time.process_time() - worked))
                    got = {int(re.findall(r"\d+", hit.cube.text)[-1]) for hit in hits}
                    exact = set(nearest[str(share)][q])
                    shares.append(len(exact & got) / max(len(exact), 1))
            found[str(share)] = {"recall@10": float(np.mean(shares)), "p50_ms": percentile(took, 50)}
            found[str(share)]["cpu_p50_ms"] = percentile(spent, 50)
    return found


def peers(folder: Path, size: int) -> dict[str, Any]:
    """The same with each peer, in its own environment; one whose graph would take too long is left out."""
    from benchmarks.peers.compare import environment

    out: dict[str, Any] = {}
    for name, where in PEERS.items():
        if size > 100_000 and name in GRAPHS:
            continue
        script = Path(__file__).parent / "peers" / "filters" / "run.py"
        command = [str(environment(where)), str(script), name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        out[name] = json.loads(done.stdout) if not done.returncode else {"error": done.stderr[-500:]}
        print(f"{name} over {size:,} done", file=sys.stderr)
    return out


TASKS: Mapping[str, Callable[..., Any]] = {
    "fill": lambda size, folder: fill(int(size), Path(folder)),
    "measure": lambda size, folder: measure(Path(folder), int(size)),
    "compare": lambda folder, base: compare(Path(folder), Path(base)),
    "probe": lambda size, folder: probe(int(size), Path(folder)),
    "filters": lambda vault, folder: filters(Path(vault), Path(folder)),
}


def _apart(task: str, *given: object) -> Any:  # noqa: ANN401
    """Do one of TASKS in a process of its own."""
    command = [sys.executable, __file__, "--one", task, *map(str, given)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(task, *given, done.stdout[:300], file=sys.stderr)
    return json.loads(done.stdout)


def _vault(size: int, keep: Path) -> dict[str, float]:
    """Make the vault of a size in `keep` if it is not there whole; returns how long that took when it was made."""
    note = keep / f"{size}.json"
    if not note.is_file():
        note.write_text(json.dumps(_apart("fill", size, keep / str(size))))
    made: dict[str, float] = json.loads(note.read_text())
    return made


def run(sizes: Sequence[int], only: Sequence[str], keep: Path) -> list[dict[str, Any]]:
    """A row for each size."""
    rows = []
    _vault(USER, keep)
    for size in sizes:
        row: dict[str, Any] = {"size": size} | _vault(size, keep)
        if "sizes" in only:
            row |= _apart("measure", size, keep / str(size)) | _apart("compare", keep / str(size), keep / str(USER))
        if size >= min(100_000, max(sizes)) and {"filters", "peers"} & set(only):
            folder = keep / f"{size}-probe"
            if not (folder / "nearest.json").is_file():
                folder.mkdir(exist_ok=True)
                _apart("probe", size, folder)
            row["filters"] = {"tercet": _apart("filters", keep / str(size), folder)}
            if "peers" in only:
                row["filters"] |= peers(folder, size)
        rows.append(row)
    return rows


def main() -> int:
    """Measure each size in processes of its own, print tables, save a plot."""
    options = parser(__doc__ or "", ("sizes", "filters", "peers"))
    options.add_argument("--sizes", help="sizes, separated by commas")
    options.add_argument("--keep", type=Path, help="a folder for the vaults, which are used again if they are there")
    options.add_argument("--one", nargs=3, metavar=("TASK", "A", "B"), help="do one task here and print JSON")
    given = options.parse_args()
    if given.one:
        print(json.dumps(TASKS[given.one[0]](*given.one[1:])))
        return 0
    sizes = [int(s) for s in given.sizes.split(",")] if given.sizes else list(QUICK if given.quick else SIZES)
    only = [key for key in given.only if key != "peers"] if given.quick else given.only
    with tempfile.TemporaryDirectory(prefix="tercet-scale-") as folder:
        keep = given.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        rows = run(sizes, only, keep)
    document = {"machine": machine(), "rows": rows}
    save("scale", document)
    if "sizes" in only:
        _plot(rows)
    if given.json:
        print(json.dumps(document))
        return 0
    columns = [name for name in rows[0] if name != "filters"]
    print(table(columns, [[row.get(column) for column in columns] for row in rows]))
    lines = [
        [name, row["size"], f"{float(share):.2%}", *cell.values()]
        for row in rows for name, found in row.get("filters", {}).items() if "error" not in found
        for share, cell in found.items()
    ]  # fmt: skip
    print("\n" + table(["system", "size", "filter keeps", "recall@10", "p50_ms", "cpu_p50_ms"], lines))
    return 0


def _plot(rows: list[dict[str, Any]]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    from benchmarks.common import RESULTS

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = [row["size"] for row in rows]
    for name in ("scoped_p50_ms", "unscoped_p50_ms", "unscoped_p95_ms"):
        left.loglog(sizes, [row[name] for row in rows], marker="o", label=name)
    left.set(xlabel="memories", ylabel="ms")
    left.legend()
    right.loglog(sizes, [row["bytes"] for row in rows], marker="o", label="on disk")
    right.loglog(sizes, [row["peak_rss_mb"] * 2**20 for row in rows], marker="o", label="peak memory")
    right.set(xlabel="memories", ylabel="bytes")
    right.legend()
    figure.savefig(RESULTS / "scale.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
