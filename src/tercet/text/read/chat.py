"""Chat messages: what callers and OpenAI-shaped clients hand over, read into `Message`, and drafted as cubes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeGuard

from tercet.cube import Descriptive, Governance, Happened, MemCube, Origin, Scalar, Source, Text, check_text
from tercet.errors import InvalidRequest
from tercet.scope import Scope, check_name
from tercet.text.read.dates import happened
from tercet.text.read.message import Message
from tercet.text.read.parts import calls, readable

ROLES: Mapping[str, str] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "developer": "system",  # OpenAI's newer word for it
    "function": "tool",  # and an older one
}
SOURCES: Mapping[str, Source] = {"assistant": Source.MODEL, "tool": Source.RETRIEVAL}
"""Where a role's words come from; user input unless named here."""
TIMES = ("at", "created_at", "timestamp")
REFS = ("ref", "id")
KEPT = ("annotations", "tool_call_id")
"""Fields of OpenAI's that have no place in a `Message`: they go to its metadata."""
FIELDS = frozenset(
    {"role", "content", "name", "session", "tags", "metadata", "tool_calls", "function_call", "refusal", "audio"}
) | {*TIMES, *REFS, *KEPT}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
MILLISECONDS_FROM = 1e11
"""Epoch seconds up to the year 5138; a larger number is surely milliseconds."""


def messages(items: Iterable[object] | str | Message | Mapping[str, object]) -> list[Message]:
    """Read messages: each a `Message`, a string (said by the user), or a mapping in OpenAI's shape.

    A mapping may have `role`, `content` (a string, a list of parts, or None), `name`, `tool_calls`, `tool_call_id` and
    the other fields of OpenAI's chat format, and of ours `at` (or `created_at`, `timestamp`: ISO 8601 with a zone,
    epoch seconds, or a `datetime`), `ref` (or `id`), `session`, `tags` and `metadata`. One item alone is a list of one.

    Raises
    ------
    InvalidRequest
        If a message is empty, has a field or a part that is not known, or a time without a zone; it names the message
        by its place, counted from 1.
    """
    if isinstance(items, str | Message | Mapping):
        items = [items]
    if not isinstance(items, Iterable) or isinstance(items, bytes | bytearray):
        raise InvalidRequest(f"Messages come as a list, not as {type(items).__name__}.")
    found = []
    for place, item in enumerate(items, 1):
        try:
            found.append(_checked(_message(item)))
        except InvalidRequest as error:
            raise InvalidRequest(f"Message {place}: {error}") from None
    return found


def draft(
    message: Message,
    *,
    observed: datetime,
    scope: Scope | None = None,
    source: Source | None = None,
    type: str = "message",
    span: tuple[int, int] | None = None,
) -> MemCube:
    """Make the draft cube of one message; its text is the message's, verbatim.

    Parameters
    ----------
    observed
        When it was said if the message itself does not tell; with a time zone. Words such as "yesterday" are resolved
        against the message's time, in that time's zone.
    scope
        Where it belongs; the message's own session, if it has one, goes before the scope's.
    source
        Where it came from; left out: by role (assistant: model inference, tool: retrieval, else user input).
    span
        Where it stands in its episode, in characters.

    Raises
    ------
    InvalidRequest
        If a cube cannot hold the text, or a time has no zone.
    """
    at = instant(observed if message.at is None else message.at)
    descriptive = Descriptive(
        type=type,
        happened=_told_of(message.content, at),
        observed=at,
        origin=Origin(
            source or SOURCES.get(message.role, Source.USER),
            span=span,
            speaker=message.name,
            role=message.role,
            ref=message.ref,
        ),
        tags=message.tags,
        metadata=message.metadata,
    )
    where = (scope or Scope()).within(session=message.session)
    return MemCube(Text(message.content), descriptive, Governance(where))


def instant(value: object, what: str = "at") -> datetime:
    """A point in time from a `datetime` or ISO 8601 with a zone, or from epoch seconds (then in UTC).

    Raises
    ------
    InvalidRequest
        If it has no zone, is in milliseconds, or is no time at all; `what` names the field in the message.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) >= MILLISECONDS_FROM:
            raise InvalidRequest(f"{what} {value!r} is no time in epoch seconds (are these milliseconds?).")
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            raise InvalidRequest(f"{what} {value!r} lies outside the years 1 to 9999.") from None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InvalidRequest(
                f"{what} {value!r} is no time; write it like 2024-05-01T09:30:00+02:00, or as epoch seconds."
            ) from None
    if not isinstance(value, datetime):
        raise InvalidRequest(f"{what} must be a time, not {type(value).__name__}.")
    if value.utcoffset() is None:
        raise InvalidRequest(
            f"{what} {value.isoformat()} has no time zone; add one: 2024-05-01T09:30:00+02:00 (or Z for UTC) in text, "
            "`.replace(tzinfo=UTC)` or `.astimezone()` (this machine's zone) on a datetime."
        )
    return value


def _told_of(text: str, observed: datetime) -> Happened | None:
    """When what `text` tells of took place: a past time before a coming one, then the narrowest, then the first."""
    found = min(happened(text, observed), key=lambda when: (when.start > observed, when.end - when.start), default=None)
    return None if found is None else Happened(found.start, found.end, found.span)


def _message(item: object) -> Message:
    match item:
        case Message():
            return item
        case str():
            return Message(item)
        case Mapping():
            return _from_mapping(item)
        case _:
            raise InvalidRequest(f"expected a string, a mapping or a Message, not {type(item).__name__}.")


def _from_mapping(item: Mapping[str, object]) -> Message:
    unknown = [str(field) for field in item if field not in FIELDS]
    if unknown:
        raise InvalidRequest(
            f"unknown field {', '.join(map(repr, unknown))}; put what is yours in `metadata`. "
            f"Known: {', '.join(sorted(FIELDS))}."
        )
    role = item.get("role", "user")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"role {role!r} is not known; it is one of {', '.join(ROLES)}.")
    at, ref, session, name = _one(item, TIMES), _one(item, REFS), item.get("session"), item.get("name")
    if isinstance(ref, int) and not isinstance(ref, bool):
        ref = str(ref)
    return Message(
        content=_content(item),
        role=ROLES[role],
        name=_optional(name, "name"),
        at=None if at is None else instant(at),
        ref=_optional(ref, "ref"),
        session=_optional(session, "session"),
        tags=_tags(item.get("tags")),
        metadata=_metadata(item),
    )


def _content(item: Mapping[str, object]) -> str:
    lines = [readable(item.get("content"))]
    if item.get("refusal") is not None:
        lines.append(readable({"type": "refusal", "refusal": item["refusal"]}))
    if audio := _optional_mapping(item, "audio"):
        lines.append(readable({**audio, "type": "audio"}))
    if item.get("tool_calls") is not None:
        lines.append(calls(item["tool_calls"]))
    if used := _optional_mapping(item, "function_call"):
        lines.append(calls([used]))
    return "\n".join(filter(None, lines))


def _metadata(item: Mapping[str, object]) -> Mapping[str, Scalar]:
    found: dict[str, Any] = dict(_optional_mapping(item, "metadata"))  # `_checked` looks at the values
    for field in KEPT:
        value = item.get(field)
        if value:
            found.setdefault(field, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    used = item.get("tool_calls")
    if ids := [str(one["id"]) for one in used or () if one.get("id")] if _many(used) else []:
        found.setdefault("tool_call_ids", " ".join(ids))
    return found


def _checked(message: Message) -> Message:
    """The message, if a cube can be made of it. One place, so that a `Message` is held to the same as a mapping."""
    check_text(message.content)
    if message.role not in ROLES:
        raise InvalidRequest(f"role {message.role!r} is not known; it is one of {', '.join(ROLES)}.")
    if message.ref is not None:
        _check_ref(message.ref)
    for key, value in message.metadata.items():
        _check_entry(key, value)
    return replace(
        message,
        role=ROLES[message.role],
        name=None if message.name is None else check_name(message.name.strip(), "name"),
        at=None if message.at is None else instant(message.at),
        session=None if message.session is None else check_name(message.session, "session"),
        tags=_tags(message.tags),
        metadata=MappingProxyType(dict(message.metadata)),
    )


def _check_ref(ref: str) -> None:
    try:
        check_text(ref)
    except InvalidRequest as error:
        raise InvalidRequest(f"ref {ref[:40]!r}: {error}") from None


def _check_entry(key: object, value: object) -> None:
    if not isinstance(key, str) or not (value is None or isinstance(value, str | int | float)):
        raise InvalidRequest(
            f"metadata {key!r} holds a {type(value).__name__}; values are strings, numbers, booleans or null."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"metadata {key!r} is {value}; JSON has no such number.")
    if any(_LONE_SURROGATE.search(words) for words in (key, value) if isinstance(words, str)):
        raise InvalidRequest(f"metadata {key!r} is not valid Unicode (bytes that were not UTF-8?).")


def _one(item: Mapping[str, object], names: tuple[str, ...]) -> object:
    """The value under whichever of `names` is there; two of them must agree."""
    given = {name: item[name] for name in names if item.get(name) is not None}
    values = list(given.values())
    if any(value != values[0] for value in values[1:]):
        raise InvalidRequest(f"{' and '.join(given)} say different things; give one of them.")
    return values[0] if values else None


def _optional(value: object, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{what} must be a string, not {type(value).__name__}.")
    return value


def _optional_mapping(item: Mapping[str, object], field: str) -> Mapping[str, Any]:
    value = item.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"{field} must be a mapping, not {type(value).__name__}.")
    return value or {}


def _many(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not _many(value):
        raise InvalidRequest(f"tags must be a list of strings, not {type(value).__name__}.")
    return tuple(check_name(tag, "tag") for tag in value)
