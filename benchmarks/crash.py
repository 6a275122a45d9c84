"""Kill a working process at random points, reopen the vault, and count what was lost: `python benchmarks/crash.py`.

A process keeps single memories, batches, revisions and erasures, and says after each call that it returned; in between
it makes indexes, rewrites them, makes backups, moves all vectors to another embedding space, branches and restores,
erases, scrubs or sweeps, by row of the table. It is killed with SIGKILL at a random point; then every acknowledged
memory must be there once, as it was last written, no erased one may be, no call half done, a backup whole or none, a
move must go on, and doctor must find nothing; of what was erased no byte may be left once its job has run. The same
vault is used throughout a row: later rounds open what earlier ones left.

It shows what a killed process loses. What a power cut loses also depends on the disk; commits are synchronous (FULL).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, save, store_bytes, table  # noqa: E402  # the path comes first

from tercet.testing import crash, kills  # noqa: E402
from tercet.testing.crash import Book  # noqa: E402

KILLERS: dict[str, Callable[..., str]] = {
    **{deed: partial(kills.kill_once, deed=deed) for deed in kills.DEEDS},
    "travelling": partial(crash.kill_once, travels=1.0),
    **{phase: partial(crash.kill_in, phase) for phase in crash.PHASES},
}
"""Row -> what kills one process within it and checks the vault."""


def run(deed: str, kills: int) -> dict[str, object]:
    """Kill that many processes at work on one vault; returns what was seen."""
    book, ended, failures, began = Book(), Counter[str](), list[str](), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tercet-crash-") as name:
        folder = Path(name) / "vault"
        done = 0
        for seed in range(kills):
            try:
                ended[KILLERS[deed](folder, book, seed=seed)] += 1
            except Exception as error:  # noqa: BLE001  # whatever it is, it is counted and shown
                failures.append(f"kill {seed}: {error!r}")
                break  # the book and the vault differ from here on
            finally:
                done += 1
        return {
            "kills": done,
            "acknowledged_calls": book.acknowledged,
            "memories": len(book.texts),
            "erased": len(book.erased),
            "killed_in": {name: ended[name] for name in sorted(ended)},
            "lost_or_doubled": len(failures),
            "failures": failures,
            "store_bytes": store_bytes(folder),
            "seconds": round(time.perf_counter() - began, 1),
        }


def main() -> int:
    """Parse the command line, run, print; exit code 1 if anything was lost."""
    arguments = parser(__doc__, KILLERS)
    arguments.add_argument("--kills", type=int, help="how many for each row (default 200, with --quick 8)")
    options = arguments.parse_args()
    result: dict[str, object] = {"machine": machine()}
    rows: list[tuple[str, object]] = []
    failed = False
    for deed in options.only:
        kills = options.kills or (8 if options.quick else 200)
        row = run(deed, kills)
        result[deed] = row
        failed = failed or bool(row["failures"])
        rows += [(f"{deed}: {key}", v if isinstance(v, int | float) else json.dumps(v)) for key, v in row.items()]
        save("crash", result)
    print(json.dumps(result, indent=1) if options.json else table(["crash", "value"], rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
