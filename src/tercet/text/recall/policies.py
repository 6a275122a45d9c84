"""The literal table of recall policies: which signals count, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Policy:
    """score = 1 / (1 + exp(-(bias + sum of weight * signal))).

    `weights` maps names of `signals.SIGNALS` to real numbers. `needs` is what it cannot do without: "tokens" (coded
    token states), "vectors", or "words", which are always there; where that is missing, the policy named `fallback`
    ranks. `fitted_on` says which labelled questions the weights were chosen by.
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


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            _policy(
                "balanced",
                -12.5,
                "tokens",
                "hybrid",
                speaker=1.8,
                tokens=8.4,
                words=1.9,
                meaning=5.0,
                length=1.2,
                asks=-0.5,
                timed=0.3,
                when=1.4,
                date=3.3,
            ),
            _policy(
                "hybrid",
                -11.3,
                "vectors",
                "lexical",
                speaker=1.7,
                words=1.8,
                nearby=3.1,
                meaning=6.6,
                length=1.6,
                asks=-0.5,
                timed=0.3,
                when=1.3,
                date=3.1,
            ),
            _policy(
                "lexical",
                -10.6,
                speaker=1.6,
                words=3.0,
                nearby=3.9,
                length=1.4,
                asks=-0.5,
                timed=0.2,
                when=1.1,
                date=3.2,
            ),
            _policy("words", -4.0, match=8.0),
            _policy("vectors", -4.0, "vectors", "words", cosine=8.0),
        )
    }
)
