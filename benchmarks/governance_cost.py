"""What access rules cost: recall and ingest with 20 rules against none, in one run: `benchmarks/governance_cost.py`.

Two vaults hold the same memories; in one, the tenant's file has 20 rules (roles, tags, sensitivity, types, purposes,
hours, networks, two users) and every twentieth memory grants somebody a right. A nurse may see about four fifths; the
administrator all, although there are rules to judge: with the same rows in both, nothing but the rules differs. Each
question and each batch goes to both, in turn, the order changing every time, so that both meet the same machine; the
ratio is that of the medians. What a caller's first recall takes, which judges every memory once, is told apart. Two
guests read one user's memories by a grant; one of these counts, so that each recall waits for the disk.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, percentile, save, table  # noqa: E402

from tercet import Caller, Tercet  # noqa: E402
from tercet.cube import (  # noqa: E402
    Descriptive,
    Governance,
    Grant,
    MemCube,
    Sensitivity,
    Text,
)
from tercet.govern.rules import Rule  # noqa: E402
from tercet.scope import Scope  # noqa: E402
from tercet.testing import FakeEmbedder  # noqa: E402

ROOT = Caller("root", purpose="upkeep")
GUEST, COUNTED = Caller("guest", purpose="visit"), Caller("counted", purpose="visit")
"""Of whom no rule speaks: each reads one user's memories by a grant, the second by one that counts."""
NURSE = Caller("ann", purpose="care", roles={"nurse", "staff"}, network="10.1.2.3")
USERS = ("alice", "bob", "carol", "dave")
TAGS = ("home", "work", "health", "money", "travel", "family", "legal", "sealed")
TYPES = ("fact", "preference", "event", "message")
RULES = (
    Rule("allow", "root", {"administer", "read", "write", "revise", "forget", "share"}),
    Rule("allow", "role:nurse", {"read", "write"}, max_sensitivity=Sensitivity.PRIVATE, purposes={"care"}),
    Rule("allow", "role:staff", {"read"}, types={"event", "message"}),
    Rule("allow", "role:staff", {"write"}, max_sensitivity=Sensitivity.PRIVATE),
    Rule("allow", "*", {"read", "write", "revise", "forget"}, own=True),
    Rule("allow", "role:doctor", {"read", "write", "revise"}, purposes={"care"}),
    Rule("allow", "role:billing", {"read"}, tags={"money"}, purposes={"billing"}),
    Rule("allow", "role:legal", {"read"}, tags={"legal"}, hours=(8, 18)),
    Rule("allow", "auditor", {"read"}, networks={"192.0.2.0/24"}),
    Rule("allow", "role:nurse", {"read"}, user="bob", tags={"family"}),
    Rule("allow", "role:nurse", {"revise"}, types={"event"}, tags={"health"}),
    Rule("allow", "ann", {"forget"}, user="alice", session="draft"),
    Rule("deny", "*", {"read", "write"}, tags={"sealed"}, purposes={"marketing"}),
    Rule("deny", "role:nurse", {"read"}, tags={"legal"}, user="carol"),
    Rule("deny", "role:staff", {"read"}, min_sensitivity=Sensitivity.SECRET),
    Rule("deny", "role:contractor", {"read", "write"}, networks={"0.0.0.0/0"}),
    Rule("deny", "role:nurse", {"read"}, tags={"money", "sealed"}, types={"preference"}),
    Rule("deny", "*", {"read"}, kinds={"parameters"}),
    Rule("deny", "role:staff", {"forget"}, min_sensitivity=Sensitivity.PRIVATE),
    Rule("deny", "mallory", {"read", "write", "revise", "forget", "promote", "share", "administer"}),
)
WORDS = [f"{a}{b}" for a in ("bo", "ga", "so", "tra", "pia", "win", "su", "let", "doc", "tic", "blu", "os") for b in
         ("iler", "rden", "up", "in", "no", "ter", "mmer", "tor", "ket", "lo", "gen", "pan")]  # fmt: skip


def drafts(count: int, dice: random.Random) -> list[MemCube]:
    """Memories of several users, tags, types and sensitivities; one in twenty grants ann the right to read it."""
    made = []
    for i in range(count):
        text = f"{' '.join(dice.choices(WORDS, k=20))} number {i}"
        sensitivity = dice.choices(list(Sensitivity), [2, 4, 13, 1])[0]
        access = frozenset({Grant("ann", "read")}) if i % 20 == 0 else frozenset[Grant]()
        described = Descriptive(type=dice.choice(TYPES), tags=tuple(dice.sample(TAGS, 2)))
        scope = Scope(user=dice.choice(USERS))
        made.append(MemCube(Text(text), described, Governance(scope, access=access, sensitivity=sensitivity)))
    return made


def run(cubes: int, questions: int, *, singles: int) -> dict[str, object]:
    """Fill both vaults, then ask both; returns the figures."""
    dice = random.Random(7)  # noqa: S311  # repeatable data
    with tempfile.TemporaryDirectory(prefix="tercet-cost-") as name:
        vaults = [Tercet.open(Path(name) / kind, embedder=FakeEmbedder(384)) for kind in ("without", "with")]
        try:
            for rule in RULES:
                vaults[1].admin(by=ROOT).add_rule(rule)
            callers = [ROOT, ROOT]
            batches = ingest(vaults, callers, drafts(cubes, dice), 100)
            one_by_one = ingest(vaults, callers, drafts(singles, dice), 1)
            # The nurse writes, too: for her the rules have something to judge.
            hers = [draft for draft in drafts(cubes // 4, dice) if not draft.governance.access]
            hers = [draft for draft in hers if draft.governance.sensitivity <= Sensitivity.PRIVATE]
            judged = ingest(vaults, [NURSE, NURSE], hers, 100)
            judged_one = ingest(vaults, [NURSE, NURSE], hers[:singles], 1)
            for t in vaults:
                t.work(until_idle=True)  # the index of a large vault
            asked = {
                "every user, all seen": recalls(vaults, [ROOT, ROOT], questions, dice),
                "every user": recalls(vaults, [NURSE, NURSE], questions, dice),
                "one user": recalls(vaults, [NURSE, NURSE], questions, dice, user="alice"),
                "every user, by words": recalls(vaults, [NURSE, NURSE], questions, dice, policy="words"),
            }
            vaults[1].scope(user="alice", by=ROOT).share(with_="guest", everything=True, purpose="visit")
            vaults[1].scope(user="alice", by=ROOT).share(with_="counted", everything=True, reads=1_000_000)
            asked |= {
                "one user, lent": recalls(vaults, [GUEST, GUEST], questions, dice, user="alice"),
                "one user, lent and counted": recalls(vaults, [COUNTED, COUNTED], questions, dice, user="alice"),
            }
            seen = vaults[1].scope(by=NURSE).list(limit=1).total / vaults[0].scope(by=NURSE).list(limit=1).total
            calls = {
                "get": others(vaults, dice, "get", questions),
                "list": others(vaults, dice, "list", questions),
            }
        finally:
            for t in vaults:
                t.close()
    return {
        "cubes": cubes,
        "rules": len(RULES),
        "share_seen": round(seen, 3),
        "recall": asked,
        "ingest": {
            "batches of 100, administrator": batches,
            "batches of 100, nurse": judged,
            "one by one, administrator": one_by_one,
            "one by one, nurse": judged_one,
        },
        "calls": calls,
        "machine": machine(),
    }


def ingest(vaults: list[Tercet], callers: list[Caller], made: list[MemCube], size: int) -> dict[str, float]:
    """Cubes a second of both, and what the rules cost in percent, by the clock and by the processor."""
    spent: list[list[float]] = [[], []]
    worked: list[list[float]] = [[], []]
    for place, start in enumerate(range(0, len(made), size)):
        part = made[start : start + size]
        for which in (0, 1) if place % 2 else (1, 0):
            memory = vaults[which].scope(by=callers[which])
            began, at = time.perf_counter(), time.process_time()
            memory.remember_many(part)
            spent[which].append(time.perf_counter() - began)
            worked[which].append(time.process_time() - at)
    # Medians: a call that waits for the disk says nothing of rules.
    without, ruled = (median(one) for one in spent)
    return {
        "per_second_without": round(size / without, 1),
        "per_second_with": round(size / ruled, 1),
        "cost_percent": round(100 * (ruled / without - 1), 2),
        "processor_cost_percent": round(100 * (median(worked[1]) / median(worked[0]) - 1), 2),
    }


def recalls(
    vaults: list[Tercet],
    callers: list[Caller],
    count: int,
    dice: random.Random,
    *,
    user: str | None = None,
    policy: str | None = None,
) -> dict[str, float]:
    """Milliseconds of recall in both, and what the rules cost in percent of the median."""
    memories = [t.scope(user=user, by=by) for t, by in zip(vaults, callers, strict=True)]
    first = []
    for memory in memories:
        began = time.perf_counter()
        memory.recall("boiler", policy=policy)
        first.append(time.perf_counter() - began)
    spent: list[list[float]] = [[], []]
    for place in range(count):
        question = " ".join(dice.choices(WORDS, k=4))
        for which in (0, 1) if place % 2 else (1, 0):
            began = time.perf_counter()
            memories[which].recall(question, policy=policy)
            spent[which].append(time.perf_counter() - began)
    return {**_figures(spent), "first_ms_without": round(1e3 * first[0], 3), "first_ms_with": round(1e3 * first[1], 3)}


def others(vaults: list[Tercet], dice: random.Random, name: str, count: int) -> dict[str, float]:
    """Milliseconds of `get` or `list` in both."""
    memories = [t.scope(by=NURSE) for t in vaults]
    ids = [[cube.id for cube in memory.list(limit=1000)] for memory in memories]
    spent: list[list[float]] = [[], []]
    for place in range(count):
        for which in (0, 1) if place % 2 else (1, 0):
            id = dice.choice(ids[which])
            began = time.perf_counter()
            if name == "get":
                memories[which].get(id)
            else:
                memories[which].list(limit=10)
            spent[which].append(time.perf_counter() - began)
    return _figures(spent)


def _figures(spent: list[list[float]]) -> dict[str, float]:
    without, ruled = (1e3 * median(one) for one in spent)
    return {
        "p50_ms_without": round(without, 4),
        "p50_ms_with": round(ruled, 4),
        "p95_ms_without": round(1e3 * percentile(spent[0], 95), 4),
        "p95_ms_with": round(1e3 * percentile(spent[1], 95), 4),
        "cost_percent": round(100 * (ruled / without - 1), 2),
    }


def main() -> int:
    """Parse the command line, run, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--cubes", type=int, help="memories (default 20,000, with --quick 2,000)")
    options = arguments.parse_args()
    cubes = options.cubes or (2_000 if options.quick else 20_000)
    result = run(cubes, 100 if options.quick else 400, singles=100 if options.quick else 500)
    save("governance_cost", result)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{cubes:,} memories, {len(RULES)} rules; the caller sees {result['share_seen']:.1%}\n")
    rows = []
    for group in ("recall", "ingest", "calls"):
        for name, found in result[group].items():  # type: ignore[attr-defined]
            unit = [value for key, value in found.items() if key.startswith(("p50", "per_second"))]
            rows.append((f"{group}: {name}", *unit, found["cost_percent"], found.get("processor_cost_percent")))
    print(table(["ms of the median call, or memories a second", "without", "with", "cost %", "of processor"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
