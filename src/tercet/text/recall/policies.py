"""The literal table of recall policies: which signals count, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Policy:
    """score = 1 / (1 + exp(-(bias + sum of weight * signal))).

    `weights` maps names of `signals.SIGNALS` to real numbers; a positive one speaks for the row. `needs` is what it
    cannot do without: "tokens" (coded token states), "vectors", or "words", which are always there; where that is
    missing, the policy named `fallback` ranks. `fitted_on` says which labelled questions the weights were chosen by.
    """

    name: str
    weights: Mapping[str, float]
    bias: float
    needs: str = "words"
    fallback: str | None = None
    fitted_on: str = "nothing"


DEV = "LoCoMo, conversations 26, 41, 43, 47 and 49; rounded to one decimal"


def _policy(name: str, bias: float, needs: str = "words", fallback: str | None = None, **weights: float) -> Policy:
    fitted_on = DEV if len(weights) > 1 else "nothing"
    return Policy(name, MappingProxyType(weights), bias, needs, fallback, fitted_on)


# `fit.fit` chose the weights of the first three on five LoCoMo conversations, rounded to one decimal, of signals that
# were chosen by leaving one conversation out. The last two are baselines.
POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            _policy(
                "balanced",
                -10.0,
                needs="tokens",
                fallback="hybrid",
                speaker=1.8,
                tokens=8.6,
                words=2.0,
                meaning=3.2,
                length=1.3,
                answers=1.9,
                timed=0.3,
                when=1.4,
                date=3.4,
            ),
            _policy(
                "hybrid",
                -8.9,
                needs="vectors",
                fallback="lexical",
                speaker=1.7,
                words=2.1,
                nearby=2.8,
                meaning=5.5,
                length=1.8,
                answers=1.3,
                timed=0.3,
                when=1.3,
                date=3.2,
            ),
            _policy(
                "lexical",
                -8.3,
                speaker=1.6,
                words=3.3,
                nearby=3.3,
                length=1.5,
                answers=2.4,
                timed=0.3,
                when=1.2,
                date=3.3,
            ),
            _policy("words", -4.7, match=7.2),
            _policy("vectors", -5.5, needs="vectors", fallback="words", cosine=11.5),
        )
    }
)
"""balanced is the default; hybrid does without token states, lexical without vectors; words is BM25, vectors cosine."""
