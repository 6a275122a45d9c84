"""What recall gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tercet.cube import MemCube
from tercet.vault.slots import Contradiction


@dataclass(frozen=True, slots=True)
class Hit:
    """A recalled cube.

    `score` is in [0, 1] and falls with the rank. `why` names what it was found by under "by" ("words and vectors", or
    "words" where there are no vectors, and then why there are none), under "vectors" whether a "scan" of all rows or
    the "graph" found the near vectors, and gives the contribution of each signal. In a scope too large to score every
    row, "through" says what made it a candidate: words, vectors, time, links, or its passage. Of a fact with a slot,
    the one that holds is shown, and `contradictions` are the other values of its slot.
    """

    cube: MemCube
    score: float
    why: Mapping[str, float | str]
    contradictions: tuple[Contradiction, ...] = ()


class Hits(list[Hit]):
    """The best hits, and how many cubes were looked at; `dropped` says what was left out and why.

    `evidence` in [0, 1] says how likely it is that the question is answered here at all (see the manual's page on
    recall): below a bound of its own, a caller had better say that it does not know.
    """

    def __init__(
        self, hits: Sequence[Hit], *, total: int, truncated: bool, dropped: str | None = None, evidence: float = 0.0
    ) -> None:
        super().__init__(hits)
        self.total, self.truncated, self.dropped, self.evidence = total, truncated, dropped, evidence


def shown(hits: Sequence[Hit]) -> list[MemCube]:
    """Every cube that hits hand out: what was found, and what contradicts it."""
    return [cube for hit in hits for cube in (hit.cube, *(other.cube for other in hit.contradictions))]
