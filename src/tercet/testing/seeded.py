"""A clock and a source of entropy that repeat themselves, so that the same calls give the same vault."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta

START = datetime(2024, 3, 1, 12, tzinfo=UTC)


class SeededClock:
    """Tells `start` when it is first asked, and `step` more each time after.

    Parameters
    ----------
    start
        With a time zone.
    step
        How far it moves at each look; zero makes it stand still.
    """

    def __init__(self, start: datetime = START, step: timedelta = timedelta(seconds=1)) -> None:
        self.now, self.step = start, step
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """The time."""
        with self._lock:
            told, self.now = self.now, self.now + self.step
            return told

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        with self._lock:
            self.now += by


class SeededEntropy:
    """Bytes that look random and are the same for the same seed and the same calls."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.calls = seed, 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> bytes:
        """The next `count` bytes."""
        with self._lock:
            self.calls += 1
            return hashlib.shake_256(f"{self.seed}/{self.calls}".encode()).digest(count)
