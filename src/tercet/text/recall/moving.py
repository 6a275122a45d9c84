"""A question to a vault that moves from one embedding space to another: each row by the space in which it has a vector.

Cosines of two models are not on one scale. So the space in which more of the scope's rows have a vector goes first, and
only rows without one there are measured in the other: until the middle of a move answers are the old space's, then the
new one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tercet.text.embed.base import Embedder
from tercet.text.recall.recall import Asked, ask
from tercet.text.recall.view import Floats, Ints
from tercet.vault.search.view import ScopeView
from tercet.vault.spaces import Space

See = Callable[[Space | None], ScopeView]
"""The rows of a scope with their vectors in a space."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BothSpaces(ScopeView):
    """A view of one space, with another behind it for the rows that have no vector there.

    `other` has the same cubes, in an order of its own; `question` is the question's unit vector in its space.
    """

    other: ScopeView
    question: Floats

    def similarities(self, vector: Floats, rows: Ints) -> Floats | None:
        """See `View.similarities`."""
        found = super().similarities(vector, rows)
        if found is None:
            found = np.full(len(rows), np.nan, np.float32)
        gaps = np.flatnonzero(np.isnan(found))
        theirs = self.other.similarities(self.question, self._there(rows[gaps])) if len(gaps) else None
        if theirs is not None:
            found = found.copy()
            found[gaps] = theirs
        return None if np.isnan(found).all() else found

    def nearest(self, vector: Floats, count: int) -> Ints | None:
        """See `View.nearest`."""
        mine, theirs = super().nearest(vector, count), self.other.nearest(self.question, count)
        if theirs is None:
            return mine
        here = self.table.rows_of(self.other.numbers[theirs])
        rows = np.unique(here if mine is None else np.concatenate([mine, here]))
        scores = self.similarities(vector, rows)
        return None if scores is None else rows[np.argsort(-scores, kind="stable")][:count]

    def placed(self, rows: Ints) -> NDArray[np.bool_]:
        """Whether each row has a vector in either space."""
        return super().placed(rows) | self.other.placed(self._there(rows))

    def _there(self, rows: Ints) -> Ints:
        return self.other.table.rows_of(self.numbers[rows])


def look(
    text: str,
    see: See,
    space: Space | None,
    embedder: Embedder | None,
    beside: Sequence[tuple[Space, Callable[[], Embedder | None]]],
) -> tuple[ScopeView, Asked]:
    """The view that answers a question, and the question as that view understands it.

    `beside` are the other spaces that the vault is not done with, each with what finds its embedder.
    """
    view = see(space)
    asked = ask(text, view, embedder)
    if asked.vector is None:
        return view, asked
    for other_space, find in reversed(beside):
        if view.table.vectors is not None and view.placed(np.arange(len(view))).all():
            break
        other_embedder = find()
        if other_embedder is None:
            continue
        other = see(other_space)
        theirs = ask(text, other, other_embedder)
        if theirs.vector is None:
            continue
        if _count(other) > _count(view):
            return _both(other, view, asked.vector), theirs
        return _both(view, other, theirs.vector), asked
    return view, asked


def _both(view: ScopeView, other: ScopeView, question: Floats) -> BothSpaces:
    held = {field.name: getattr(view, field.name) for field in fields(ScopeView)}
    return BothSpaces(**held, other=other, question=question)


def _count(view: ScopeView) -> int:
    """How many rows have a vector; of a wide scope, how many of the tenant's."""
    if view.table.vectors is not None:
        return int(np.count_nonzero(view.table.vectors.counts))
    [(count,)] = view.connection.execute("SELECT count(*) FROM vectors WHERE space = ?", (view.space[0],))
    return int(count)
