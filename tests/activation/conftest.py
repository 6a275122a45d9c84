"""One tiny engine and a vault over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.activation.kept import Open

from tercet import Tercet
from tercet.engine.transformers import TransformersEngine
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine


@pytest.fixture(scope="session")
def tiny() -> TransformersEngine:
    return tiny_engine("llama")


@pytest.fixture
def opened(tmp_path: Path, tiny: TransformersEngine) -> Open:
    """Opens the one vault; options go to `Tercet.open`."""

    def call(**options: object) -> Tercet:
        given = {"embedder": None, "engines": {"tiny": tiny}, **options}
        return Tercet.open(tmp_path / "vault", **given)  # type: ignore[arg-type]

    return call


@pytest.fixture
def t(opened: Open) -> Iterator[Tercet]:
    with opened() as t:
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    return t.scope(user="alice")
