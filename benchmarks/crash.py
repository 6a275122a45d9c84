"""Kill a writing process at random points, reopen the vault, and count what was lost: `python benchmarks/crash.py`.

A writer keeps single memories, batches, revisions and erasures, and says after each call that it returned. It is killed
with SIGKILL at a random point; then every acknowledged memory must be there once, as it was last written, no erased one
may be, and doctor must find nothing. The same vault is used throughout: later rounds open what earlier ones left.
`--only erasing,scrub,sweep` kills within those: afterwards an erasure is undone or done, or its scrub is finished by a
job, and no byte of what was erased is left.
It shows what a killed process loses. What a power cut loses also depends on the disk; commits are synchronous (FULL).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, save, store_bytes, table  # noqa: E402  # the path comes first

from tercet.testing.crash import PHASES, Book, kill_in, kill_once  # noqa: E402


def run(kills: int, *, longest: float) -> dict[str, object]:
    """Kill that many writers of one vault; returns what was seen."""
    book, ended, failures, began = Book(), Counter[str](), list[str](), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tercet-crash-") as name:
        folder = Path(name)
        done = 0
        for seed in range(kills):
            try:
                ended[kill_once(folder, book, seed=seed, longest=longest)] += 1
            except AssertionError as error:
                failures.append(f"kill {seed}: {error}")
                break  # the book and the vault differ from here on
            finally:
                done += 1
        return {
            "kills": done,
            "acknowledged_calls": book.acknowledged,
            "memories": len(book.texts),
            "erased": len(book.erased),
            "killed_call": {name: ended[name] for name in ("done", "undone", "idle")},
            "lost_or_doubled": len(failures),
            "failures": failures,
            "store_bytes": store_bytes(folder),
            "seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
        }


def run_phase(phase: str, kills: int, *, longest: float) -> dict[str, object]:
    """Kill that many processes within a phase, all on one vault; returns what was seen."""
    book, ended, failures, done = Book(), Counter[str](), list[str](), 0
    with tempfile.TemporaryDirectory(prefix="tercet-crash-") as name:
        for seed in range(kills):
            done += 1
            try:
                ended[kill_in(phase, Path(name), book, seed=seed, longest=longest)] += 1
            except AssertionError as error:
                failures.append(f"kill {seed}: {error}")
                break
    return {"kills": done, "erased": len(book.erased), "ended": dict(ended), "failures": failures}


def main() -> int:
    """Parse the command line, run, print; exit code 1 if anything was lost."""
    arguments = parser(__doc__, ["writing", *PHASES])
    arguments.add_argument("--kills", type=int, help="how many (default 60, with --quick 20)")
    options = arguments.parse_args()
    kills, longest = options.kills or (20 if options.quick else 60), 0.3 if options.quick else 1.0
    result: dict[str, object] = run(kills, longest=longest) if "writing" in options.only else {"failures": []}
    for phase in [phase for phase in PHASES if phase in options.only]:
        found = run_phase(phase, options.kills or (5 if options.quick else 50), longest=longest)
        result[phase] = found
        result["failures"] = [*result["failures"], *found["failures"]]  # type: ignore[misc]  # lists, both
    save("crash", result)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        rows = [(key, value if isinstance(value, int | float) else json.dumps(value)) for key, value in result.items()]
        print(table(["crash", "value"], rows))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
