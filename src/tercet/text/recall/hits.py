"""What recall gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tercet.cube import MemCube


@dataclass(frozen=True, slots=True)
class Hit:
    """A recalled cube.

    `score` is in [0, 1] and falls with the rank. `why` names what it was found by under "by" ("words and vectors", or
    "words" where there are no vectors, and then why there are none), under "vectors" whether a "scan" of all rows or
    the "graph" found the near vectors, and gives the contribution of each signal. In a scope too large to score every
    row, "through" says what made it a candidate: words, vectors, time, links, or its passage.
    """

    cube: MemCube
    score: float
    why: Mapping[str, float | str]


class Hits(list[Hit]):
    """The best hits, and how many cubes were looked at; `dropped` says what was left out and why."""

    def __init__(self, hits: Sequence[Hit], *, total: int, truncated: bool, dropped: str | None = None) -> None:
        super().__init__(hits)
        self.total, self.truncated, self.dropped = total, truncated, dropped
