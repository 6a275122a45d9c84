"""How long Tercet takes to start: `import tercet` and `tercet --help`, beside a Python that does nothing.

Each figure is the wall time of a whole process, from its start to its end. The three are run in turn, round after
round, so that a busy machine slows all of them alike; the median is reported, and the ratio to `python -c pass`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine, parser, save, table

ROUNDS, ROUNDS_QUICK = 41, 9
LIMITS_MS = {"import": 150.0, "help": 250.0}


def commands() -> dict[str, list[str]]:
    """What is timed, by name. `tercet --help` runs the installed script, as a user would."""
    script = shutil.which("tercet", path=str(Path(sys.executable).parent))
    asks = [script] if script else [sys.executable, "-m", "tercet"]
    return {
        "pass": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import tercet"],
        "help": [*asks, "--help"],
    }


def measure(rounds: int) -> dict[str, float]:
    """Median wall time of each command in milliseconds, over `rounds` rounds after one that warms the disk's cache."""
    asked = commands()
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        for name, command in asked.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:
                taken[name].append((time.perf_counter() - begin) * 1000)
    return {name: median(times) for name, times in taken.items()}


def main() -> int:
    args = parser(__doc__).parse_args()
    rounds = ROUNDS_QUICK if args.quick else ROUNDS
    ms = measure(rounds)
    result = {
        "pass_ms": round(ms["pass"], 1),
        **{f"{name}_ms": round(ms[name], 1) for name in LIMITS_MS},
        **{f"{name}_ratio": round(ms[name] / ms["pass"], 2) for name in LIMITS_MS},
        **{f"{name}_limit_ms": limit for name, limit in LIMITS_MS.items()},
        "within": all(ms[name] <= limit for name, limit in LIMITS_MS.items()),
        "rounds": rounds,
        "machine": machine(),
    }
    save("startup", result)
    if args.json:
        print(json.dumps(result))
    else:
        rows = [
            ("python -c pass", ms["pass"], None, 1.0),
            ("import tercet", ms["import"], LIMITS_MS["import"], ms["import"] / ms["pass"]),
            ("tercet --help", ms["help"], LIMITS_MS["help"], ms["help"] / ms["pass"]),
        ]
        print(table(["median of whole processes", "ms", "limit ms", "times `pass`"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
