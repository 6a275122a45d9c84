"""Facts that become weights: recall in other words, without the text, against text in the prompt and recall + prompt.

Each row teaches so many invented facts (benchmarks/invented.py, one seed) to SmolLM2-135M-Instruct through
`promote(…, to="parameters")`, and reports what the gate measured on the adapter as it is served. The dtype is float32
or bfloat16, whichever this processor multiplies faster. The held-out questions are in wordings that no training
question has. `cpu_seconds` is the honest cost where the machine is shared; one thread is used, since two threads on a
busy machine mostly wait for each other. The two baselines read the texts: all of them in the prompt where they fit,
and the eight that recall finds; `recite_and_answer` reads what the adapter itself recites first, once it is verified,
and `recited` is how often it was. They are asked `ASKED` of the questions. `locomo` is a real conversation
(benchmarks/real_text.py).
"""

# ruff: noqa: ANN401
from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import RESULTS, DataMissingError, machine, parser, peak_rss_mb, save, table
from benchmarks.invented import facts
from benchmarks.kv import quicker

COUNTS = {"facts_20": 20, "facts_100": 100, "facts_400": 400}
TEXT = "locomo"
TEXT_RECIPE: dict[str, Any] = {"wordings": 5}
ASKED = 30
SEED = 0


def row(count: int, engine: Any, *, quick: bool) -> dict[str, Any]:
    """One count of facts, taught, judged and compared."""
    from tercet import Tercet

    with tempfile.TemporaryDirectory() as folder, Tercet.open(folder, engines={"small": engine}) as t:
        memory = t.scope(user="bench")
        cubes = memory.remember_many([sentence for _, sentence, _ in facts(count, seed=SEED)])
        made, found, report = taught(t, memory, cubes, {"epochs": 1} if quick else {})
        asked = [one for one in report["rows"] if one["kind"] == "ask"]
        asked = asked[:: max(1, len(asked) // ASKED)][:ASKED]
        found["text_in_context"] = in_context(engine, cubes, asked)
        found["recall_and_prompt"] = recalled(memory, asked)
        found["recite_and_answer"], found["recited"] = recited(memory, made.id, asked)
        found["misses"] = [one for one in report["rows"] if not one["right"]][:40]
        return found


def text_row(engine: Any, *, quick: bool) -> dict[str, Any]:
    """A real conversation's observations taught, its own questions asked in four ways."""
    from benchmarks.real_text import conversation, ways

    from tercet import Tercet

    told, asked = conversation(sessions=1 if quick else 4)
    with tempfile.TemporaryDirectory() as folder, Tercet.open(folder, engines={"small": engine}) as t:
        memory = t.scope(user="bench")
        cubes = memory.remember_many(told)
        made, found, _ = taught(t, memory, cubes, {**TEXT_RECIPE, **({"epochs": 1} if quick else {})})
        return {**found, "texts": len(told), "asked": len(asked), **ways(memory, made.id, asked)}


def taught(t: Any, memory: Any, cubes: Any, recipe: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The adapter, what the row tells of it, and the gate's report.

    The gate is opened, so that there is an adapter to measure; `passed` is what the default bounds say of it.
    """
    from tercet.parametric.gate import Bounds, reasons
    from tercet.parametric.memory import REPORT, read_blob
    from tercet.parametric.promote import Teaching
    from tercet.parametric.train import Recipe

    def shown(done: int, planned: int) -> None:
        if done % 10 == 0 or done == planned:
            print(f"  {len(cubes)} texts: step {done} of {planned}", file=sys.stderr, flush=True)

    how = Teaching(
        partial(Recipe.suited, **recipe), replace(Bounds(), margin=-1, general=math.inf, locality=0), progress=shown
    )
    wall, cpu = time.perf_counter(), time.process_time()
    made = memory.promote(cubes, to="parameters", teaching=how)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    report = json.loads(read_blob(t.vault.tenant("default"), made.payload, REPORT))
    refused = reasons(report, Bounds())
    found: dict[str, Any] = {
        "recall_reworded": report["recall"][1], "recall_base": report["recall"][0],
        "recall_reverse": (report["reverse"] or [None, None])[1], "locality": report["locality"],
        "locality_in_talk": report["locality_in_talk"],
        "strayed": report["strayed"],
        "locality_first_24": first(report["local"]), "known": report["known"],
        "general_loss_change": report["general_loss_change"], "leak": report["leak"],
        "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "peak_rss_mb": round(peak_rss_mb(), 1),
        "adapter_bytes": report["adapter_bytes"], "passed": not refused, "reasons": refused,
        "questions": report["questions"], "record": report["record"], "recipe": report["recipe"],
        "lost": [one for one in report["local"] if not one["right"]],
    }  # fmt: skip
    return made, found, report


def first(local: list[dict[str, Any]]) -> float:
    """Locality over the 24 questions that it was measured on before there were more."""
    from tercet.parametric.general import LOCAL_QUESTIONS

    old = {question for question, _ in LOCAL_QUESTIONS[:24]}
    right = [bool(one["right"]) for one in local if one["question"] in old]
    return sum(right) / len(right)


def in_context(engine: Any, cubes: Any, asked: list[dict[str, Any]]) -> float | None:
    """Recall with every text in the prompt; None where they are more than the model takes."""
    from tercet.parametric.gate import holds

    told = "You are a helpful assistant. This is what you remember:\n" + "\n".join(cube.text for cube in cubes)
    cache = engine.prefill(
        engine.encode(
            engine.render([{"role": "system", "content": told}, {"role": "user", "content": "?"}]).split("?<")[0]
        )
    )
    if len(cache.tokens) + 64 > engine.context:
        return None
    right = 0
    for one in asked:
        prompt = engine.encode(
            engine.render([{"role": "system", "content": told}, {"role": "user", "content": one["question"]}])
        )
        same = next(
            (n for n, (a, b) in enumerate(zip(cache.tokens, prompt, strict=False)) if a != b), len(cache.tokens)
        )
        run = engine.run(cache.prefix(same), room=64)
        right += holds("".join(run.pieces(run.extend(prompt[same:]), max_tokens=20)), one["gold"])
    return right / len(asked)


def recalled(memory: Any, asked: list[dict[str, Any]]) -> float:
    """Recall of a chat that finds eight texts for each question."""
    from tercet.parametric.gate import holds

    return sum(holds(memory.chat(one["question"], limit=8, max_tokens=20).text, one["gold"]) for one in asked) / len(
        asked
    )


def recited(memory: Any, adapter: str, asked: list[dict[str, Any]]) -> tuple[float, float]:
    """Recall of a chat that first recites from the adapter and reads nothing else, and how often something verified."""
    from tercet.parametric.gate import holds

    told = [memory.chat(one["question"], adapters=[adapter], recite=True, limit=0, max_tokens=20) for one in asked]
    right = sum(holds(reply.text, one["gold"]) for reply, one in zip(told, asked, strict=True))
    return right / len(asked), sum(bool(reply.recited) for reply in told) / len(asked)


def latest() -> dict[str, dict[str, Any]]:
    """The newest row of each count in the saved results: the counts together take hours, so a run may do one."""
    rows = dict[str, dict[str, Any]]()
    for path in sorted(RESULTS.glob("facts-*.json"), key=lambda one: one.stat().st_mtime):
        document = json.loads(path.read_text())
        rows |= {key: document[key] for key in COUNTS if key in document}
    return {key: rows[key] for key in COUNTS if key in rows}


def plot(rows: dict[str, dict[str, Any]]) -> None:
    """Recall against the number of facts."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    counts = [COUNTS[key] for key in rows]
    for measure, label in (("recall_reworded", "adapter, no text"), ("recall_reverse", "adapter, asked backwards"),
                        ("recite_and_answer", "adapter, recites first"), ("text_in_context", "all text in the prompt"),
                        ("recall_and_prompt", "recall + prompt"), ("recall_base", "base, no text")):  # fmt: skip
        axes.plot(counts, [rows[key][measure] for key in rows], marker="o", label=label)
    axes.set(xscale="log", xlabel="facts taught", ylabel="recall on held-out wordings", ylim=(-0.02, 1.02))
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))  # beside the lines, which fill the frame
    figure.tight_layout()
    figure.savefig(RESULTS / "facts.png", dpi=120)


def main() -> int:
    """Print the table; save the rows and the plot."""
    given = parser(__doc__, [*COUNTS, TEXT]).parse_args()
    import torch

    from tercet.engine.transformers import TransformersEngine

    torch.set_num_threads(1)
    dtype = quicker()
    engine = TransformersEngine.load("smollm2-135m", dtype=dtype)
    rows = {}
    try:
        for key in given.only:
            make = partial(text_row) if key == TEXT else partial(row, COUNTS[key])
            rows[key] = make(engine, quick=given.quick)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    document = {"machine": machine(), "dtype": dtype, "seed": SEED, "quick": given.quick, **rows}
    counted = {key: rows[key] for key in rows if key in COUNTS}
    if not given.quick:
        save(f"facts-{'-'.join(rows)}", document)
        plot(latest())
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    names = ("recall_reworded", "recall_reverse", "recite_and_answer", "recited", "text_in_context",
             "recall_and_prompt", "locality",
             "locality_first_24", "locality_in_talk", "general_loss_change", "leak", "strayed",
             "cpu_seconds", "peak_rss_mb", "adapter_bytes", "passed")  # fmt: skip
    if counted:
        print(table(["measure", *counted], [[name, *[one[name] for one in counted.values()]] for name in names]))
    if TEXT in rows:
        ways = ("base", "recall_and_prompt", "adapter", "adapter_and_recall")
        print(
            table([TEXT, "exact match", "F1"], [[way, *[rows[TEXT][way][m] for m in ("exact", "f1")]] for way in ways])
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
