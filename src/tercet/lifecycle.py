"""The states of a cube and the edges between them. A table, and one function that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tercet.errors import IllegalTransition


class State(StrEnum):
    """Where a cube is in its life. `expired` is terminal: the content is gone, a journal line stays."""

    GENERATED = "generated"
    ACTIVATED = "activated"
    MERGED = "merged"
    ARCHIVED = "archived"
    EXPIRED = "expired"
    FROZEN = "frozen"


EDGES: Mapping[State, frozenset[State]] = {
    State.GENERATED: frozenset(
        {State.ACTIVATED, State.MERGED, State.ARCHIVED, State.EXPIRED, State.FROZEN},
    ),
    State.ACTIVATED: frozenset({State.MERGED, State.ARCHIVED, State.EXPIRED, State.FROZEN}),
    State.MERGED: frozenset(
        {State.ACTIVATED, State.MERGED, State.ARCHIVED, State.EXPIRED, State.FROZEN},
    ),
    State.ARCHIVED: frozenset({State.ACTIVATED, State.EXPIRED, State.FROZEN}),
    # Unfreezing restores the former state, so `step` is told which one that was.
    State.FROZEN: frozenset({State.EXPIRED}),
    State.EXPIRED: frozenset(),
}

READABLE = frozenset({State.GENERATED, State.ACTIVATED, State.MERGED, State.FROZEN})
"""States that recall looks at unless the archive is asked for by name."""


def step(current: State, target: State, *, former: State | None = None) -> State:
    """Return `target` if a cube in `current` may go there.

    Parameters
    ----------
    former
        For a frozen cube: the state it had before, the only one that unfreezing may restore.

    Raises
    ------
    IllegalTransition
        If the table has no such edge.
    """
    if target in EDGES[current] or (current is State.FROZEN and former is not None and target is former):
        return target
    allowed = ", ".join(sorted(EDGES[current])) or "nothing: it is terminal"
    raise IllegalTransition(f"A cube that is {current} cannot become {target}; from {current} it can go to {allowed}.")
