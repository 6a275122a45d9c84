"""The memory tier: packed KV caches in RAM, up to a number of bytes; what does not fit is read from its file.

What to keep is measured, not guessed: a cache is worth the seconds of prefill that each use saved, a byte. The one of
least worth goes first, and worth ages: each that goes raises the floor that newcomers start from (GreedyDual-Size, Cao
and Irani 1997), so that what was used often once does not stay for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tercet.activation.pack import Packed

BUDGET = 256 << 20
"""Bytes, unless `open(kv_bytes=…)` says otherwise; an eighth of them is left to the copies that runs make."""


@dataclass
class _Held:
    packed: Packed
    worth: float
    uses: int = 1


class RamTier:
    """Packed caches by the SHA-256 of their file. Safe to share between threads."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self.limit = budget - budget // 8  # the rest is for the copies that are being worked on
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._floor = 0.0
        self._held: dict[str, _Held] = {}
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def get(self, sha256: str, *, saves: float, load: Callable[[bool], Packed]) -> tuple[Packed, bool]:
        """A cache, and whether it was in memory.

        `saves`: seconds of prefill that a use of it saves. `load(True)` reads it into memory of its own, `load(False)`
        maps its file. What is asked for a second time is taken in, where it is worth more than what would have to go.
        """
        with self._lock:
            held = self._held.get(sha256)
            if held is not None:
                self.hits += 1
                held.uses += 1
                held.worth = self._worth(held, saves)
                return held.packed, True
            self.misses += 1
            again = sha256 in self._asked
            self._asked.add(sha256)
        packed = load(False)
        if again and packed.size <= self.limit and self._room(packed.size, saves):
            packed = load(True)
            with self._lock:
                self._take(sha256, packed, saves)
        return packed, False

    def drop(self, sha256: str) -> None:
        """Forget a cache that was withdrawn."""
        with self._lock:
            held = self._held.pop(sha256, None)
            if held is not None:
                self.bytes -= held.packed.size
            self._asked.discard(sha256)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._held.clear()
            self._asked.clear()
            self.bytes = 0

    def stats(self) -> dict[str, int]:
        """Bytes held and allowed, caches held, hits, misses, evictions since this process opened the vault."""
        with self._lock:
            return {
                "bytes": self.bytes, "budget": self.budget, "caches": len(self._held),
                "hits": self.hits, "misses": self.misses, "evictions": self.evictions,
            }  # fmt: skip

    def _worth(self, held: _Held, saves: float) -> float:
        return self._floor + held.uses * saves / max(held.packed.size, 1)

    def _room(self, size: int, saves: float) -> bool:
        """Whether what would have to go is worth less, together, than what comes."""
        with self._lock:
            over, less = self.bytes + size - self.limit, 0.0
            for held in sorted(self._held.values(), key=lambda one: one.worth):
                if over <= 0:
                    break
                over -= held.packed.size
                less = max(less, held.worth)
            return over <= 0 and (less == 0.0 or self._floor + 2 * saves / max(size, 1) >= less)

    def _take(self, sha256: str, packed: Packed, saves: float) -> None:
        while self._held and self.bytes + packed.size > self.limit:
            name, least = min(self._held.items(), key=lambda item: item[1].worth)
            self._floor = max(self._floor, least.worth)
            del self._held[name]
            self.bytes -= least.packed.size
            self.evictions += 1
        if sha256 not in self._held and self.bytes + packed.size <= self.limit:
            held = _Held(packed, 0.0, uses=2)
            held.worth = self._worth(held, saves)
            self._held[sha256] = held
            self.bytes += packed.size
