"""One tiny engine and a vault over it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.tiny_vault import Open, alice, opened, short_gate, t, tiny

from tercet import Tercet
from tercet.cube import Behavioural, MemCube, Parameters, Text
from tercet.engine.transformers import TransformersEngine
from tercet.parametric import promote as promotion
from tercet.parametric.adapter import Adapter
from tercet.parametric.distil import distil
from tercet.parametric.facts import read
from tercet.parametric.gate import Bounds
from tercet.parametric.memory import DATA
from tercet.parametric.promote import Teaching
from tercet.parametric.train import Recipe, Record
from tercet.scoped import ScopedMemory
from tercet.vault import blobs

__all__ = ["Open", "alice", "opened", "short_gate", "t", "tiny"]

KNOWN = "Ada lives in Graz."
QUICK = Recipe(rank=2, epochs=1, pack=2, replay=0, lr=3e-3, checkpoint_every=2)
OPEN = Bounds(margin=-1, general=99, locality=0, questions=4)
PASSED = Teaching(QUICK, OPEN)
"""A lesson that is over at once and a gate that lets all through, for what is not about either."""


def flip(t: Tercet, made: MemCube) -> None:
    """Change one bit of an adapter's tensors on disk."""
    assert isinstance(made.payload, Parameters)
    [data] = [one for one in made.payload.blobs if one.role == DATA]
    path = blobs.path_of(blobs.folder_of(t.vault.tenant("default").path), data.sha256)
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


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
