"""Puts the repository on the path, so that tests find the labelled sets, and gives them a command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    from tests.cli.command_line import Cli


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands on a store of this test's own."""
    from tests.cli.command_line import Cli

    return Cli(tmp_path / "store", capsys, monkeypatch)
