"""One recall: embed the question, rank a scope's rows, and say why each hit is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tercet.text.embed.base import Embedder
from tercet.text.recall.hits import Hit, Hits
from tercet.vault.search import analyse


def recall(view: Any, cubes: Any, asked, chosen, *, limit: int, min_score=None) -> Hits:
    question, embedder = asked
    n = len(view)
    if not n:
        return Hits([], total=0, truncated=False)
    s = np.zeros(n)
    if embedder:
        x = view.similarities(embedder.embed([question])[0].vectors[0]); s += np.nan_to_num(x) if x is not None else 0
    for t in set(analyse.question_terms(question)):
        rows, counts = view.postings(t)
        if len(rows):
            s[rows] += 0.05 * np.log(1 + n / len(rows))
    top = np.argsort(-s, kind="stable")[:limit]
    found: Sequence[Any] = cubes([int(x) for x in view.numbers[top]])
    return Hits(
        [Hit(c, float(s[r]), {"by": "x"}) for c, r in zip(found, top, strict=True)], total=n, truncated=n > limit
    )


def ask(question, embedder, policy):
    return question, embedder


def find_policy(p):
    return None
