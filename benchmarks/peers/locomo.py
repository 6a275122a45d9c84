"""The LoCoMo conversations as turns and questions. Standard library only: every peer's environment reads it by path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True)
class Turn:
    """One turn: `ref` is its id within the conversation, `text` its words with the caption of a shared image."""

    ref: str
    session: str
    at: datetime
    speaker: str
    text: str

    @property
    def line(self) -> str:
        """The text that a product without a field for the speaker embeds and indexes."""
        return f"{self.speaker}: {self.text}"


@dataclass(frozen=True)
class Question:
    """A question, its category (1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop) and the refs that answer it."""

    text: str
    category: int
    gold: frozenset[str]


@dataclass(frozen=True)
class Conversation:
    """One conversation, with its own turn ids: a memory system keeps it as one user."""

    id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def evidence(raw: Sequence[str]) -> list[str]:
    """Turn ids in order, once each: `['D8:6; D9:17', 'D:11:26']` gives `['D8:6', 'D9:17', 'D11:26']`."""
    found = [f"D{int(session)}:{int(turn)}" for item in raw for session, turn in _EVIDENCE.findall(item)]
    return list(dict.fromkeys(found))


def when(text: str) -> datetime:
    """`1:56 pm on 8 May, 2023` as a time; the data names no zone, UTC is assumed."""
    return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)


def _turns(conversation: Mapping[str, Any]) -> tuple[Turn, ...]:
    names = [key for key, value in conversation.items() if key.startswith("session_") and isinstance(value, list)]
    turns = []
    for name in sorted(names, key=lambda key: int(key.rpartition("_")[2])):
        at = when(conversation[f"{name}_date_time"])
        for raw in conversation[name]:
            caption = raw.get("blip_caption")
            text = raw["text"] + (f" [image: {caption}]" if caption else "")
            turns.append(Turn(raw["dia_id"], name, at, raw["speaker"], text))
    return tuple(turns)


def _questions(raw: Sequence[Mapping[str, Any]], refs: frozenset[str]) -> tuple[Question, ...]:
    questions = []
    for item in raw:
        # A few evidence ids name turns that do not exist; no system could return them.
        gold = refs.intersection(evidence(item.get("evidence") or []))
        if gold and item["category"] in (1, 2, 3, 4):
            questions.append(Question(item["question"], item["category"], gold))
    return tuple(questions)


def load(path: Path) -> list[Conversation]:
    """The conversations of a LoCoMo file, with the questions of categories 1 to 4 whose evidence is among the turns."""
    conversations = []
    for sample in json.loads(path.read_text(encoding="utf-8")):
        turns = _turns(sample["conversation"])
        questions = _questions(sample["qa"], frozenset(turn.ref for turn in turns))
        conversations.append(Conversation(sample["sample_id"], turns, questions))
    return conversations
