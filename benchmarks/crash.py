"""Kill a writing process at random points, reopen the vault, and count what was lost: `python benchmarks/crash.py`.

A writer keeps single memories, batches, revisions, erasures, branches and restores, and says after each call that it
returned. It is killed with SIGKILL at a random point; then every acknowledged memory must be there once, as it was last
written, no erased one may be, and doctor must find nothing. The same vault is used throughout: later rounds open what
earlier ones left. With --travel it does nothing but branch, restore and drop.
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

from tercet.testing.crash import Book, kill_once  # noqa: E402


def run(kills: int, *, longest: float, travels: float = 0.1) -> dict[str, object]:
    """Kill that many writers of one vault; returns what was seen."""
    book, ended, failures, began = Book(), Counter[str](), list[str](), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tercet-crash-") as name:
        folder = Path(name)
        done = 0
        for seed in range(kills):
            try:
                ended[kill_once(folder, book, seed=seed, longest=longest, travels=travels)] += 1
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


def main() -> int:
    """Parse the command line, run, print; exit code 1 if anything was lost."""
    arguments = parser(__doc__)
    arguments.add_argument("--travel", action="store_true", help="kill only while it branches, restores and drops")
    arguments.add_argument("--kills", type=int, help="how many (default 60, with --quick 20)")
    options = arguments.parse_args()
    result = run(
        options.kills or (20 if options.quick else 60),
        longest=0.3 if options.quick else 1.0,
        travels=1.0 if options.travel else 0.1,
    )
    save("crash_travel" if options.travel else "crash", result)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        rows = [(key, value if isinstance(value, int | float) else json.dumps(value)) for key, value in result.items()]
        print(table(["crash", "value"], rows))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
