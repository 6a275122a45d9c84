"""The command line on a real store: the same `main` that the installed command runs, in this process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tercet.cli import main

SOURCE = Path(__file__).parents[2] / "src"


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401  # a JSON document
        """The one document on stdout."""
        return json.loads(self.out)


class Cli:
    """Runs commands on one store, by words unless a test asks for vectors."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.store, self.capsys, self.patch = store, capsys, patch

    def __call__(self, *words: str, stdin: bytes = b"", by_words: bool = True) -> Done:
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        self.patch.setenv("TERCET_STORE", str(self.store))
        code = main(["--words", *words] if by_words else words)
        printed = self.capsys.readouterr()
        return Done(code, printed.out, printed.err)

    def id(self, *words: str) -> str:
        """The id of what `remember` keeps."""
        done = self("remember", *words, "--json")
        assert done.code == 0, done.err
        return str(done.json["cube"]["id"])


def spawn(
    *words: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """The command in a process of its own, where a warning is an error, too."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "error", **(env or {})}
    command = [sys.executable, "-m", "tercet", *words]
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
