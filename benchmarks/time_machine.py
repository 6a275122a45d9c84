"""What a look into the past, a branch, a snapshot, a diff and a restore cost: `python benchmarks/time_machine.py`.

A scope of generated notes with vectors (a hash of the words: what is measured is the vault, not a model). Recalls of
the present and of the past take turns in one run; `changes` memories are revised between the moment looked at and now.
The first recall of a past works out what changed since, and the others find that done.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, percentile, save, store_bytes, table  # noqa: E402  # the path comes first

from tercet import Tercet  # noqa: E402
from tercet.scoped import ScopedMemory  # noqa: E402
from tercet.testing import FakeEmbedder  # noqa: E402

WORDS = ("boiler", "bicycle", "market", "lake", "soup", "daughter", "letter", "garden", "winter", "kitchen", "train")
BATCH = 5_000


def note(i: int) -> str:
    """A text of a few words that recur and a number that does not."""
    return f"Note {i}: the {WORDS[i % 11]} and the {WORDS[i // 11 % 11]}, near the {WORDS[i // 121 % 11]}."


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def recalls(now: ScopedMemory, past: ScopedMemory, asked: int) -> dict[str, float]:
    """p50 of recalls of both, in turns, and the first of the past, which works out what changed."""
    first = milliseconds(lambda: past.recall("where is the boiler?"))
    now.recall("warm")
    pairs = []
    for i in range(asked):
        question = f"the {WORDS[i % 11]} of note {i}"
        pairs.append([milliseconds(partial(scope.recall, question)) for scope in (now, past)])
    present, then = (percentile([pair[i] for pair in pairs], 50) for i in (0, 1))
    return {"now_p50_ms": present, "past_p50_ms": then, "ratio": then / present, "past_first_ms": first}


def run(rows: int, changes: tuple[int, ...], asked: int) -> dict[str, object]:
    """Fill a vault and measure; returns what was seen."""
    with tempfile.TemporaryDirectory(prefix="tercet-time-") as name, Tercet.open(name, embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        for start in range(0, rows, BATCH):
            alice.remember_many([note(i) for i in range(start, min(start + BATCH, rows))])
        t.work(until_idle=True)
        t.snapshot("begin")
        t.drop("begin")
        before = store_bytes(Path(name))
        snapshot = milliseconds(lambda: t.snapshot("full"))
        branch = milliseconds(lambda: t.branch("full branch"))
        grown = store_bytes(Path(name)) - before
        ids = [cube.id for cube in alice.list(limit=max(changes))]
        looks = {}
        for count in changes:
            since = t.snapshot(f"before {count}").seq
            for id in ids[:count]:
                alice.revise(id, "The boiler was changed, and changed again.")
            looks[str(count)] = recalls(alice, alice.as_of(known=since), asked)
        t.scope(user="alice", branch="full branch").revise(ids[0], "Changed on the branch.")
        looks["branch"] = recalls(alice, t.scope(user="alice", branch="full branch"), asked)
        last = f"before {changes[-1]}"
        return {
            "rows": rows,
            "snapshot_ms": snapshot,
            "branch_ms": branch,
            "snapshot_and_branch_bytes": grown,
            "past": looks,
            "diff_ms": milliseconds(lambda: t.diff(last)),
            "restore_ms": milliseconds(lambda: t.restore(last)),
            "restored": changes[-1],
            "machine": machine(),
        }


def main() -> int:
    """Parse the command line, run, print."""
    options = parser(__doc__).parse_args()
    result = run(5_000, (0, 10, 200), 15) if options.quick else run(100_000, (0, 100, 1_000), 40)
    save("time_machine", result)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    looks = result.pop("past")
    assert isinstance(looks, dict)
    columns = ["changed since", "now_p50_ms", "past_p50_ms", "ratio", "past_first_ms"]
    print(table(columns, [[name, *(look[key] for key in columns[1:])] for name, look in looks.items()]))
    print(table(["time machine", "value"], [(k, v) for k, v in result.items() if k != "machine"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
