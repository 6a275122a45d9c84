"""Cut the power, fill the disk, flip bytes; count what was lost: `python benchmarks/power_loss.py`.

`power`: random histories (remember, revise, forget, vectors, reopening) on a recorded disk. The power is cut twice in
each: what was synced stays, of the rest each write is kept, dropped or torn at 512-byte sectors, by a seeded choice.
Whatever was acknowledged must be there, nothing half there, nothing erased, no scrubbed byte in any file.
`full`, `fails`: the n-th call to the disk raises ENOSPC (once, or until space is freed) or EIO, for many n.
`damage`: bytes of any file are flipped, overwritten, zeroed, swapped or cut off; every call must then answer as before
or raise, and doctor must notice whatever has changed. It shows what SQLite and the checks above it catch; a cut in the
model is as rough as POSIX allows, a real disk may be kinder or, if it lies about its cache, worse.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, save, table  # noqa: E402  # the path comes first

from tercet.testing.damage import Judge, damage, prepare  # noqa: E402
from tercet.testing.faults import CHANGES, DiskFailed, DiskFull  # noqa: E402
from tercet.testing.histories import Fault, endure, survive  # noqa: E402

Row = dict[str, Any]


def fresh(folder: Path) -> Path:
    """An empty folder, with nothing beside it."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def power(folder: Path, histories: int) -> Row:
    """Random histories, each cut twice."""
    within, failures = Counter[bool](), list[str]()
    for seed in range(histories):
        try:
            within.update(survive(fresh(folder / "vault"), seed, 12, vectors=seed % 2 == 1))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is counted and shown
            failures.append(f"history {seed}: {error!r}")
    found = {"found_done": within[True], "found_undone": within[False]}
    return {
        "runs": histories,
        "cuts": 2 * histories,
        "cuts_within_a_call": within.total(),
        **found,
        "failures": failures,
    }


def failing(folder: Path, runs: int, *faults: Fault) -> Row:
    """Short histories, a call further on failing in each."""
    done, failures, seed = 0, list[str](), 0
    while done < runs:
        never = Fault(10**9, faults[0].error, calls=faults[0].calls)
        calls = endure(fresh(folder / "vault"), seed, 6, never, vectors=seed % 2 == 1)
        for nth in range(1 + seed % 7, calls + 1, 7):
            fault = faults[done % len(faults)]
            one = Fault(nth, fault.error, fault.times, fault.calls)
            try:
                endure(fresh(folder / "vault"), seed, 6, one, vectors=seed % 2 == 1)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is counted and shown
                failures.append(f"history {seed}, call {nth}, {one.error.__name__}: {error!r}")
            done += 1
            if done == runs:
                break
        seed += 1
    return {"runs": done, "failures": failures}


def damaged(folder: Path, runs: int) -> Row:
    """One file damaged in each run."""
    sound = prepare(folder / "sound")
    seen, failures = Counter[str](), list[str]()
    for seed in range(runs):
        vault = folder / "vault"
        shutil.rmtree(vault, ignore_errors=True)
        shutil.copytree(sound.killed if seed % 2 else sound.closed, vault)
        done = damage(vault, seed)
        verdict = Judge(vault, sound.held).judge()
        failures += [f"{seed}, {done}: {fault}" for fault in verdict.faults]
        seen["noticed"] += verdict.noticed
        seen["noticed_and_mended"] += verdict.mended
        seen["without_any_effect"] += not verdict.noticed and not verdict.errors
    return {"runs": runs, **seen, "failures": failures}


ROWS: dict[str, Callable[[Path, bool], Row]] = {
    "power": lambda folder, quick: power(folder, 100 if quick else 1000),
    "full": lambda folder, quick: failing(folder, 60 if quick else 1000, Fault(0, DiskFull), Fault(0, DiskFull, 10**9)),
    "fails": lambda folder, quick: failing(
        folder, 40 if quick else 500, Fault(0, DiskFailed, calls=frozenset(CHANGES | {"read"}))
    ),
    "damage": lambda folder, quick: damaged(folder, 100 if quick else 1000),
}


def main() -> int:
    """Parse the command line, run, print; exit code 1 if a promise was broken."""
    arguments = parser(__doc__, ROWS)
    options = arguments.parse_args()
    logging.getLogger("tercet").setLevel(logging.CRITICAL)  # what fails here was made to fail
    result: dict[str, Any] = {"machine": machine()}
    for key in options.only:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="tercet-power-") as name:
            row = ROWS[key](Path(name) / key, options.quick)
        result[key] = {**row, "broken_promises": len(row["failures"]), "seconds": round(time.perf_counter() - began, 1)}
    save("power_loss", result)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        rows = [
            (f"{key}: {name}", value if isinstance(value, int | float) else json.dumps(value))
            for key in options.only
            for name, value in result[key].items()
        ]
        print(table(["power_loss", "value"], rows))
    return 1 if any(result[key]["failures"] for key in options.only) else 0


if __name__ == "__main__":
    sys.exit(main())
