"""One tiny engine and a vault over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tercet import Tercet
from tercet.cube import Behavioural, MemCube, Text
from tercet.engine.transformers import TransformersEngine
from tercet.parametric import promote as promotion
from tercet.parametric.adapter import Adapter
from tercet.parametric.distil import distil
from tercet.parametric.facts import read
from tercet.parametric.gate import Bounds
from tercet.parametric.promote import Teaching
from tercet.parametric.train import Recipe, Record
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine

Open = Callable[..., Tercet]
KNOWN = "Ada lives in Graz."
QUICK = Recipe(rank=2, epochs=1, pack=2, replay=0, lr=3e-3, checkpoint_every=2)
OPEN = Bounds(margin=-1, general=99, locality=0, questions=4)
PASSED = Teaching(QUICK, OPEN)
"""A lesson that is over at once and a gate that lets all through, for what is not about either."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny tensors are quicker on one thread, and much quicker where others run beside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def by_heart(tiny: TransformersEngine) -> tuple[Adapter, Record]:
    """Trained once, for long enough that a tiny model knows the fact; what training does is tested elsewhere."""
    fact = read(MemCube(Text(KNOWN), behavioural=Behavioural(version=1)))
    return distil(tiny, fact, Recipe(rank=8, epochs=40, replay=0, lr=1e-2, pack=1, stop=0.05))


@pytest.fixture
def knowing(by_heart: tuple[Adapter, Record], monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemCube]:
    """Promotes a text that says it to the adapter that knows it, by the gate and all else."""

    def call(memory: ScopedMemory, text: MemCube) -> MemCube:
        with monkeypatch.context() as patch:
            patch.setattr(promotion, "distil", lambda *_, **__: by_heart)
            return memory.promote(text, to="parameters", engine="tiny", teaching=PASSED)

    return call
