"""Time to the first token with a KV memory, against reading the memory again.

For each length of memory and of question: a full prefill; the memory's cache from RAM; from disk with the page cache
warm, and dropped; and llama.cpp's own prefix cache on its quantised model, whose times stand for themselves while its
ratio can be compared. Each is the time from the question's tokens to the scores of the first token of the answer,
checks, copies and unpacking included; a cache goes the library's own way, row and sources read anew. All are measured
in turn, round after round, so that a busy machine slows all alike; medians are reported, on the wall's clock and on the
processor's, which waiting for others (and for the disk) does not change. `--clock` says which one the ratios are of.
llama.cpp reads each memory once; its full prefill is that and the question behind it, since it reads in parts anyway.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
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
from tercet.engine.llama_cpp import LlamaCpp
from tercet.engine.transformers import TransformersEngine
from tercet.errors import Unsupported
from tercet.vault import blobs

CONTEXTS, QUERIES = (600, 2800, 6000), (20, 170, 950)
GOAL = (1500, 16)
ROUNDS = 3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WAYS = ("ram", "disk", "cold")
COLUMNS = ("memory", "query", "clock", "full_s", "ram_s", "disk_s", "cold_s", "speedup_ram", "speedup_disk",
           "speedup_cold", "llama_full_s", "llama_prefix_s", "speedup_llama")  # fmt: skip
Times = dict[str, dict[str, list[float]]]
"""Clock -> way -> seconds."""


def spent(taken: Times, name: str, work: Callable[[], object]) -> None:
    """Do it, and note what it took on both clocks."""
    begins = {clock: now() for clock, now in CLOCKS.items()}
    work()
    for clock, now in CLOCKS.items():
        taken[clock].setdefault(name, []).append(now() - begins[clock])


class Bench:
    """A vault with one engine, the memories promoted in it so far, and llama.cpp where it is installed."""

    def __init__(self, stack: ExitStack, model: TransformersEngine, precision: str, llama: LlamaCpp | None) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.tercet = stack.enter_context(
            Tercet.open(folder, embedder=None, engines={"small": model}, kv_bytes=1 << 30)
        )
        self.view, self.model, self.precision, self.llama = self.tercet.scope(user="alice"), model, precision, llama
        self._cubes: dict[int, MemCube] = {}
        self._read: dict[int, Times] = {}

    def cube(self, count: int) -> MemCube:
        """A KV memory of about so many tokens of conversation."""
        if count not in self._cubes:
            text = self.view.remember(self.model.decode(kv.tokens(self.model, count - 40)), wait_for="words")
            self._cubes[count] = self.view.promote(text, engine="small", precision=self.precision, joinable=False)
        return self._cubes[count]

    def path(self, cube: MemCube) -> Path:
        """The file of its cache."""
        assert isinstance(cube.payload, Activation)
        folder = blobs.folder_of(self.tercet.vault.tenant("default").path)
        return blobs.path_of(folder, cube.payload.blobs[0].sha256)

    def row(self, count: int, asked: int, rounds: int, *, llama: bool = True) -> dict[str, Any]:
        """One row of the table, on both clocks."""
        cube, query = self.cube(count), kv.tokens(self.model, asked, skip=90)
        tenant, scope = self.tercet.vault.tenant("default"), self.view.scope
        keepers = {"ram": self.tercet.kv, "disk": KVMemory(0), "cold": KVMemory(0)}
        memory = keepers["ram"].use(tenant, scope, cube.id, self.model).cache.tokens

        def with_cache(way: str) -> None:
            used = keepers[way].use(tenant, scope, cube.id, self.model)
            assert used.from_ram is (way == "ram")
            self.model.run(used.cache, room=len(query) + 64).extend(query)

        for keeper in keepers.values():  # what is done once is done now; the second use takes it into memory
            keeper.use(tenant, scope, cube.id, self.model)
        taken: Times = {clock: {} for clock in CLOCKS}
        for _ in range(rounds):
            spent(taken, "full", lambda: self.model.run().extend((*memory, *query)))
            for way in WAYS * (3 if asked < 100 else 1):  # what is over soon is measured more often
                if way == "cold":
                    kv.drop_cache(self.path(cube))
                spent(taken, way, partial(with_cache, way))
            if llama and self.llama is not None:
                self._llama(self.llama, count, self.model.decode(memory), self.model.decode(query), taken)
        return {"memory": len(memory), "query": len(query)} | {clock: shape(taken[clock]) for clock in CLOCKS}

    def _llama(self, llama: LlamaCpp, count: int, memory: str, query: str, taken: Times) -> None:
        """Time llama.cpp on the question behind what its slot has of the memory; and, the first time, on the memory."""
        found = list[int]()
        if count not in self._read:
            self._read[count] = {clock: {} for clock in CLOCKS}
            llama.erase()
            spent(self._read[count], "memory", lambda: found.append(llama.held(memory + "?")))
            assert found == [0], "llama.cpp had some of the memory already"
        llama.held(memory + "?")  # as another question would leave it
        spent(taken, "llama_prefix", lambda: found.append(llama.held(memory + query)))
        assert found[-1] > count / 2, "llama.cpp did not go on from its cache"
        for clock, times in taken.items():
            times.setdefault("llama_full", []).append(self._read[count][clock]["memory"][0] + times["llama_prefix"][-1])


def shape(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Medians, and how many times sooner than the full prefill of the same engine."""
    made = {f"{name}_s": median(taken) for name, taken in times.items()}
    made |= {f"speedup_{way}": made["full_s"] / made[f"{way}_s"] for way in WAYS}
    if "llama_full" in times:
        made["speedup_llama"] = made["llama_full_s"] / made["llama_prefix_s"]
    return made


def load_speed(path: Path, rounds: int) -> dict[str, Any]:
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

    works: dict[str, Callable[[], None]] = {
        "plain": plain,
        "unchecked": partial(ours, check=False),
        "checked": partial(ours, check=True),
    }
    size, taken = path.stat().st_size, Times({clock: {} for clock in CLOCKS})
    for state in ("warm", "cold"):
        for work in works.values():
            work()
        for _ in range(rounds):
            for name, work in works.items():
                if state == "cold":
                    kv.drop_cache(path)
                spent(taken, f"{name}_{state}_gb_s", work)
    return {"bytes": size} | {
        clock: {name: size / 1e9 / median(times) for name, times in taken[clock].items()} for clock in CLOCKS
    }


def llama_cpp(threads: int | None) -> LlamaCpp | None:
    """llama.cpp on the same model; None where it is not installed."""
    try:
        return LlamaCpp.load(kv.MODEL, context=8192, threads=threads)
    except Unsupported as error:
        sys.stderr.write(f"llama.cpp is left out: {error}\n")
        return None


def main() -> int:
    words = parser(__doc__, ["speedup", "load", "table", *(f"table_{count}" for count in CONTEXTS)])
    words.add_argument("--threads", type=int, help="torch's threads, and llama.cpp's; all by default")
    words.add_argument("--rounds", type=int, default=ROUNDS)
    words.add_argument("--precision", default="bf16", help="how the caches are kept")
    words.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the model; the quicker one here by default")
    words.add_argument("--clock", choices=[*CLOCKS], default="wall", help="of which speedup_… are the ratios")
    words.add_argument("--no-llama", action="store_true", help="leave llama.cpp out")
    args = words.parse_args()
    rounds = 1 if args.quick else args.rounds
    try:
        kv.sessions()
    except DataMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    model = kv.engine(args.dtype or kv.quicker(args.threads), args.threads)
    wanted = [count for count in CONTEXTS if {"table", f"table_{count}"} & {*args.only}]
    sizes = [(count, asked) for count in wanted for asked in QUERIES][: 1 if args.quick else None]
    result: dict[str, Any] = {
        "precision": args.precision, "dtype": model.identity.dtype, "context": model.context, "rounds": rounds,
        "threads": args.threads, "clock": args.clock,
    }  # fmt: skip
    with ExitStack() as stack:
        llama = None if args.no_llama else llama_cpp(args.threads)
        if llama is not None:
            stack.callback(llama.close)
        bench = Bench(stack, model, args.precision, llama)
        if "speedup" in args.only:
            goal = bench.row(*GOAL, rounds, llama=not args.quick)
            result |= {f"speedup_{way}_1500": goal[args.clock][f"speedup_{way}"] for way in WAYS} | {"goal": goal}
        if "load" in args.only:
            result["load"] = load_speed(bench.path(bench.cube(GOAL[0])), 9)
        if sizes:
            result["table"] = []
            for size in sizes:
                result["table"].append(bench.row(*size, rounds))
                sys.stderr.write(f"{shown(result)}\n")
    result["machine"] = machine()
    save("ttft", result)
    drawn(result, args.clock)
    print(json.dumps(result) if args.json else shown(result))
    return 0


def drawn(result: Mapping[str, Any], clock: str) -> None:
    """The picture: how many times sooner, by the length of the memory; a line a way and a question's length."""
    with kv.plot("ttft") as axes:
        for asked, style in zip(QUERIES, ("-", "--", ":"), strict=True):
            rows = [row for row in result.get("table", []) if row["query"] == asked]
            for way, colour in (("ram", "C0"), ("disk", "C1"), ("cold", "C2"), ("llama", "C3")):
                mine = [(row["memory"], row[clock][f"speedup_{way}"]) for row in rows if f"speedup_{way}" in row[clock]]
                if mine:
                    axes.plot(*zip(*mine, strict=True), f"{colour}o{style}", label=f"{way}, {asked} asked")
        axes.set(xlabel="tokens of memory", ylabel=f"times sooner than a full prefill ({clock})", yscale="log")
        if axes.has_data():
            axes.legend(fontsize="small", ncols=3)


def shown(result: Mapping[str, Any]) -> str:
    """The tables, for a person."""
    rows = [*([result["goal"]] if "goal" in result else []), *result.get("table", [])]
    lines = [{**row, "clock": clock, **row[clock]} for clock in CLOCKS for row in rows]
    parts = [table(COLUMNS, [[line.get(name) for name in COLUMNS] for line in lines])] if rows else []
    if "load" in result:
        names = result["load"]["wall"]
        parts.append(
            table(["load, GB/s", *CLOCKS], [[name, *(result["load"][c][name] for c in CLOCKS)] for name in names])
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
