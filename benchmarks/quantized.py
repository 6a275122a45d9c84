"""Quantised weights and memories: error, perplexity and recall against bits a weight.

    gauss_*      SeedLM's relative error on 200 Gaussian blocks (sigma 0.02), against the range of its sheet
    matrix_*     one matrix of SmolLM2-135M-Instruct (keys of a middle layer) coded; error, and perplexity with it
                 alone replaced. SeedLM codes no more than that here: the whole model would take hours
    model_*      all linear layers of the decoder by PEQA, untrained: perplexity
    memory_peqa  the same at 4 bits with a set of scales trained on facts: recall in other words, and the set's bytes
    adapter_*    an adapter that was taught the facts (rank 4, the MLP), kept in fewer bits: error, recall, bytes

In float32; perplexity on general text that is not trained on. `--quick` codes a part of it all.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import each, machine, parser, save, table
from benchmarks.invented import facts

COUNT, EPOCHS, MATRIX = 8, 10, "model.layers.15.self_attn.k_proj"
SHEET = {"4": (0.115, 0.128), "3": (0.218, 0.232)}
"""Bits -> the range in which the sheet found the error of 200 Gaussian blocks."""
BITS = ("bf16", "int8", "nf4", "seedlm_4", "seedlm_3")
NAMES = (
    "gauss_4", "gauss_3", *(f"matrix_{name}" for name in (*BITS[1:], "peqa_4", "peqa_3")),
    "model_float32", "model_peqa_8", "model_peqa_4", "model_peqa_3", "memory_peqa_4",
    *(f"adapter_{one}" for one in BITS),
)  # fmt: skip


def coder(bits: str) -> Any:  # noqa: ANN401  # imported when it is wanted
    """SeedLM with so many bits a weight."""
    from tercet.parametric.quant.seedlm import SeedLM

    return SeedLM() if bits == "4" else SeedLM(block=12, coefficients=4)


def kept(name: str, values: Any) -> tuple[Any, float]:  # noqa: ANN401  # tensors
    """A tensor as it comes back from a way to keep it, and the bits a value takes."""
    import torch

    from tercet.parametric.quant.blocks import CODECS
    from tercet.parametric.quant.peqa import Peqa

    if name == "bf16":
        return values.bfloat16().float(), 16.0
    if name in CODECS:
        parts = CODECS[name].encode(values)
        size = sum(part.numel() * part.element_size() for part in parts.values())
        return CODECS[name].decode(parts, tuple(values.shape)), 8 * size / values.numel()
    kind, bits = name.split("_")
    if kind == "peqa":
        made = Peqa(bits=int(bits)).quantise(values)
        return made.weight(), int(bits) + (16 + int(bits)) / 64
    seedlm = coder(bits)
    coded = seedlm.encode(values.numpy())
    return torch.from_numpy(seedlm.decode(coded)), seedlm.bits_per_weight


def far(back: Any, values: Any) -> float:  # noqa: ANN401  # tensors
    """The error, relative to the values."""
    return float((back - values).norm() / values.norm())


class Job:
    """The model, the facts, and what several rows share."""

    def __init__(self, *, quick: bool) -> None:
        import torch

        from tercet.cube import Behavioural, Descriptive, MemCube, Text
        from tercet.engine.transformers import TransformersEngine
        from tercet.parametric import samples
        from tercet.parametric.facts import read

        torch.set_num_threads(1)
        self.quick = quick
        self.engine = TransformersEngine.load("smollm2-135m")
        self.facts = [
            fact for number, (_, text, _) in enumerate(facts(1 if quick else COUNT, seed=1))
            for fact in read(MemCube(Text(text), Descriptive(id=str(number)), behavioural=Behavioural(version=1)))
        ]  # fmt: skip
        self.asked = [one for one in samples.held_out(self.facts) if one.kind == "ask"][: 2 if quick else None]
        self.adapter = cache(self._adapter)

    def perplexity(self) -> float:
        """Of the model as it is now."""
        from tercet.parametric.examples import mean_loss
        from tercet.parametric.general import MEASURED_TEXTS

        return math.exp(mean_loss(self.engine, MEASURED_TEXTS[: 1 if self.quick else None]))

    def recall(self) -> float:
        """Of the facts in other words, by the model as it is now."""
        from tercet.parametric.examples import answers
        from tercet.parametric.gate import holds

        told = answers(self.engine, [one.question for one in self.asked], max_tokens=4 if self.quick else 16)
        return sum(holds(said, one.gold) for said, one in zip(told, self.asked, strict=True)) / len(self.asked)

    def _adapter(self) -> Any:  # noqa: ANN401  # an Adapter
        from tercet.parametric.distil import distil
        from tercet.parametric.train import Recipe

        recipe = Recipe(rank=4, alpha=8, targets="mlp", top=0.3, epochs=1 if self.quick else EPOCHS, replay=0)
        return distil(self.engine, self.facts, recipe)[0]

    def gauss(self, bits: str) -> dict[str, Any]:
        """SeedLM on random blocks."""
        import numpy as np
        import torch

        draw = np.random.default_rng(0).normal(0, 0.02, (200, coder(bits).block))
        error = far(kept(f"seedlm_{bits}", torch.from_numpy(draw))[0], torch.from_numpy(draw))
        return {"bits": coder(bits).bits_per_weight, "relative_error": error, "sheet": SHEET[bits],
                "within_sheet": SHEET[bits][0] <= error <= SHEET[bits][1]}  # fmt: skip

    def matrix(self, name: str) -> dict[str, Any]:
        """One matrix coded, alone in the model."""
        import torch

        layer = self.engine.model.get_submodule(MATRIX)
        before = layer.weight.detach().clone()
        part = before[:2] if self.quick else before
        back, bits = kept(name, part)
        with torch.no_grad():
            layer.weight[: len(part)] = back
            found = {"bits": bits, "relative_error": far(back, part), "perplexity": self.perplexity()}
            layer.weight.copy_(before)
        return found

    def model(self, name: str) -> dict[str, Any]:
        """All linear layers by PEQA, no scale trained."""
        if name == "float32":
            return {"bits": 32.0, "perplexity": self.perplexity()}
        with self.quantised(int(name.removeprefix("peqa_"))):
            return {
                "bits": int(name.removeprefix("peqa_")) + (16 + int(name[-1])) / 64,
                "perplexity": self.perplexity(),
            }

    def quantised(self, bits: int) -> Any:  # noqa: ANN401  # a context
        """The engine's linear layers by PEQA, while it lasts."""
        from contextlib import contextmanager

        from tercet.parametric.quant.peqa import Peqa

        model = self.engine.model
        names = [name for name in self.engine.adapters.shapes if not self.quick or ".15." in name]

        @contextmanager
        def call() -> Any:  # noqa: ANN401
            before = {name: model.get_submodule(name) for name in names}
            try:
                yield Peqa(bits=bits).attach(model, names)
            finally:
                for name, layer in before.items():
                    parent, _, last = name.rpartition(".")
                    setattr(model.get_submodule(parent), last, layer)

        return call()

    def memory(self, name: str) -> dict[str, Any]:
        """Scales trained on the facts."""
        import torch

        from tercet.parametric import samples
        from tercet.parametric.examples import conversation, losses

        taught = [conversation(self.engine, [(one.question, one.answer)]) for one in samples.training(self.facts)]
        with self.quantised(int(name[-1])) as layers:
            trained = [layer.relative for layer in layers.values()]
            optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0)
            before, steps = self.recall(), 0
            for _ in range(1 if self.quick else EPOCHS):
                for start in range(0, len(taught), 4):
                    optimizer.zero_grad()
                    loss, _ = losses(self.engine, taught[start : start + 4])
                    loss.backward()
                    optimizer.step()
                    steps += 1
            count = sum(one.numel() for one in trained)
            return {"bits": 4 + 20 / 64, "recall_before": before, "recall_reworded": self.recall(), "steps": steps,
                    "trained": count, "bytes": 4 * count, "perplexity": self.perplexity()}  # fmt: skip

    def kept_adapter(self, name: str) -> dict[str, Any]:
        """The adapter as it comes back from a way to keep it."""
        from tercet.parametric.adapter import Adapter, Pair

        made, bits, values, errors, sizes = {}, 0.0, 0, 0.0, 0.0
        pairs = list(self.adapter().modules.items())
        for module, pair in pairs[: 1 if self.quick else None]:
            (a, of_a), (b, of_b) = kept(name, pair.a.float()), kept(name, pair.b.float())
            made[module] = Pair(a, b, pair.scale)
            bits += of_a * a.numel() + of_b * b.numel()
            values += a.numel() + b.numel()
            errors += float((made[module].delta() - pair.delta()).square().sum())
            sizes += float(pair.delta().square().sum())
        key = self.engine.adapters.attach(Adapter(made).modules)
        with self.engine.adapters.using([key]):
            recall = self.recall()
        self.engine.adapters.detach(key)
        return {"bits": bits / values, "relative_error": (errors / sizes) ** 0.5, "recall_reworded": recall,
                "bytes": round(bits / 8)}  # fmt: skip


def main() -> int:
    """Print the table; save the rows and the plot."""
    given = parser(__doc__, NAMES).parse_args()
    job = Job(quick=given.quick)
    kinds: dict[str, Callable[[str], dict[str, Any]]] = {
        "gauss": job.gauss, "matrix": job.matrix, "model": job.model, "memory": job.memory, "adapter": job.kept_adapter,
    }  # fmt: skip

    def row(name: str) -> dict[str, Any]:
        kind, _, rest = name.partition("_")
        begin = time.process_time()
        return kinds[kind](rest) | {"cpu_seconds": time.process_time() - begin}

    rows = each(given.only, row)
    document = {"machine": machine(), **rows}
    if not given.quick and set(given.only) == set(NAMES):
        save("quantized", document)
        plot(rows)
    if given.json:
        print(json.dumps(document, indent=1))
        return 0
    columns = ("bits", "relative_error", "perplexity", "recall_reworded", "bytes", "cpu_seconds")
    print(table(["row", *columns], [[name, *[found.get(one) for one in columns]] for name, found in rows.items()]))
    return 0


def plot(rows: dict[str, dict[str, Any]]) -> None:
    """Recall of adapters, and error of one matrix, against bits."""
    import matplotlib as mpl

    mpl.use("Agg")
    from benchmarks.common import RESULTS
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    for axes, kind, what in ((left, "adapter", "recall_reworded"), (right, "matrix", "relative_error")):
        for name, found in rows.items():
            if name.startswith(kind):
                axes.plot(found["bits"], found[what], "o")
                axes.annotate(name.removeprefix(f"{kind}_"), (found["bits"], found[what]), (0, -6),
                              textcoords="offset points", rotation=45, ha="right", va="top", fontsize=8)  # fmt: skip
        axes.set(xlabel="bits a weight", ylabel=f"{kind}: {what.replace('_', ' ')}", ylim=(0, None), xlim=(0, None))
    figure.tight_layout()
    figure.savefig(RESULTS / "quantized.png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
