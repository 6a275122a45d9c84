"""What sealing costs, and whether a kill within a rotation loses anything: `python benchmarks/sealing.py`.

`cost` puts the same memories into a clear and a sealed vault, call by call in turns, so that both meet the same
machine, and times single memories, batches, recall, opening, the first recall after it, and bytes on the disk.
`rotation` times sealing a clear vault, new data keys and another master key, and the slowest recall of another thread
meanwhile. `kills` kills processes that rotate (SIGKILL) while two others write, read and erase in the same vault; then
every file must open, every acknowledged memory be there, and doctor find nothing.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import RESULTS, machine, parser, percentile, save, store_bytes, table  # noqa: E402

from tercet import Tercet  # noqa: E402
from tercet.testing import FakeEmbedder  # noqa: E402
from tercet.testing.rotating import add_blobs, kill_rotations  # noqa: E402
from tercet.vault.datakeys import Master  # noqa: E402

MASTER = bytes(range(32))
SORTS: Mapping[str, bytes | None] = {"clear": None, "sealed": MASTER}
WORDS = [f"{a}{b}{c}" for a in ("ba", "ko", "mi", "tre", "lu") for b in ("ran", "sel", "dov") for c in "aeiouxyz"] * 40
DIM = 384
SINGLES, OPENINGS = 200, 15


def text(dice: random.Random) -> str:
    """Some twenty words."""
    return " ".join(f"{word}{dice.randrange(40)}" for word in dice.choices(WORDS, k=20))


def opened(folder: Path, master: bytes | None) -> Tercet:
    """A vault whose embedder costs next to nothing."""
    return Tercet.open(folder, embedder=FakeEmbedder(DIM), sealing=master, signing_key=None)


def alternately(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Milliseconds of each of some calls, `count` times in turns, the order changing every time."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for place in range(count):
        for name in [*calls] if place % 2 else [*calls][::-1]:
            began = time.perf_counter()
            calls[name]()
            spent[name].append(1e3 * (time.perf_counter() - began))
    return spent


def cost(cubes: int, questions: int) -> dict[str, Any]:
    """Clear against sealed; milliseconds are those of the median call."""
    dice, found = random.Random(1), dict[str, Any]()  # noqa: S311  # to be repeated, not to be secret
    with tempfile.TemporaryDirectory(prefix="tercet-sealing-") as name, ExitStack() as stack:
        folders = {sort: Path(name) / sort for sort in SORTS}
        vaults = {sort: stack.enter_context(opened(folders[sort], key)) for sort, key in SORTS.items()}
        scopes = {sort: t.scope(user="alice") for sort, t in vaults.items()}
        batches = [[text(dice) for _ in range(100)] for _ in range(cubes // 100)]
        stock = {sort: iter(batches) for sort in SORTS}
        many = {sort: lambda s=scope, b=stock[sort]: s.remember_many(next(b)) for sort, scope in scopes.items()}
        found["batch_of_100"] = _figures(alternately(many, len(batches)))
        words = [text(dice) for _ in range(SINGLES)]
        turns = {sort: iter(words) for sort in SORTS}
        single = {sort: lambda s=scope, w=turns[sort]: s.remember(next(w)) for sort, scope in scopes.items()}
        found["remember"] = _figures(alternately(single, SINGLES))
        for t in vaults.values():
            t.work(until_idle=True)
        asked = [" ".join(text(dice).split()[:4]) for _ in range(questions)]
        for row, policy in (("recall", None), ("recall_by_words", "words")):
            for scope in scopes.values():
                scope.recall("warm up", policy=policy)
            turns = {sort: iter(asked) for sort in SORTS}
            calls = {
                sort: lambda s=scope, w=turns[sort], p=policy: s.recall(next(w), policy=p)
                for sort, scope in scopes.items()
            }
            found[row] = _figures(alternately(calls, questions))
        stack.pop_all().close()
        openings = {sort: lambda f=folders[sort], k=key: _open(f, k) for sort, key in SORTS.items()}
        found["open"] = _figures(alternately(openings, OPENINGS))
        firsts = {sort: lambda f=folders[sort], k=key: _open(f, k, ask=True) for sort, key in SORTS.items()}
        found["open_and_first_recall"] = _figures(alternately(firsts, OPENINGS))
        found["bytes"] = _ratio({sort: store_bytes(folder) for sort, folder in folders.items()})
    return {"memories": cubes + SINGLES, **found}


def _open(folder: Path, master: bytes | None, *, ask: bool = False) -> None:
    with opened(folder, master) as t:
        scope = t.scope(user="alice")
        scope.list(limit=1)
        if ask:
            scope.recall("baran1 koselx7 midovy3")


def _figures(spent: Mapping[str, list[float]]) -> dict[str, float]:
    p95 = {f"p95_ms_{sort}": round(percentile(times, 95), 3) for sort, times in spent.items()}
    return {**_ratio({sort: round(median(times), 3) for sort, times in spent.items()}), **p95}


def _ratio(values: Mapping[str, float]) -> dict[str, float]:
    return {**values, "cost_percent": round(100 * (values["sealed"] / values["clear"] - 1), 1)}


def rotation(cubes: int, blobs: int) -> dict[str, Any]:
    """Seconds of what is done with keys, in a vault that a thread recalls from, and the slowest of those recalls."""
    dice = random.Random(2)  # noqa: S311  # to be repeated, not to be secret
    with tempfile.TemporaryDirectory(prefix="tercet-sealing-") as name:
        folder = Path(name)
        with opened(folder, None) as t:
            for _ in range(cubes // 500):
                t.scope(user="alice").remember_many([text(dice) for _ in range(500)])
            add_blobs(t, blobs, 4 << 20)
            t.work(until_idle=True)
        size = store_bytes(folder)
        with opened(folder, MASTER) as t:
            deeds: Mapping[str, Callable[[], object]] = {
                "seal": t.seal,
                "rotate": t.rotate,
                "master": lambda: t.rotate_master(Master(bytes(32))),
            }
            done = {name: _while_asked(t, deed) for name, deed in deeds.items()}
        return {"memories": cubes, "bytes": size, **done}


def _while_asked(t: Tercet, deed: Callable[[], object]) -> dict[str, float]:
    times, stop = [0.0], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            t.scope(user="alice").recall("baran1 koselx7")
            times.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    began = time.perf_counter()
    deed()
    took = time.perf_counter() - began
    stop.set()
    thread.join()
    return {"seconds": round(took, 2), "slowest_recall_seconds": round(max(times), 2), "recalls": len(times) - 1}


def killed(count: int) -> dict[str, Any]:
    """Kills within rotations under load; `failures` should be empty."""
    os.environ["TERCET_MASTER_KEY"] = MASTER.hex()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tercet-sealing-") as name:
        try:
            told = kill_rotations(Path(name), kills=count, seconds=4.0 * count)
            failures: list[str] = []
        except AssertionError as error:
            told, failures = {}, [str(error)]
    return {**told, "failures": failures, "seconds": round(time.perf_counter() - began, 1)}


def main() -> int:
    """Parse the command line, run, print; exit code 1 if a kill lost anything."""
    arguments = parser(__doc__, ("cost", "rotation", "kills"))
    arguments.add_argument("--cubes", type=int, help="memories (default 10,000, with --quick 1,000)")
    arguments.add_argument("--kills", type=int, help="kills (default 50, with --quick 4)")
    options = arguments.parse_args()
    cubes = options.cubes or (1_000 if options.quick else 10_000)
    document: dict[str, Any] = {"machine": machine()}
    runs: Mapping[str, Callable[[], dict[str, Any]]] = {
        "cost": lambda: cost(cubes, 60 if options.quick else 400),
        "rotation": lambda: rotation(cubes, 2 if options.quick else 25),
        "kills": lambda: killed(options.kills or (4 if options.quick else 50)),
    }
    for row in options.only:
        document[row] = runs[row]()
        save("sealing", document)
    if "cost" in document:
        _plot(document["cost"])
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        _print(document)
    return 1 if document.get("kills", {}).get("failures") else 0


def _print(document: Mapping[str, Any]) -> None:
    if "cost" in document:
        rows = [(name, one["clear"], one["sealed"], one["cost_percent"]) for name, one in document["cost"].items()
                if isinstance(one, dict)]  # fmt: skip
        print(f"{document['cost']['memories']:,} memories; ms of the median call, or bytes\n")
        print(table(["", "clear", "sealed", "cost %"], rows))
    if "rotation" in document:
        done = {name: one for name, one in document["rotation"].items() if isinstance(one, dict)}
        print(f"\n{document['rotation']['bytes']:,} bytes\n")
        print(table(["", "seconds", "slowest recall meanwhile"],
                    [(name, one["seconds"], one["slowest_recall_seconds"]) for name, one in done.items()]))  # fmt: skip
    if "kills" in document:
        print(f"\n{json.dumps(document['kills'])}")


def _plot(found: Mapping[str, Any]) -> None:
    """The share that sealing adds to each, if matplotlib is here."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    rows = {name: one["cost_percent"] for name, one in found.items() if isinstance(one, dict)}
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.barh([*rows], [*rows.values()])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("% more than clear (median call, or bytes)")
    figure.savefig(RESULTS / "sealing.png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
