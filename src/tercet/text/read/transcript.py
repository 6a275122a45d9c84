"""Transcripts: a conversation as a person would write it down.

    # A walk

    [2024-05-01 09:30] Ana: Shall we go?
    [2024-05-01 09:31 +02:00] Ben: Yes, and this line
    belongs to him as well.

A heading before a turn begins the next session.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta, tzinfo

from tercet.errors import InvalidRequest
from tercet.text.read.message import Conversation, Message
from tercet.text.read.plain import check_document

_TURN = re.compile(
    r"^\[(\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(?::\d{2})?) ?(Z|UTC|[+-]\d{2}:?\d{2})?\] ([^\s:\[][^:\n]{0,80}?): ?",
    re.MULTILINE,
)


def is_transcript(text: str) -> bool:
    """Whether the first line, titles and blank lines apart, is a turn."""
    first = _TURN.search(text, 0, 4000)
    return first is not None and not _title(text[: first.start()])[0].strip()


def read_transcript(text: str, *, session: str = "transcript", zone: tzinfo = UTC) -> list[Conversation]:
    """Read a transcript: a conversation for each heading, named `session`, or `session_1`, `session_2` ... in order.

    Times without a zone are in `zone`; turns of one minute are a second apart, so that time keeps their order. Each
    turn's `ref` is a digest of who said what and when: reading a grown transcript again adds only what is new.

    Raises
    ------
    InvalidRequest
        If the text is blank, has NUL characters, does not begin with a turn, or a time is none.
    """
    turns = list(_TURN.finditer(check_document(text)))
    if not turns or not is_transcript(text):
        raise InvalidRequest("A transcript begins with a turn like `[2024-05-01 09:30] Ana: text`.")
    runs: list[tuple[str | None, list[Message]]] = []
    title = _title(text[: turns[0].start()])[1]
    last: datetime | None = None
    for place, turn in enumerate(turns):
        if title is not None or not runs:
            runs.append((title, []))
        stop = turns[place + 1].start() if place + 1 < len(turns) else len(text)
        words, title = _title(text[turn.end() : stop]) if place + 1 < len(turns) else (text[turn.end() : stop], None)
        last = _at(turn, last, zone)
        if words.strip():
            ref = hashlib.sha256(f"{last.isoformat()}\n{turn[3]}\n{words.strip()}".encode()).hexdigest()[:16]
            runs[-1][1].append(Message(words.strip(), name=turn[3].strip(), at=last, ref=f"turn-{ref}"))
    names = [session] if len(runs) == 1 else [f"{session}_{n}" for n in range(1, len(runs) + 1)]
    return [
        Conversation(name, tuple(_in(message, name) for message in run), heading)
        for name, (heading, run) in zip(names, runs, strict=True)
        if run
    ]


def _at(turn: re.Match[str], last: datetime | None, zone: tzinfo) -> datetime:
    offset = turn[2] or ""
    try:
        at = datetime.fromisoformat(turn[1] + {"UTC": "+00:00", "Z": "+00:00"}.get(offset, offset))
    except ValueError:
        raise InvalidRequest(f"{turn[0].strip()!r} has no such time: {turn[1]}{offset}.") from None
    at = at if at.tzinfo else at.replace(tzinfo=zone)
    if last is not None and at <= last < at + timedelta(minutes=1):
        return last + timedelta(seconds=1)
    return at


def _title(text: str) -> tuple[str, str | None]:
    """What stands before a closing heading (one that begins the text, or follows an empty line), and the heading."""
    bare = text.rstrip()
    line = bare.rfind("\n") + 1
    above = text[text.rfind("\n", 0, max(line - 1, 0)) + 1 : line].strip()
    return (text, None) if above or not bare.startswith("# ", line) else (text[:line], bare[line + 2 :].strip())


def _in(message: Message, session: str) -> Message:
    return Message(message.content, name=message.name, at=message.at, ref=message.ref, session=session)
