"""AsyncTercet is Tercet with `await` before it, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tercet import AsyncTercet, Tercet
from tercet.admin import Admin
from tercet.aio import AsyncAdmin, AsyncScopedMemory
from tercet.scoped import ScopedMemory


def public(kind: type) -> dict[str, object]:
    parts = [part for part in reversed(kind.__mro__) if part.__module__.startswith("tercet")]
    held = {name: value for part in parts for name, value in vars(part).items()}
    return {name: value for name, value in held.items() if not name.startswith("_") and callable(value)}


@pytest.mark.parametrize(("twin", "kind"), [(AsyncScopedMemory, ScopedMemory), (AsyncAdmin, Admin)])
def test_has_every_name_with_the_same_signature(twin: type, kind: type) -> None:
    ours = {name: method for name, method in public(kind).items() if name != "enter"}  # which only asks
    assert public(twin).keys() == ours.keys()
    for name, method in ours.items():
        assert callable(method)
        assert inspect.signature(getattr(twin, name)) == inspect.signature(method)
        # `as_of` only makes a view, as `scope` does: there is nothing to wait for.
        assert inspect.iscoroutinefunction(getattr(twin, name)) is (name != "as_of")


def test_the_vault_has_every_name_too() -> None:
    ours = {name for name in public(Tercet) if name not in {"embedder_of", "flush_uses", "recall_by"}} | {"open"}
    assert {name for name in vars(AsyncTercet) if not name.startswith("_")} == ours


def test_remembers_and_recalls(tmp_path: Path) -> None:
    async def run() -> str:
        async with await AsyncTercet.open(tmp_path, embedder=None) as t:
            alice = t.scope(user="alice")
            await alice.remember("The boiler code is 4417.")
            return (await alice.recall("what is the boiler code?"))[0].cube.text

    assert asyncio.run(run()) == "The boiler code is 4417."


class Slow:
    """An embedder that takes its time on a thread."""

    space, dim = "slow", 2

    def embed(self, texts: Sequence[str]) -> list[object]:
        from tercet.text.embed.base import Embedding

        time.sleep(0.3)
        import numpy as np

        return [Embedding(np.ones((1, 2), dtype=np.float32)) for _ in texts]


def test_the_loop_goes_on_while_a_write_is_slow(tmp_path: Path) -> None:
    async def run() -> float:
        async with await AsyncTercet.open(tmp_path, embedder=Slow()) as t:
            task = asyncio.create_task(t.scope(user="alice").remember("Pears are ripe."))
            worst, last = 0.0, time.perf_counter()
            while not task.done():
                await asyncio.sleep(0.01)
                now = time.perf_counter()
                worst, last = max(worst, now - last), now
            return worst

    assert asyncio.run(run()) < 0.25  # the write takes longer than that: it did not run on the loop


def test_a_cancelled_write_is_whole(tmp_path: Path) -> None:
    async def run() -> None:
        async with await AsyncTercet.open(tmp_path, embedder=Slow()) as t:
            task = asyncio.create_task(t.scope(user="alice").remember_many(["one pear", "two pears"]))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    with Tercet.open(tmp_path, embedder=None) as t:
        assert len(t.scope(user="alice").list()) in {0, 2}
        assert t.doctor() == {"default": []}
