"""Running other Python processes on a vault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


def start(code: str, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process that runs `code` with `arguments` in sys.argv[1:] on this source; warnings are errors in it."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.Popen(  # noqa: S603  # the test's own code
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**kept, "PYTHONPATH": str(SOURCE), **(env or {})},
    )  # fmt: skip


def finish(process: subprocess.Popen[str], *, timeout: float = 120) -> str:
    """What it printed; fails with what it complained of if it did not end well."""
    out, error = process.communicate(timeout=timeout)
    assert process.returncode == 0, error
    return out


def run(code: str, *arguments: object, env: Mapping[str, str] | None = None) -> str:
    """Start and finish."""
    return finish(start(code, *arguments, env=env))
