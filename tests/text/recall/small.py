"""Views over a handful of rows, written out by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tercet.text.recall.query import marks
from tercet.text.recall.view import ArrayView, Floats
from tercet.vault.search import analyse

DAY = 86_400.0
Row = tuple[int, str | None, str]  # session, speaker, text


def view(
    rows: Sequence[Row],
    *,
    vectors: Floats | None = None,
    codes: Sequence[bytes] = (),
    observed: Sequence[float] | None = None,
    happened: Sequence[tuple[float, float]] | None = None,
) -> ArrayView:
    """The view of some rows; one vector a row."""
    speakers = sorted({speaker for _, speaker, _ in rows if speaker is not None})
    documents = [analyse.terms(text) for _, _, text in rows]
    found: dict[str, list[tuple[int, int]]] = {}
    for row, document in enumerate(documents):
        for term, count in Counter(document).items():
            found.setdefault(term, []).append((row, count))
    spans = np.array(happened if happened is not None else [(np.nan, np.nan)] * len(rows)).reshape(-1, 2)
    return ArrayView(
        session=np.array([session for session, _, _ in rows], np.int64),
        speaker=np.array([-1 if name is None else speakers.index(name) for _, name, _ in rows], np.int64),
        speakers=speakers,
        words=np.array([len(document) for document in documents], np.int64),
        marks=np.array([marks(text) for _, _, text in rows], np.int64),
        observed=np.array(observed if observed is not None else [0.0] * len(rows)),
        happened_from=spans[:, 0],
        happened_to=spans[:, 1],
        index={term: (np.array([r for r, _ in held]), np.array([c for _, c in held])) for term, held in found.items()},
        vectors=vectors,
        owners=None if vectors is None else np.arange(len(rows)),
        codes=codes,
    )


def unit(rng: np.random.Generator, *shape: int) -> Floats:
    """Random unit vectors."""
    found = rng.normal(size=shape).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True), np.float32)


CHAT: list[Row] = [
    (0, "Ada", "Hello Ben, how was your week?"),
    (0, "Ben", "Busy! I painted the kitchen last Sunday."),
    (0, "Ada", "Which colour did you pick?"),
    (0, "Ben", "A warm yellow, like the walls at my grandmother's house."),
    (1, "Ada", "I adopted a cat from the shelter yesterday."),
    (1, "Ben", "Wonderful, what is the cat called?"),
    (1, "Ada", "Her name is Miso. She sleeps on the piano."),
    (1, "Ben", "My dog would be jealous."),
]
