"""LoCoMo: remember conversations, ask their questions, and see at which ranks the evidence turns come.

The data set is licensed for non-commercial use; it measures and is not shipped.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import InvalidRequest
from tercet.evaluate.abstain import Abstention, measure
from tercet.evaluate.metrics import DEPTH, Outcome, by_category, curve, interval, outcome, summary
from tercet.kernel import Tercet
from tercet.scope import Scope
from tercet.text.prepare import space_of
from tercet.text.read.locomo import Question, Sample, locomo_samples
from tercet.text.recall.fit import Labelled, fit, label
from tercet.text.recall.policies import Policy
from tercet.text.recall.recall import ask, find_policy

CATEGORIES = (1, 2, 3, 4)
ONE_BY_ONE = 300
"""Turns kept one at a time to measure that."""
BASELINES = ("words", "vectors")

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Run:
    """What one evaluation measured; `outcomes` has one entry a question for each policy asked."""

    policy: str
    fitted_on: str
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    turns: int = 0
    ingest_per_s: float = 0.0
    ingest_one_per_s: float = 0.0
    store_bytes: int = 0
    abstention: Abstention = field(default_factory=Abstention)

    def report(self) -> dict[str, Any]:
        """One flat mapping, as `--json` prints it."""
        own = self.outcomes[self.policy]
        low, high = interval(own)
        return {
            "policy": self.policy,
            "fitted_on": self.fitted_on,
            "turns": self.turns,
            **summary(own),
            "recall@10_interval": [low, high],
            "by_category": by_category(own),
            **self.abstention.report(),
            "ingest_per_s": round(self.ingest_per_s, 1),
            "ingest_one_per_s": round(self.ingest_one_per_s, 1),
            "recall_p50_ms": round(float(np.percentile(self.seconds, 50)) * 1000, 3),
            "recall_p95_ms": round(float(np.percentile(self.seconds, 95)) * 1000, 3),
            "store_bytes": self.store_bytes,
            "peak_rss_mb": round(_peak_rss_mb(), 1),
            "baselines": {name: summary(found) for name, found in self.outcomes.items() if name != self.policy},
        }


def evaluate(
    path: str | Path,
    *,
    policy: str | None = None,
    leave_one_out: bool = False,
    baselines: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Remember every conversation of a LoCoMo file in a fresh vault and ask each question that has evidence.

    Parameters
    ----------
    leave_one_out
        Fit the policy's weights anew for each conversation, on the others only.
    baselines
        Ask by words alone and by vectors alone, too.

    Raises
    ------
    InvalidRequest
        If the file is no LoCoMo file, or has a single conversation and one is to be left out.
    """
    samples = locomo_samples(path)
    if leave_one_out and len(samples) < 2:
        raise InvalidRequest("Leaving one conversation out needs at least two.")
    chosen = find_policy(policy)
    name = policy or "default"
    run = Run(name, "the other conversations of the file" if leave_one_out else chosen.fitted_on)
    tell = progress or (lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="tercet-eval-") as folder:
        with Tercet.open(Path(folder) / "one") as tercet:
            _warm_up(tercet)
            run.ingest_one_per_s = _ingest_one_by_one(tercet, samples, tell)
        with Tercet.open(Path(folder) / "all") as tercet:
            _warm_up(tercet)
            run.ingest_per_s = _ingest(tercet, samples, tell)
            run.turns = sum(_turns(sample) for sample in samples)
            fitted = (
                _fit_others(tercet, samples, chosen, tell) if leave_one_out else dict.fromkeys(_ids(samples), chosen)
            )
            run.outcomes[name] = _ask(tercet, samples, fitted, run.seconds, tell)
            tell("asking what is not told", 0, 1)
            run.abstention = measure(tercet, samples, fitted, leave_one_out=leave_one_out)
            for other in BASELINES if baselines else ():
                same = dict.fromkeys(_ids(samples), find_policy(other))
                run.outcomes[other] = _ask(tercet, samples, same, None, tell)
        run.store_bytes = sum(file.stat().st_size for file in (Path(folder) / "all").rglob("*") if file.is_file())
    return run


def asked(sample: Sample) -> list[Question]:
    """The questions of a sample that count: categories 1 to 4, with at least one evidence turn that exists."""
    refs = {message.ref for talk in sample.conversations for message in talk.messages}
    return [q for q in sample.questions if q.category in CATEGORIES and refs & set(q.evidence)]


def table(run: Run) -> str:
    """The report for a person: each policy with its interval, then the categories, then speed and size."""
    columns = ["policy", "recall@5", "recall@10", "95 % interval", "recall@20", "recall_all@10", "hit@10", "mrr"]
    rows = []
    for name, found in run.outcomes.items():
        low, high = interval(found)
        s = summary(found)
        values = [s["recall@5"], s["recall@10"], f"{low:.3f} to {high:.3f}", s["recall@20"]]
        rows.append([name, *values, s["recall_all@10"], s["hit@10"], s["mrr"]])
    lines = [_line(columns), *(_line(row) for row in rows), ""]
    report = run.report()
    lines.append(f"fitted on: {run.fitted_on}")
    for category, s in report["by_category"].items():
        lines.append(
            f"category {category}: {s['questions']} questions, recall@10 {s['recall@10']:.3f}, "
            f"all evidence {s['recall_all@10']:.3f}"
        )
    if (auroc := report["abstention_auroc"]) is not None:
        lines.append(
            f"evidence tells what is answered from what is not: AUROC {auroc:.3f} on category 5, "
            f"{report['abstention_auroc_elsewhere'] or 0:.3f} on questions about another conversation"
        )
    lines.append(
        f"{run.turns} turns; {report['ingest_per_s']}/s in batches, {report['ingest_one_per_s']}/s one at a time; "
        f"recall {report['recall_p50_ms']} ms p50, {report['recall_p95_ms']} ms p95; "
        f"{report['store_bytes'] / 1e6:.1f} MB on disk, {report['peak_rss_mb']} MB of memory at most"
    )
    return "\n".join(lines)


def plot(run: Run, file: str | Path) -> None:
    """Draw recall against k. Raises InvalidRequest where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidRequest("Plots need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, found in run.outcomes.items():
        axes.plot(range(1, DEPTH + 1), curve(found), label=name)
    axes.set(xlabel="k", ylabel="recall@k (mean fraction of evidence turns)", ylim=(0, 1), title="LoCoMo, turn level")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


def _warm_up(tercet: Tercet) -> None:
    # Loading the model is start-up, which its own benchmark measures; a rate should not depend on the file's length.
    if tercet.embedder is not None:
        tercet.embedder.embed(["warm"])


def _ingest(tercet: Tercet, samples: Sequence[Sample], tell: Progress) -> float:
    began = time.perf_counter()
    for done, sample in enumerate(samples, 1):
        scope = tercet.scope(user=sample.id)
        scope.remember_many([message for talk in sample.conversations for message in talk.messages])
        tell("remembering", done, len(samples))
    return sum(_turns(sample) for sample in samples) / (time.perf_counter() - began)


def _ingest_one_by_one(tercet: Tercet, samples: Sequence[Sample], tell: Progress) -> float:
    turns = [(s.id, message) for s in samples for talk in s.conversations for message in talk.messages][:ONE_BY_ONE]
    began = time.perf_counter()
    for done, (user, message) in enumerate(turns, 1):
        tercet.scope(user=user).remember(message)
        tell("remembering one by one", done, len(turns))
    return len(turns) / (time.perf_counter() - began)


def _ask(
    tercet: Tercet,
    samples: Sequence[Sample],
    policies: dict[str, Policy],
    seconds: list[float] | None,
    tell: Progress,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for sample in samples:
        scope, policy = tercet.scope(user=sample.id), policies[sample.id]
        refs = {message.ref for talk in sample.conversations for message in talk.messages}
        scope.recall("warm", policy=policy)
        for question in asked(sample):
            began = time.perf_counter()
            scope.recall(question.question, limit=10, policy=policy)
            if seconds is not None:
                seconds.append(time.perf_counter() - began)
            hits = scope.recall(question.question, limit=DEPTH, policy=policy)
            gold = [ref for ref in question.evidence if ref in refs]
            outcomes.append(outcome(question.category, gold, [hit.cube.ref for hit in hits]))
        tell("asking", len(outcomes), sum(len(asked(one)) for one in samples))
    return outcomes


def _fit_others(tercet: Tercet, samples: Sequence[Sample], policy: Policy, tell: Progress) -> dict[str, Policy]:
    """For each sample the policy with weights fitted on all the other samples."""
    examples: dict[str, list[Labelled]] = {}
    for sample in samples:
        scope = Scope(user=sample.id)
        tenant = tercet.vault.tenant(scope.tenant)
        with tenant.reading() as reader:
            view = tenant.view(reader, scope, space_of(tercet.embedder))
            rows = {cube.ref: row for row, cube in enumerate(reader.cubes([int(n) for n in view.numbers]))}
            found = []
            for question in asked(sample):
                gold = [rows[ref] for ref in question.evidence if ref in rows]
                a = ask(question.question, view, tercet.embedder)
                found.append(label(a.question, view, policy, gold, vector=a.vector, tokens=a.tokens))
        examples[sample.id] = found
        tell("reading labels", len(examples), len(samples))
    return {
        left_out: fit([one for other, found in examples.items() if other != left_out for one in found], policy)
        for left_out in examples
    }


def _ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def _turns(sample: Sample) -> int:
    return sum(len(talk.messages) for talk in sample.conversations)


def _line(values: Sequence[object]) -> str:
    texts = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]
    return f"{texts[0]:<14}" + "".join(f"{text:>18}" for text in texts[1:])


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
