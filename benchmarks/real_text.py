"""A real conversation's observations, taught to an adapter, and the questions that people asked about it.

LoCoMo's `observation` sentences of the first sessions of one conversation are the memories. The questions are those of
the categories single-hop and multi-hop (4 and 1) whose evidence lies in those sessions; none of them, nor anything
like them, is taught: a sentence that fits no pattern is taught as one to complete. Answers are compared as SQuAD's
are: exact match, and the F1 of their words, without case, signs and articles.
"""

# ruff: noqa: ANN401
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.common import data_file

CATEGORIES = {1, 4}
SESSIONS = 4
EVIDENCE = re.compile(r"D(\d+):\d+")


def conversation(number: int = 0, sessions: int = SESSIONS) -> tuple[list[str], list[tuple[str, str]]]:
    """Observations of the first sessions, and (question, answer) about nothing else. Raises DataMissingError."""
    sample = json.loads(data_file("locomo_dev.json").read_text(encoding="utf-8"))[number]
    told = [
        sentence
        for session in range(1, sessions + 1)
        for spoken in sample["observation"].get(f"session_{session}_observation", {}).values()
        for sentence, _ in spoken
    ]
    asked = [
        (one["question"], str(one["answer"]))
        for one in sample["qa"]
        if one["category"] in CATEGORIES and 0 < last_session(one["evidence"]) <= sessions
    ]
    return told, asked


def last_session(evidence: Sequence[str]) -> int:
    """The last session that evidence names; 0 if it names none."""
    return max((int(one) for one in EVIDENCE.findall(" ".join(evidence))), default=0)


def scores(told: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Mean exact match and F1 over answers."""
    pairs = [(words(one), words(right)) for one, right in zip(told, gold, strict=True)]
    return {
        "exact": sum(one == right for one, right in pairs) / len(pairs),
        "f1": sum(f1(one, right) for one, right in pairs) / len(pairs),
    }


def words(text: str) -> list[str]:
    """The words of an answer, without case, signs and articles."""
    plain = re.sub(r"[^\w\s]", "", text.casefold())
    return [one for one in plain.split() if one not in {"a", "an", "the"}]


def f1(told: Sequence[str], gold: Sequence[str]) -> float:
    """The harmonic mean of the shares of words in common, each as often as it occurs."""
    common = sum((Counter(told) & Counter(gold)).values())
    return 2 * common / (len(told) + len(gold)) if common else 0.0


def ways(memory: Any, adapter: str, asked: Sequence[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Exact match and F1 of the base, of recall + prompt, of the adapter, and of both."""
    gold = [answer for _, answer in asked]
    found: dict[str, dict[str, Any]] = {}
    for name, limit, adapters in (("base", 0, []), ("recall_and_prompt", 8, []), ("adapter", 0, [adapter]),
                                  ("adapter_and_recall", 8, [adapter])):  # fmt: skip
        told = [
            memory.chat(question, limit=limit, adapters=adapters, max_tokens=24).text.strip() for question, _ in asked
        ]
        found[name] = {
            **scores(told, gold),
            "answers": [[question, right, said] for (question, right), said in zip(asked, told, strict=True)],
        }
    return found
