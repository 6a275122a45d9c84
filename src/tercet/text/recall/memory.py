"""A view over texts in memory: to try recall without a vault, to fit policies, and the reference for other views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.text.recall.query import marks
from tercet.text.recall.view import Floats, Ints, Times
from tercet.vault.search import analyse

Turn = tuple[int, str | None, str]  # session, speaker, text


@dataclass(frozen=True, eq=False)
class ArrayView:
    """A `View` over arrays in memory: the reference, and enough for a scope that fits.

    `vectors` is float32 (m, dim) of unit norm and `owners` (m,) says which row each belongs to; `codes` has the coded
    token states of each row. `links` names the rows that a row was made from. All three may be left out.
    """

    session: Ints
    speaker: Ints
    speakers: Sequence[str]
    words: Ints
    marks: NDArray[Any]
    observed: Times
    happened_from: Times
    happened_to: Times
    index: Mapping[str, tuple[Ints, Ints]] = field(repr=False)
    vectors: Floats | None = field(default=None, repr=False)
    owners: Ints | None = field(default=None, repr=False)
    codes: Sequence[bytes] = field(default=(), repr=False)
    links: Mapping[int, Sequence[int]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.session)

    def postings(self, term: str) -> tuple[Ints, Ints]:
        """See `View.postings`."""
        return self.index.get(term) or (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def similarities(self, vector: Floats, rows: Ints) -> Floats | None:
        """See `View.similarities`."""
        if self.vectors is None or self.owners is None or not len(self.vectors):
            return None
        best = np.full(len(self), np.nan, np.float32)
        np.fmax.at(best, self.owners, self.vectors @ vector)
        return best[rows]

    def nearest(self, vector: Floats, count: int) -> Ints | None:
        """See `View.nearest`."""
        found = self.similarities(vector, np.arange(len(self)))
        return None if found is None else np.argsort(-found, kind="stable")[: min(count, int((~np.isnan(found)).sum()))]

    def linked(self, rows: Ints) -> Ints:
        """See `View.linked`."""
        asked = set(rows.tolist())
        into = {product for product, sources in self.links.items() if asked & set(sources)}
        found = into.union(*(self.links.get(row, ()) for row in asked))
        return np.array(sorted(found), np.int64)

    def states(self, rows: Ints) -> tuple[NDArray[np.uint8], Ints, Ints]:
        """See `View.states`."""
        ends = np.cumsum([len(blob) for blob in self.codes or [b""] * len(self)], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        return np.frombuffer(b"".join(self.codes), np.uint8), starts[rows], ends[rows]


def view_of(
    turns: Sequence[Turn],
    *,
    vectors: Floats | None = None,
    codes: Sequence[bytes] = (),
    observed: Sequence[float] | None = None,
    happened: Sequence[tuple[float, float]] | None = None,
) -> ArrayView:
    """The view of some turns, equal sessions side by side and each in time order.

    `vectors` (turns, dim) has one a turn. `observed` is 0 where it is not given, `happened` unknown.
    """
    speakers = sorted({speaker for _, speaker, _ in turns if speaker is not None})
    documents = [analyse.terms(text) for _, _, text in turns]
    found: dict[str, list[tuple[int, int]]] = {}
    for row, document in enumerate(documents):
        for term, count in Counter(document).items():
            found.setdefault(term, []).append((row, count))
    spans = np.array([(np.nan, np.nan)] * len(turns) if happened is None else happened, np.float64).reshape(-1, 2)
    return ArrayView(
        session=np.array([session for session, _, _ in turns], np.int64),
        speaker=np.array([-1 if name is None else speakers.index(name) for _, name, _ in turns], np.int64),
        speakers=speakers,
        words=np.array([len(document) for document in documents], np.int64),
        marks=np.array([marks(text) for _, _, text in turns], np.int64),
        observed=np.zeros(len(turns)) if observed is None else np.array(observed, np.float64),
        happened_from=spans[:, 0],
        happened_to=spans[:, 1],
        index={term: (held[:, 0], held[:, 1]) for term, held in ((t, np.array(h)) for t, h in found.items())},
        vectors=vectors,
        owners=None if vectors is None else np.arange(len(turns)),
        codes=codes,
    )
