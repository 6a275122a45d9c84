"""Several processes that write, read and erase in one vault at once, and hold each other to what they were told.

`python -m tercet.testing.crowd FOLDER LEDGERS NUMBER SECONDS` is one of them. What it was told is kept it writes into
its ledger at once, and what it is about to erase, and has erased; all read all of them. `gather` starts and checks.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.errors import MissingMemory
from tercet.kernel import Tercet
from tercet.testing.fakes import FakeEmbedder
from tercet.testing.narrow import narrow
from tercet.testing.processes import finish, start

USER = "everybody"
MOST = 60
"""Memories a process has at most; then it erases."""


@dataclass
class Ledgers:
    """What all processes were told: the acknowledged text and version of each memory, and what is going or gone."""

    folder: Path
    kept: dict[str, tuple[int, str]] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    _read: dict[Path, int] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was written since; a line that is not whole yet waits."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._note(json.loads(line))

    def _note(self, line: dict[str, Any]) -> None:
        self.kept.update({id: (version, text) for id, version, text in line.get("kept", ())})
        self.coming |= set(line.get("coming", ()))
        self.going |= set(line.get("going", ()))
        self.gone |= set(line.get("gone", ()))


class Member:
    """One process."""

    def __init__(self, t: Tercet, ledgers: Path, number: int) -> None:
        self.t, self.scope, self.number = t, t.scope(user=USER), number
        self.dice = random.Random(number)  # noqa: S311  # a test's choices
        self.ledgers = Ledgers(ledgers)
        self.own: list[str] = []
        self.words = 0
        self.done, self.slowest = Counter[str](), 0.0
        self._ledger = (ledgers / f"{number}.jsonl").open("ab", buffering=0)

    def run(self, seconds: float) -> dict[str, Any]:
        """Work; whatever is raised or not as it should be ends it."""
        until = time.monotonic() + seconds
        steps = {self.write: 3, self.write_many: 1, self.revise: 2, self.erase: 2, self.look: 4, self.ask: 4}
        steps |= {self.turn_pages: 1, self.work: 1}
        while (began := time.monotonic()) < until:
            step = self.erase if len(self.own) > MOST else self.dice.choices([*steps], [*steps.values()])[0]
            step()
            self.done[step.__name__] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
        return {**self.done, "slowest": round(self.slowest, 2)}

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def note(self, **line: object) -> None:
        """One line into the ledger, for all to see at once."""
        self._ledger.write(json.dumps(line).encode() + b"\n")

    def text(self) -> str:
        """One with a word that no other text has."""
        self.words += 1
        return f"p{self.number}w{self.words} was written"

    def write(self) -> None:
        """One memory."""
        cube = self.scope.remember(self.text())
        self.own.append(cube.id)
        self.note(kept=[(cube.id, 1, cube.text)])

    def write_many(self) -> None:
        """Some."""
        cubes = self.scope.remember_many([self.text() for _ in range(5)])
        self.own += [cube.id for cube in cubes]
        self.note(kept=[(cube.id, 1, cube.text) for cube in cubes])

    def revise(self) -> None:
        """One of its own."""
        if self.own:
            id, text = self.dice.choice(self.own), self.text()
            self.note(coming=[text])
            cube = self.scope.revise(id, text)
            self.note(kept=[(id, cube.version, text)])

    def erase(self) -> None:
        """Some of its own."""
        several = [self.own.pop(self.dice.randrange(len(self.own))) for _ in range(min(len(self.own), 4))]
        if several:
            self.note(going=several)
            self.note(gone=list(self.scope.forget(several).erased))

    def look(self) -> None:
        """A memory of anybody's is there, as it was last acknowledged or newer, unless it is going."""
        self.ledgers.read()
        if not (there := sorted(self.ledgers.kept.keys() - self.ledgers.going)):
            return
        id = self.dice.choice(there)
        version, _ = self.ledgers.kept[id]
        try:
            cube = self.scope.get(id)
        except MissingMemory:
            self.ledgers.read()
            assert id in self.ledgers.going, f"{id} was kept and is lost"
            return
        assert cube.version >= version, f"{id} is there as version {cube.version}, after {version} was acknowledged"
        self.ledgers.read()
        version, text = self.ledgers.kept[id]
        assert cube.text == text or cube.version != version, f"{id} has another text"

    def ask(self) -> None:
        """What was acknowledged is found by anybody, what was erased by nobody."""
        self.ledgers.read()
        gone = set(self.ledgers.gone)
        if not self.ledgers.kept:
            return
        id = self.dice.choice(sorted(self.ledgers.kept))
        _, text = self.ledgers.kept[id]
        found = [hit.cube.id for hit in self.scope.recall(text.split()[0], limit=20)]
        assert not gone & set(found), f"erased and recalled: {gone & set(found)}"
        if id not in found:
            self.ledgers.read()
            changed = self.ledgers.kept[id][1] != text or text in self.ledgers.coming
            assert id in self.ledgers.going or changed or self._is_revised(id, text), f"{id} was kept and is not found"

    def turn_pages(self) -> None:
        """The list has nothing that is erased, and all that is kept."""
        self.ledgers.read()
        gone, kept = set(self.ledgers.gone), set(self.ledgers.kept)
        found = {cube.id for cube in self.scope.list(limit=10_000)}
        assert not gone & found, f"erased and listed: {gone & found}"
        self.ledgers.read()
        assert kept - found <= self.ledgers.going, f"kept and not listed: {kept - found - self.ledgers.going}"

    def work(self) -> None:
        """Jobs: vectors, segments, scrubs."""
        self.t.work()

    def _is_revised(self, id: str, text: str) -> bool:
        """Whether its owner has revised it, and is not acknowledged yet."""
        try:
            return self.scope.get(id).text != text
        except MissingMemory:
            self.ledgers.read()
            return id in self.ledgers.going


def gather(folder: Path, *, processes: int, seconds: float) -> dict[str, Any]:
    """Run a crowd on one folder; returns what it did. Raises AssertionError if anything went wrong in any of them."""
    ledgers = folder / "ledgers"
    ledgers.mkdir(parents=True)
    code = "from tercet.testing.crowd import main; main()"
    with ExitStack() as stack:
        crowd = [stack.enter_context(start(code, folder / "vault", ledgers, n, seconds)) for n in range(processes)]
        told = [json.loads(finish(member, timeout=seconds + 300)) for member in crowd]
    all_told = Ledgers(ledgers)
    all_told.read()
    wanted = {id: text for id, (_, text) in all_told.kept.items() if id not in all_told.gone}
    with narrow(), Tercet.open(folder / "vault", embedder=FakeEmbedder()) as t:
        found = {cube.id: cube.text for cube in t.scope(user=USER).list(limit=10_000)}
        assert found == wanted, f"lost or left: {set(found.items()) ^ set(wanted.items())}"
        t.work(until_idle=True)
        assert not any(t.doctor().values()), t.doctor()
        [tenant] = t.stats()["tenants"].values()
        assert "dead" not in tenant["jobs"], tenant["jobs"]
    calls = Counter[str]()
    for one in told:
        calls.update({name: count for name, count in one.items() if name != "slowest"})
    return {
        "processes": processes,
        "calls": dict(calls),
        "slowest_call_seconds": max(one["slowest"] for one in told),
        "memories": len(wanted),
        "erased": len(all_told.gone),
    }


def main() -> None:
    """Be one of the crowd."""
    folder, ledgers, number, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with narrow(), Tercet.open(folder, embedder=FakeEmbedder()) as t, closing(Member(t, ledgers, number)) as member:
        told = member.run(seconds)
    sys.stdout.write(json.dumps(told) + "\n")
