"""Kill processes that rotate a sealed vault's keys while others read and write in it.

The master key is in TERCET_MASTER_KEY, for them as for everybody who works in the vault meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tercet.cube import Activation, BlobRef, ModelIdentity, derive
from tercet.errors import VaultBusy
from tercet.govern.master import VARIABLE
from tercet.kernel import Tercet
from tercet.testing.crowd import gather
from tercet.testing.fakes import FakeEmbedder
from tercet.testing.narrow import narrow
from tercet.vault import blobs, datakeys
from tercet.vault.reseal import unfinished
from tercet.vault.writer import Entry

MODEL = ModelIdentity("none", "0", "0", "0", "0", "0", "float32")
MARK = b"never to be seen in a file: "


def add_blobs(t: Tercet, count: int, size: int) -> list[BlobRef]:
    """Memories that refer to files of so many bytes, each with a mark in it."""
    scope, refs = t.scope(user="blobs"), list[BlobRef]()
    for n in range(count):
        with blobs.drafting(scope._tenant.blobs) as draft:  # noqa: SLF001  # around the front door
            draft.write(MARK + hashlib.shake_256(str(n).encode()).digest(size))
            refs.append(draft.seal("data"))
            [source] = scope.remember_many([f"blob {n}"])
            cube = derive([source], Activation((refs[-1],), MODEL, 1), method="test")
            with scope._tenant.writing(by="test") as writer:  # noqa: SLF001
                draft.place()
                writer.put([Entry(cube, {})], None, action="promote")
    return refs


def kill_rotations(
    folder: Path, *, kills: int, processes: int = 2, seconds: float | None = None, longest: float = 1.0
) -> dict[str, Any]:
    """Kill rotations of `<folder>/vault` while a crowd works in it for so many seconds; returns what was seen.

    Raises AssertionError if a member of the crowd misses what it was told is kept, or meets an error; if a file cannot
    be read, or doctor finds anything, half-rotated or once the rotation was finished.
    """
    chance, where, took = random.Random(kills), Counter[str](), list[float]()  # noqa: S311  # to be repeated
    vault, context = folder / "vault", multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with Tercet.open(vault, embedder=FakeEmbedder()) as t:
        refs = add_blobs(t, 8, 1 << 20)
    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(gather, folder, processes=processes, seconds=seconds or 1.5 * kills)
        while sum(where.values()) < kills and not crowd.done():
            where[_kill(vault, context, longest * chance.random(), took)] += 1
        told = crowd.result()
    with narrow(), Tercet.open(vault, embedder=FakeEmbedder()) as t:
        left = unfinished(datakeys.read(t.vault.tenant("default").keys.file))
        assert not any(t.doctor().values()), t.doctor()
        t.work(until_idle=True)
        assert not t.sealing()["tenants"]["default"]["unfinished"], "the rotation was not finished"
        assert not any(t.doctor().values()), t.doctor()
        for ref in refs:
            content = blobs.read(t.vault.tenant("default").blobs, ref)
            assert content is not None
            assert hashlib.sha256(content).hexdigest() == ref.sha256
    return {
        **told, "kills": sum(where.values()), "killed": dict(where), "left_half_done": left,
        "whole_rotations": len(took), "rotation_seconds": max(took, default=None),
    }  # fmt: skip


def _kill(vault: Path, context: Any, after: float, took: list[float]) -> str:  # noqa: ANN401  # of multiprocessing
    """Kill one process that rotates; returns what was going on."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_be_killed, args=(vault, os.environ[VARIABLE], theirs))
    process.start()
    theirs.close()
    lines: list[Any] = []
    with closing(ours):
        lines.append(json.loads(ours.recv_bytes()))
        time.sleep(after)
        process.kill()
        process.join()
        with suppress(EOFError, OSError):  # a line that is not whole
            while True:
                lines.append(json.loads(ours.recv_bytes()))
    took += [line for line in lines if isinstance(line, float)]
    if lines[-1] != "begin":
        return "between two"
    said = datakeys.read(vault / "keys" / "default.json")
    return "while both keys are needed" if unfinished(said) else "while one key is enough"


def _be_killed(vault: Path, key: str, pipe: Connection) -> None:
    def tell(line: str | float) -> None:
        pipe.send_bytes(json.dumps(line).encode())

    # The server that this process was forked from may be older than the variable.
    with narrow(), Tercet.open(vault, embedder=FakeEmbedder(), sealing=bytes.fromhex(key)) as t:
        while True:
            began = time.perf_counter()
            tell("begin")
            try:
                t.rotate()
            except VaultBusy:
                tell("busy")
            else:
                tell(time.perf_counter() - began)
