"""Our embedder beside sentence-transformers (float32) with the same weights, on the turns of LoCoMo.

    python benchmarks/embedding.py [--json] [--quick] [--only KEY[,KEY]]

Both run as processes of their own, on all cores, and take turns, so that a neighbour's load falls on both; of several
rounds the median counts. Recall is that of exact cosine over the turns of each conversation, no other signal. The
peer's environment is made on first use under benchmarks/peers/sentence_transformers/.venv (it downloads torch).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common
from tercet.text.embed import weights
from tercet.text.embed.minilm import MiniLM

NAME = "embedding"
PEER = Path(__file__).parent / "peers" / "sentence_transformers"
SPEEDS = ("batched_per_s", "one_per_s", "query_ms", "cold_start_ms", "peak_rss_mb")
COMPARED = ("ratio_batched", "ratio_cpu", "mean_cosine", "min_cosine", "recall@10")
KEYS = ("ours", "peer", *(f"{who}/{what}" for who in ("ours", "peer") for what in SPEEDS), *COMPARED)
GOALS = {"ratio_batched": ">= 3", "mean_cosine": ">= 0.99", "recall@10/difference": "within 0.005"}
COUNTED = {1, 2, 3, 4}  # question categories with evidence to be found; 5 is adversarial


class Process:
    """One engine, answering requests (see peers/sentence_transformers/run.py)."""

    def __init__(self, python: str, engine: str, place: Path, texts: Path) -> None:
        start = time.perf_counter()
        source = os.pathsep.join(str(common.ROOT / part) for part in ("src", "."))
        self._process = subprocess.Popen(
            [python, str(PEER / "run.py"), engine, str(place), str(texts)],
            env={**os.environ, "PYTHONPATH": source, "TOKENIZERS_PARALLELISM": "true"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._answer()
        self.cold_start_ms = (time.perf_counter() - start) * 1000

    def ask(self, what: str, count: int) -> dict[str, float]:
        """Let it embed the first `count` texts; see run.py."""
        assert self._process.stdin is not None
        print(what, count, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("an engine ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(python: str, engine: str, place: Path, texts: Path) -> Iterator[Process]:
    """An engine's process, ended afterwards."""
    process = Process(python, engine, place, texts)
    try:
        yield process
    finally:
        process.close()


def peer_python() -> str:
    """The interpreter of the peer's environment, which is made if it is not there."""
    python = PEER / ".venv" / "bin" / "python"
    if not python.exists():
        print("Making the environment of sentence-transformers ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER / ".venv"], check=True)
        wanted = ["-r", str(PEER / "requirements.txt")]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True, stdout=sys.stderr)
    return str(python)


def read(conversations: int) -> tuple[list[tuple[int, str]], list[str], list[tuple[int, str, set[str]]]]:
    """Turns as (conversation, id), their texts, and questions as (conversation, text, ids of the evidence)."""
    turns, texts, questions = [], [], []
    for number, item in enumerate(json.loads(common.data_file("locomo_dev.json").read_text())[:conversations]):
        sessions = [value for value in item["conversation"].values() if isinstance(value, list)]
        for turn in (turn for session in sessions for turn in session):
            turns.append((number, turn["dia_id"]))
            texts.append(f"{turn['speaker']}: {turn['text']}")
        known = {name for conversation, name in turns if conversation == number}
        for asked in item["qa"]:
            gold = set(asked["evidence"]) & known
            if asked["category"] in COUNTED and gold:
                questions.append((number, asked["question"], gold))
    return turns, texts, questions


def recall(
    vectors: np.ndarray[Any, Any], turns: list[tuple[int, str]], questions: list[tuple[int, str, set[str]]], k: int = 10
) -> float:
    """Mean fraction of a question's gold turns among the k nearest; `vectors` holds the turns, then the questions."""
    conversations = np.array([conversation for conversation, _ in turns])
    found = []
    for i, (conversation, _, gold) in enumerate(questions):
        rows = np.flatnonzero(conversations == conversation)
        best = rows[np.argsort(-(vectors[rows] @ vectors[len(turns) + i]), kind="stable")[:k]]
        found.append(len(gold & {turns[row][1] for row in best}) / len(gold))
    return statistics.fmean(found)


def measure(process: Process, texts: int, singles: int) -> dict[str, float]:
    """One round of one engine."""
    batched = process.ask("batched", texts)
    one = process.ask("one", singles)
    return {
        "batched_per_s": texts / batched["seconds"],
        "batched_cpu_ms": batched["cpu_seconds"] / texts * 1000,
        "one_per_s": singles / one["seconds"],
        "peak_rss_mb": one["peak_rss_mb"],
    }


def run(*, quick: bool, peer: bool) -> dict[str, Any]:
    """All that is measured, nested by key."""
    turns, texts, questions = read(1 if quick else 5)
    found = weights.find()
    if found is None:
        raise common.DataMissingError("no weights of all-MiniLM-L6-v2 on this machine")
    everything = texts + [question for _, question, _ in questions]
    asked = [question for _, question, _ in questions][: 50 if quick else 200]
    MiniLM(found).embed(["builds the graph, if need be"])
    rounds = 2 if quick else 3
    engines = {"ours": (sys.executable, "tercet")}
    if peer:
        engines["peer"] = (peer_python(), "sentence_transformers")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file, short = Path(folder, "texts.json"), Path(folder, "questions.json")
        file.write_text(json.dumps(everything))
        short.write_text(json.dumps(asked))
        place = found.model.parent
        started = {who: stack.enter_context(running(*how, place, file)) for who, how in engines.items()}
        asking = {who: stack.enter_context(running(*how, place, short)) for who, how in engines.items()}
        count = 200 if quick else 600
        each = [{who: measure(process, count, count // 4) for who, process in started.items()} for _ in range(rounds)]
        queries = [{who: p.ask("one", len(asked))["median_ms"] for who, p in asking.items()} for _ in range(rounds)]
        result: dict[str, Any] = {"rounds": each}
        for who, process in started.items():
            result[who] = {name: statistics.median(r[who][name] for r in each) for name in each[0][who]}
            result[who]["query_ms"] = statistics.median(r[who] for r in queries)
            again = [] if who == "peer" else [cold_start(engines[who], place, file) for _ in range(rounds)]
            result[who]["cold_start_ms"] = statistics.median([process.cold_start_ms, *again])
            process.ask("save", len(everything))
        ours = np.load(Path(folder, "tercet.npy"))
        result["recall@10"] = {"ours": recall(ours, turns, questions)}
        if peer:
            result |= compare(result, ours, np.load(Path(folder, "sentence_transformers.npy")), len(texts))
            theirs = recall(np.load(Path(folder, "sentence_transformers.npy")), turns, questions)
            result["recall@10"] |= {"peer": theirs, "difference": result["recall@10"]["ours"] - theirs}
    return result | {"texts": len(texts), "questions": len(questions), "machine": common.machine()}


def cold_start(how: tuple[str, str], place: Path, texts: Path) -> float:
    """Milliseconds from the start of the process to the first vector."""
    with running(*how, place, texts) as process:
        return process.cold_start_ms


def compare(
    result: dict[str, Any], ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], texts: int
) -> dict[str, float]:
    """How the two relate: rates of the same round, and cosines of the same turn."""
    cosines = (ours[:texts] * theirs[:texts]).sum(axis=1)
    ratios = [each["ours"]["batched_per_s"] / each["peer"]["batched_per_s"] for each in result["rounds"]]
    return {
        "ratio_batched": statistics.median(ratios),
        "ratio_cpu": result["peer"]["batched_cpu_ms"] / result["ours"]["batched_cpu_ms"],
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
    }


def flat(result: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number, by its key with slashes."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def plot(result: dict[str, Any]) -> Path:
    """Rates and latencies side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(SPEEDS), figsize=(3 * len(SPEEDS), 3))
    for axis, name in zip(axes, SPEEDS, strict=True):
        bars = axis.bar(["Tercet", "sentence-\ntransformers"], [result[who][name] for who in ("ours", "peer")])
        axis.bar_label(bars, fmt="%.3g")
        axis.set_title(name)
    figure.tight_layout()
    path: Path = common.RESULTS / f"{NAME}.png"
    figure.savefig(path, dpi=120)
    return path


def main() -> int:
    """Measure, print, save; 2 where the data or the weights are absent."""
    arguments = common.parser(__doc__, KEYS).parse_args()
    wanted: list[str] = arguments.only
    try:
        result = run(quick=arguments.quick, peer=not all(key.startswith("ours") for key in wanted))
    except common.DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    common.save(NAME, result)
    if "peer" in result:
        print(f"plot: {plot(result)}", file=sys.stderr)
    kept = {
        k: v for k, v in result.items() if k in {w.split("/")[0] for w in wanted} | {"texts", "questions", "machine"}
    }
    if arguments.json:
        print(json.dumps(kept))
        return 0
    print(common.table(("key", "value", "goal"), ((key, value, GOALS.get(key, "")) for key, value in flat(kept))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
