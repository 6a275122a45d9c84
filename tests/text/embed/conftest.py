"""The real model, found once; its package is part of the test environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet.text.embed import weights
from tercet.text.embed.minilm import MiniLM
from tercet.text.embed.weights import Weights


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def files(cache: Path) -> Weights:
    found = weights.find(cache=cache)
    assert found is not None, f"the package {weights.PACKAGE} belongs to the test environment"
    return found


@pytest.fixture(scope="session")
def model(files: Weights, cache: Path) -> MiniLM:
    return MiniLM(files, threads=2, cache=cache)
