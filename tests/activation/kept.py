"""What the tests of KV memories share: using a cache, and the files that caches lie in."""

from __future__ import annotations

from pathlib import Path

from tercet import Tercet
from tercet.activation.memory import Used
from tercet.cube import Activation, MemCube
from tercet.engine.transformers import TransformersEngine
from tercet.scoped import ScopedMemory
from tercet.vault import blobs


def use(view: ScopedMemory, cube: MemCube, engine: TransformersEngine) -> Used:
    """A cache, as a turn of this view would use it."""
    return view.tercet.kv.use(view._tenant, view.scope, cube.id, engine)


def files(t: Tercet) -> list[Path]:
    """All files of caches."""
    return sorted(path for path in (t.vault.folder / "blobs").rglob("*") if path.is_file())


def file_of(view: ScopedMemory, cube: MemCube, which: int = 0) -> Path:
    """One file of a cache: its data come first."""
    assert isinstance(cube.payload, Activation)
    return blobs.path_of(blobs.folder_of(view._tenant.path), cube.payload.blobs[which].sha256)
