"""What forgetting leaves, and what it costs: `python benchmarks/erasure.py [--json] [--quick] [--only canaries,cost]`.

canaries: rare words and sentences are planted, revised, labelled, derived from, exported, backed up (and in snapshots
and branches where there are any), then forgotten. They are looked for by words, by vectors, in every version, and in
every byte of every file; then again after an import, a restore, a repair and a new index.
cost: one forget at a thousand and at a million memories, the erasure alone, the whole call, and the scrub. Vectors (384
dimensions) come from a seeded callable, so that no model is timed; times are medians within one run.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import RESULTS, machine, parser, percentile, save, store_bytes, table  # noqa: E402

from tercet import MissingMemory, Receipt, Tercet, Text, derive  # noqa: E402
from tercet.exchange.archive import export_scope  # noqa: E402
from tercet.exchange.restore import import_archive  # noqa: E402
from tercet.text.read.message import Message  # noqa: E402
from tercet.vault.backup import restore  # noqa: E402
from tercet.vault.erase import erase  # noqa: E402

DIM = 384
SIZES, QUICK = (1_000, 1_000_000), (1_000, 20_000)
KEYS = ("canaries", "cost")


def embed(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector for each text, from its characters alone."""
    seeds = [int.from_bytes(text[-24:].encode()[-8:].ljust(8), "little") for text in texts]
    return np.stack([np.random.default_rng(seed).standard_normal(DIM, np.float32) for seed in seeds])


def filler(i: int) -> str:
    """A memory like many others."""
    return f"Memory {i} tells of boilers, soup and a garden in Oslo, and of number {i * 7919 % 100_003}."


def canaries(count: int, fillers: int) -> dict[str, Any]:
    """Plant that many, forget them, and look; every figure under `found` should be zero."""
    dice = random.Random(5)  # noqa: S311  # to be repeated, not to be secret
    words = [f"canary{dice.getrandbits(64):016x}" for _ in range(count)]
    texts = [word if i % 2 else f"In the evening {word} walked home across the bridge." for i, word in enumerate(words)]
    with tempfile.TemporaryDirectory(prefix="tercet-erasure-") as name:
        folder = Path(name)
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            alice = t.scope(user="alice")
            alice.remember_many([filler(i) for i in range(fillers)])
            cubes = alice.remember_many([Message(text, tags=(word,)) for text, word in zip(texts, words, strict=True)])
            for cube, word in list(zip(cubes, words, strict=True))[: count // 3]:
                alice.revise(cube.id, f"It was {word} who called.")
            others = alice.list(limit=count // 4)
            made = [
                alice.remember(derive([cube, other], Text(f"{word} and another."), method="m"))
                for cube, word, other in zip(cubes, words, others, strict=False)
            ]
            archive = io.BytesIO()
            export_scope(alice, archive)
            t.backup(folder / "backup")
            past = _past(t)
            began = time.perf_counter()
            receipt = alice.forget([cube.id for cube in cubes])
            took = time.perf_counter() - began
            out: dict[str, Any] = {
                "planted": count,
                "erased": len(receipt.erased),
                "derived": len(receipt.derived),
                "past": past,
                "forget_s": took,
                "scrubbed": receipt.scrubbed_at is not None,
                "probe_found": len(receipt.probe.found) if receipt.probe else None,
                "verified": t.verify(receipt).passed,
                "found": _found(t, folder / "vault", words, receipt),
            }
            archive.seek(0)
            out["import_skipped"] = len(import_archive(alice, archive).skipped)
            t.vault.tenant("default").index()
            t.doctor(repair=True)
            out["found_after_import_and_index"] = _found(t, folder / "vault", words, receipt)
        assert len(made) == len(receipt.derived)
        restore(folder / "backup", folder / "vault")
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            out["found_after_restore"] = _found(t, folder / "vault", words, receipt)
        return out


def _past(t: Tercet) -> list[str]:
    """Snapshots and branches, where this version has them."""
    did = []
    for name, call in (("snapshot", ("before",)), ("branch", ("aside",))):
        make: Callable[..., object] | None = getattr(t, name, None)
        if make is not None:
            make(*call)
            did.append(name)
    return did


def _found(t: Tercet, folder: Path, words: Sequence[str], receipt: Receipt) -> dict[str, int]:
    alice = t.scope(user="alice")
    raw = b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    by: dict[str, int] = {"words": 0, "vectors": 0, "versions": 0, "bytes": 0}
    for word in words:
        for policy in ("words", "vectors"):
            hits = alice.recall(word, limit=10, policy=policy, where={"state": {"$ne": "none"}})
            by[policy] += any(word in hit.cube.text for hit in hits)
        by["bytes"] += any(word.encode(form) in raw for form in ("utf-8", "utf-16-le"))
    for id in receipt.erased:
        for call in (alice.get, alice.history, partial(alice.rollback, version=1)):
            try:
                call(id)
            except MissingMemory:
                continue
            by["versions"] += 1
    return by


def cost(size: int) -> dict[str, Any]:
    """Forget single memories of a vault of that many; users have a thousand each."""
    with tempfile.TemporaryDirectory(prefix="tercet-erasure-") as name:
        folder = Path(name)
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            began = time.perf_counter()
            for user in range(max(1, size // 1000)):
                t.scope(user=f"user{user}").remember_many([filler(user * 1000 + i) for i in range(1000)])
            out: dict[str, Any] = {"size": size, "ingest_s": time.perf_counter() - began}
            out["bytes"] = store_bytes(folder / "vault")
            tenant, scope = t.vault.tenant("default"), t.scope(user="user0")
            ids = iter([cube.id for cube in scope.list(limit=200)])
            out["in_call"] = tenant.scrubs_at_once

            def erased() -> None:
                with tenant.writing(by="benchmark") as writer:
                    erase(writer, [writer.reader.head(next(ids), scope.scope)[0]])

            scope.forget(next(ids))  # the key is made, and libraries are loaded
            out["erase_ms"] = _median(erased, 20)
            out["forget_ms"] = _median(lambda: scope.forget(next(ids)), 20)
            out["forget_without_probe_ms"] = _median(lambda: scope.forget(next(ids), probe=False), 20)
            erased()
            began = time.perf_counter()
            out["scrub_left"] = tenant.scrub(at_once=True)
            out["scrub_s"] = time.perf_counter() - began
            began = time.perf_counter()
            scope.forget([next(ids) for _ in range(100)], probe=False)
            out["forget_100_ms"] = 1000 * (time.perf_counter() - began)
        began = time.perf_counter()
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            t.scope(user="user0").list(limit=1)
        out["open_ms"] = 1000 * (time.perf_counter() - began)
        return out


def _median(call: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - began))
    return percentile(took, 50)


def main() -> int:
    """Run what is asked for; exit code 1 if anything was found that should be gone."""
    options = parser(__doc__, KEYS)
    options.add_argument("--sizes", help="sizes for the cost, separated by commas")
    given = options.parse_args()
    os.environ.pop("TERCET_STORE", None)
    document: dict[str, Any] = {"machine": machine()}
    if "canaries" in given.only:
        document["canaries"] = canaries(100 if given.quick else 1000, 500 if given.quick else 5000)
    if "cost" in given.only:
        sizes = [int(s) for s in given.sizes.split(",")] if given.sizes else list(QUICK if given.quick else SIZES)
        document["cost"] = [cost(size) for size in sizes]
        _plot(document["cost"])
    save("erasure", document)
    found = [n for key, by in document.get("canaries", {}).items() if key.startswith("found") for n in by.values()]
    if given.json:
        print(json.dumps(document))
    else:
        if "canaries" in document:
            print(table(["canaries", "value"], [(key, str(value)) for key, value in document["canaries"].items()]))
        for row in document.get("cost", []):
            print()
            print(table(["cost", f"{row['size']:,} memories"], [(key, value) for key, value in row.items()]))
    return 1 if any(found) else 0


def _plot(rows: Sequence[dict[str, Any]]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [row["size"] for row in rows]
    axes.loglog(sizes, [row["erase_ms"] for row in rows], marker="o", label="erasing one memory")
    axes.loglog(sizes, [row["forget_ms"] for row in rows], marker="o", label="the whole call")
    axes.loglog(sizes, [1000 * row["scrub_s"] for row in rows], marker="o", label="the scrub")
    axes.set(xlabel="memories", ylabel="ms")
    axes.legend()
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "erasure.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
