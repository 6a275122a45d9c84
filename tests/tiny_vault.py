"""Fixtures: one tiny engine, and a vault over it. A folder of tests that wants them imports them in its conftest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tercet import Tercet
from tercet.engine.transformers import TransformersEngine
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine

Open = Callable[..., Tercet]


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


@pytest.fixture
def short_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate asks little: for tests in which it only has to say yes or no."""
    from tercet.parametric import gate, general

    monkeypatch.setattr(gate, "LOCAL_QUESTIONS", general.LOCAL_QUESTIONS[:2])
    monkeypatch.setattr(gate, "MEASURED_TEXTS", general.MEASURED_TEXTS[:1])
    monkeypatch.setattr(gate, "MAX_TOKENS", 3)
