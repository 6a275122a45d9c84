"""Time to the first token with a KV memory, against reading the memory again.

For each length of memory and of question: a full prefill; the memory's cache from RAM; from disk with the page cache
warm, and dropped. Each is the time from the question's tokens to the scores of the first token of the answer, checks,
copies and unpacking included; the cache goes the library's own way, row and sources read anew. All four are measured in
turn, round after round, so that a busy machine slows all alike; medians are reported. llama.cpp's own prefix cache is
measured the same way on its quantised model: its times stand for themselves, its ratio can be compared.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, machine, parser, save, table

from benchmarks import kv
from tercet import Tercet
from tercet.activation import pack
from tercet.activation.memory import KVMemory
from tercet.cube import Activation, MemCube
from tercet.engine.transformers import TransformersEngine
from tercet.errors import Unsupported
from tercet.scoped import ScopedMemory
from tercet.vault import blobs

clock = time.perf_counter
"""`--clock cpu` puts this process's processor time here: on a machine that others use, that can be compared."""
CONTEXTS, QUERIES = (600, 2800, 6000), (20, 170, 950)
GOAL = (1500, 16)
ROUNDS = 5
COLUMNS = ("memory", "query", "full_s", "ram_s", "disk_s", "cold_s", "speedup_ram", "speedup_disk", "speedup_cold")


def case(
    view: ScopedMemory, model: TransformersEngine, cube: MemCube, query: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """One row of the table."""
    assert isinstance(cube.payload, Activation)
    tenant = view.tercet.vault.tenant("default")
    path = blobs.path_of(blobs.folder_of(tenant.path), cube.payload.blobs[0].sha256)
    ram, disk = view.tercet.kv, KVMemory(0)
    memory = ram.use(tenant, view.scope, cube.id, model).cache.tokens
    ram.use(tenant, view.scope, cube.id, model)  # the second use takes it into memory

    def with_cache(keeper: KVMemory) -> None:
        used = keeper.use(tenant, view.scope, cube.id, model)
        assert used.from_ram is (keeper is ram)
        model.run(used.cache, room=len(query) + 64).extend(query)

    def full() -> None:
        model.run().extend((*memory, *query))

    taken: dict[str, list[float]] = {"full_s": [], "ram_s": [], "disk_s": [], "cold_s": []}
    for turn in range(rounds + 1):
        for name, work in (("full_s", full), ("ram_s", lambda: with_cache(ram)), ("disk_s", lambda: with_cache(disk)),
                           ("cold_s", lambda: with_cache(disk))):  # fmt: skip
            if name == "cold_s":
                kv.drop_cache(path)
            begin = clock()
            work()
            if turn:
                taken[name].append(clock() - begin)
    row: dict[str, Any] = {"memory": len(memory), "query": len(query)}
    row |= {name: median(times) for name, times in taken.items()}
    row |= {f"speedup_{name}": row["full_s"] / row[f"{name}_s"] for name in ("ram", "disk", "cold")}
    return row


def load_speed(path: Path, rounds: int) -> dict[str, float]:
    """GB a second from the page cache and from the disk: a plain sequential read; ours with and without checks."""

    def plain() -> None:
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass

    def ours(*, check: bool) -> None:
        packed = pack.read(pack.mapped(path), most=1 << 20, check=check)
        for _, held in packed.parts:
            for tensor in held.values():
                tensor.clone()  # what a run's copy does

    size, found = path.stat().st_size, dict[str, float]()
    works: dict[str, Callable[[], None]] = {
        "plain": plain,
        "unchecked": partial(ours, check=False),
        "checked": partial(ours, check=True),
    }
    for cold in (False, True):
        taken: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(rounds + 1):
            for name, work in works.items():
                if cold:
                    kv.drop_cache(path)
                begin = clock()
                work()
                if turn:
                    taken[name].append(clock() - begin)
        found |= {
            f"{name}_{'cold' if cold else 'warm'}_gb_s": size / 1e9 / median(times) for name, times in taken.items()
        }
    return found


def promoted(view: ScopedMemory, model: TransformersEngine, count: int, precision: str) -> MemCube:
    """A KV memory of about so many tokens of conversation."""
    text = view.remember(model.decode(kv.tokens(model, count - 40)), wait_for="words")
    return view.promote(text, engine="small", precision=precision)


def llama_rows(
    model: TransformersEngine, sizes: list[tuple[int, int]], rounds: int, threads: int | None
) -> list[dict[str, Any]]:
    """llama.cpp's own prefix cache on the same lengths; empty where it is not installed."""
    try:
        from tercet.engine.llama_cpp import LlamaCpp

        other = LlamaCpp.load(kv.MODEL, context=8192, threads=threads)
    except Unsupported as error:
        sys.stderr.write(f"llama.cpp is left out: {error}\n")
        return []
    rows = []
    for count, asked in sizes:
        full, warm = list[float](), list[float]()
        for turn in range(rounds):
            memory = model.decode(kv.tokens(model, count, skip=turn))
            query = model.decode(kv.tokens(model, asked, skip=90 + turn))
            for taken in (full, warm):
                begin = clock()
                other.held(memory + query)
                taken.append(clock() - begin)
                other.held(memory + "?")  # as another question would leave it: the memory is in the slot
            other.erase()
        rows.append({"memory": count, "query": asked, "full_s": median(full), "prefix_s": median(warm),
                     "speedup": median(full) / median(warm)})  # fmt: skip
    other.close()
    return rows


def main() -> int:
    words = parser(__doc__, ["speedup", "table", "load", "llama"])
    words.add_argument("--threads", type=int, help="torch's threads; all by default")
    words.add_argument("--rounds", type=int, default=ROUNDS)
    words.add_argument("--precision", default="bf16")
    words.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = words.parse_args()
    if args.clock == "cpu":
        global clock  # noqa: PLW0603  # the one clock of this script
        clock = time.process_time
    rounds = 3 if args.quick else args.rounds
    try:
        kv.sessions()
    except DataMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    model = kv.engine("bfloat16", args.threads)
    sizes = [(c, q) for c in CONTEXTS for q in QUERIES] if not args.quick else [(600, 20)]
    result: dict[str, Any] = {
        "precision": args.precision,
        "rounds": rounds,
        "threads": args.threads,
        "clock": args.clock,
    }
    with tempfile.TemporaryDirectory() as folder, Tercet.open(
        folder, embedder=None, engines={"small": model}, kv_bytes=1 << 30
    ) as t:  # fmt: skip
        view, cubes = t.scope(user="alice"), dict[int, MemCube]()

        def row(count: int, asked: int) -> dict[str, Any]:
            if count not in cubes:
                cubes[count] = promoted(view, model, count, args.precision)
            return case(view, model, cubes[count], kv.tokens(model, asked, skip=90), rounds)

        if "speedup" in args.only:
            goal = row(*GOAL)
            result |= {"speedup_ram_1500": goal["speedup_ram"], "speedup_disk_1500": goal["speedup_disk"], "goal": goal}
        if "load" in args.only:
            cube = cubes.get(GOAL[0]) or promoted(view, model, GOAL[0], args.precision)
            assert isinstance(cube.payload, Activation)
            path = blobs.path_of(blobs.folder_of(t.vault.tenant("default").path), cube.payload.blobs[0].sha256)
            result["load"] = load_speed(path, max(rounds, 5)) | {"bytes": path.stat().st_size}
        if "table" in args.only:
            result["table"] = [row(*size) for size in sizes]
    if "llama" in args.only:
        result["llama_cpp"] = llama_rows(model, [GOAL, *sizes], rounds, args.threads)
    result["machine"] = machine()
    save("ttft", result)
    print(json.dumps(result) if args.json else shown(result))
    return 0


def shown(result: dict[str, Any]) -> str:
    """The tables, for a person."""
    rows = [*([result["goal"]] if "goal" in result else []), *result.get("table", [])]
    parts = [table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])] if rows else []
    if result.get("load"):
        parts.append(table(["load", "GB/s"], [[name, value] for name, value in result["load"].items()]))
    if result.get("llama_cpp"):
        names = ("memory", "query", "full_s", "prefix_s", "speedup")
        parts.append("llama.cpp\n" + table(names, [[row[name] for name in names] for row in result["llama_cpp"]]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
