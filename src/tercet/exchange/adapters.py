"""An adapter written out for other programs: PEFT's folder, or a GGUF file for llama.cpp. The export goes on record."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tercet.cube import Parameters
from tercet.engine.base import require
from tercet.errors import InvalidRequest
from tercet.exchange.archive import put_on_record
from tercet.parametric.memory import pinned, standing

if TYPE_CHECKING:
    from tercet.cube import MemCube
    from tercet.engine.base import AdapterEngine
    from tercet.scoped import ScopedMemory


def export_adapter(memory: ScopedMemory, name: str, path: Path, *, engine: str | None = None) -> MemCube:
    """Write an adapter (ID, or ID@VERSION) to a GGUF file if the path ends in .gguf, else as PEFT's folder.

    Whoever gets it can ask it for what it was taught: the caller must be allowed to read it and all its sources, and a
    later erasure of one names the path. What is there is replaced whole, or left as it was; a folder only if it holds
    an adapter and nothing else.

    Raises
    ------
    MissingMemory, Refused
        If it or a source is not to be read, was withdrawn, or its signature is not to be trusted.
    InvalidRequest
        If it is no adapter, the engine's model is another than it was made for, or the folder holds other things.
    Unsupported
        If the engine takes no adapters, or the form is not to be had for this family of models.
    OSError
        If it cannot be written.
    """
    from tercet.parametric import adapter as peft
    from tercet.parametric import gguf

    if path.is_dir() and {one.name for one in path.iterdir()} - {peft.CONFIG, peft.WEIGHTS}:
        raise InvalidRequest(f"{path} is a folder that holds other things than an adapter; name one that is not there.")
    memory.enter("read")
    tercet, tenant = memory.tercet, memory.tercet.vault.tenant(memory.scope.tenant)
    model = tercet.engines.get(engine)
    require(model, "adapters", "An adapter")
    able = cast("AdapterEngine", model)
    with tenant.reading() as reader:
        seen = reader.under(tercet.gate.allowed(reader, memory.by, "read", memory.scope))
        id, version = pinned(name)
        cube = standing(seen, memory.scope, id, version)
        n, _ = seen.head(id, memory.scope)
    payload = cube.payload
    if not isinstance(payload, Parameters):
        raise InvalidRequest(f"Memory {id} is a {cube.kind}, not an adapter.")
    held = tercet.lora.checked(tenant, cube, payload, able)
    part = path.with_name(f"{path.name}.part")
    try:
        if path.suffix == ".gguf":
            gguf.save(held, part, config=able.config, name=f"tercet {id}")  # type: ignore[attr-defined]
            weights = part
        else:
            peft.save(held, part, base=payload.model.name)
            weights = part / peft.WEIGHTS
        with weights.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").digest()
        put_on_record(memory, str(path.absolute()), digest, [n])
        if path.is_dir():
            shutil.rmtree(path)
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
    return cube
