"""Many tenants, random operations through every front door: `python benchmarks/isolation.py`.

Tenants share one vault. Each operation is one tenant's, through the Python API, AsyncTercet, the command line (in
this process) or an archive; a book says what that tenant may see, and every answer and count is held against it. Ids
of other tenants are asked for beside made-up ones: error and SQL statements, as SQLite saw them, must be the same. A
third of the tenants have rules of their own; a third of the calls come with a key. It ends with exit code 1 at the
first leak.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import machine, parser, save, table  # noqa: E402  # the path comes first

from tercet import cli  # noqa: E402
from tercet.testing.isolation import LeakError, run  # noqa: E402


def main() -> int:
    """Parse the command line, run, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--operations", type=int, help="how many (default 100,000, with --quick 3,000)")
    arguments.add_argument("--tenants", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    count = options.operations or (3_000 if options.quick else 100_000)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tercet-isolation-") as name:
        try:
            result = run(Path(name), cli.main, tenants=options.tenants, operations=count, seed=options.seed)
        except LeakError as leak:
            result = {"tenants": options.tenants, "leaks": 1, "leak": str(leak)}
    result |= {"seed": options.seed, "seconds": round(time.perf_counter() - began, 1), "machine": machine()}
    save("isolation", result)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        rows = [(key, value) for key, value in result.items() if isinstance(value, int | float | str)]
        print(table(["isolation", "value"], [*rows, *sorted(result.get("by_door", {}).items())]))  # type: ignore[attr-defined]
    return 1 if result["leaks"] else 0


if __name__ == "__main__":
    sys.exit(main())
