"""What fewer bits (and, with compressors, fewer rows) of a KV memory cost: bytes a token, agreement, KL; and a needle.

Each prompt is a stretch of a LoCoMo conversation. Its cache is packed, unpacked, and the conversation's own next tokens
are read over it (teacher-forced), beside the exact cache: mean KL(exact || packed) over all places, and the share of
places where both put the same token first. The needle test hides a code in a conversation and asks for it: the share of
the code's tokens that are put first. Computed in float32, so that nothing but the packing differs.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, machine, parser, save, table

from benchmarks import kv
from tercet.activation import pack
from tercet.activation.precision import PRECISIONS
from tercet.engine.cache import KVCache
from tercet.engine.transformers import TransformersEngine

PROMPTS, MEMORY, FORCED, NEEDLES = 50, 400, 64, 20
Variant = Callable[[KVCache], tuple[KVCache, int]]
"""A cache as it comes back after it was kept in some way, and the bytes that it took."""


def packed(name: str, model: TransformersEngine) -> Variant:
    """The cache after it was packed in a precision and unpacked."""

    def keep(cache: KVCache) -> tuple[KVCache, int]:
        data = bytearray()
        pack.write(cache, name, data.extend)
        return pack.read(data, most=1 << 20).cache(cache.model, model.dtype), len(data)

    return keep


def variants(model: TransformersEngine) -> dict[str, Variant]:
    """What is measured, by key."""
    return {name: packed(name, model) for name in PRECISIONS}


def fidelity(model: TransformersEngine, chosen: dict[str, Variant], prompts: int) -> dict[str, dict[str, float]]:
    """KL, agreement and bytes a token of each variant over all prompts."""
    found: dict[str, dict[str, list[float]]] = {name: {"kl": [], "top1_agreement": [], "bytes_per_token": []}
                                                for name in chosen}  # fmt: skip
    for number in range(prompts):
        text = kv.tokens(model, MEMORY + FORCED, skip=2 * number)
        memory, forced = text[:MEMORY], text[MEMORY:]
        cache = model.prefill(memory)
        exact = model.run(cache).extend(forced, every=True)
        for name, keep in chosen.items():
            kept, size = keep(cache)
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
        cache = model.prefill(model.encode("\n".join(lines)))
        answer = model.encode(code)
        asks = (*model.encode("\n- Note: the code of the boiler is "), *answer)
        held = {"exact": cache, **{name: keep(cache)[0] for name, keep in chosen.items()}}
        for name, one in held.items():
            scores = model.run(one).extend(asks, every=True)[-len(answer) - 1 : -1]
            right[name].append(float((scores.argmax(-1) == scores.new_tensor(answer)).double().mean()))
    return {name: kv.mean(values) for name, values in right.items()}


def main() -> int:
    words = parser(__doc__, [*PRECISIONS])
    words.add_argument("--threads", type=int, help="torch's threads; all by default")
    args = words.parse_args()
    try:
        kv.sessions()
    except DataMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    model = kv.engine("float32", args.threads)
    chosen = {name: one for name, one in variants(model).items() if name in args.only}
    prompts, needles = (4, 3) if args.quick else (PROMPTS, NEEDLES)
    result: dict[str, Any] = dict(fidelity(model, chosen, prompts))
    found = needle(model, chosen, needles)
    for name in chosen:
        result[name]["needle"] = found[name]
    result |= {"exact": {"needle": found["exact"]}, "prompts": prompts, "memory": MEMORY, "forced": FORCED,
               "machine": machine()}  # fmt: skip
    save("kv_fidelity", result)
    with kv.plot("kv_fidelity") as axes:
        for name in chosen:
            axes.plot(result[name]["bytes_per_token"], max(result[name]["kl"], 1e-9), "o")
            axes.annotate(name, (result[name]["bytes_per_token"], max(result[name]["kl"], 1e-9)))
        axes.set(xlabel="bytes a token", ylabel="KL to exact, nats", yscale="log")
    columns = ("bytes_per_token", "kl", "top1_agreement", "needle")
    rows = [[name, *(result[name][key] for key in columns)] for name in chosen]
    print(json.dumps(result) if args.json else table(["kept as", *columns], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
