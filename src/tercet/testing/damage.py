"""Flipped and cut bytes: what a vault answers then, held against what it would have answered."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from tercet.cube import MemCube
from tercet.errors import MissingMemory, VaultError
from tercet.kernel import Tercet
from tercet.testing.fakes import FakeEmbedder
from tercet.testing.histories import Held, History, read
from tercet.testing.narrow import narrow

SECTOR = 512
PAGE = 4096

FAULTS = (apsw.Error, ArithmeticError, AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What no call may raise, however damaged the files are: the vault's own errors say what is wrong."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Two copies of a vault before anything is damaged: `closed`, and with its write-ahead log, as a kill leaves it."""

    closed: Path
    killed: Path
    held: Held


def prepare(folder: Path, *, seed: int = 5, steps: int = 14) -> Sound:
    """Write a history with vectors, segments, revisions and erasures into a new folder."""
    live = folder / "live"
    live.mkdir(parents=True)
    history = History(live, seed, vectors=True)
    with narrow():
        for _ in history.run(steps):
            pass
        history.t.vault.tenant("default").index()
        history.t.scope(user="alice").remember("one more, so that there is a log")
        history.held = dict(read(history.t))
        shutil.copytree(live, folder / "killed")
        history.close()
        shutil.copytree(live, folder / "closed")
    assert list(folder.glob("closed/segments/*/*.lvq")), "there is nothing to search widely"
    return Sound(folder / "closed", folder / "killed", history.held)


def damage(folder: Path, seed: int) -> str:
    """Flip, overwrite, zero, swap or cut bytes of one file; returns what was done."""
    dice = random.Random(seed)  # noqa: S311  # a test's choices
    path = dice.choice([path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size])
    data = bytearray(path.read_bytes())
    how = dice.choice(("flip", "flip", "scribble", "zero", "swap", "cut"))
    at = dice.randrange(len(data))
    if how == "flip":
        data[at] ^= 1 << dice.randrange(8)
    elif how == "scribble":
        data[at : at + 16] = dice.randbytes(len(data[at : at + 16]))
    elif how == "zero":
        at -= at % SECTOR
        data[at : at + SECTOR] = bytes(len(data[at : at + SECTOR]))
    elif how == "swap" and len(data) >= 2 * PAGE:
        one, other = (page * PAGE for page in sorted(dice.sample(range(len(data) // PAGE), 2)))
        data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
        at = one
    else:
        how = "cut"
        del data[at:]
    path.write_bytes(data)
    return f"{how} {path.name} at {at}"


@dataclass(slots=True)
class Verdict:
    """What came of the damage.

    `errors`: calls that raised, as they should. `noticed`: doctor found something. `mended`: after a repair it found
    nothing more. `faults`: promises that were broken; none may be.
    """

    errors: list[str] = field(default_factory=list)
    noticed: bool = False
    mended: bool = False
    faults: list[str] = field(default_factory=list)


class Judge:
    """Asks a damaged vault everything, and notes what it may not answer."""

    def __init__(self, folder: Path, held: Held) -> None:
        self.folder, self.held, self.verdict = folder, held, Verdict()

    def judge(self) -> Verdict:
        """Ask, examine, repair, ask again, write."""
        verdict = self.verdict
        with narrow(), Tercet.open(self.folder, embedder=FakeEmbedder(16)) as t:
            gaps = self.read(t)
            found = self.call("doctor", t.doctor) or {"": ["it raised"]}
            verdict.noticed = any(found.values())
            if (gaps or verdict.errors) and not verdict.noticed:
                verdict.faults.append(f"doctor saw nothing of {gaps or verdict.errors}")
            self.call("stats", t.stats)
            self.call("changes", t.scope().changes)
            self.call("backup", lambda: t.backup(self.folder / "copy"))
            mended = self.call("repair", lambda: t.doctor(repair=True))
            left = self.call("doctor again", t.doctor)
            verdict.mended = verdict.noticed and left is not None and not any(left.values())
            lost = mended is not None and any(one.what == "lost writes" for some in mended.values() for one in some)
            if verdict.mended and not lost:
                errors = len(verdict.errors)
                again = self.read(t)
                if again or len(verdict.errors) > errors:
                    verdict.faults.append(f"repaired, and still {again or verdict.errors[errors:]}")
            self.write(t)
        return verdict

    def read(self, t: Tercet) -> list[str]:
        """Every call that reads; returns what was left out."""
        whole, gaps = t.scope(), list[str]()
        page = self.call("list", lambda: whole.list(limit=1000))
        if page is not None:
            self.compare("list", page)
            if {cube.id for cube in page} != self.held.keys():
                gaps.append("list")
        for id, versions in self.held.items():
            try:
                cube = self.call("get", lambda: whole.get(id))  # noqa: B023  # called at once
                history = self.call("history", lambda: whole.history(id))  # noqa: B023
            except MissingMemory:
                gaps.append(id)
                continue
            self.compare("get", [cube] if cube is not None else [])
            if history is not None and tuple(history) != versions:
                self.verdict.faults.append(f"history of {id} differs")
        for question in ("the boiler code", "two cats and a piano"):
            hits = self.call("recall", lambda: whole.recall(question, limit=50))  # noqa: B023
            self.compare("recall", [hit.cube for hit in hits or ()])
            self.call("context", lambda: whole.context(question))  # noqa: B023
        return gaps

    def write(self, t: Tercet) -> None:
        """Every call that writes."""
        first, second, *_ = sorted(self.held)
        alice = t.scope(user="alice")
        for name, call in {
            "remember": lambda: alice.remember("something new"),
            "revise": lambda: t.scope().revise(first, "something else"),
            "rollback": lambda: t.scope().rollback(first, version=1),
            "forget": lambda: t.scope().forget(second),
            "work": lambda: t.work(until_idle=True),
        }.items():
            try:
                self.call(name, call)
            except MissingMemory:
                self.verdict.errors.append(name)

    def call(self, name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever it returns
        """The answer, or None and a note of the error, which must be one of the vault's."""
        try:
            return call()
        except VaultError as error:
            self.verdict.errors.append(f"{name}: {error}")
        except MissingMemory:
            raise
        except FAULTS as error:
            self.verdict.faults.append(f"{name} raised {error!r}")
        return None

    def compare(self, name: str, cubes: list[MemCube]) -> None:
        """No cube may differ from what was written."""
        for cube in cubes:
            if cube.id not in self.held or cube != self.held[cube.id][-1]:
                self.verdict.faults.append(f"{name} gave a wrong {cube.id}")
