"""The labelled sets: secrets are put together from their parts here, so that none stands whole in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A text, what group it is of, and the spans in it: (kind, start, end)."""

    id: int
    group: str
    text: str
    spans: tuple[tuple[str, int, int], ...]


def redaction_cases() -> Iterator[Case]:
    """The cases of redaction_cases.jsonl."""
    for line in (FOLDER / "redaction_cases.jsonl").read_text(encoding="utf-8").splitlines():
        row, text, spans = json.loads(line), "", []
        for part in row["text"]:
            value = part if isinstance(part, str) else "".join(part["parts"])
            if not isinstance(part, str):
                spans.append((part["kind"], len(text), len(text) + len(value)))
            text += value
        yield Case(row["id"], row["group"], text, tuple(spans))


def poison_cases() -> Iterator[tuple[int, bool, str, str]]:
    """(id, whether it is poison, its style, the text) of poison_cases.jsonl."""
    for line in (FOLDER / "poison_cases.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["id"], row["poison"], row["style"], row["text"]
