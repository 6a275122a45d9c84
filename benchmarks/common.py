"""What every benchmark script shares: its command line, tables, percentiles, peak memory and where results go.

Standard library only, so that a script may also use it inside a peer's environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Row = TypeVar("Row")


class DataMissingError(Exception):
    """A file that the benchmark reads is not on this machine."""


def parser(description: str | None, keys: Iterable[str] = ()) -> argparse.ArgumentParser:
    """A parser with `--json`, `--quick` and, where rows have `keys`, `--only KEY[,KEY]`.

    `--only` gives a list of keys, all of them by default; an unknown key is bad usage (exit 2).
    """
    known = list(keys)
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", action="store_true", help="one JSON document on standard output")
    result.add_argument("--quick", action="store_true", help="smaller counts, a run under a minute")
    if known:

        def only(text: str) -> list[str]:
            chosen = [key.strip() for key in text.split(",") if key.strip()]
            unknown = [key for key in chosen if key not in known]
            if unknown or not chosen:
                raise argparse.ArgumentTypeError(f"unknown {unknown or 'empty list'}; known: {', '.join(known)}")
            return chosen

        result.add_argument("--only", type=only, default=known, metavar="KEY[,KEY]", help=", ".join(known))
    return result


def data_file(name: str) -> Path:
    """A file of the development data: in the folder `TERCET_DATA`, by default `../shared/data` beside the repository.

    Raises DataMissingError where it is absent; a script answers with exit code 2.
    """
    path = Path(os.environ.get("TERCET_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_file():
        raise DataMissingError(f"no {name} in {path.parent}; set TERCET_DATA to the folder that holds it")
    return path


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100), linear between neighbours. Raises ValueError on no values or q out of range."""
    if not values or not 0 <= q <= 100:
        raise ValueError(f"percentile {q} of {len(values)} values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def peak_rss_mb() -> float:
    """The most memory this process has had resident, in MB of 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage keeps the parent's peak across exec; VmHWM starts anew
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def store_bytes(folder: Path) -> int:
    """The size of all files under a folder, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> dict[str, object]:
    """What a reader needs to judge a timing: system, processor, cores that may be used, Python, date (UTC)."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": cores,
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show(value: object) -> str:
    """A table cell: three significant digits for a float, thousands apart, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    cells = [list(columns), *[[show(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    rule = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]
    lines = [
        [row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]] for row in cells
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def each(keys: Iterable[str], make: Callable[[str], Row]) -> dict[str, Row]:
    """A row for each key, in order; what each took is told on standard error as it is done."""
    rows = dict[str, Row]()
    for key in keys:
        begin = time.perf_counter()
        rows[key] = make(key)
        print(f"  {key}: {time.perf_counter() - begin:,.0f} s", file=sys.stderr, flush=True)
    return rows


def save(name: str, document: Mapping[str, object]) -> Path:
    """Write the raw results to `benchmarks/results/NAME.json`; returns the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path
