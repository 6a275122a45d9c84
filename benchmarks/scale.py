"""A vault from a thousand to a million memories: latency, bytes, memory, filters.

python benchmarks/scale.py [--json] [--quick] [--only sizes,filters] [--sizes 1000,10000,100000,1000000]

Vectors come from a seeded callable (384 dimensions, 1,000 topics with noise), so that no model is timed. Each user has
1,000 memories; a scoped recall asks one user's, an unscoped one everybody's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
    """A label from 0 to DRAWS - 1 for each memory, evenly spread: what filters ask for."""
    return i * 7919 % DRAWS


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


def _latency(t: Any, user: str | None, count: int) -> dict[str, float]:  # noqa: ANN401
    scope = t.scope(user=user)
    took = []
    for i in range(count):
        began = time.perf_counter()
        asked = " ".join(words(np.random.default_rng(7_000_000 + i), 3))
        scope.recall(f"where is {asked} of topic{i} memory {i}", limit=10)
        took.append(1000 * (time.perf_counter() - began))
    return {"p50_ms": percentile(took, 50), "p95_ms": percentile(took, 95)}


def _filters(t: Any, size: int) -> dict[str, dict[str, float]]:  # noqa: ANN401
    """Recall of the vectors policy against brute force over the rows that a filter leaves, and its latency."""
    found = {}
    numbered = [i for i in range(size) if (i // USER) % 2 == 0]
    for share in SHARES:
        limit = max(1, round(USER * share))
        inside = np.array([i for i in numbered if i % USER < limit])
        vectors = embed([f"memory {i}" for i in inside]) if len(inside) <= 50_000 else None
        shares, took = [], []
        for q in range(20):
            question = f"memory {q * 7 + 3}"
            began = time.perf_counter()
            hits = t.scope().recall(question, limit=10, where={"at": {"$lt": limit}}, policy="vectors")
            took.append(1000 * (time.perf_counter() - began))
            if vectors is None:
                continue
            query = embed([question])[0]
            order = np.argsort(-(vectors @ query) / np.linalg.norm(vectors, axis=1), kind="stable")[:10]
            exact = {int(inside[i]) for i in order}
            got = {int(re.findall(r"\d+", hit.cube.text)[-1]) for hit in hits}
            shares.append(len(exact & got) / max(len(exact), 1))
        row = {"rows": float(len(inside)), "p50_ms": percentile(took, 50)}
        found[f"{share:.2%}"] = row | ({"recall@10": float(np.mean(shares))} if shares else {})
    return found


def main() -> int:
    """Measure each size in a process of its own, print a table, save a plot."""
    options = parser(__doc__ or "")
    options.add_argument("--sizes", help="sizes, separated by commas")
    options.add_argument("--one", nargs=2, metavar=("SIZE", "FOLDER"), help="measure one size here and print JSON")
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(int(given.one[0]), Path(given.one[1]))))
        return 0
    sizes = [int(s) for s in given.sizes.split(",")] if given.sizes else list(QUICK if given.quick else SIZES)
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="tercet-scale-") as folder:
            command = [sys.executable, __file__, "--one", str(size), folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
            print(f"{size:,} done", file=sys.stderr)
    base = next((row for row in rows if row["size"] == 1_000), rows[0])
    document = {"machine": machine(), "rows": rows, "scoped_ratio": rows[-1]["scoped_p50_ms"] / base["scoped_p50_ms"]}
    save("scale", document)
    _plot(rows)
    if given.json:
        print(json.dumps(document))
        return 0
    columns = [name for name in rows[0] if name != "filters"]
    print(table(columns, [[row[column] for column in columns] for row in rows]))
    print(
        f"\nscoped recall at {rows[-1]['size']:,} takes {document['scoped_ratio']:.2f} times what it takes at 1,000\n"
    )
    filters = [[row["size"], share, *[f.get(k, "") for k in ("rows", "recall@10", "p50_ms")]]
               for row in rows for share, f in row["filters"].items()]  # fmt: skip
    print(table(["size", "filter keeps", "rows", "recall@10", "p50_ms"], filters))
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
    for name in ("scoped_p50_ms", "unscoped_p50_ms"):
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
