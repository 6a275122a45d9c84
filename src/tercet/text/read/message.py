"""What input is read into: messages, the conversations that hold them, and documents with their passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from tercet.cube import MemCube, Scalar


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


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the passages it was read into.

    `text[slice(*cube.descriptive.origin.span)] == cube.text` for each cube, and what no span covers is white space.

    Parameters
    ----------
    text
        The whole document, as it was extracted; the episode that the passages quote.
    cubes
        Drafts of type "document", in reading order.
    notes
        What could not be read, for a person ("page 3 has no text").
    """

    text: str
    cubes: tuple[MemCube, ...]
    title: str | None = None
    notes: tuple[str, ...] = ()
