"""Adapters in turn on one loaded base: time to attach, to switch and to serve, and whether memory stays flat.

`COUNT` adapters of random weights (rank 8, the MLP's linear modules of SmolLM2-135M-Instruct in bfloat16) are served
in turn, twice, with at most `RESIDENT` attached, as `AdapterMemory` keeps them. Files are PEFT's, in bfloat16. The
base is not reloaded and its scores are compared to the bit before and after.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import RESULTS, machine, parser, peak_rss_mb, save, table

COUNT, RESIDENT, RANK = 100, 8, 8
PROMPT = "Where does Mara Lindqvist live, and what does she do for a living?"


def rss_mb() -> float:
    """What is resident now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def measured(count: int) -> dict[str, Any]:
    """Serve `count` adapters in turn, twice."""
    import torch

    from tercet.engine.transformers import TransformersEngine
    from tercet.parametric.adapter import WEIGHTS, Adapter, Pair, load
    from tercet.parametric.adapter import save as save_adapter

    torch.set_num_threads(1)
    engine = TransformersEngine.load("smollm2-135m", dtype="bfloat16")
    prompt = engine.encode(engine.render([{"role": "user", "content": PROMPT}]))
    shapes = {name: shape for name, shape in engine.adapters.shapes.items() if ".mlp." in name}
    before = engine.run().extend(prompt)
    attach, switch, serve, memory = [], [], [], []
    base = []
    for _ in range(5):
        begin = time.perf_counter()
        engine.run().extend(prompt)
        base.append(time.perf_counter() - begin)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            draw = torch.Generator().manual_seed(number)
            pairs = {name: Pair(torch.randn(RANK, wide, generator=draw).bfloat16() / 24,
                                torch.randn(high, RANK, generator=draw).bfloat16() / 240)
                     for name, (high, wide) in shapes.items()}  # fmt: skip
            save_adapter(Adapter(pairs), Path(folder) / str(number), base="smollm2")
        size = (Path(folder) / "0" / WEIGHTS).stat().st_size
        held: OrderedDict[int, str] = OrderedDict()
        for number in [*range(count), *range(count)]:
            begin = time.perf_counter()
            held[number] = engine.adapters.attach(load(Path(folder) / str(number), engine.adapters.shapes).modules)
            attach.append(time.perf_counter() - begin)
            if len(held) > RESIDENT:
                engine.adapters.detach(held.popitem(last=False)[1])
            begin = time.perf_counter()
            with engine.adapters.using([held[number]]):
                switch.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                engine.run().extend(prompt)
                serve.append(time.perf_counter() - begin)
            memory.append(rss_mb())
    after = engine.run().extend(prompt)
    half = len(memory) // 2
    return {
        "adapters": count, "resident": RESIDENT, "attach_ms": median(attach) * 1e3, "switch_us": median(switch) * 1e6,
        "serve_ms": median(serve) * 1e3, "base_ms": median(base) * 1e3,
        "cost_of_an_adapter": median(serve) / median(base),
        "adapter_bytes": size, "rss_after_first_mb": memory[0], "rss_growth_second_round_mb": memory[-1] - memory[half],
        "peak_rss_mb": peak_rss_mb(), "base_identical": bool(torch.equal(before, after)), "rss_mb": memory,
    }  # fmt: skip


def main() -> int:
    """Print the table; save the rows and the plot."""
    given = parser(__doc__, ["swap"]).parse_args()
    found = measured(10 if given.quick else COUNT)
    document = {"machine": machine(), "swap": found}
    save("hot_swap", document)
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.plot(found["rss_mb"])
    axes.set(xlabel="request, each with another adapter", ylabel="resident memory, MB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(RESULTS / "hot_swap.png", dpi=120)
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    print(table(["measure", "value"], [[name, value] for name, value in found.items() if name != "rss_mb"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
