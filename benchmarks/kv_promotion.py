"""The promotion policy on a simulated month of use: seconds saved, against never, always, LRU, and perfect hindsight.

Memories are used by Zipf's law, whose ranks drift: every day some memories change places. The policy looks every hour
at what the worker looks at (a count for each memory) and decides by the measured pace below. A use saves prefill less
load where the cache is there; making one costs, and keeping one costs its bytes by the day, in the same seconds.
`oracle` knows every use to come: it keeps a memory's cache over exactly those gaps that pay, and makes it anew where
that is dearer. Nothing here is fitted to the seeds: another seed or other numbers in the head give other months.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine, parser, save, table

from tercet.schedule.promotion import POLICY, Candidate, MeasuredCost, Pace, cooled

SEEDS, DAYS, CUBES, USES_A_DAY = (1, 2, 3, 4, 5), 30, 1000, 1000
EXPONENT, DRIFT = 1.0, 0.02
"""Zipf's exponent; the share of memories that change places with another every day."""
TOKENS = (60, 3000)
"""Memories' lengths, log-uniform."""
PACE = Pace(prefill=0.95e-3, load=0.03e-3, bytes=23_100.0)
"""SmolLM2-135M in bf16 on two cores."""
LRU_SHARE = 0.25
"""Of the bytes of all memories, that LRU may keep."""

Uses = list[tuple[float, int]]
"""(day, memory), in order."""
PRICES = (2.0, 50.0, 200.0)
"""Seconds a GB a day: from disk that is nearly free to disk that is dear."""
NAMES = ("never", "always", "lru", "measured", "oracle")


def month(seed: int, days: int) -> tuple[list[int], Uses]:
    """A month of use: tokens of each memory, and the uses."""
    chance = random.Random(seed)  # noqa: S311
    sizes = [round(math.exp(chance.uniform(*map(math.log, TOKENS)))) for _ in range(CUBES)]
    ranks = list(range(CUBES))
    chance.shuffle(ranks)
    weights = [(rank + 1) ** -EXPONENT for rank in range(CUBES)]
    uses = []
    for day in range(days):
        for _ in range(round(DRIFT * CUBES)):
            one, other = chance.randrange(CUBES), chance.randrange(CUBES)
            ranks[one], ranks[other] = ranks[other], ranks[one]
        times = sorted(day + chance.random() for _ in range(USES_A_DAY))
        uses += list(zip(times, chance.choices(ranks, weights, k=USES_A_DAY), strict=True))
    return sizes, uses


def saves(tokens: int) -> float:
    """Seconds that a use of a cache saves."""
    return tokens * (PACE.prefill - PACE.load)


def build(tokens: int) -> float:
    """Seconds that making one costs."""
    return tokens * PACE.prefill * POLICY.effort


def rent(tokens: int, days: float, policy: MeasuredCost) -> float:
    """Seconds that keeping one costs."""
    return tokens * PACE.bytes / 1e9 * policy.price * days


def always(sizes: list[int], uses: Uses, days: int, policy: MeasuredCost) -> float:
    """Every memory's cache is made at its first use and kept."""
    total, made = 0.0, set[int]()
    for when, n in uses:
        if n in made:
            total += saves(sizes[n])
        else:
            made.add(n)
            total -= build(sizes[n]) + rent(sizes[n], days - when, policy)
    return total


def lru(sizes: list[int], uses: Uses, days: int, policy: MeasuredCost) -> float:
    """Made at every use where it is not there, in a quarter of the bytes; the one used longest ago goes."""
    total, held, room = 0.0, OrderedDict[int, float](), LRU_SHARE * sum(sizes)
    for when, n in uses:
        if n in held:
            total += saves(sizes[n])
            held.move_to_end(n)
            continue
        total -= build(sizes[n])
        held[n] = when
        while sum(sizes[one] for one in held) > room:
            gone, since = held.popitem(last=False)
            total -= rent(sizes[gone], when - since, policy)
    return total - sum(rent(sizes[n], days - since, policy) for n, since in held.items())


def measured(sizes: list[int], uses: Uses, days: int, policy: MeasuredCost) -> float:
    """The policy as it ships, looked at every hour."""
    total, heats, fresh, held = 0.0, dict[int, float](), dict[int, int](), dict[int, float]()
    place = 0
    for hour in range(1, 24 * days + 1):
        now = hour / 24
        while place < len(uses) and uses[place][0] < now:
            n = uses[place][1]
            fresh[n] = fresh.get(n, 0) + 1
            total += saves(sizes[n]) if n in held else 0.0
            place += 1
        heats = {n: cooled(heat, 1 / 24, policy.half_life) for n, heat in heats.items()}
        for n, count in fresh.items():
            heats[n] = heats.get(n, 0.0) + count
        fresh = {}
        seen = [
            Candidate(str(n), sizes[n], heats.get(n, 0.0), kept=n in held) for n in sorted(heats.keys() | held.keys())
        ]
        up, down = policy.decide(seen, PACE)
        for n in map(int, up):
            held[n] = now
            total -= build(sizes[n])
        for n in map(int, down):
            total -= rent(sizes[n], now - held.pop(n), policy)
    return total - sum(rent(sizes[n], days - since, policy) for n, since in held.items())


def oracle(sizes: list[int], uses: Uses, days: int, policy: MeasuredCost) -> float:  # noqa: ARG001  # as the others
    """The best that could have been done: for each memory, which gaps between uses to keep its cache over."""
    times: dict[int, list[float]] = {}
    for when, n in uses:
        times.setdefault(n, []).append(when)
    total = 0.0
    for n, mine in times.items():
        without, having = 0.0, -build(sizes[n])  # after the first use: without a cache, and with one made then
        for before, now in pairwise(mine):
            kept = having + saves(sizes[n]) - rent(sizes[n], now - before, policy)
            without, having = max(without, kept), max(kept, without - build(sizes[n]))
        total += max(without, 0.0)
    return total


WAYS: Mapping[str, Callable[[list[int], Uses, int, MeasuredCost], float]] = {
    "never": lambda sizes, uses, days, policy: 0.0,  # noqa: ARG005  # as the others
    "always": always,
    "lru": lru,
    "measured": measured,
    "oracle": oracle,
}


def main() -> int:
    args = parser(__doc__, NAMES).parse_args()
    days = 7 if args.quick else DAYS
    months = [month(seed, days) for seed in (SEEDS[:1] if args.quick else SEEDS)]
    rows = []
    for price in PRICES:
        policy = replace(POLICY, price=price)
        saved = {name: [WAYS[name](*one, days, policy) for one in months] for name in NAMES}
        share = min(mine / best for mine, best in zip(saved["measured"], saved["oracle"], strict=True))
        means = {name: sum(saved[name]) / len(months) for name in args.only}
        rows.append({"price": price, **means, "share": share})
    result: dict[str, Any] = {
        "share_of_oracle": min(row["share"] for row in rows), "rows": rows, "days": days, "months": len(months),
        "policy": repr(POLICY), "pace": repr(PACE), "cubes": CUBES, "uses_a_day": USES_A_DAY, "exponent": EXPONENT,
        "drift": DRIFT, "machine": machine(),
    }  # fmt: skip
    save("kv_promotion", result)
    columns = ["price", *args.only, "share"]
    print(json.dumps(result) if args.json else table(columns, [[row[name] for name in columns] for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
