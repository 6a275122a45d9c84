"""One recall: read the question, rank a scope's rows, and say why each hit is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tercet.cube import MemCube
from tercet.errors import EmbeddingFailed, InvalidRequest
from tercet.text.embed.base import Embedder, gives_states
from tercet.text.prepare import coder_for, guarded
from tercet.text.recall.evidence import STRENGTHS
from tercet.text.recall.hits import Hit, Hits
from tercet.text.recall.late import Bits
from tercet.text.recall.policies import POLICIES, Policy
from tercet.text.recall.query import Question, parse
from tercet.text.recall.rank import Ranking, rank
from tercet.text.recall.view import Floats
from tercet.vault.search import analyse
from tercet.vault.search.view import ScopeView

DEFAULT = "balanced"
MAX_QUESTION = 10_000
"""Characters of a question; a longer one is no question."""

LACKING = "words (its vector is not made yet)"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Asked:
    """A question as a scope understands it, with its vector and coded tokens where there is an embedder.

    `trouble` says why there is no vector.
    """

    question: Question
    vector: Floats | None
    tokens: Bits | None
    trouble: str | None


def find_policy(policy: str | Policy | None) -> Policy:
    """The policy of that name (None: the default), or the policy itself. Raises InvalidRequest for an unknown name."""
    if isinstance(policy, Policy):
        return policy
    name = DEFAULT if policy is None else policy
    if name not in POLICIES:
        raise InvalidRequest(f"Unknown policy {name!r}; there are {', '.join(POLICIES)}.")
    return POLICIES[name]


def check_question(text: str) -> str:
    """Return a question that can be asked. Raises InvalidRequest if it is empty, too long or no text."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest("The question is empty; ask with words.")
    if len(text) > MAX_QUESTION:
        raise InvalidRequest(f"The question has {len(text):,} characters; at most {MAX_QUESTION:,} are read.")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequest("The question is not valid Unicode (bytes that were not UTF-8?).")
    return text


def ask(text: str, view: ScopeView, embedder: Embedder | None) -> Asked:
    """Understand a question of a scope. An embedder that fails costs the vectors, not the answer."""
    question = parse(text, view.speakers)
    if embedder is None:
        return Asked(question, None, None, "no embedder")
    coder = coder_for(embedder)
    if coder is not None and analyse.mostly_cjk(text):
        return Asked(question, None, None, "all-MiniLM-L6-v2 knows English, not this script")
    try:
        with guarded():
            if coder is not None and gives_states(embedder):
                [made] = embedder.embed([question.bare], states=True)
            else:
                [made] = embedder.embed([question.bare])
            vector = np.asarray(made.vectors[0], dtype=np.float32)
        if vector.shape != (embedder.dim,) or not np.isfinite(vector).all():
            raise EmbeddingFailed("The embedder's vector for the question has the wrong length or is not finite.")
    except EmbeddingFailed as error:
        log.warning("recall is by words this time: %s", error)
        return Asked(question, None, None, str(error))
    tokens = None
    if coder is not None and made.states is not None and made.token_ids is not None:
        tokens = coder.question(made.states, made.token_ids)
    return Asked(question, vector, tokens, None)


def recall(
    view: ScopeView,
    cubes: Callable[[Sequence[int]], list[MemCube]],
    asked: Asked,
    policy: Policy,
    *,
    limit: int,
    min_score: float | None = None,
) -> Hits:
    """Rank the view's rows; `cubes` reads the cubes of given numbers."""
    if not len(view):
        return Hits([], total=0, truncated=False)
    ranking = rank(asked.question, view, policy, vector=asked.vector, tokens=asked.tokens, limit=limit)
    kept = len(ranking.rows) if min_score is None else int((ranking.scores >= min_score).sum())
    numbers = [int(n) for n in view.numbers[ranking.rows[:kept]]]
    found = dict(zip(numbers, cubes(numbers), strict=True))
    by, ways = _by(ranking, asked), {"vectors": view.way} if ranking.policy.needs != "words" else {}
    # Where others have vectors, one without is found by its words, its neighbours and its tokens at most.
    placed = view.placed(ranking.rows[:kept]) if ranking.policy.needs != "words" else np.ones(kept, np.bool_)
    hits = []
    for place, n in enumerate(numbers):
        through = {"through": ranking.through(place)} if ranking.through(place) else {}
        how = {"by": by if placed[place] else LACKING, **ways, **through}
        hits.append(Hit(found[n], float(ranking.scores[place]), {**how, **ranking.why(place)}))
    dropped = f"{len(ranking.rows) - kept} below min_score" if kept < len(ranking.rows) else None
    return Hits(hits, total=len(view), truncated=len(view) > len(hits), dropped=dropped, evidence=strength(ranking))


def strength(ranking: Ranking) -> float:
    """The evidence of a ranking, in [0, 1], by the weights that go with its policy."""
    return STRENGTHS["tokens" if ranking.policy.needs == "tokens" else "words"].of(ranking.features)


def _by(ranking: Ranking, asked: Asked) -> str:
    if ranking.policy.needs == "words":
        if ranking.missing is None:
            return "words"
        return f"words ({asked.trouble or 'the vectors are not made yet'})"
    return "vectors" if ranking.policy.name == "vectors" else "words and vectors"
