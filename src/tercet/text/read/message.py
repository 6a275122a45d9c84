"""What a conversation is read into: messages, and the conversations that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from tercet.cube import Scalar


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Parameters
    ----------
    content
        The words, verbatim.
    role
        "user", "assistant", "system" or "tool", as in OpenAI's chat format.
    name
        Who speaks; recall uses it when a question names a person.
    at
        When it was said, with a time zone.
    ref
        The caller's own id for it; the same ref twice in a scope is stored once.
    session
        The conversation it belongs to, if it differs from the scope's.
    """

    content: str
    role: str = "user"
    name: str | None = None
    at: datetime | None = None
    ref: str | None = None
    session: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Conversation:
    """A run of messages under one session name."""

    session: str
    messages: tuple[Message, ...]
    title: str | None = None
