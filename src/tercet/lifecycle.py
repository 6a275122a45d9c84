"""The states of a cube and the edges between them. A table, and one function that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tercet.errors import IllegalTransition, Refused


class State(StrEnum):
    """Where a cube is in its life. `expired` is terminal: the content is gone, a journal line stays."""

    GENERATED = "generated"
    ACTIVATED = "activated"
    MERGED = "merged"
    ARCHIVED = "archived"
    EXPIRED = "expired"
    FROZEN = "frozen"


RETENTION = "retention"
"""What fires an edge when nobody does: an end that was set, or idleness."""

_USE, _REVISE = frozenset({"read", "revise"}), frozenset({"revise"})
_IDLE, _ERASE = frozenset({"revise", RETENTION}), frozenset({"forget", RETENTION})

EDGES: Mapping[State, Mapping[State, frozenset[str]]] = {
    State.GENERATED: {
        State.ACTIVATED: _USE,
        State.MERGED: _REVISE,
        State.ARCHIVED: _IDLE,
        State.EXPIRED: _ERASE,
        State.FROZEN: _REVISE,
    },
    State.ACTIVATED: {
        State.MERGED: _REVISE,
        State.ARCHIVED: _IDLE,
        State.EXPIRED: _ERASE,
        State.FROZEN: _REVISE,
    },
    State.MERGED: {
        State.ACTIVATED: _USE,
        State.MERGED: _REVISE,
        State.ARCHIVED: _IDLE,
        State.EXPIRED: _ERASE,
        State.FROZEN: _REVISE,
    },
    State.ARCHIVED: {State.ACTIVATED: _USE, State.EXPIRED: _ERASE, State.FROZEN: _REVISE},
    # Unfreezing restores the former state, so `step` is told which one that was. No end falls due while it is frozen.
    State.FROZEN: {State.EXPIRED: frozenset({"forget"})},
    State.EXPIRED: {},
}
"""From -> to -> what fires the edge: a right of the caller, or `RETENTION`. A pair that is not here is illegal."""

READABLE = frozenset({State.GENERATED, State.ACTIVATED, State.MERGED, State.FROZEN})
"""States that recall looks at unless the archive is asked for by name."""


def step(current: State, target: State, *, former: State | None = None, by: str | None = None) -> State:
    """Return `target` if a cube in `current` may go there.

    Parameters
    ----------
    former
        For a frozen cube: the state it had before, the only one that unfreezing may restore.
    by
        What fires the edge: a right, or `RETENTION`. Left out: the edge alone is asked about.

    Raises
    ------
    IllegalTransition
        If the table has no such edge.
    Refused
        If there is one, and this does not fire it.
    """
    unfreezes = current is State.FROZEN and former is not None and target is former
    if not unfreezes and target not in EDGES[current]:
        allowed = ", ".join(sorted(EDGES[current])) or "nothing: it is terminal"
        raise IllegalTransition(
            f"A cube that is {current} cannot become {target}; from {current} it can go to {allowed}."
        )
    fires = _REVISE if unfreezes else EDGES[current][target]
    if by is not None and by not in fires:
        raise Refused(f"A cube that is {current} becomes {target} by {' or '.join(sorted(fires))}, not by {by}.")
    return target
