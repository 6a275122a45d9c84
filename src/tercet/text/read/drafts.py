"""Whatever a caller hands over, as draft cubes of a scope."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict

from tercet.cube import Kind, Label, MemCube, Scalar, Slot, check_text, read_label
from tercet.errors import InvalidRequest, Refused
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.text.read.chat import draft, instant, messages
from tercet.text.read.files import open_file
from tercet.text.read.message import Conversation, Document, Message
from tercet.vault.codec import dump, encode

Item: TypeAlias = str | Message | Mapping[str, object] | MemCube


class Value(TypedDict, total=False):
    """That something is the value of a slot (subject, attribute), from when until when it holds, and how sensitive."""

    sensitivity: Label
    slot: tuple[str, str] | None
    valid_from: datetime | str | None
    valid_to: datetime | str | None


MAX_LABEL = 1_000
"""Characters of a tag, a key or a metadata value."""


def drafts(
    items: Iterable[Item],
    *,
    scope: Scope,
    now: datetime,
    at: datetime | str | None = None,
    tags: tuple[str, ...] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    ref: str | None = None,
    type: str | None = None,
) -> list[MemCube]:
    """Draft cubes of texts, messages and drafts; tags, metadata and ref given beside them go before their own.

    Those that do not tell when they were said were said at `at`, or else `now`.

    Raises
    ------
    InvalidRequest
        If one cannot be kept; nothing is kept then.
    """
    if isinstance(items, str | bytes | Message | Mapping | MemCube) or not isinstance(items, Iterable):
        raise InvalidRequest("Give a list of items; `remember` takes a single one.")
    observed = now if at is None else instant(at)
    made, several = [], not isinstance(items, Sequence) or len(items) > 1
    for place, item in enumerate(items, 1):
        if isinstance(item, MemCube):
            made.append(_dated(_placed(_sound(item), scope), observed))
        else:
            kind = type if type is not None else "fact" if isinstance(item, str) else "message"
            try:
                [message] = messages([item])
            except InvalidRequest as error:
                trouble = str(error).removeprefix("Message 1: ")
                raise InvalidRequest(f"Item {place}: {trouble}" if several else trouble) from None
            made.append(draft(message, observed=observed, scope=scope, type=kind))
    given = {"tags": tags, "metadata": metadata}
    return [_checked(_labelled(one, given, ref=ref)) for one in made]


def file_drafts(
    path: Path,
    *,
    format: str | None = None,
    scope: Scope,
    now: datetime,
    tags: tuple[str, ...] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
) -> list[list[MemCube]]:
    """The drafts a file holds: the passages of a document, or the messages of each conversation.

    A conversation's name becomes the session of its messages, unless the scope has one. Tags and metadata are added to
    those that the file gives.
    """

    def more(cube: MemCube) -> MemCube:
        given = {"tags": (*cube.tags, *(tags or ())), "metadata": {**cube.metadata, **(metadata or {})}}
        return _checked(_labelled(cube, given, ref=None))

    content = open_file(path, format=format)
    if isinstance(content, Document):
        # A passage's ref is where it stands in exactly this text: reading the file again adds nothing.
        digest = hashlib.sha256(content.text.encode()).hexdigest()[:16]
        return [[more(_dated(_placed(_named(cube, digest), scope), now)) for cube in content.cubes]]
    return [
        [more(draft(message, observed=now, scope=_place(scope, talk))) for message in talk.messages] for talk in content
    ]


def valued(
    cube: MemCube,
    *,
    slot: tuple[str, str] | None = None,
    valid_from: datetime | str | None = None,
    valid_to: datetime | str | None = None,
    sensitivity: Label = None,
) -> MemCube:
    """A draft that gives the value of a slot for a time, and has a label. Raises InvalidRequest."""
    d, b = cube.descriptive, cube.behavioural
    if slot is not None:
        if isinstance(slot, str) or not isinstance(slot, Sequence) or len(slot) != 2:
            raise InvalidRequest(f"A slot is a subject and an attribute such as ('alice', 'city'), not {slot!r:.80}.")
        for part in slot:
            _check_label(part)
        d = replace(d, slot=Slot(*slot))
    start = instant(valid_from, "valid_from") if valid_from is not None else b.valid_from
    end = instant(valid_to, "valid_to") if valid_to is not None else b.valid_to
    if d.slot is not None and start is None:
        start = d.observed
    if start is not None and end is not None and end <= start:
        raise InvalidRequest(f"valid_to ({end.isoformat()}) must be after valid_from ({start.isoformat()}).")
    made = replace(cube, descriptive=d, behavioural=replace(b, valid_from=start, valid_to=end))
    return made if sensitivity is None else labelled(made, sensitivity)


def labelled(cube: MemCube, sensitivity: Label) -> MemCube:
    """The cube with another label of sensitivity; None leaves it. Raises InvalidRequest for what is none."""
    level = read_label(sensitivity)
    if level is None:
        return cube
    return replace(cube, governance=replace(cube.governance, sensitivity=level))


def _place(scope: Scope, talk: Conversation) -> Scope:
    return scope if scope.session else scope.within(session=talk.session)


def _named(cube: MemCube, digest: str) -> MemCube:
    origin = cube.descriptive.origin
    start = origin.span[0] if origin.span else 0
    return replace(cube, descriptive=replace(cube.descriptive, origin=replace(origin, ref=f"{digest}@{start}")))


def labels(tags: Sequence[str] | None) -> tuple[str, ...] | None:
    """Tags as a tuple. Raises InvalidRequest for a bare string, which would become a tag a letter."""
    if isinstance(tags, str):
        raise InvalidRequest(f"tags must be a list of strings: [{tags!r}], not {tags!r}.")
    if tags is not None and not isinstance(tags, Iterable):
        raise InvalidRequest(f"tags must be a list of strings, not {tags!r}.")
    return None if tags is None else tuple(tags)


def _sound(cube: MemCube) -> MemCube:
    """A draft that a caller made, if a header can hold what it says."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    happened = (d.happened.start, d.happened.end) if d.happened else ()
    for when in (d.observed, d.recorded, g.expires, b.valid_from, b.valid_to, *happened):
        if when is not None:
            instant(when, "a draft's time")
    days = g.half_life_days
    if days is not None and (isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days < math.inf):
        raise InvalidRequest(f"A half-life is a number of days, zero or more, not {days!r:.40}.")
    if b.state is State.EXPIRED:
        raise InvalidRequest("An expired memory has no content; there is nothing to keep.")
    try:
        dump(encode(cube)).encode()
    except (TypeError, ValueError) as error:  # lone surrogates, and what JSON has no word for
        raise InvalidRequest(f"The draft's header cannot be written: {error}") from None
    return cube


def _placed(cube: MemCube, scope: Scope) -> MemCube:
    """The cube in this scope; a draft that names a part of its own keeps it."""
    own = cube.scope
    if cube.behavioural.derivations and own.tenant != scope.tenant:
        raise Refused("A memory made from another tenant's does not go into this one.")
    parts = {name: getattr(own, name) or getattr(scope, name) for name in ("user", "agent", "session")}
    return replace(cube, governance=replace(cube.governance, scope=Scope(scope.tenant, **parts)))


def _dated(cube: MemCube, now: datetime) -> MemCube:
    return cube if cube.observed else replace(cube, descriptive=replace(cube.descriptive, observed=now))


def _labelled(cube: MemCube, given: Mapping[str, object], *, ref: str | None) -> MemCube:
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if ref is not None:
        changed["origin"] = replace(cube.descriptive.origin, ref=ref)
    return replace(cube, descriptive=replace(cube.descriptive, **changed)) if changed else cube


def _checked(cube: MemCube) -> MemCube:
    d = cube.descriptive
    if cube.kind is Kind.TEXT:
        check_text(cube.text)
    if not all(isinstance(tag, str) for tag in d.tags):
        raise InvalidRequest(f"tags must be a list of strings, not {d.tags!r}.")
    if not isinstance(d.metadata, Mapping):
        raise InvalidRequest(f"metadata must be a mapping, not {type(d.metadata).__name__}.")
    labels: Sequence[object] = [*d.tags, *d.metadata, *([d.origin.ref] if d.origin.ref is not None else []), d.type]
    for label in labels:
        _check_label(label)
    for key, value in d.metadata.items():
        if value is not None and not isinstance(value, str | int | float | bool):
            raise InvalidRequest(f"metadata[{key!r}] must be a string, number, boolean or None, not {value!r}.")
        if isinstance(value, str):
            _check_label(value, empty=True)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InvalidRequest(f"metadata[{key!r}] needs more than 64 bits; keep so large a number as text.")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"metadata[{key!r}] is not a finite number.")
    if not d.metadata:
        return cube
    # A copy that nobody else holds: the caller may go on using the mapping that was handed over.
    return replace(cube, descriptive=replace(d, metadata=MappingProxyType(dict(d.metadata))))


def _check_label(label: object, *, empty: bool = False) -> None:
    if not isinstance(label, str) or not (label or empty) or len(label) > MAX_LABEL or "\0" in label:
        raise InvalidRequest(
            f"A tag, ref, type or metadata entry must be text of 1 to {MAX_LABEL:,} characters: {label!r:.80}."
        )
    try:
        label.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{label!r:.80} is not valid Unicode.") from None
