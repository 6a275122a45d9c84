"""Facts that become weights: recall in other words, without the text, against text in the prompt and recall + prompt.

Each row teaches so many invented facts (benchmarks/invented.py, one seed) to SmolLM2-135M-Instruct in bfloat16
through `promote(…, to="parameters")` with the recipe below, and reports what the gate measured on the adapter as it
is served. The held-out questions are in wordings that no training question has. `cpu_seconds` is the honest cost
where the machine is shared; one thread is used, since two threads on a busy machine mostly wait for each other. The
two baselines read the texts: all of them in the prompt where they fit, and the eight that recall finds. They are
asked `ASKED` of the questions.
"""

# ruff: noqa: ANN401
from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import RESULTS, machine, parser, peak_rss_mb, save, table
from benchmarks.invented import facts

COUNTS = {"facts_20": 20, "facts_100": 100, "facts_400": 400}
RECIPE = {"rank": 16, "alpha": 32.0, "targets": "mlp", "lr": 2e-3, "batch": 2, "pack": 6}
EPOCHS = {20: 8, 100: 5, 400: 3}
"""Fewer where there are more facts: steps are what is paid for, and what teaches the form of an answer."""
ASKED = 30
SEED = 0


def row(count: int, engine: Any, *, quick: bool) -> dict[str, Any]:
    """One count of facts, taught, judged and compared."""
    from tercet import Tercet
    from tercet.errors import GateFailed
    from tercet.parametric.gate import Bounds
    from tercet.parametric.memory import REPORT, read_blob
    from tercet.parametric.promote import Teaching
    from tercet.parametric.train import Recipe

    with tempfile.TemporaryDirectory() as folder, Tercet.open(folder, engines={"small": engine}) as t:
        memory = t.scope(user="bench")
        cubes = memory.remember_many([sentence for _, sentence, _ in facts(count, seed=SEED)])

        def shown(done: int, planned: int) -> None:
            if done % 20 == 0 or done == planned:
                print(f"  {count} facts: step {done} of {planned}", file=sys.stderr, flush=True)

        recipe = Recipe(**RECIPE)  # type: ignore[arg-type]
        how = Teaching(replace(recipe, epochs=1 if quick else EPOCHS[count]), Bounds(questions=240), progress=shown)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            made: Any = memory.promote(cubes, to="parameters", teaching=how)
            report = json.loads(read_blob(t.vault.tenant("default"), made.payload, REPORT))
        except GateFailed as error:
            report = error.report
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found: dict[str, Any] = {
            "recall_reworded": report["recall"][1], "recall_base": report["recall"][0],
            "recall_reverse": (report["reverse"] or [None, None])[1], "locality": report["locality"],
            "general_loss_change": report["general_loss_change"], "leak": report["leak"],
            "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "peak_rss_mb": round(peak_rss_mb(), 1),
            "adapter_bytes": report["adapter_bytes"], "passed": report["passed"], "reasons": report["reasons"],
            "questions": report["questions"],
        }  # fmt: skip
        if "record" in report:
            found["record"] = report["record"]
        asked = [one for one in report["rows"] if one["kind"] == "ask"]
        asked = asked[:: max(1, len(asked) // ASKED)][:ASKED]
        found["text_in_context"] = in_context(engine, cubes, asked)
        found["recall_and_prompt"] = recalled(memory, asked)
        found["misses"] = [one for one in report["rows"] if not one["right"]][:40]
        return found


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


def plot(rows: dict[str, dict[str, Any]], name: str) -> None:
    """Recall against the number of facts."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    counts = [COUNTS[key] for key in rows]
    for measure, label in (("recall_reworded", "adapter, no text"), ("recall_reverse", "adapter, asked backwards"),
                        ("text_in_context", "all text in the prompt"), ("recall_and_prompt", "recall + prompt"),
                        ("recall_base", "base, no text")):  # fmt: skip
        axes.plot(counts, [rows[key][measure] for key in rows], marker="o", label=label)
    axes.set(xscale="log", xlabel="facts taught", ylabel="recall on held-out wordings", ylim=(-0.02, 1.02))
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


def main() -> int:
    """Print the table; save the rows and the plot."""
    given = parser(__doc__, COUNTS).parse_args()
    import torch

    from tercet.engine.transformers import TransformersEngine

    torch.set_num_threads(1)
    engine = TransformersEngine.load("smollm2-135m", dtype="bfloat16")
    rows = {key: row(COUNTS[key], engine, quick=given.quick) for key in given.only}
    document = {"machine": machine(), "recipe": RECIPE, "seed": SEED, "quick": given.quick, **rows}
    name = "facts" if len(rows) == len(COUNTS) else f"facts-{'-'.join(rows)}"
    save(name, document)
    plot(rows, name)
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    names = ("recall_reworded", "recall_reverse", "text_in_context", "recall_and_prompt", "locality",
             "general_loss_change", "leak", "cpu_seconds", "peak_rss_mb", "adapter_bytes", "passed")  # fmt: skip
    print(table(["measure", *rows], [[name, *[rows[key][name] for key in rows]] for name in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
