"""LoCoMo's file format: long conversations between two people, with questions and the turns that answer them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tercet.errors import InvalidRequest
from tercet.text.read.chat import messages
from tercet.text.read.message import Conversation, Message

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = re.compile(r"\s*(\d{1,2}):(\d{2})\s*([ap])m on (\d{1,2}) ([a-z]{3})[a-z]*,? (\d{4})\s*$", re.IGNORECASE)
_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
_SESSION = re.compile(r"session_(\d+)$")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a conversation.

    Parameters
    ----------
    answer
        None where the conversation does not tell (category 5).
    evidence
        Refs of the turns that answer it, each once, in the order given. The data has a few that name no turn.
    category
        1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop, 5 adversarial.
    adversarial
        The wrong answer that category 5 lures with.
    """

    question: str
    answer: str | None
    evidence: tuple[str, ...]
    category: int
    adversarial: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One long conversation: a `Conversation` for each of its sessions, and the questions about it."""

    id: str
    conversations: tuple[Conversation, ...]
    questions: tuple[Question, ...]


def locomo_samples(path: str | Path) -> list[Sample]:
    """Read a LoCoMo file. Refs are its turn ids ("D1:3"), sessions "session_1" and so on.

    Raises
    ------
    InvalidRequest
        If the file cannot be opened or is not JSON, or a sample has not this form.
    """
    path = Path(path)
    try:
        return samples(json.loads(path.read_bytes()))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(f"{path.name} is not JSON: {error}") from None


def samples(data: object) -> list[Sample]:
    """The samples of a parsed LoCoMo file: a list of them, or one.

    Raises
    ------
    InvalidRequest
        If a sample has not this form.
    """
    found = []
    for place, item in enumerate(data if isinstance(data, list) else [data], 1):
        try:
            found.append(_sample(item, place))
        except InvalidRequest as error:
            raise InvalidRequest(f"LoCoMo sample {place}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidRequest(f"LoCoMo sample {place} has not the form expected: {error!r}") from None
    return found


def read_locomo(data: object) -> list[Conversation]:
    """The conversations of all samples. With several samples their ids go before sessions and refs ("conv-1/D1:3"),
    since each sample counts from 1 again.

    Raises
    ------
    InvalidRequest
        If a sample has not this form.
    """
    found = samples(data)
    if len(found) == 1:
        return list(found[0].conversations)
    return [_within(sample.id, one) for sample in found for one in sample.conversations]


def parse_time(written: str) -> datetime:
    """The time of a session, "1:56 pm on 8 May, 2023". The data tells no zone; it is read as UTC.

    Raises
    ------
    InvalidRequest
        If it is written otherwise.
    """
    found = _TIME.match(written)
    if found is None or found[5].lower() not in _MONTHS:
        raise InvalidRequest(f"session time {written!r} is not like '1:56 pm on 8 May, 2023'.")
    hour = int(found[1]) % 12 + (12 if found[3].lower() == "p" else 0)
    month = _MONTHS.index(found[5].lower()) + 1
    return datetime(int(found[6]), month, int(found[4]), hour, int(found[2]), tzinfo=UTC)


def evidence_ids(items: Sequence[str]) -> tuple[str, ...]:
    """Turn ids as they are written in the data ("D8:6; D9:17", "D:11:26", "D30:05"), one each, in order, once."""
    return tuple(dict.fromkeys(f"D{int(a)}:{int(b)}" for item in items for a, b in _EVIDENCE.findall(item)))


def _sample(item: Mapping[str, Any], place: int) -> Sample:
    talk = item["conversation"]
    numbers = sorted(int(found[1]) for key in talk if (found := _SESSION.match(key)) and talk[key])
    return Sample(
        str(item.get("sample_id", f"sample-{place}")),
        tuple(Conversation(f"session_{n}", _turns(talk, n)) for n in numbers),
        tuple(_question(one) for one in item.get("qa", ())),
    )


def _turns(talk: Mapping[str, Any], number: int) -> tuple[Message, ...]:
    session = f"session_{number}"
    if f"{session}_date_time" not in talk:
        raise InvalidRequest(f"{session} has no {session}_date_time.")
    began = parse_time(talk[f"{session}_date_time"])
    turns = (
        Message(_text(turn), name=turn["speaker"], at=began + timedelta(seconds=n), ref=turn["dia_id"], session=session)
        for n, turn in enumerate(talk[session])  # a second apart, so that time keeps the order
    )
    return tuple(messages(turn for turn in turns if turn.content.strip()))


def _text(turn: Mapping[str, Any]) -> str:
    # Never the `query`: it is what the data's makers searched for, which no one in the conversation said.
    words, caption = str(turn["text"]), turn.get("blip_caption")
    if not caption:
        return words
    return f"{words} [image: {caption}]" if words.strip() else f"[image: {caption}]"


def _question(item: Mapping[str, Any]) -> Question:
    answer, lure = item.get("answer"), item.get("adversarial_answer")
    return Question(
        str(item["question"]),
        None if answer is None else str(answer),
        evidence_ids(item.get("evidence", ())),
        int(item["category"]),
        None if lure is None else str(lure),
    )


def _within(sample: str, conversation: Conversation) -> Conversation:
    session = f"{sample}/{conversation.session}"
    return replace(
        conversation,
        session=session,
        messages=tuple(replace(m, session=session, ref=f"{sample}/{m.ref}") for m in conversation.messages),
    )
