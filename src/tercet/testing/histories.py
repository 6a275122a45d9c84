"""Random histories of a vault: what was acknowledged when, to be held against what is found after a fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from tercet.cube import MemCube
from tercet.errors import InvalidRequest, MissingMemory, VaultError
from tercet.kernel import Tercet
from tercet.testing.fakes import FakeEmbedder
from tercet.testing.faults import CHANGES, Call, DiskError, DiskFull, FaultyDisk
from tercet.testing.seeded import SeededClock, SeededEntropy
from tercet.vault.ids import RandomIds
from tercet.vault.sqlite import SqliteVault

USERS = ("alice", "bob")
Held = Mapping[str, tuple[MemCube, ...]]
"""Every version of every cube: by id on the main line, as "BRANCH/id" on a branch. "branch NAME" and "snapshot NAME"
say that there is one, and hold nothing."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The vault as of an acknowledged call, `at` that many events on the disk.

    `scrubbed` are the words whose bytes were said to be gone; each text holds a word that no other text holds. `marks`
    are the files beside the database, by path within the folder, which may lag but never run ahead.
    """

    at: int
    held: Held
    erased: frozenset[str]
    scrubbed: frozenset[str]
    marks: Mapping[Path, bytes] = field(default_factory=dict)


class History:
    """Calls chosen by a seed, on a vault that may live on a faulty disk.

    Parameters
    ----------
    folder
        The vault's.
    seed
        The same seed makes the same calls, ids, times and salts.
    disk
        Where there is one, the vault's files go through it.
    vectors
        Whether cubes get vectors, some at once and some by a job.
    ends
        Whether some cubes have an end, at which a sweep erases them.
    travels
        Whether snapshots are taken and restored, and branches begun, written to and dropped.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        disk: FaultyDisk | None = None,
        vectors: bool = False,
        ends: bool = False,
        travels: bool = False,
    ) -> None:
        self.folder, self.disk, self.vectors, self.ends, self.travels = folder, disk, vectors, ends, travels
        self.dice = random.Random(seed)  # noqa: S311  # a test's choices
        self.clock, self.entropy = SeededClock(), SeededEntropy(seed)
        self.held: dict[str, tuple[MemCube, ...]] = {}
        self.erased: set[str] = set()
        self.scrubbed: set[str] = set()
        self._words = 0
        self._ending: set[str] = set()
        self._shots: dict[str, dict[str, str]] = {}
        self.t = self.open()

    def open(self, *, embedder: bool = False, dim: int = 16) -> Tercet:
        """A handle on the vault; the embedder's dimension names its space."""
        vault = SqliteVault(
            self.folder,
            ids=RandomIds(self.entropy),
            clock=self.clock,
            entropy=self.entropy,
            vfs=self.disk.name if self.disk else None,
        )
        return Tercet(vault, embedder=FakeEmbedder(dim) if embedder else None)

    def run(self, steps: int) -> Iterator[Moment]:
        """Make calls; yields the vault as it is at the beginning and after each."""
        yield self.moment()
        for _ in range(steps):
            self.step()
            yield self.moment()

    def moment(self) -> Moment:
        """What is acknowledged now."""
        at = self.disk.now if self.disk else 0
        beside = [*self.folder.glob("tenants/*.mark"), *self.folder.glob("ledger/*.log")]
        marks = {path.relative_to(self.folder): path.read_bytes() for path in beside}
        return Moment(at, dict(self.held), frozenset(self.erased), frozenset(self.scrubbed), marks)

    def step(self) -> None:
        """One call; whatever it raises leaves what is acknowledged as it was."""
        calls: list[tuple[int, Callable[[], None]]] = [(4, self._remember), (2, self._remember_many), (1, self._reopen)]
        if any(map(_is_id, self.held)):
            calls += [(4, self._revise), (3, self._forget), (2, self._use)]
        if self.vectors:
            calls.append((2, self._work))
        if self.vectors and self.disk is not None:
            calls.append((1, self._move))
        if self.ends:
            calls += [(4, self._remember_briefly), (3, self._sweep)]
        if self.travels:
            calls += [(3, self._snapshot), (2, self._branch)]
            calls += [(3, self._restore)] if self._shots else []
            calls += [(4, self._write_aside), (1, self._drop)] if self._branches() else []
        [call] = self.dice.choices([call for _, call in calls], [weight for weight, _ in calls])
        call()

    def close(self) -> None:
        """Close the vault."""
        close = self.t.close
        while True:
            try:
                close()
            except DiskError:  # SQLite does not mind if a file cannot be tidied up on closing; only our disk raises
                close = self.t.vault.close
            else:
                return

    def text(self) -> str:
        """A text with one word that is in no other text."""
        self._words += 1
        filler = " ".join(self.dice.choices(_FILLER, k=self.dice.choice((3, 12, 400))))
        return f"{_word(self._words)} {filler}"

    def _remember(self) -> None:
        tags = self.dice.sample(("home", "work", "garden"), self.dice.randrange(3))
        cube = self.t.scope(user=self.dice.choice(USERS)).remember(self.text(), tags=tags, metadata={"n": self._words})
        self.held[cube.id] = (cube,)

    def _remember_many(self) -> None:
        texts = [self.text() for _ in range(self.dice.choice((2, 5, 40)))]
        for cube in self.t.scope(user=self.dice.choice(USERS)).remember_many(texts):
            self.held[cube.id] = (cube,)

    def _revise(self) -> None:
        id = self._pick()
        versions = self.held[id]
        cube = self.t.scope(user=versions[0].scope.user).revise(id, self.text(), expect=len(versions))
        self.held[id] = (*versions, cube)

    def _forget(self) -> None:
        id = self._pick()
        receipt = self.t.scope(user=self.held[id][0].scope.user).forget(id)
        self.erased.add(id)
        for key in [key for key in self.held if key.rpartition("/")[2] == id]:
            versions = self.held.pop(key)
            if receipt.scrubbed_at is not None:
                self.scrubbed |= {cube.text.split()[0] for cube in versions}

    def _use(self) -> None:
        # A use makes a cube activated, and the state is part of what is told of every version.
        hits = self.t.scope(user="alice").recall(" ".join(self.dice.sample(_FILLER, 2)), limit=2)
        self.t.flush_uses(self.t.vault.tenant("default"))
        for hit in hits:
            versions = self.held[hit.cube.id]
            self.held[hit.cube.id] = tuple(self.t.scope().history(hit.cube.id))
            assert [cube.text for cube in self.held[hit.cube.id]] == [cube.text for cube in versions]

    def _work(self) -> None:
        self.close()
        self.t = self.open(embedder=True)
        self.t.work(until_idle=True)

    def _move(self) -> None:
        self.close()
        self.t = self.open(embedder=True, dim=self.dice.choice((16, 24)))
        self.t.reembed()

    def _remember_briefly(self) -> None:
        cube = self.t.scope(user=self.dice.choice(USERS)).remember(self.text(), expires=timedelta(hours=1))
        self.held[cube.id] = (cube,)
        self._ending.add(cube.id)

    def _sweep(self) -> None:
        self.clock.advance(timedelta(hours=2))
        failed = self.disk.failed if self.disk else 0
        try:
            self.t.work(until_idle=True)
        finally:  # a job that fails is tried again later, and what it did is done
            there = read(self.t)
            gone = {id for id in self._ending & self.held.keys() if id not in there}
            for id in gone:
                self.erased.add(id)
                words = {cube.text.split()[0] for cube in self.held.pop(id)}
                if not self.t.stats()["tenants"]["default"]["scrubs_waiting"]:
                    self.scrubbed |= words
        if self.disk is None or self.disk.failed == failed:
            assert not self._ending & self.held.keys(), "what has ended is still there"

    def _snapshot(self) -> None:
        name = f"s{len(self._shots)}"
        self.t.snapshot(name)
        self._shots[name] = self._texts()
        self.held[f"snapshot {name}"] = ()

    def _restore(self) -> None:
        name, before = self.dice.choice(sorted(self._shots)), self._texts()
        self._shots[self.t.restore(name).undo] = before
        self.held = dict(read(self.t))
        wanted = {id: text for id, text in self._shots[name].items() if id not in self.erased}
        assert self._texts() == wanted, "a restore brought back something else"

    def _branch(self) -> None:
        self._words += 1
        name = f"b{self._words}"
        self.t.branch(name)
        shown = {f"{name}/{id}": versions for id, versions in self.held.items() if _is_id(id)}
        self.held |= {f"branch {name}": (), **shown}

    def _write_aside(self) -> None:
        name = self.dice.choice(self._branches())
        branch, there = self.t.scope(branch=name), [key for key in sorted(self.held) if key.startswith(f"{name}/")]
        if there and self.dice.random() < 0.6:
            key = self.dice.choice(there)
            cube = branch.revise(key.rpartition("/")[2], self.text(), expect=len(self.held[key]))
            self.held[key] = (*self.held[key], cube)
        else:
            cube = self.t.scope(branch=name, user=self.dice.choice(USERS)).remember(self.text())
            self.held[f"{name}/{cube.id}"] = (cube,)

    def _drop(self) -> None:
        name = self.dice.choice(self._branches())
        self.t.drop(name)
        mine = {key for key in self.held if key.startswith(f"{name}/")} | {f"branch {name}"}
        kept = {key.rpartition("/")[2] for key in self.held.keys() - mine}
        hidden = {id for shot in self._shots.values() for id in shot}
        self.erased |= {key.rpartition("/")[2] for key in mine if _is_id(key.rpartition("/")[2])} - kept - hidden
        for key in mine:
            del self.held[key]

    def _texts(self) -> dict[str, str]:
        return {id: versions[-1].text for id, versions in self.held.items() if _is_id(id)}

    def _branches(self) -> list[str]:
        return sorted(key.removeprefix("branch ") for key in self.held if key.startswith("branch "))

    def _reopen(self) -> None:
        self.close()
        self.t = self.open(embedder=self.vectors and self.dice.random() < 0.5)

    def _pick(self) -> str:
        return self.dice.choice(sorted(filter(_is_id, self.held)))


def survive(
    folder: Path, seed: int, steps: int, *, vectors: bool = False, ends: bool = False, travels: bool = False
) -> list[bool]:
    """Run a history, cut the power twice, and check what is found: at any moment, and right after a call returned.

    Returns, for each cut within a call, whether the call was found done. Raises AssertionError if a promise was broken.
    """
    dice = random.Random(seed)  # noqa: S311  # a test's choices
    done = []
    with FaultyDisk(folder) as disk:
        history = History(folder, seed, disk=disk, vectors=vectors, ends=ends, travels=travels)
        moments = list(history.run(steps))
        history.close()
        for number, at in enumerate((dice.randrange(disk.now + 1), dice.choice(moments).at)):
            last = max(number for number, moment in enumerate(moments) if moment.at <= at)
            image = disk.image(folder.with_name(f"{folder.name}-cut-{number}"), at=at, seed=seed)
            found = check(image, *moments[last : last + 2])
            if moments[last].at < at and last + 1 < len(moments):
                done.append(found is not moments[last])
    return done


@dataclass(frozen=True, slots=True)
class Fault:
    """The `nth` call to the disk, of those in `calls`, fails with `error`, as do the `times - 1` after it."""

    nth: int
    error: type[DiskError] = DiskFull
    times: int = 1
    calls: frozenset[Call] = CHANGES


def endure(
    folder: Path,
    seed: int,
    steps: int,
    fault: Fault,
    *,
    vectors: bool = False,
    ends: bool = False,
    travels: bool = False,
) -> int:
    """Run a history while the disk fails; returns how many calls to the disk it took.

    A call that meets the fault raises a VaultError or does its work; either way the vault is then as it was
    acknowledged, and once the disk works again the history goes on.
    """
    with FaultyDisk(folder) as disk:
        history = History(folder, seed, disk=disk, vectors=vectors, ends=ends, travels=travels)
        disk.fail(fault.nth, fault.error, times=fault.times, calls=fault.calls)
        for _ in range(steps):
            failed = disk.failed
            try:
                history.step()
            except VaultError:
                assert disk.failed > failed, "an error although nothing had failed"
            if disk.failed == failed:
                continue
            disk.heal()
            found = read(history.t)
            if disk.failed_in_checkpoint:  # the call was done, though our disk raised: see `FaultyDisk.fail`
                history.held = dict(found)
            assert found == history.held, _difference(found, (history.moment(),))
            assert not any(history.t.doctor().values()), history.t.doctor()
        history.close()
        check(disk.image(folder.with_name(f"{folder.name}-image")), history.moment())
        return disk.calls


def check(folder: Path, *allowed: Moment) -> Moment:
    """Open a vault that met a fault and see that it is, whole, as it was at one of these moments; returns which.

    Every cube with every version is as acknowledged, nothing else is there, doctor finds nothing, what was erased is
    gone and does not come back, what was scrubbed is in no byte of any file, and the vault takes new memories.
    """
    for path, data in allowed[0].marks.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    raw = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    left = {word for word in allowed[0].scrubbed if word.encode() in raw}
    assert not left, f"scrubbed and still in the files: {left}"
    with Tercet.open(folder, embedder=None) as t:
        found = read(t)
        as_of = next((moment for moment in allowed if moment.held == found), None)
        assert as_of is not None, _difference(found, allowed)
        findings = {tenant: findings for tenant, findings in t.doctor().items() if findings}
        assert findings == {}
        cube = t.scope(user="alice").remember("and on it goes")
        assert t.scope(user="alice").get(cube.id) == cube
        for id in sorted(as_of.erased):
            _gone(t, replace(cube, descriptive=replace(cube.descriptive, id=id)))
    return as_of


def read(t: Tercet) -> Held:
    """Everything the default tenant holds, on every branch."""
    whole, found = t.scope(), dict[str, tuple[MemCube, ...]]()
    found |= {cube.id: tuple(whole.history(cube.id)) for cube in whole.list(limit=10_000)}
    for name in [one.name for one in t.branches()]:
        branch = t.scope(branch=name)
        found |= {f"{name}/{cube.id}": tuple(branch.history(cube.id)) for cube in branch.list(limit=10_000)}
        found[f"branch {name}"] = ()
    return found | {f"snapshot {one.name}": () for one in t.snapshots()}


def _is_id(key: str) -> bool:
    return " " not in key and "/" not in key


def _gone(t: Tercet, again: MemCube) -> None:
    try:
        t.scope().get(again.id)
    except MissingMemory:
        pass
    else:
        raise AssertionError(f"{again.id} was erased and is there")
    try:
        t.scope(user="alice").remember(again)
    except InvalidRequest:
        return
    raise AssertionError(f"{again.id} was erased and came back")


def _difference(found: Held, allowed: tuple[Moment, ...]) -> str:
    lines = []
    for moment in allowed:
        missing, extra = moment.held.keys() - found.keys(), found.keys() - moment.held.keys()
        other = [id for id in moment.held.keys() & found.keys() if moment.held[id] != found[id]]
        lines.append(f"as of event {moment.at}: {len(missing)} missing, {len(extra)} too many, {len(other)} differ")
    return "; ".join(lines)


def _word(number: int) -> str:
    return f"w{number:06x}q"


_FILLER = tuple(
    """the boiler code was changed again in May and nobody told Ada who lives in Oslo with two cats and a piano that she
    plays on Sundays while rain falls on the garden and the kettle sings about ports and rivers""".split()  # noqa: SIM905
)
