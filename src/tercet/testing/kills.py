"""Kill a process within one of several deeds, and see what is there: `crash` kills one that only writes.

`kill_once` starts a process that writes without end, does a deed (`DEEDS`) in between, and says what it is about to do
and what has been acknowledged; kills it, opens the vault and compares.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tercet.errors import VaultError
from tercet.kernel import Tercet
from tercet.testing.crash import USER, Book, check, every, let_work
from tercet.testing.fakes import FakeEmbedder
from tercet.testing.narrow import narrow
from tercet.text.read.message import Message
from tercet.vault import spaces
from tercet.vault.backup import verify
from tercet.vault.sqlite import segments_of

MOST = 150
"""Memories from which on more is erased than written."""
DIMS = (32, 24)
"""Of the two spaces between which a vault is moved."""


class Culprit:
    """Writes for ever and does its deed in between; each is told before and after."""

    def __init__(self, folder: Path, seed: int, deed: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self.folder, self.seed, self.tell, self.number = folder, seed, tell, 0
        self.chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
        self.deed = DEEDS[deed]
        self.t = open_vault(folder)
        self.scope = self.t.scope(user=USER)
        self.ids = [cube.id for cube in self.scope.list(limit=10_000)]

    def run(self) -> None:
        """Until it is killed."""
        while True:
            for _ in range(1 if self.deed is None else self.chance.randrange(1, 4)):
                self.write()
            if self.deed is not None and len(self.ids) > MOST // 8:
                for _ in range(3):
                    self.number += 1
                    self.tell({"deed": self.number})
                    self.tell({"done": self.number, **self.deed(self)})

    def write(self) -> None:
        """One call that writes."""
        self.number += 1
        mark, action = f"m{self.seed}n{self.number}", self.chance.random()
        if len(self.ids) > MOST:
            action = 1 - (1 - action) / 8
        if action < 0.6 or len(self.ids) < 5:
            self.tell({"doing": [f"memory {mark}"]})
            kept = [self.scope.remember(f"memory {mark}", ref=mark, tags=["crash"])]
        elif action < 0.8:
            texts = [f"batch {mark} {i}" for i in range(self.chance.randrange(2, 30))]
            self.tell({"doing": texts})
            kept = self.scope.remember_many([Message(text, ref=text) for text in texts])
        elif action < 0.95:
            id = self.chance.choice(self.ids)
            self.tell({"doing": [f"revised {mark}"], "revising": id})
            kept = [self.scope.revise(id, f"revised {mark}")]
        else:
            several = self.chance.sample(self.ids, self.chance.choice((1, 1, len(self.ids) // 4)))
            self.tell({"doing": [], "erasing": several})
            self.tell({"gone": self.scope.forget(several).erased})
            self.ids = [id for id in self.ids if id not in set(several)]
            return
        self.ids += [cube.id for cube in kept if cube.version == 1]
        self.tell({"kept": {cube.id: cube.text for cube in kept}})

    def index(self) -> dict[str, Any]:
        """Make the segments of a vault that has none, as after a restore."""
        tenant = self.t.vault.tenant("default")
        tenant.forget_cache()
        for path in segments_of(tenant.path).glob("*.lvq"):
            path.unlink()
        tenant.index()
        return {}

    def consolidate(self) -> dict[str, Any]:
        """Write the segments anew, since something has changed, and let the old ones go."""
        id = self.chance.choice(self.ids)
        self.tell({"doing": [f"revised again {self.seed} {self.number}"], "revising": id})
        cube = self.scope.revise(id, f"revised again {self.seed} {self.number}")
        self.tell({"kept": {id: cube.text}})
        self.tell({"deed": self.number})
        self.t.vault.tenant("default").index()
        return {}

    def back_up(self) -> dict[str, Any]:
        """A backup, beside those that were made before."""
        copies = sorted(self.folder.parent.glob("copy-*"))
        for old in copies[:-2]:
            aside = old.replace(old.with_name(f"gone-{old.name}"))  # half of it might be left
            shutil.rmtree(aside)
        name = f"copy-{self.seed:06}-{self.number:06}"
        self.t.backup(self.folder.parent / name)
        return {"copy": name, "holds": self.ids}

    def move(self) -> dict[str, Any]:
        """All vectors into the other space."""
        embedder = self.t.embedder
        self.t.close()
        self.t = open_vault(self.folder, DIMS[embedder is not None and embedder.dim == DIMS[0]])
        self.scope = self.t.scope(user=USER)
        self.t.reembed()
        return {}


DEEDS: Mapping[str, Callable[[Culprit], dict[str, Any]] | None] = {
    "writing": None,
    "indexing": Culprit.index,
    "consolidation": Culprit.consolidate,
    "backup": Culprit.back_up,
    "embedding": Culprit.move,
}
"""What a process is killed in; it writes in between."""


def open_vault(folder: Path, dim: int = DIMS[0]) -> Tercet:
    """The vault, with an embedder of one of the two dimensions, and the other's as the former one."""
    return Tercet.open(folder, embedder=FakeEmbedder(dim), former=FakeEmbedder(sum(DIMS) - dim))


def kill_once(folder: Path, book: Book, *, seed: int, calls: int = 6, deed: str = "writing") -> str:
    """Let a process work, kill it within one of its first `calls` deeds, and check the vault against the book.

    Returns what was under way: the deed's name, or how the call that wrote ended: "done", "undone", or "idle". Raises
    AssertionError for an acknowledged memory that is lost, is there twice or differs, a half-done call, or anything
    that doctor finds.
    """
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    context = multiprocessing.get_context("forkserver")  # which imports once, and has no thread or file of ours
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_be_killed, args=(folder, seed, deed, theirs))
    process.start()
    theirs.close()
    with closing(ours):
        told = _told(ours)
        if deed != "writing":
            lines = let_work(told, "deed", chance, calls)
        else:  # opening, and making the vault, are points too
            lines = let_work(told, *(("doing", chance, 2 * calls) if chance.random() < 0.8 else ("opening", chance, 1)))
        process.kill()
        process.join()
        lines += told
    for line in lines:
        if line.keys() & {"kept", "gone"}:
            book.note(line)
    with narrow() if deed != "writing" else nullcontext():
        under_way = lines[-1] if lines and "doing" in lines[-1] else None
        # By words: one that was written with an embedder whose space the vault has left has no vector yet.
        ended = check(open_vault(folder), book, under_way, policy="words")
        check_copies(folder.parent, lines)
        if deed == "embedding":
            check_move(folder, book, finish=chance.random() < 0.3)
    return deed if lines and "deed" in lines[-1] else ended


def check_copies(folder: Path, lines: list[dict[str, Any]]) -> None:
    """A backup that was acknowledged holds what it should; one that was not is whole, or says that it is not."""
    holds = {line["copy"]: set(line["holds"]) for line in lines if "copy" in line}
    for copy in folder.glob("copy-*"):
        try:
            verify(copy)
        except VaultError:
            assert copy.name not in holds, f"{copy.name} was acknowledged and is no whole backup"
        else:
            with open_vault(copy) as t:
                ids = {cube.id for cube in every(t)}
                assert ids == holds.get(copy.name, ids), f"{copy.name} does not hold what it should"
                assert not any(t.doctor().values()), t.doctor()
        shutil.rmtree(copy)
    for rest in folder.glob("gone-*"):
        shutil.rmtree(rest)


def check_move(folder: Path, book: Book, *, finish: bool) -> None:
    """Whichever way the vault was moving, it answers by vectors; with `finish`, the move comes to its end."""
    with open_vault(folder) as t, t.vault.tenant("default").reading() as reader:
        there = {one.space.dim for one in spaces.known(reader.connection) if one.left is None}
    with open_vault(folder, min(there, default=DIMS[0])) as t:
        scope = t.scope(user=USER)
        if book.texts:
            by = {hit.why["by"] for hit in scope.recall("memory", limit=MOST)}
            assert by <= {"words and vectors", "words (its vector is not made yet)"}, by
        if finish:
            t.work(until_idle=True)
            held = t.stats()["tenants"]["default"]["spaces"]
            assert [one["vectors"] for one in held.values()] == [len(book.texts)], held
            for id, text in list(book.texts.items())[-3:]:
                assert id in [hit.cube.id for hit in scope.recall(text, limit=5)], f"not found: {text!r}"
            assert not any(t.doctor().values()), t.doctor()


def _told(pipe: Connection) -> Iterator[dict[str, Any]]:
    with suppress(EOFError, OSError):  # the end, or a line that is not whole
        while True:
            yield json.loads(pipe.recv_bytes())


def _be_killed(folder: Path, seed: int, deed: str, pipe: Connection) -> None:
    def tell(line: dict[str, Any]) -> None:
        pipe.send_bytes(json.dumps(line).encode())

    tell({"opening": True})
    with narrow() if deed != "writing" else nullcontext():
        Culprit(folder, seed, deed, tell).run()
