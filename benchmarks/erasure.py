"""What forgetting leaves, and what it costs: `python benchmarks/erasure.py [--json] [--quick] [--only canaries,cost]`.

canaries: rare words and sentences are planted, revised, labelled, derived from, exported, backed up. Snapshots are
taken of them; some are revised on a branch and on a branch of that, some are written on a branch alone, some are hidden
by a restore. Then all are forgotten, and looked for by words, by vectors, in every version, on every branch, in the
past, and in every byte of every file; then again after each snapshot is restored, after an import, a repair and a new
index, and after a restore of the backup.
cost: one forget at a thousand and at a million memories, the erasure alone, the whole call, and the scrub. Vectors (384
dimensions) come from a seeded callable, so that no model is timed, and only the thousand memories of the user who
forgets have some; times are medians within one run.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from benchmarks.common import RESULTS, machine, parser, percentile, save, store_bytes, table  # noqa: E402

from tercet import MemCube, MissingMemory, Receipt, ScopedMemory, Tercet, Text, derive  # noqa: E402
from tercet.exchange.archive import export_scope  # noqa: E402
from tercet.exchange.restore import import_archive  # noqa: E402
from tercet.text.read.message import Message  # noqa: E402
from tercet.vault.backup import restore  # noqa: E402
from tercet.vault.erase import erase  # noqa: E402
from tercet.vault.journal import head  # noqa: E402

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


@dataclass
class Planted:
    """What was planted: the rare word of each canary, the words written over them, and the ids on each branch."""

    words: list[str]
    later: list[str]
    ids: dict[str | None, list[str]]
    lines: list[int]

    @property
    def everything(self) -> list[str]:
        """Every word that must be nowhere."""
        return [*self.words, *self.later]


BRANCHES = (None, "aside", "above")
TOGETHER = 20
"""Rare words in one question: no other text has one, so that a canary that is left comes first. By vectors, which take
one text at a time, a tenth of them is asked for."""
WALKED = "walked home across the bridge."
WHERE = {"state": {"$ne": "none"}}
"""Archived memories too."""


def plant(t: Tercet, count: int, fillers: int) -> Planted:
    """Canaries on the main line, on a branch, on a branch of that, revised there and hidden by a restore."""
    dice = random.Random(5)  # noqa: S311  # to be repeated, not to be secret

    def rare(number: int) -> list[str]:
        return [f"canary{dice.getrandbits(64):016x}" for _ in range(number)]

    def said(words: Sequence[str]) -> list[Message]:
        texts = [w if i % 2 else f"In the evening {w} {WALKED}" for i, w in enumerate(words)]
        return [Message(text, tags=(word,)) for text, word in zip(texts, words, strict=True)]

    alice = t.scope(user="alice")
    alice.remember_many([filler(i) for i in range(fillers)])
    apart = count // 5
    first, hidden, aside, above = rare(count - 3 * apart), rare(apart), rare(apart), rare(apart)
    main = alice.remember_many(said(first))
    lines = [_line(t)]
    later = rare(count // 3)
    for cube, word in zip(main, later, strict=False):
        alice.revise(cube.id, f"It was {word} who called.")
    others = alice.list(limit=count // 4)
    for cube, word, other in zip(main, first, others, strict=False):
        alice.remember(derive([cube, other], Text(f"{word} and another."), method="m"))
    t.snapshot("before")
    lines.append(_line(t))
    made = alice.remember_many(said(hidden))
    lines.append(_line(t))
    t.restore("before")  # which hides what was just made, and leaves a snapshot that shows it
    ids: dict[str | None, list[str]] = {None: [cube.id for cube in (*main, *made)]}
    for name, source, words in (("aside", "before", aside), ("above", "aside", above)):
        t.branch(name, from_=source)
        branch = t.scope(user="alice", branch=name)
        ids[name] = [cube.id for cube in branch.remember_many(said(words))]
        over = rare(apart)
        for id, word in zip([*ids[name][: apart // 2], *ids[None]], over, strict=False):
            branch.revise(id, f"On {name} it was {word}.")
        later += over
        t.snapshot(f"of {name}", branch=name)
        branch.revise(ids[name][0], "Something else by now.")
        lines.append(_line(t))
    return Planted([*first, *hidden, *aside, *above], later, ids, lines)


def canaries(count: int, fillers: int) -> dict[str, Any]:
    """Plant that many, forget them, and look; every figure under `found` should be zero."""
    with tempfile.TemporaryDirectory(prefix="tercet-erasure-") as name:
        folder = Path(name)
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            planted = plant(t, count, fillers)
            views = {branch: t.scope(user="alice", branch=branch) for branch in BRANCHES}
            archive = io.BytesIO()
            export_scope(views[None], archive)
            t.backup(folder / "backup")
            held = {
                str(branch): view.list(where={"tags": planted.words}, limit=1).total for branch, view in views.items()
            }
            began = time.perf_counter()
            receipts = [views[branch].forget(ids) for branch, ids in planted.ids.items()]
            took = time.perf_counter() - began
            out: dict[str, Any] = {
                "planted": len(planted.words),
                "words": len(planted.everything),
                "seen_before": held,
                "erased": sum(len(receipt.erased) for receipt in receipts),
                "derived": sum(len(receipt.derived) for receipt in receipts),
                "snapshots": len(t.snapshots()),
                "branches": len(t.branches()),
                "forget_s": took,
                "scrubbed": all(receipt.scrubbed_at is not None for receipt in receipts),
                "probe_found": sum(len(receipt.probe.found) if receipt.probe else 1 for receipt in receipts),
                "verified": all(t.verify(receipt).passed for receipt in receipts),
                "found": _found(t, folder / "vault", planted, receipts),
            }
            for one in list(t.snapshots()):
                t.restore(one.name)
            out["snapshots_restored"] = len(t.snapshots()) // 2
            out["found_after_snapshot_restores"] = _found(t, folder / "vault", planted, receipts)
            archive.seek(0)
            out["import_skipped"] = len(import_archive(views[None], archive).skipped)
            t.vault.tenant("default").index()
            t.doctor(repair=True)
            out["found_after_import_and_index"] = _found(t, folder / "vault", planted, receipts)
        restore(folder / "backup", folder / "vault")
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            out["found_after_restore"] = _found(t, folder / "vault", planted, receipts)
            out["doctor"] = sum(map(len, t.doctor().values()))
        return out


def _line(t: Tercet) -> int:
    """The newest line of the journal."""
    with t.vault.tenant("default").reading() as reader:
        return head(reader.connection)[0]


def _found(t: Tercet, folder: Path, planted: Planted, receipts: Sequence[Receipt]) -> dict[str, int]:
    """How many questions find a canary, and how many lists, ids and words have one."""
    raw = b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    views = [t.scope(user="alice", branch=branch) for branch in BRANCHES]
    pasts = [views[0].as_of(known=line) for line in planted.lines]
    by: dict[str, int] = {"words": 0, "vectors": 0, "lists": 0, "versions": 0, "bytes": 0}
    words = planted.everything
    asked = {
        "words": [" ".join(words[start : start + TOGETHER]) for start in range(0, len(words), TOGETHER)],
        "vectors": [*words[:: TOGETHER // 2], *words[1 :: TOGETHER // 2], f"In the evening {words[0]} {WALKED}"],
    }
    for view in views:
        for policy, questions in asked.items():
            for question in questions:
                hits = view.recall(question, limit=10, policy=policy, where=WHERE)
                by[policy] += any("canary" in hit.cube.text for hit in hits)
    by["bytes"] = sum(any(word.encode(form) in raw for form in ("utf-8", "utf-16-le")) for word in words)
    for view in (*views, *pasts):  # each that there is, with every version of it
        for cube in _all(view):
            said = " ".join(old.text for old in view.history(cube.id))
            by["lists"] += "canary" in said
    for id in {id for receipt in receipts for id in receipt.erased}:
        for view in views:
            for call in (view.get, view.history, partial(view.rollback, version=1)):
                try:
                    call(id)
                except MissingMemory:
                    continue
                by["versions"] += 1
    return by


def _all(view: ScopedMemory) -> list[MemCube]:
    found, cursor = list[MemCube](), None
    while True:
        page = view.list(limit=10_000, cursor=cursor)
        found += page
        cursor = page.cursor
        if cursor is None:
            return found


def cost(size: int) -> dict[str, Any]:
    """Forget single memories of a vault of that many; users have a thousand each."""
    with tempfile.TemporaryDirectory(prefix="tercet-erasure-") as name:
        folder = Path(name)
        with Tercet.open(folder / "vault", embedder=embed, signing_key=folder / "key") as t:
            began = time.perf_counter()
            for user in range(max(1, size // 1000)):
                texts = [filler(user * 1000 + i) for i in range(1000)]
                # The first thousand, which are forgotten from, have vectors; more would only take time to make.
                t.scope(user=f"user{user}").remember_many(texts, wait_for="vectors" if user == 0 else "words")
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
