"""Eight processes write, read, revise and erase in one folder at once: `python benchmarks/processes.py --seconds 600`.

Each tells the others what it was told: what is kept, and what is erased. Any of them may then look for it: what was
acknowledged to one must be read by all, in its newest version, and what was erased by none, by id, in a list or by
recall. No call may raise, least of all for a lock. In the end every acknowledged write is there, and doctor is content.
Limits of large vaults are made small, so that segments are made and rewritten all the while.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, save, store_bytes, table  # noqa: E402  # the path comes first

from tercet.testing.crowd import gather  # noqa: E402


def main() -> int:
    """Parse the command line, run, print; exit code 1 if anything went wrong."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, help="how long (default 600, with --quick 20)")
    arguments.add_argument("--processes", type=int, default=8)
    options = arguments.parse_args()
    seconds, failures, began = options.seconds or (20 if options.quick else 600), list[str](), time.perf_counter()
    result: dict[str, object] = {"seconds_asked": seconds}
    with tempfile.TemporaryDirectory(prefix="tercet-crowd-") as name:
        try:
            result |= gather(Path(name), processes=options.processes, seconds=seconds)
        except AssertionError as error:
            failures.append(str(error))
        result |= {"store_bytes": store_bytes(Path(name)), "failures": failures}
    result |= {"seconds": round(time.perf_counter() - began, 1), "machine": machine()}
    save("processes", result)
    rows = [(key, value if isinstance(value, int | float) else json.dumps(value)) for key, value in result.items()]
    print(json.dumps(result, indent=1) if options.json else table(["processes", "value"], rows))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
