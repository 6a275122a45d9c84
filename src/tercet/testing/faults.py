"""A disk that loses power, fills up and fails, for tests of what a vault promises about storage.

`FaultyDisk` is an SQLite VFS over real files in a folder. Everything works as usual, and is recorded; afterwards the
log tells what a disk would hold if the power had gone at any moment of it:

    with FaultyDisk(folder) as disk:
        ...                                     # open a vault there with `vfs=disk.name`, and use it
        disk.image(other, at=disk.now, seed=1)  # a folder as it might be found after the cut

The log, not the real files, is what an image is made of, so one run can be cut at many moments.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import apsw

SECTOR = 512
Call = Literal["open", "read", "write", "truncate", "sync", "delete"]
CHANGES: frozenset[Call] = frozenset({"open", "write", "truncate", "sync", "delete"})

_NUMBERS = itertools.count(1)
_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_CHECKPOINT = {apsw.SQLITE_FCNTL_CKPT_START: True, apsw.SQLITE_FCNTL_CKPT_DONE: False}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a file (`file` is a number: a name may stand for several, one after the other).

    `write` puts `data` at `at`, `truncate` sets the size to `at`, `sync` makes all before it on that file durable;
    `create` and `delete` change the folder and are durable after its `folder` event.
    """

    what: Literal["write", "truncate", "sync", "create", "delete", "folder"]
    path: Path
    file: int
    at: int = 0
    data: bytes = b""


class DiskError(Exception):
    """Mixed into what a `FaultyDisk` raises, so that a test can tell its own faults from others."""


class DiskFull(DiskError, apsw.FullError):
    """ENOSPC."""


class DiskFailed(DiskError, apsw.IOError):
    """EIO."""


class FaultyDisk(apsw.VFS):
    """Passes through to the files of a folder, records what happens to them, and fails when told to.

    Parameters
    ----------
    folder
        What it holds already counts as durable. Files outside of it are not recorded.

    Attributes
    ----------
    name
        For `apsw.Connection(..., vfs=name)`; no two disks share one.
    events
        What happened so far, oldest first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder.resolve(), f"faulty-{next(_NUMBERS)}"
        self.events: list[Event] = []
        self.in_checkpoint = False
        self.calls = self.failed = self.failed_in_checkpoint = 0
        self._lock = threading.RLock()
        self._files = itertools.count(1)
        self._names: dict[Path, int] = {}
        self._fails: tuple[int, int, type[DiskError], Collection[Call]] | None = None
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and not p.name.endswith("-shm")):
            file = self._create(path)
            self.events += [Event("write", path, file, 0, path.read_bytes()), Event("sync", path, file)]
        self._sync_folders()
        super().__init__(self.name, "")

    @property
    def now(self) -> int:
        """How much has happened: a moment to hand to `image`."""
        return len(self.events)

    def fail(
        self, nth: int, error: type[DiskError] = DiskFull, *, times: int = 1, calls: Collection[Call] = CHANGES
    ) -> None:
        """Let the `nth` call from now on, counted among `calls`, raise `error`, and the `times - 1` after it.

        One thing differs from a real disk: SQLite does not mind if the checkpoint after a commit or on closing fails,
        but the exception is raised all the same, once the commit is done. `failed_in_checkpoint` counts those.
        """
        with self._lock:
            self.calls = self.failed = self.failed_in_checkpoint = 0
            self._fails = (nth, nth + times, error, frozenset(calls))

    def heal(self) -> None:
        """Fail no more."""
        self._fails = None

    def image(self, target: Path, *, at: int | None = None, seed: int = 0) -> Path:
        """Write into a new folder what might be found after the power went at moment `at` (left out: now).

        What was synced is there. Of what was not, each write is kept, dropped, or torn at sectors of 512 bytes; a
        file's size may have been kept without what was written; a file made or deleted may be so or not until the
        folder was synced. The same seed makes the same image.
        """
        for path, data in _cut(self.events[:at], random.Random(seed)).items():  # noqa: S311
            into = target / path.relative_to(self.folder)
            into.parent.mkdir(parents=True, exist_ok=True)
            into.write_bytes(data)
        target.mkdir(parents=True, exist_ok=True)
        return target

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open a file; SQLite calls it."""
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = Path(text) if text else None
        if path is None or flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE or self.folder not in path.parents:
            return apsw.VFSFile("", name, flags)
        with self._lock:
            if path not in self._names and flags[0] & apsw.SQLITE_OPEN_CREATE:
                self.check("open")
            opened = _File(self, path, name, flags)
            if path not in self._names:
                self._create(path)
            opened.file = self._names[path]
            return opened

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        """Delete a file; SQLite calls it."""
        with self._lock:
            self.check("delete")
            super().xDelete(filename, syncdir)
            path = Path(filename)
            if path in self._names:
                self.events.append(Event("delete", path, self._names.pop(path)))
            if syncdir:
                self.events.append(Event("folder", path.parent, 0))

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        """Say nothing of faults that were asked for; apsw calls it for what SQLite does not hand on."""
        return isinstance(evalue, DiskError) or super().excepthook(etype, evalue, etraceback)

    def check(self, call: Call) -> None:
        """Count a call, and raise if it is one of those that shall fail."""
        if self._fails is None or call not in self._fails[3]:
            return
        self.calls += 1
        first, after, error, _ = self._fails
        if first <= self.calls < after:
            self.failed += 1
            self.failed_in_checkpoint += self.in_checkpoint
            raise error(f"the {call} was made to fail")

    def record(self, event: Event, call: Call) -> None:
        """Note what is about to happen, unless it fails."""
        with self._lock:
            self.check(call)
            self.events.append(event)

    def close(self) -> None:
        """Take the disk out; every connection through it must be closed."""
        self.unregister()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, path: Path) -> int:
        self._names[path] = file = next(self._files)
        self.events.append(Event("create", path, file))
        return file

    def _sync_folders(self) -> None:
        self.events += [Event("folder", folder, 0) for folder in {path.parent for path in self._names}]


class _File(apsw.VFSFile):
    """A real file that tells its disk what is done to it. It is not really synced: the log knows what was."""

    def __init__(self, disk: FaultyDisk, path: Path, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk, self.path, self.file = disk, path, 0
        # As in SQLite's unix layer: the first sync of a journal that may have been made just now syncs the folder too.
        self.names_new = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _JOURNALS)
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self.disk.check("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.record(Event("write", self.path, self.file, offset, bytes(data)), "write")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.record(Event("truncate", self.path, self.file, newsize), "truncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: ARG002, N802
        self.disk.record(Event("sync", self.path, self.file), "sync")
        if self.names_new:
            self.disk.events.append(Event("folder", self.path.parent, 0))
            self.names_new = False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        self.disk.in_checkpoint = _CHECKPOINT.get(op, self.disk.in_checkpoint)
        return super().xFileControl(op, ptr)


def _cut(events: list[Event], dice: random.Random) -> dict[Path, bytes]:
    """The files that are found after a power cut."""
    contents: dict[int, bytearray] = {}
    waiting: dict[int, list[Event]] = {}
    names: dict[Path, int] = {}
    unsynced: list[Event] = []
    for event in events:
        if event.what in ("write", "truncate"):
            waiting.setdefault(event.file, []).append(event)
        elif event.what == "sync":
            for one in waiting.pop(event.file, ()):
                _apply(contents.setdefault(event.file, bytearray()), one)
        elif event.what == "folder":
            for one in [one for one in unsynced if one.path.parent == event.path]:
                _name(names, one)
                unsynced.remove(one)
        else:
            unsynced.append(event)
    luck = dice.choice((0.0, 0.5, 0.9, 1.0))
    for one in unsynced:
        if dice.random() < luck:
            _name(names, one)
    for file in sorted(waiting):
        content = contents.setdefault(file, bytearray())
        for one in waiting[file]:
            _chance(content, one, luck, dice)
    return {path: bytes(contents.get(file, b"")) for path, file in names.items()}


def _name(names: dict[Path, int], event: Event) -> None:
    if event.what == "create":
        names[event.path] = event.file
    elif names.get(event.path) == event.file:
        del names[event.path]


def _chance(content: bytearray, event: Event, luck: float, dice: random.Random) -> None:
    """Keep, tear or drop one write or truncation."""
    if dice.random() < luck:
        _apply(content, event)
        return
    if event.what == "truncate":
        return
    end = event.at + len(event.data)
    if end > len(content) and dice.random() < 0.5:  # the size got through, and what was on those blocks before
        content += dice.choice((bytes, dice.randbytes))(end - len(content))
    torn = dice.random() < 0.5
    for start, stop in _sectors(event.at, end) if torn else ():
        if dice.random() < 0.5:
            _apply(content, replace(event, at=start, data=event.data[start - event.at : stop - event.at]))


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield start, stop
        start = stop


def _apply(content: bytearray, event: Event) -> None:
    if event.what == "truncate":
        del content[event.at :]
        content += bytes(event.at - len(content))
        return
    content += bytes(max(event.at - len(content), 0))
    content[event.at : event.at + len(event.data)] = event.data
