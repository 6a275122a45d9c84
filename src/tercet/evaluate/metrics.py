"""Retrieval metrics over labelled questions, and how sure one may be of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DEPTH = 50
"""How many hits are looked at for each question."""
CUTS = (5, 10, 20)
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question asked: its category, the ranks (from 1) at which gold turns came, how many gold turns it has."""

    category: int
    ranks: tuple[int, ...]
    gold: int

    def found(self, k: int) -> float:
        """The fraction of the gold turns among the first `k`."""
        return sum(rank <= k for rank in self.ranks) / self.gold

    @property
    def reciprocal(self) -> float:
        """1 / rank of the first gold turn; 0 if none came within `DEPTH`."""
        return 1 / min(self.ranks) if self.ranks else 0.0


def outcome(category: int, gold: Sequence[str], ranked: Sequence[str | None]) -> Outcome:
    """Compare a ranking of refs with the gold refs."""
    wanted = set(gold)
    return Outcome(category, tuple(rank for rank, ref in enumerate(ranked, 1) if ref in wanted), len(wanted))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """recall@k (mean fraction of gold turns), recall_all@10 (all of them), hit@10 (any), mrr."""
    if not outcomes:
        return {"questions": 0}
    means: dict[str, Any] = {"questions": len(outcomes)}
    for k in CUTS:
        means[f"recall@{k}"] = _mean([one.found(k) for one in outcomes])
    means["recall_all@10"] = _mean([float(one.found(10) == 1.0) for one in outcomes])
    means["hit@10"] = _mean([float(one.found(10) > 0.0) for one in outcomes])
    means["mrr"] = _mean([one.reciprocal for one in outcomes])
    return means


def by_category(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """`summary` of each category."""
    categories = sorted({one.category for one in outcomes})
    return {str(c): summary([one for one in outcomes if one.category == c]) for c in categories}


def interval(outcomes: Sequence[Outcome], k: int = 10, *, seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95 % interval of recall@k over questions."""
    values = np.array([one.found(k) for one in outcomes])
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)


def curve(outcomes: Sequence[Outcome]) -> list[float]:
    """recall@k for k = 1 .. DEPTH."""
    return [_mean([one.found(k) for one in outcomes]) for k in range(1, DEPTH + 1)]


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
