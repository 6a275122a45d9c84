"""Who is using a tenant's file just now: any number of calls, or the one that puts another file in its place.

A connection to a file that is replaced under it would share the new file's log by name, so a file is replaced only
while no call is in the middle of anything, in any process. Each call passes a turnstile and then holds the room;
whoever replaces the file stops the turnstile, waits until the room is empty, and lets everybody on afterwards. The
locks are the system's (`flock`) and end with their process. Where there are none (Windows), a file that others have
open cannot be replaced anyway.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tercet.errors import VaultBusy

if sys.platform != "win32":
    import fcntl

PAUSE = 0.002
"""Seconds between two looks whether the room is empty."""


class Turnstile:
    """Of one tenant's file. Safe between threads; a thread that is in may enter again."""

    def __init__(self, path: Path) -> None:
        self._way, self._room = path.parent, path.with_suffix(".use")
        self._folder, self._file = str(self._way), str(self._room)
        self._mine = threading.local()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Be in the room; waits while somebody replaces the file."""
        depth = getattr(self._mine, "depth", 0)
        room = None if depth else self._enter()
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if room is not None:
                os.close(room)

    @contextmanager
    def alone(self, *, wait: float) -> Iterator[None]:
        """Be alone in the room. Raises VaultBusy if it is not empty after `wait` seconds, or this thread is in it."""
        if getattr(self._mine, "depth", 0):
            raise VaultBusy(f"This thread is using {self._room.stem} itself; let go of it first.")
        room = self._take(wait)
        self._mine.depth = 1
        try:
            yield
        finally:
            self._mine.depth = 0
            if room is not None:
                os.close(room)

    def _enter(self) -> int | None:
        if sys.platform == "win32":
            return None
        try:
            room = os.open(self._file, os.O_RDONLY | os.O_CREAT, 0o644)
        except OSError:  # a folder where nothing may be written: nobody replaces a file there either
            return None
        way = -1
        try:  # without helpers: every call comes through here
            way = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(way, fcntl.LOCK_SH)
            fcntl.flock(room, fcntl.LOCK_SH)
        except BaseException:
            os.close(room)
            raise
        finally:
            if way >= 0:
                os.close(way)
        return room

    def _take(self, wait: float) -> int | None:
        if sys.platform == "win32":
            return None
        room = os.open(self._room, os.O_RDONLY | os.O_CREAT, 0o644)
        end = time.monotonic() + wait
        # Once the room is ours, whoever comes waits before it, and no longer in the way of other rooms.
        with _closed_on_error(room), _opened(self._way) as way:
            for handle in (way, room):
                while not _alone(handle):
                    if time.monotonic() > end:
                        raise VaultBusy(
                            f"{self._room.stem} was in use for {wait:g} s; try again, or close what works on it."
                        )
                    time.sleep(PAUSE)
        return room


def _alone(handle: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _closed_on_error(handle: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(handle)
        raise
