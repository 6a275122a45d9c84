"""Two users' disjoint facts, an adapter each, merged by every method: recall of both in other words, and general loss.

SmolLM2-135M-Instruct in float32 or bfloat16, whichever is quicker here; `COUNT` invented facts a user, about different
people; rank 16 on the MLP's modules, from the same first values. Each merge weighs both by 1 and is measured as it
would be served. `distance` is that of its deltas to the exact sum of both, relative to the sum. One seed: differences
of a few points mean nothing.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import each, machine, parser, peak_rss_mb, save, table
from benchmarks.invented import facts
from benchmarks.kv import quicker

COUNT, EPOCHS, RANK = 8, 8, 16
OPTIONS: dict[str, dict[str, Any]] = {
    "concatenate": {}, "svd": {"rank": RANK}, "linear": {}, "ties": {"rank": 2 * RANK}, "dare": {"rank": 2 * RANK},
}  # fmt: skip
NAMES = ("one", "other", *OPTIONS)


def rows(wanted: list[str], *, quick: bool) -> dict[str, Any]:
    """Each adapter alone and each merge."""
    import torch

    from tercet.cube import Behavioural, Descriptive, MemCube, Text
    from tercet.engine.transformers import TransformersEngine
    from tercet.parametric import samples
    from tercet.parametric.distil import distil
    from tercet.parametric.examples import answers, mean_loss
    from tercet.parametric.facts import read
    from tercet.parametric.gate import holds
    from tercet.parametric.general import MEASURED_TEXTS
    from tercet.parametric.merge import MERGES, concatenated
    from tercet.parametric.train import Recipe

    torch.set_num_threads(1)
    engine = TransformersEngine.load("smollm2-135m", dtype=quicker())
    count = 2 if quick else COUNT
    invented = facts(2 * count, seed=3)
    sets = [
        [fact for number, (_, text, _) in enumerate(part)
         for fact in read(MemCube(Text(text), Descriptive(id=str(number)), behavioural=Behavioural(version=1)))]
        for part in (invented[:count], invented[count:])
    ]  # fmt: skip
    recipe = Recipe(rank=RANK, targets="mlp", top=0.3, spare=1.0, epochs=EPOCHS)
    if quick:
        recipe = replace(recipe, epochs=1, wordings=2, replay=0.0)
    own = [distil(engine, part, recipe)[0] for part in sets]
    asked = [[one for one in samples.held_out(part) if one.kind == "ask"] for part in sets]
    exact = {name: pair.delta() for name, pair in concatenated([(one, 1.0) for one in own]).modules.items()}
    whole = sum(float(delta.square().sum()) for delta in exact.values()) ** 0.5
    texts = MEASURED_TEXTS[:2] if quick else MEASURED_TEXTS
    before = mean_loss(engine, texts)

    def row(name: str) -> dict[str, Any]:
        begin = time.process_time()
        alone = {"one": own[0], "other": own[1]}
        made = alone[name] if name in alone else MERGES[name]([(one, 1.0) for one in own], **OPTIONS[name])
        spent = time.process_time() - begin
        far = sum(float((made.modules[one].delta() - delta).square().sum()) for one, delta in exact.items()) ** 0.5
        key = engine.adapters.attach(made.modules)
        with engine.adapters.using([key]):
            told = [answers(engine, [one.question for one in part], max_tokens=16) for part in asked]
            after = mean_loss(engine, texts)
        engine.adapters.detach(key)
        recall = [
            sum(holds(said, one.gold) for said, one in zip(part, questions, strict=True)) / len(questions)
            for part, questions in zip(told, asked, strict=True)
        ]
        return {
            "recall_one": recall[0], "recall_other": recall[1], "general_loss_change": after / before - 1,
            "distance": far / whole, "rank": made.rank, "merge_cpu_seconds": spent,
        }  # fmt: skip

    return {**each(wanted, row), "peak_rss_mb": peak_rss_mb(), "facts_a_user": count}


def main() -> int:
    """Print the table; save the rows and the plot."""
    given = parser(__doc__, NAMES).parse_args()
    document = {"machine": machine(), **rows(given.only, quick=given.quick)}
    if not given.quick and set(given.only) == set(NAMES):
        save("merging", document)
        plot(document)
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    columns = ("recall_one", "recall_other", "general_loss_change", "distance", "rank", "merge_cpu_seconds")
    print(table(["adapter", *columns], [[name, *[document[name][one] for one in columns]] for name in given.only]))
    return 0


def plot(document: dict[str, Any]) -> None:
    """Recall of both users' facts, a pair of bars a method."""
    import matplotlib as mpl

    mpl.use("Agg")
    from benchmarks.common import RESULTS
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5))
    for shift, which in ((-0.2, "one"), (0.2, "other")):
        places = [place + shift for place in range(len(NAMES))]
        axes.bar(places, [document[name][f"recall_{which}"] for name in NAMES], width=0.4, label=f"facts of {which}")
    axes.set(xticks=range(len(NAMES)), xticklabels=NAMES, ylim=(0, 1), ylabel="recall in other words")
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "merging.png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
