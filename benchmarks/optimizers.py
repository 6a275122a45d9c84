"""One job of facts, each optimiser: final loss, recall in other words, bytes of state a parameter, peak memory, time.

Rank-16 adapters on the MLP of the upper layers of SmolLM2-135M-Instruct (float32 or bfloat16, whichever is quicker
here; adapters and state in float32), eight invented facts, the same conversations in the same order; each optimiser
with the learning rate that it has for low-rank pairs (`FOR_PAIRS`, found on other facts). The rows `full-NAME` train
every weight of the model instead, in float32, for `STEPS` steps on general text: what that takes. Each row runs in a
process of its own, so that its peak memory is its own. One seed, so differences of a few points mean nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import each, machine, parser, peak_rss_mb, save, table
from benchmarks.invented import facts
from benchmarks.kv import quicker

NAMES = ("adamw", "adafactor", "galore", "apollo", "apollo-mini", "sgd-sai")
FULL = tuple(f"full-{name}" for name in NAMES)
COUNT, EPOCHS, STEPS = 8, 8, 50


def row(name: str, *, quick: bool) -> dict[str, Any]:
    """One optimiser's job."""
    import torch

    from tercet.cube import Behavioural, Descriptive, MemCube, Text
    from tercet.engine.transformers import TransformersEngine
    from tercet.parametric import samples
    from tercet.parametric.distil import distil
    from tercet.parametric.examples import answers
    from tercet.parametric.facts import read
    from tercet.parametric.gate import holds
    from tercet.parametric.optim import FOR_PAIRS
    from tercet.parametric.train import Recipe

    torch.set_num_threads(1)
    engine = TransformersEngine.load("smollm2-135m", dtype=quicker())
    found = [
        fact for number, (_, text, _) in enumerate(facts(COUNT, seed=1))
        for fact in read(MemCube(Text(text), Descriptive(id=str(number)), behavioural=Behavioural(version=1)))
    ]  # fmt: skip
    recipe = Recipe(optimizer=name, targets="mlp", top=0.3, epochs=1 if quick else EPOCHS, replay=0)
    wall, cpu = time.perf_counter(), time.process_time()
    adapter, record = distil(engine, found, recipe)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    values = sum(pair.a.numel() + pair.b.numel() for pair in adapter.modules.values())
    asked = [one for one in samples.held_out(found) if one.kind == "ask"]
    with engine.adapters.using([engine.adapters.attach(adapter.modules)]):
        told = answers(engine, [one.question for one in asked], max_tokens=16)
    return {
        "final_loss": record.epoch_losses[-1],
        "recall_reworded": sum(holds(said, one.gold) for said, one in zip(told, asked, strict=True)) / len(asked),
        "state_bytes_per_parameter": record.state_bytes / values, "peak_rss_mb": peak_rss_mb(), "steps": record.steps,
        "seconds": wall, "cpu_seconds": cpu, "lr": FOR_PAIRS.get(name),
    }  # fmt: skip


def full(name: str, *, quick: bool) -> dict[str, Any]:
    """Every weight of the model trained by one optimiser."""
    import torch

    from tercet.engine.transformers import TransformersEngine
    from tercet.parametric.examples import losses, plain
    from tercet.parametric.general import REPLAY_TEXTS
    from tercet.parametric.optim import OPTIMIZERS
    from tercet.parametric.optim.base import state_bytes

    torch.set_num_threads(1)
    engine = TransformersEngine.load("smollm2-135m")
    named = list(engine.model.named_parameters())
    optimizer = replace(OPTIMIZERS[name](), lr=1e-5).optimizer(named)  # type: ignore[type-var]
    texts = [plain(engine, text) for text in REPLAY_TEXTS]
    wall, cpu, told = time.perf_counter(), time.process_time(), list[float]()
    for step in range(2 if quick else STEPS):
        example = texts[step % len(texts)]
        optimizer.zero_grad(set_to_none=True)
        loss = losses(engine, [example])[0] / len(example.marks)
        loss.backward()
        optimizer.step()
        told.append(float(loss.detach()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    values = sum(one.numel() for _, one in named)
    return {
        "final_loss": told[-1], "recall_reworded": None, "state_bytes_per_parameter": state_bytes(optimizer) / values,
        "peak_rss_mb": peak_rss_mb(), "steps": len(told), "seconds": wall, "cpu_seconds": cpu, "lr": 1e-5,
    }  # fmt: skip


def apart(name: str, *, quick: bool) -> dict[str, Any]:
    """A row by a process of its own, whose peak memory is the row's alone."""
    command = [sys.executable, __file__, "--only", name, "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)[name]
    return found


def main() -> int:
    """Print the table; save the rows."""
    given = parser(__doc__, [*NAMES, *FULL]).parse_args()
    if len(given.only) == 1:
        [name] = given.only
        whole = name.removeprefix("full-")
        rows = {name: row(name, quick=given.quick) if name in NAMES else full(whole, quick=given.quick)}
    else:
        rows = each(given.only, partial(apart, quick=given.quick))
    document = {"machine": machine(), **rows}
    if len(rows) > 1:
        save("optimizers", document)
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    names = ("final_loss", "recall_reworded", "state_bytes_per_parameter", "peak_rss_mb", "steps", "cpu_seconds")
    print(table(["optimiser", *names], [[name, *[found[one] for one in names]] for name, found in rows.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
