"""Where ids come from: a clock and a source of entropy, both handed in, so that a run can be repeated exactly."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol

from tercet.errors import InvalidRequest

Clock = Callable[[], datetime]
Entropy = Callable[[int], bytes]


def system_clock() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


class IdSource(Protocol):
    """Gives the id of the next cube or episode. The vault calls it inside the write lock and logs what it gave."""

    def __call__(self, at: datetime) -> str: ...


class RandomIds:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds, then a counter within the millisecond, then random bits.

    Ids of one source never run backwards, even when the clock does.

    Parameters
    ----------
    entropy
        Returns that many random bytes. Give a seeded one to get the same ids for the same calls.
    """

    def __init__(self, entropy: Entropy = os.urandom) -> None:
        self.entropy = entropy
        self._last = (0, 0)

    def __call__(self, at: datetime) -> str:
        """The next id, for something recorded at `at`."""
        millis, count = max((int(at.timestamp() * 1000), 0), (self._last[0], self._last[1] + 1))
        if count > 0xFFF:
            millis, count = millis + 1, 0
        self._last = (millis, count)
        tail = int.from_bytes(self.entropy(8), "big") & (1 << 62) - 1
        return str(uuid.UUID(int=millis << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | tail))


class ReplayedIds:
    """Gives ids again in the order in which a journal logged them."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = iter(ids)

    def __call__(self, at: datetime) -> str:  # noqa: ARG002  # a replay knows its times already
        """The next logged id.

        Raises
        ------
        InvalidRequest
            If the log is used up: more was written than was logged.
        """
        try:
            return next(self._ids)
        except StopIteration:
            raise InvalidRequest("The log of ids is used up: this replay writes more than the original did.") from None


def parse_id(text: str) -> bytes | None:
    """The 16 bytes of an id, or None if it is not one (an id that cannot exist is simply not found)."""
    try:
        return uuid.UUID(text).bytes
    except (ValueError, AttributeError, TypeError):
        return None


def format_id(raw: bytes) -> str:
    """The canonical text of 16 bytes."""
    return str(uuid.UUID(bytes=raw))
