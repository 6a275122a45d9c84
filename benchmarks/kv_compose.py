"""Memories that were read alone, joined in one prompt: how near to a fresh prefill, and how soon the first token comes.

2, 4 and 8 stretches of LoCoMo conversations, together about `TOTAL` tokens, behind one opening; a question's tokens,
then `FORCED` tokens of conversation, teacher-forced. For each share computed anew: mean KL(exact || joined) and the
share of places where both put the same token first, over all forced tokens, and the time to the first token against a
full prefill of the same prompt, both in turn on the same clock. Computed in float32.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, machine, parser, save, table

from benchmarks import kv
from tercet.activation.compose import CHOICES, Piece, aside, blend
from tercet.engine.cache import KVCache
from tercet.engine.transformers import TransformersEngine

COUNTS, SHARES = (2, 4, 8), (0, 5, 15, 30, 100)
TOTAL, QUESTION, FORCED, PROMPTS = 1200, 20, 64, 8
OPENING = "<|im_start|>system\nYou are a helpful assistant. This is what you remember:\n"


def read(model: TransformersEngine, head: tuple[int, ...], text: tuple[int, ...], *, apart: bool) -> KVCache:
    """A memory's cache for joining: read behind the stand-in, or (`--alone`) at once behind the opening."""
    made = aside(model, head, text) if apart else None
    return made if made is not None else model.prefill((*head, *text))


def measured(
    model: TransformersEngine, count: int, shares: Sequence[int], prompts: int, choose: str,
    clock: Callable[[], float], *, apart: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each share, for so many memories."""
    head = model.encode(OPENING)
    held: dict[int, dict[str, list[float]]] = {share: {"kl": [], "top1": [], "ratio": []} for share in shares}
    for number in range(prompts):
        size = TOTAL // count
        texts = [kv.tokens(model, size, skip=(7 * number + 11 * part) % 90) for part in range(count)]
        caches = [model.prefill((*head, *texts[0])), *(read(model, head, text, apart=apart) for text in texts[1:])]
        pieces, at = list[Piece](), 0
        for cache in caches:
            pieces.append(Piece(cache, len(head) if pieces else 0, at))
            at = pieces[-1].end
        # What follows goes on from one of the memories, so that it can be told only by whoever remembers it.
        behind = kv.tokens(model, size + QUESTION + FORCED, skip=(7 * number + 11 * (number % count)) % 90)[size:]
        question, forced = behind[:QUESTION], behind[QUESTION:]
        prompt = (*head, *(token for text in texts for token in text), *question)
        begin = clock()
        run = model.run()
        run.extend(prompt)
        full = clock() - begin
        exact = run.extend(forced, every=True)
        for share in shares:
            begin = clock()
            joined, _ = blend(model, pieces, question, share=share, choose=choose)
            spent = clock() - begin
            kl, same = kv.compared(exact, joined.extend(forced, every=True))
            for key, value in (("kl", kl), ("top1", same), ("ratio", spent / full)):
                held[share][key].append(value)
    return [{"memories": count, "recompute": share, "kl": kv.mean(one["kl"]), "top1_agreement": kv.mean(one["top1"]),
             "ttft_ratio": median(one["ratio"])} for share, one in held.items()]  # fmt: skip


def main() -> int:
    words = parser(__doc__, [f"recompute_{share}" for share in SHARES])
    words.add_argument("--threads", type=int, help="torch's threads; all by default")
    words.add_argument("--choose", choices=[*CHOICES], default="asked")
    words.add_argument("--alone", action="store_true", help="caches that were read without the stand-in")
    words.add_argument("--prompts", type=int, default=PROMPTS)
    words.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = words.parse_args()
    try:
        kv.sessions()
    except DataMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    model = kv.engine("float32", args.threads)
    prompts = 1 if args.quick else args.prompts
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    shares = [share for share in SHARES if f"recompute_{share}" in args.only]
    rows = [
        row
        for count in COUNTS
        for row in measured(model, count, shares, prompts, args.choose, clock, apart=not args.alone)
    ]
    result: dict[str, Any] = {"rows": rows, "prompts": prompts, "choose": args.choose, "clock": args.clock,
                              "tokens": TOTAL, "machine": machine()}  # fmt: skip
    for share in shares:
        mine = [row for row in rows if row["recompute"] == share]
        result[f"recompute_{share}"] = {
            "kl": max(row["kl"] for row in mine),
            "top1_agreement": min(row["top1_agreement"] for row in mine),
            "ttft_ratio": max(row["ttft_ratio"] for row in mine),
        }
    result["alone"] = args.alone
    name = "_".join(
        ["kv_compose", *([args.choose] if args.choose != "asked" else []), *(["alone"] if args.alone else [])]
    )
    save(name, result)
    with kv.plot(name) as axes:
        for count in COUNTS:
            mine = [row for row in rows if row["memories"] == count]
            axes.plot(
                [row["recompute"] for row in mine], [row["top1_agreement"] for row in mine], "o-", label=f"{count}"
            )
        axes.set(xlabel="% computed anew", ylabel="top-1 agreement with a fresh prefill")
        axes.legend(title="memories")
    columns = ("memories", "recompute", "kl", "top1_agreement", "ttft_ratio")
    print(json.dumps(result) if args.json else table(columns, [[row[name] for name in columns] for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
