"""What fewer bits, and fewer rows, of a KV memory cost: bytes a token, agreement, KL; and a needle.

Each prompt is a stretch of a LoCoMo conversation. Its cache is packed, unpacked, and the conversation's own next tokens
are read over it (teacher-forced), beside the exact cache: mean KL(exact || packed) over all places, and the share of
places where both put the same token first. The needle test hides a code in a conversation and asks for it: the share of
the code's tokens that are put first. Computed in float32, so that nothing but the packing differs.

Compressors (`snap-kv_25`: a quarter of the rows) see the memory alone, never what comes; packed in bf16. `reform`
sees what comes: the question of the needle test, and the first 16 of the conversation's next tokens, which is an
advantage; its bytes are those of the whole cache in bf16, since it needs that to choose from.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, machine, parser, save, table

from benchmarks import kv
from tercet.activation import pack
from tercet.activation.compress import COMPRESSORS
from tercet.activation.compress.apply import compress
from tercet.activation.compress.base import LayerView
from tercet.activation.compress.views import views
from tercet.activation.gather import gather
from tercet.activation.precision import PRECISIONS
from tercet.engine.cache import KVCache
from tercet.engine.transformers import TransformersEngine

PROMPTS, MEMORY, FORCED, NEEDLES, AHEAD = 50, 400, 64, 50, 16
BUDGETS = (50, 25, 10)
"""Rows kept, per cent."""
KEYS = (*PRECISIONS, *(f"{name}_{budget}" for name in (*COMPRESSORS, "reform") for budget in BUDGETS))


@dataclass(frozen=True, slots=True)
class Seen:
    """A memory's exact cache, its layers as compressors see them, and the words that will be asked of it."""

    cache: KVCache
    layers: Sequence[LayerView]
    question: Sequence[int]


Variant = Callable[[Seen], tuple[KVCache, int]]
"""A cache as it comes back after it was kept in some way, and the bytes that it took."""


def observed(model: TransformersEngine, memory: Sequence[int], question: Sequence[int]) -> Seen:
    """One prefill."""
    cache, queries = model.observe(memory)
    return Seen(cache, views(model, cache, queries), question)


def packed(model: TransformersEngine, cache: KVCache, name: str) -> tuple[KVCache, int]:
    """The cache after it was packed in a precision and unpacked."""
    data = bytearray()
    pack.write(cache, name, data.extend)
    return pack.read(data, most=1 << 20).cache(cache.model, model.dtype), len(data)


def variant(model: TransformersEngine, key: str) -> Variant:
    """What a key of `KEYS` means."""
    if key in PRECISIONS:
        return lambda seen: packed(model, seen.cache, key)
    name, budget = key.rsplit("_", 1)
    share = int(budget) / 100

    def reform(seen: Seen) -> tuple[KVCache, int]:
        whole, size = packed(model, seen.cache, "bf16")
        return gather(model, whole, seen.question, share=share), size

    def fewer(seen: Seen) -> tuple[KVCache, int]:
        return packed(model, compress(seen.cache, seen.layers, COMPRESSORS[name], share=share), "bf16")

    return reform if name == "reform" else fewer


def fidelity(model: TransformersEngine, chosen: dict[str, Variant], prompts: int) -> dict[str, dict[str, float]]:
    """KL, agreement and bytes a token of each variant over all prompts."""
    found: dict[str, dict[str, list[float]]] = {name: {"kl": [], "top1_agreement": [], "bytes_per_token": []}
                                                for name in chosen}  # fmt: skip
    for number in range(prompts):
        text = kv.tokens(model, MEMORY + FORCED, skip=2 * number)
        memory, forced = text[:MEMORY], text[MEMORY:]
        seen = observed(model, memory, forced[:AHEAD])
        exact = model.run(seen.cache).extend(forced, every=True)
        for name, keep in chosen.items():
            kept, size = keep(seen)
            kl, same = kv.compared(exact, model.run(kept).extend(forced, every=True))
            for key, value in (("kl", kl), ("top1_agreement", same), ("bytes_per_token", size / MEMORY)):
                found[name][key].append(value)
    return {name: {key: kv.mean(values) for key, values in held.items()} for name, held in found.items()}


def needle(model: TransformersEngine, chosen: dict[str, Variant], count: int) -> dict[str, float]:
    """The share of a hidden code's tokens that are put first, by variant; "exact" is the cache itself."""
    chance, right = random.Random(7), {name: list[float]() for name in ["exact", *chosen]}  # noqa: S311
    for number in range(count):
        code = f"{chance.randrange(1000, 9999)}"
        lines = model.decode(kv.tokens(model, MEMORY, skip=3 * number)).split("\n")
        place = chance.randrange(1, max(2, len(lines) - 1))
        lines.insert(place, f"- Note: the code of the boiler is {code}.")
        answer, question = model.encode(code), model.encode("\n- Note: the code of the boiler is ")
        asks, seen = (*question, *answer), observed(model, model.encode("\n".join(lines)), question)
        held = {"exact": seen.cache, **{name: keep(seen)[0] for name, keep in chosen.items()}}
        for name, one in held.items():
            scores = model.run(one).extend(asks, every=True)[-len(answer) - 1 : -1]
            right[name].append(float((scores.argmax(-1) == scores.new_tensor(answer)).double().mean()))
    return {name: kv.mean(values) for name, values in right.items()}


def draw(result: dict[str, Any], names: Sequence[str]) -> None:
    """KL against bytes a token; one line for each compressor."""
    with kv.plot("kv_fidelity") as axes:
        lines: dict[str, list[str]] = {}
        for name in names:
            lines.setdefault(name.rsplit("_", 1)[0], []).append(name)
        for label, those in lines.items():
            x = [result[name]["bytes_per_token"] for name in those]
            y = [max(result[name]["kl"], 1e-9) for name in those]
            axes.plot(x, y, "s" if label in PRECISIONS else "o-", label=label, markersize=4)
        axes.set(xlabel="bytes a token", ylabel="KL to exact, nats", yscale="log")
        axes.legend(fontsize=7)


def main() -> int:
    words = parser(__doc__, KEYS)
    words.add_argument("--threads", type=int, help="torch's threads; all by default")
    words.add_argument("--prompts", type=int, default=PROMPTS, help=f"stretches of conversation; {PROMPTS} by default")
    words.add_argument("--needles", type=int, default=NEEDLES, help=f"hidden codes; {NEEDLES} by default")
    args = words.parse_args()
    try:
        kv.sessions()
    except DataMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    model = kv.engine("float32", args.threads)
    chosen = {name: variant(model, name) for name in args.only}
    prompts, needles = (1, 1) if args.quick else (args.prompts, args.needles)
    result: dict[str, Any] = dict(fidelity(model, chosen, prompts))
    found = needle(model, chosen, needles)
    for name in chosen:
        result[name]["needle"] = found[name]
    result |= {"exact": {"needle": found["exact"]}, "prompts": prompts, "needles": needles, "memory": MEMORY,
               "forced": FORCED, "machine": machine()}  # fmt: skip
    save("kv_fidelity", result)
    draw(result, list(chosen))
    columns = ("bytes_per_token", "kl", "top1_agreement", "needle")
    rows = [[name, *(result[name][key] for key in columns)] for name in chosen]
    print(json.dumps(result) if args.json else table(["kept as", *columns], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
