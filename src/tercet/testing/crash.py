"""Kill a writing process at random points, and see what is there.

`python -m tercet.testing.crash FOLDER SEED` writes without end and says on its standard output what it is about to do
and what has been acknowledged. `kill_once` runs it, kills it, opens the vault and compares.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tercet.cube import Text, derive
from tercet.kernel import Tercet
from tercet.testing.fakes import FakeEmbedder
from tercet.text.read.message import Message
from tercet.vault.erase import erase
from tercet.vault.ids import system_clock
from tercet.vault.jobs import LEASE

USER = "writer"


@dataclass
class Book:
    """What the writer was told is kept: the text of each cube by id, and what was erased."""

    texts: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    acknowledged: int = 0

    def note(self, line: dict[str, Any]) -> None:
        """Take in one acknowledgement."""
        self.acknowledged += 1
        self.texts.update(line.get("kept", {}))
        if "state" in line:
            self.texts = line["state"]
        for id in line.get("gone", ()):
            self.texts.pop(id, None)
            self.erased.add(id)


def let_work(told: Iterator[dict[str, Any]], key: str, chance: random.Random, most: int) -> list[dict[str, Any]]:
    """Take in what a process tells until it begins with one of its first `most` calls, then wait for a part of that.

    A line that has `key` tells of a beginning. What such calls took so far says how long to wait: so a kill comes
    within one on a quick machine as on a busy one. Returns the lines.
    """
    lines, took, begun = list[dict[str, Any]](), [0.005], 0.0
    left = chance.randrange(1, most + 1)
    for line in told:
        now = time.perf_counter()
        if begun:
            took.append(now - begun)
        begun = now if key in line else 0.0
        lines.append(line)
        left -= key in line
        if not left:
            break
    time.sleep(1.3 * chance.random() * sum(took) / len(took))
    return lines


def write(folder: Path, seed: int, travels: float = 0.1) -> None:
    """Write for ever: single memories, batches, revisions, erasures, branches, restores, each told before and after."""
    chance, number = random.Random(seed), 0  # noqa: S311  # to be repeated, not to be secret
    tell({"opening": True})
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        scope = t.scope(user=USER)
        ids = [cube.id for cube in scope.list(limit=10_000)]
        while True:
            number += 1
            mark, action = f"m{seed}n{number}", chance.random()
            if chance.random() < travels and len(ids) >= 5:
                ids = travel(t, mark, chance)
                continue
            if action < 0.6 or len(ids) < 5:
                tell({"doing": [f"memory {mark}"]})
                kept = [scope.remember(f"memory {mark}", ref=mark, tags=["crash"])]
            elif action < 0.8:
                texts = [f"batch {mark} {i}" for i in range(chance.randrange(2, 30))]
                tell({"doing": texts})
                kept = scope.remember_many([Message(text, ref=text) for text in texts])
            elif action < 0.95:
                id = chance.choice(ids)
                tell({"doing": [f"revised {mark}"], "revising": id})
                kept = [scope.revise(id, f"revised {mark}")]
            else:
                id = ids.pop(chance.randrange(len(ids)))
                tell({"doing": [], "erasing": [id]})
                tell({"gone": scope.forget(id).erased})
                continue
            ids += [cube.id for cube in kept if cube.version == 1]
            tell({"kept": {cube.id: cube.text for cube in kept}})


def travel(t: Tercet, mark: str, chance: random.Random) -> list[str]:
    """Branch, change something there and drop it, or restore a snapshot; returns the ids that the main line shows."""
    scope = t.scope(user=USER)
    now = {cube.id: cube.text for cube in every(t)}
    if chance.random() < 0.5:
        tell({"doing": [], "travelling": [now]})
        t.branch(mark)
        branch = t.scope(user=USER, branch=mark)
        for id in chance.sample(list(now), min(3, len(now))):
            branch.revise(id, f"on branch {mark}")
        branch.remember_many([f"branch {mark} {i}" for i in range(5)])
        t.snapshot(f"of {mark}", branch=mark)
        branch.revise(next(iter(now)), f"on branch {mark}, later")
        t.restore(f"of {mark}")
        if chance.random() < 0.7:
            t.drop(mark)
        tell({"state": now})
        return list(now)
    tell({"doing": [], "travelling": [now]})
    t.snapshot(mark)
    tell({"state": now})
    later = dict(now)
    for i, id in enumerate(chance.sample(list(now), min(3, len(now)))):
        tell({"doing": [f"later {mark} {i}"], "revising": id})
        later[id] = scope.revise(id, f"later {mark} {i}").text
        tell({"kept": {id: later[id]}})
    tell({"doing": [f"made {mark}"]})
    made = scope.remember(f"made {mark}")
    later[made.id] = made.text
    tell({"kept": {made.id: made.text}})
    tell({"doing": [], "travelling": [later, now]})
    t.restore(mark)
    tell({"state": now})
    return list(now)


def tell(line: dict[str, Any]) -> None:
    """One line of JSON, out at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def kill_once(folder: Path, book: Book, *, seed: int, calls: int = 12, travels: float = 0.1) -> str:
    """Let a writer write, kill it within one of its first `calls` calls, and check the vault against the book.

    `travels` is the share of its steps that branch or restore.

    Returns how the call that was under way ended: "done", "undone", or "idle". Raises AssertionError for an
    acknowledged memory that is lost, is there twice or differs, a half-done call, or anything that doctor finds.
    """
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    # Opening, and making the vault, are points too.
    key, most = ("doing", calls) if chance.random() < 0.8 else ("opening", 1)
    lines = _killed([str(folder), str(seed), str(travels)], key, chance, most)
    for line in lines:
        if line.keys() & {"kept", "gone", "state"}:
            book.note(line)
    under_way = lines[-1] if "doing" in lines[-1] else None
    return check(Tercet.open(folder, embedder=FakeEmbedder()), book, under_way)


def _killed(words: list[str], key: str, chance: random.Random, most: int) -> list[dict[str, Any]]:
    """Run this module with those words, kill it at work, and return what it told."""
    command = [sys.executable, "-m", __name__, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own module
        assert process.stdout is not None
        told = (json.loads(line) for line in process.stdout if line.endswith("}\n"))
        lines = let_work(told, key, chance, most)
        process.send_signal(signal.SIGKILL)
        lines += told
    assert lines, "the process did not begin"
    return lines


def check(vault: Tercet, book: Book, under_way: dict[str, Any] | None, *, policy: str | None = None) -> str:
    """Compare the vault with the book, and take into the book what the killed call did; closes the vault."""
    with vault as t:
        scope = t.scope(user=USER)
        found = {cube.id: cube.text for cube in every(scope.tercet)}
        ended = settle(book, found, under_way)
        assert found == book.texts, f"lost or changed: {set(book.texts.items()) ^ set(found.items())}"
        twice = {text: count for text, count in Counter(found.values()).items() if count > 1}
        assert not twice, f"kept twice: {twice}"
        assert not book.erased & set(found)
        findings = {name: list(some) for name, some in t.doctor().items() if some}
        assert not findings, f"doctor found {findings}"
        for id, text in list(found.items())[-3:]:
            hits = scope.recall(text, limit=5, policy=policy)
            assert id in [hit.cube.id for hit in hits], f"not found: {text!r}"
    return ended


def settle(book: Book, found: dict[str, str], under_way: dict[str, Any] | None) -> str:
    """Whether the call that was killed was "done" or "undone" ("idle": there was none), which the book then tells.

    Raises AssertionError if it was half done.
    """
    if under_way is None:
        return "idle"
    if "erasing" in under_way:
        asked = under_way["erasing"]
        left = set(asked) & found.keys()
        assert len(left) in {0, len(asked)}, f"{len(left)} of {len(asked)} are left"
        if left:
            return "undone"
        book.note({"gone": asked})
        return "done"
    if "travelling" in under_way:
        place = next((i for i, state in enumerate(under_way["travelling"]) if state == found), None)
        assert place is not None, "a journey was half done"
        book.note({"state": found})
        return "done" if place else "undone"
    texts = set(under_way["doing"])
    made = {id: text for id, text in found.items() if text in texts}
    assert len(made) in {0, len(texts)}, f"a call was half done: {len(made)} of {len(texts)}"
    if made:
        book.note({"kept": made})
    return "done" if made else "undone"


def every(t: Tercet) -> list[Any]:
    """All that the writer's scope holds."""
    cubes: list[Any] = []
    cursor = None
    while True:
        page = t.scope(user=USER).list(limit=1000, cursor=cursor)
        cubes += page
        cursor = page.cursor
        if cursor is None:
            return cubes


def erasing(t: Tercet, chance: random.Random, words: Iterator[str]) -> None:
    """Forget some of what was just remembered, with what was made from it, and scrub it in the call."""
    scope = t.scope(user=USER)
    cubes = scope.remember_many([f"The code is {next(words)}." for _ in range(chance.randrange(2, 12))])
    made = scope.remember(derive(cubes[:2], Text(f"Made of two: {next(words)}."), method="m"))
    tell({"kept": {cube.id: cube.text for cube in (*cubes, made)}})
    tell({"ending": [cubes[0].id, made.id]})
    tell({"gone": scope.forget(cubes[0].id).erased})


def scrubbing(t: Tercet, chance: random.Random, words: Iterator[str]) -> None:
    """Erase first, then scrub: a file large enough that most of the time goes by within the scrub."""
    scope, tenant = t.scope(user=USER), t.vault.tenant("default")
    cubes = scope.remember_many([f"The code is {next(words)}. {'So it goes. ' * 60}" for _ in range(20)])
    tell({"kept": {cube.id: cube.text for cube in cubes}})
    some = [cube.id for cube in cubes if chance.random() < 0.9]
    tell({"ending": some})
    with tenant.writing(by="writer") as writer:
        erase(writer, [writer.reader.head(id, scope.scope)[0] for id in some])
    tell({"gone": some})
    tenant.scrub(at_once=True)


def sweeping(t: Tercet, chance: random.Random, words: Iterator[str]) -> None:
    """Let what has ended be swept, in batches of a few, while other memories stay."""
    scope = t.scope(user=USER)
    kept = scope.remember(f"Stays: {next(words)}.")
    tell({"kept": {kept.id: kept.text}})
    ended = [
        scope.remember(f"Ends: {next(words)}.", expires=timedelta(microseconds=1))
        for _ in range(chance.randrange(3, 12))
    ]
    tell({"ending": [cube.id for cube in ended]})
    t.work(until_idle=True)
    tell({"gone": [cube.id for cube in ended]})


PHASES: Mapping[str, Callable[[Tercet, random.Random, Iterator[str]], None]] = {
    "erasing": erasing,
    "scrub": scrubbing,
    "sweep": sweeping,
}
"""Name -> one round of something that a kill must not leave half done."""


def go_through(folder: Path, seed: int, phase: str) -> None:
    """Rounds of a phase without end. Every text has a word that no other text has."""
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    words = (f"w{seed}n{number}x" for number in itertools.count())
    with Tercet.open(folder, embedder=FakeEmbedder(), signing_key=None) as t:
        while True:
            PHASES[phase](t, chance, words)


def kill_in(phase: str, folder: Path, book: Book, *, seed: int, calls: int = 5) -> str:
    """Kill a process within one of the first `calls` rounds of a phase.

    Returns "done", "undone", "part" (an intent, which was then finished) or "idle" (between two rounds).

    Raises AssertionError if an acknowledged memory is lost, an erased one is there, a word of one is in some file once
    the jobs have run, or doctor finds anything.
    """
    key = "gone" if phase == "scrub" else "ending"  # the line behind which the phase's own work begins
    lines = _killed([str(folder), str(seed), phase], key, random.Random(seed), calls)  # noqa: S311  # as above
    texts = dict(book.texts)
    for line in lines:
        texts.update(line.get("kept", {}))
        if line.keys() & {"kept", "gone"}:
            book.note(line)
    under_way = set(lines[-1].get("ending", ()))
    with Tercet.open(folder, embedder=FakeEmbedder(), signing_key=None, clock=_after_leases) as t:
        before = {cube.id for cube in every(t)}
        waits = bool(t.stats()["tenants"]["default"]["scrubs_waiting"])
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 0, "the scrub was not finished"
        found = {cube.id: cube.text for cube in every(t)}
        left = under_way & set(found)
        assert not left or phase != "sweep", "what had ended is still there"
        assert left in (set(), under_way), "an erasure was half done"
        for id in under_way - left:
            book.note({"gone": [id]})
        wrong = [id for id in set(book.texts) - set(found) if id in texts]
        assert not wrong, f"lost: {wrong}"
        assert not book.erased & set(found), "what was erased is there"
        findings = [some for some in t.doctor().values() if some]
        assert not findings, f"doctor found {findings}"
        book.texts = found
    raw = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    gone = [text.split(": ")[-1].split("is ")[-1].split(".")[0] for id, text in texts.items() if id not in found]
    still = [word for word in gone if f"{word}.".encode() in raw]
    assert not still, f"erased, scrubbed, and in the files: {still}"
    if not under_way:
        return "part" if waits else "idle"
    return "undone" if under_way <= before else "done" if not under_way & before and not waits else "part"


def _after_leases() -> datetime:
    """When a job that the killed process had taken is free again."""
    return system_clock() + 2 * LEASE


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[3] in PHASES:
        go_through(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    write(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.1)
