"""The measurement that each peer's `run.py` passes its adapter to; the same loop, texts and clocks for every product.

`main` prints one JSON document on standard output and nothing else there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.common import peak_rss_mb, percentile, store_bytes
from benchmarks.peers.locomo import Conversation, Question, Turn, load

LIMIT = 10
WARM_UP = 20
EMBED_TEXTS = 512


class Memory(Protocol):
    """What a peer must do. `user` is the conversation's id; refs are turn ids."""

    def add_batch(self, user: str, turns: Sequence[Turn]) -> None:
        """Add a conversation in the fastest way that the product offers for many turns."""

    def add_one(self, user: str, turn: Turn) -> None:
        """Add one turn, acknowledged on return."""

    def settle(self) -> None:
        """Whatever the product needs between writing and fast, complete reading: index building, jobs."""

    def recall(self, user: str, question: str, limit: int) -> list[str]:
        """Refs of the best turns of that user, best first."""

    def embed(self, texts: Sequence[str]) -> object:
        """Embed the texts with the product's own embedder, in one call."""

    def close(self) -> None:
        """Close the store."""


def score(ranked: Sequence[str], gold: frozenset[str]) -> dict[str, float]:
    """One question: fraction of gold turns returned, whether all and whether any, reciprocal rank of the first."""
    found = gold.intersection(ranked)
    first = next((1 / rank for rank, ref in enumerate(ranked, 1) if ref in gold), 0.0)
    return {
        "recall@10": len(found) / len(gold),
        "recall_all@10": float(found == gold),
        "hit@10": float(bool(found)),
        "mrr": first,
    }


def _ingest(memory: Memory, conversations: Sequence[Conversation], singles: int) -> dict[str, float]:
    """All turns in batches but the last `singles`, which come one at a time."""
    last = conversations[-1]
    singles = min(singles, len(last.turns) // 4)
    begin = time.perf_counter()
    for conversation in conversations[:-1]:
        memory.add_batch(conversation.id, conversation.turns)
    memory.add_batch(last.id, last.turns[: len(last.turns) - singles])
    memory.settle()
    batched = time.perf_counter() - begin
    begin = time.perf_counter()
    for turn in last.turns[len(last.turns) - singles :]:
        memory.add_one(last.id, turn)
    alone = time.perf_counter() - begin
    begin = time.perf_counter()
    memory.settle()
    total = sum(len(conversation.turns) for conversation in conversations)
    return {
        "turns": total,
        "ingest_per_s": (total - singles) / batched,
        "ingest_one_per_s": singles / alone,
        "settle_s": time.perf_counter() - begin,
    }


def _ask(memory: Memory, asked: Sequence[tuple[str, Question]]) -> dict[str, object]:
    for user, question in asked[:WARM_UP]:
        memory.recall(user, question.text, LIMIT)
    times: list[float] = []
    scores: list[dict[str, float]] = []
    for user, question in asked:
        begin = time.perf_counter()
        ranked = memory.recall(user, question.text, LIMIT)
        times.append((time.perf_counter() - begin) * 1000)
        scores.append(score(ranked[:LIMIT], question.gold))
    result: dict[str, object] = {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
    by_category = {}
    for category in sorted({question.category for _, question in asked}):
        part = [s["recall@10"] for s, (_, q) in zip(scores, asked, strict=True) if q.category == category]
        by_category[str(category)] = {"questions": len(part), "recall@10": sum(part) / len(part)}
    return {
        "questions": len(asked),
        **result,
        "by_category": by_category,
        "recall_p50_ms": percentile(times, 50),
        "recall_p95_ms": percentile(times, 95),
    }


def _embedder(memory: Memory, conversations: Sequence[Conversation]) -> dict[str, float]:
    """The embedder alone: texts a second in one call and one at a time."""
    turns = [turn for conversation in conversations for turn in conversation.turns]
    texts = [turn.line for turn in turns[:: max(1, len(turns) // EMBED_TEXTS)]][:EMBED_TEXTS]
    if memory.embed(texts[:1]) is None:  # this product has no embedder
        return {}
    begin = time.perf_counter()
    memory.embed(texts)
    batched = time.perf_counter() - begin
    few = texts[:: max(1, len(texts) // 100)]
    begin = time.perf_counter()
    for text in few:
        memory.embed([text])
    return {
        "embed_per_s": len(texts) / batched,
        "embed_one_per_s": len(few) / (time.perf_counter() - begin),
    }


def _offline() -> list[str]:
    """Refuse every outbound connection made from Python; returns the list that the attempts are noted in."""
    attempts: list[str] = []

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.connect"):
            target = arguments[1] if event == "socket.connect" else arguments[0]
            if not isinstance(target, (str, bytes)) or event == "socket.getaddrinfo":
                attempts.append(str(target))
                raise OSError(f"this benchmark runs offline, refused {target}")

    sys.addaudithook(refuse)
    return attempts


def _measure(memory: Memory, folder: Path, data: Path, limits: argparse.Namespace) -> dict[str, object]:
    conversations = load(data)[: limits.conversations]
    asked = [(c.id, q) for c in conversations for q in c.questions]
    asked = asked[:: max(1, len(asked) // limits.questions)] if limits.questions else asked
    result: dict[str, object] = {}
    try:
        memory.embed(["warm up"])
        result |= _ingest(memory, conversations, limits.singles)
        result |= _ask(memory, asked)
        result["peak_rss_mb"] = peak_rss_mb()  # before the bare embedder is timed, which is no part of the product
        result |= _embedder(memory, conversations)
    finally:
        memory.close()
    result["store_bytes"] = store_bytes(folder)
    return result


def _cold(memory: Memory, data: Path) -> dict[str, object]:
    """The first answer of a new process on the filled store."""
    conversation = load(data)[0]
    try:
        ranked = memory.recall(conversation.id, conversation.questions[0].text, LIMIT)
        return {"answered_at": time.time(), "cold_hits": len(ranked), "cold_rss_mb": peak_rss_mb()}
    finally:
        memory.close()


def main(product: str, version: Callable[[], str], open_store: Callable[[Path], Memory]) -> None:
    """Run one measurement with the store in a folder: `--data FILE --store FOLDER [--cold]`."""
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--store", type=Path, required=True)
    options.add_argument("--conversations", type=int, default=None)
    options.add_argument("--questions", type=int, default=0, help="about so many; 0 means all")
    options.add_argument("--singles", type=int, default=300, help="turns added one at a time")
    options.add_argument("--cold", action="store_true", help="only the first answer on a filled store")
    limits = options.parse_args()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answer
    attempts = _offline()
    limits.store.mkdir(parents=True, exist_ok=True)
    memory = open_store(limits.store)
    result = _cold(memory, limits.data) if limits.cold else _measure(memory, limits.store, limits.data, limits)
    document = {"product": product, "version": version(), **result, "network_attempts": attempts}
    answer.write(json.dumps(document) + "\n")
    answer.close()
