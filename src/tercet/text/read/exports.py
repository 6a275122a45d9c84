"""Chat exports as conversations: OpenAI's and Claude's `conversations.json`, LoCoMo, plain messages, transcripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tercet.errors import InvalidRequest
from tercet.text.read.chat import instant, messages
from tercet.text.read.locomo import read_locomo
from tercet.text.read.message import Conversation, Message
from tercet.text.read.parts import readable
from tercet.text.read.plain import check_document, spans
from tercet.text.read.transcript import is_transcript, read_transcript

Raw = Mapping[str, Any]


def read_export(data: object, *, format: str | None = None, session: str = "import") -> list[Conversation]:
    """Read a chat export: parsed JSON, or the text of a transcript.

    Parameters
    ----------
    format
        A name from `EXPORTS`; left out, `detect` finds it.
    session
        The session's name where the data has none of its own.

    Raises
    ------
    InvalidRequest
        If the format is unknown, or the data has not its form; the message says which conversation.
    """
    name = format or detect(data)
    if name not in EXPORTS:
        raise InvalidRequest(f"No chat format {name!r}; there are {', '.join(EXPORTS)}.")
    found = [one for one in EXPORTS[name](data, session) if one.messages]
    if not found:
        raise InvalidRequest(f"The {name} export has no message in it.")
    return found


def detect(data: object) -> str:
    """The name of the chat format (a key of `EXPORTS`) that parsed JSON, or a text, has.

    Raises
    ------
    InvalidRequest
        If it has none of them.
    """
    if isinstance(data, str):
        if is_transcript(data):
            return "transcript"
        raise InvalidRequest("This text is no transcript; its lines would begin like `[2024-05-01 09:30] Ana: ...`.")
    first = next((item for item in data if item), None) if isinstance(data, list) else data
    if isinstance(first, str):
        return "messages"
    if isinstance(first, Mapping):
        for field, name in MARKS.items():
            if field in first:
                return name
    raise InvalidRequest(f"This is no chat export that can be read; known are {', '.join(EXPORTS)}.")


def read_openai(data: object, session: str = "import") -> Iterator[Conversation]:
    """OpenAI's export: of each conversation's tree the branch that ends at `current_node`, which is what its user saw
    last. Messages without a time take that of the one before.

    Raises
    ------
    InvalidRequest
        If a conversation has not this form.
    """
    return _each(data, session, _openai_conversation)


def read_claude(data: object, session: str = "import") -> Iterator[Conversation]:
    """Claude's export. The text of an attachment follows its message, as messages that quote it in passages.

    Raises
    ------
    InvalidRequest
        If a conversation has not this form.
    """
    return _each(data, session, _claude_conversation)


def read_messages(data: object, session: str = "import") -> Iterator[Conversation]:
    """OpenAI-shaped messages: a list of them, `{"messages": [...]}`, or a list of such; parted by their `session`.

    Raises
    ------
    InvalidRequest
        If a message cannot be read (see `chat.messages`).
    """
    items = data if isinstance(data, list) else [data]
    runs = [item for item in items if isinstance(item, Mapping) and "messages" in item]
    if not runs:
        yield from _by_session(messages(items), session)
        return
    if len(runs) < len(items):
        raise InvalidRequest("Messages and lists of messages are mixed in one file; part them.")
    for place, run in enumerate(runs, 1):
        name = str(run.get("session") or run.get("id") or (session if len(runs) == 1 else f"{session}-{place}"))
        try:
            for one in _by_session(messages(run["messages"]), name):
                yield replace(one, title=run.get("title"))
        except InvalidRequest as error:
            raise InvalidRequest(f"Conversation {place}: {error}") from None


def _by_session(found: list[Message], session: str) -> Iterator[Conversation]:
    runs: dict[str, list[Message]] = {}
    for message in found:
        runs.setdefault(message.session or session, []).append(message)
    for name, run in runs.items():
        yield Conversation(name, tuple(replace(message, session=name) for message in run))


def _each(data: object, session: str, read: Callable[[Raw, str], Conversation]) -> Iterator[Conversation]:
    for place, item in enumerate(data if isinstance(data, list) else [data], 1):
        try:
            yield read(item, f"{session}-{place}")
        except InvalidRequest as error:
            raise InvalidRequest(f"Conversation {place}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidRequest(f"Conversation {place} has not the form expected: {error!r}") from None


def _conversation(session: str, title: object, items: list[Message]) -> Conversation:
    named = [replace(message, session=session) for message in items]
    return Conversation(session, tuple(messages(named)), title if isinstance(title, str) and title else None)


def _openai_conversation(item: Raw, fallback: str) -> Conversation:
    at = item.get("create_time")
    found = []
    for node in _branch(item):
        message = node.get("message")
        if not message or not (words := _openai_text(message["content"])).strip():
            continue
        at = message.get("create_time") or at
        role, details = message["author"]["role"], message.get("metadata") or {}
        extra = {
            "model": details.get("model_slug"),
            "tool": message["author"].get("name") if role == "tool" else None,
            "recipient": None if message.get("recipient") == "all" else message.get("recipient"),
        }
        found.append(
            Message(
                words,
                role=role,
                at=None if at is None else instant(at, "create_time"),
                ref=message.get("id") or node.get("id"),
                metadata={key: value for key, value in extra.items() if value},
            )
        )
    return _conversation(str(item.get("conversation_id") or item.get("id") or fallback), item.get("title"), found)


def _branch(item: Raw) -> list[Raw]:
    """The nodes from the root to `current_node` (or, where that is missing, to the newest leaf)."""
    nodes: Raw = item["mapping"]
    here: Any = item.get("current_node")
    if here not in nodes:
        leaves = [key for key, node in nodes.items() if not node.get("children")]
        here = max(leaves, key=lambda key: (nodes[key].get("message") or {}).get("create_time") or 0, default=None)
    path: dict[Any, Raw] = {}
    while here in nodes:
        if here in path:
            raise InvalidRequest(f"its tree has a circle at node {here!r}.")
        path[here] = nodes[here]
        here = nodes[here].get("parent")
    return list(path.values())[::-1]


def _openai_text(content: Raw) -> str:
    if "parts" in content:
        return readable(content["parts"], strict=False)
    if content.get("content_type") == "thoughts":
        thoughts = [f"{thought.get('summary', '')}: {thought.get('content', '')}" for thought in content["thoughts"]]
        return "\n".join(f"[thinking: {thought}]" for thought in thoughts)
    for field in ("text", "result", "content"):
        if isinstance(words := content.get(field), str):
            source = content.get("url")
            return f"{words}\n[source: {source}]" if source else words
    return f"[{content.get('content_type', 'content')}: {json.dumps(content, ensure_ascii=False)}]"


def _claude_conversation(item: Raw, fallback: str) -> Conversation:
    found: list[Message] = []
    for message in item["chat_messages"]:
        at = message.get("created_at") or item.get("created_at")
        role = {"human": "user"}.get(message["sender"], message["sender"])
        base = Message("", role=role, at=None if at is None else instant(at, "created_at"), ref=message.get("uuid"))
        words = readable(message.get("content"), strict=False)
        lines = [words if words.strip() else message.get("text") or ""]
        quoted: list[Message] = []
        for number, file in enumerate(message.get("attachments") or (), 1):
            if (file.get("extracted_content") or "").strip():
                quoted += _attachment(base, file, number)
            else:
                lines.append(readable({**file, "type": "file"}))
        lines += [readable({**file, "type": "file"}) for file in message.get("files") or ()]
        words = "\n".join(filter(None, lines))
        found += [replace(base, content=words)] if words.strip() else []
        found += quoted
    return _conversation(str(item.get("uuid") or fallback), item.get("name"), found)


def _attachment(base: Message, file: Raw, number: int) -> Iterator[Message]:
    text = check_document(file["extracted_content"])
    for place, (start, end) in enumerate(spans(text), 1):
        ref = f"{base.ref}#file{number}.{place}" if base.ref else None
        yield replace(base, content=text[start:end], ref=ref, metadata={"attachment": file.get("file_name") or "file"})


def _locomo(data: object, _: str) -> list[Conversation]:
    return read_locomo(data)


def _transcript(data: object, session: str) -> list[Conversation]:
    if not isinstance(data, str):
        raise InvalidRequest(f"A transcript is text, not {type(data).__name__}.")
    return read_transcript(data, session=session)


MARKS: Mapping[str, str] = {
    "mapping": "openai",
    "chat_messages": "claude",
    "conversation": "locomo",
    "messages": "messages",
    "content": "messages",
    "role": "messages",
}
"""The field by which a format is known -> the format."""
EXPORTS: Mapping[str, Callable[[object, str], Iterator[Conversation] | list[Conversation]]] = {
    "openai": read_openai,
    "claude": read_claude,
    "locomo": _locomo,
    "messages": read_messages,
    "transcript": _transcript,
}
"""Format name -> reader of the parsed data; the second argument names a session that has no name."""
