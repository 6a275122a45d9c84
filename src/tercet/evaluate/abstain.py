"""Whether `hits.evidence` tells questions that a conversation answers from those that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tercet.kernel import Tercet
from tercet.scope import Scope
from tercet.text.prepare import space_of
from tercet.text.read.locomo import Question, Sample
from tercet.text.recall.evidence import FEATURES, STRENGTHS, Strength, fit
from tercet.text.recall.policies import Policy
from tercet.text.recall.rank import rank
from tercet.text.recall.recall import ask

ANSWERED, ADVERSARIAL, ELSEWHERE = "answered", "adversarial", "elsewhere"
EVERY = 4
"""Of the questions about the next conversation, every fourth is asked of this one."""


@dataclass(slots=True)
class Abstention:
    """The evidence of each question, by sort: answered (categories 1 to 4), adversarial (category 5: the conversation
    tells of the like, and not of this), elsewhere (about another conversation, with the names of those who speak here).
    """

    evidence: dict[str, list[float]] = field(default_factory=lambda: {ANSWERED: [], ADVERSARIAL: [], ELSEWHERE: []})

    def report(self) -> dict[str, float | None]:
        """Two AUROC, None where the file has no such questions."""
        answered = self.evidence[ANSWERED]
        return {
            "abstention_auroc": auroc(answered, self.evidence[ADVERSARIAL]),
            "abstention_auroc_elsewhere": auroc(answered, self.evidence[ELSEWHERE]),
        }


def measure(
    tercet: Tercet, samples: Sequence[Sample], policies: Mapping[str, Policy], *, leave_one_out: bool
) -> Abstention:
    """Ask every question of the conversation with its policy; with `leave_one_out` the weights are fitted anew, too."""
    found = {sample.id: _features(tercet, sample, _after(samples, sample), policies[sample.id]) for sample in samples}
    result = Abstention()
    for sample in samples:
        strength = STRENGTHS["tokens" if policies[sample.id].needs == "tokens" else "words"]
        others = [(f, sort == ANSWERED) for id, rows in found.items() if id != sample.id for sort, f in rows]
        if leave_one_out and len({answered for _, answered in others}) == 2:
            strength = _fitted(others, strength)
        for sort, features in found[sample.id]:
            result.evidence[sort].append(strength.of(features))
    return result


def auroc(higher: Sequence[float], lower: Sequence[float]) -> float | None:
    """How often one of the first is greater than one of the second, ties counted half; None if either is empty."""
    if not higher or not lower:
        return None
    ordered = np.sort(np.array(lower))
    below, upto = (np.searchsorted(ordered, higher, side) for side in ("left", "right"))
    return round(float((below + upto).mean() / 2 / len(lower)), 4)


def _fitted(examples: Sequence[tuple[Mapping[str, float], bool]], like: Strength) -> Strength:
    return fit(examples, [name for name in FEATURES if name in like.weights])


def _features(tercet: Tercet, sample: Sample, other: Sample, policy: Policy) -> list[tuple[str, Mapping[str, float]]]:
    scope = Scope(user=sample.id)
    tenant = tercet.vault.tenant(scope.tenant)
    asked = [(ADVERSARIAL if q.category == 5 else ANSWERED, q.question) for q in sample.questions]
    if other is not sample:
        foreign = [q for q in other.questions[::EVERY] if q.category != 5]
        asked += [(ELSEWHERE, _renamed(q, other, sample)) for q in foreign]
    found = []
    with tenant.reading() as reader:
        view = tenant.view(reader, scope, space_of(tercet.embedder))
        for sort, text in asked:
            a = ask(text, view, tercet.embedder)
            found.append((sort, rank(a.question, view, policy, vector=a.vector, tokens=a.tokens, limit=1).features))
    return found


def _after(samples: Sequence[Sample], sample: Sample) -> Sample:
    return samples[(list(samples).index(sample) + 1) % len(samples)]


def _renamed(question: Question, of: Sample, to: Sample) -> str:
    text = question.question
    for theirs, ours in zip(_speakers(of), _speakers(to), strict=False):
        text = text.replace(theirs, ours)
    return text


def _speakers(sample: Sample) -> list[str]:
    return sorted({message.name for talk in sample.conversations for message in talk.messages if message.name})
