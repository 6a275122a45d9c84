"""The MemCube: one unit for every kind of memory, a header in three groups and a payload.

Values only: nothing here reads a clock, a disk or a network. A cube never changes; a change is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias

from tercet.errors import InvalidRequest, Refused
from tercet.lifecycle import State
from tercet.scope import Scope

SCHEMA = 1
MAX_TEXT = 1_000_000
"""Characters one text cube may hold; a longer document is read into many cubes."""

Scalar: TypeAlias = str | int | float | bool | None


class Kind(StrEnum):
    """What a payload is made of."""

    TEXT = "text"
    ACTIVATION = "activation"
    PARAMETERS = "parameters"


class Source(StrEnum):
    """Where a cube's content came from."""

    USER = "user input"
    MODEL = "model inference"
    RETRIEVAL = "external retrieval"
    TUNING = "fine-tuning"
    IMPORT = "import"


class Sensitivity(IntEnum):
    """Who could be hurt by a leak; a derived cube takes the strictest of its sources."""

    PUBLIC = 0
    INTERNAL = 1
    PRIVATE = 2
    SECRET = 3


Label: TypeAlias = Sensitivity | str | int | None
"""A sensitivity, its name in small letters, or its number; None says nothing."""


def read_label(given: Label) -> Sensitivity | None:
    """A label as a sensitivity. Raises InvalidRequest for what is none."""
    names = {level.name.lower(): level for level in Sensitivity}
    if given is None or isinstance(given, Sensitivity):
        return given
    if isinstance(given, str) and given in names:
        return names[given]
    if type(given) is int and given in set(Sensitivity):
        return Sensitivity(given)
    told = ", ".join(f"{name} ({level.value})" for name, level in names.items())
    raise InvalidRequest(f"A sensitivity is one of {told}, not {given!r:.80}.")


class Trust(IntEnum):
    """How far a cube may be believed; a derived cube takes the lowest of its sources. Quarantine therefore sticks."""

    QUARANTINED = 0
    UNTRUSTED = 1
    OBSERVED = 2
    CONFIRMED = 3


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A file of the vault, named by what it holds: `sha256` in hex, `size` in bytes."""

    sha256: str
    size: int
    role: str = "data"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Everything that must match before a tensor may be used with a model again."""

    name: str
    revision: str
    weights: str
    tokenizer: str
    template: str
    rope: str
    dtype: str
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Words, verbatim."""

    text: str

    def __post_init__(self) -> None:
        check_text(self.text)


@dataclass(frozen=True, slots=True)
class Activation:
    """A KV cache: `tokens` positions of one model's keys and values, kept in blobs."""

    blobs: tuple[BlobRef, ...]
    model: ModelIdentity
    tokens: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """An adapter: low-rank weights for one base model, kept in blobs."""

    blobs: tuple[BlobRef, ...]
    model: ModelIdentity
    rank: int


Payload: TypeAlias = Text | Activation | Parameters
KINDS: Mapping[type[Payload], Kind] = {
    Text: Kind.TEXT,
    Activation: Kind.ACTIVATION,
    Parameters: Kind.PARAMETERS,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A functional attribute: only cubes that declare one supersede or contradict each other."""

    subject: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Happened:
    """When the thing told of took place: from `start` (inclusive) to `end` (exclusive), both with a zone.

    `span` is where the words that say so stand in the text, as character offsets.
    """

    start: datetime
    end: datetime
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who said it and where it stands: the episode, and the span of it that the cube quotes (character offsets)."""

    source: Source = Source.USER
    episode: str | None = None
    span: tuple[int, int] | None = None
    speaker: str | None = None
    role: str | None = None
    ref: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of an access list: `subject` may use `right` in `context` (None: any)."""

    subject: str
    right: str
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A source of a derived cube: exactly this version of that cube."""

    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Descriptive:
    """What the cube is. Times are apart: when it happened, was observed, was recorded."""

    id: str = ""
    kind: Kind = Kind.TEXT
    type: str = "fact"
    slot: Slot | None = None
    happened: Happened | None = None
    observed: datetime | None = None
    recorded: datetime | None = None
    origin: Origin = field(default_factory=Origin)
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    commitment: str | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Governance:
    """Whose it is and what may be done with it."""

    scope: Scope = field(default_factory=Scope)
    access: frozenset[Grant] = frozenset()
    expires: datetime | None = None
    half_life_days: float | None = None
    hold: str | None = None
    priority: int = 0
    sensitivity: Sensitivity = Sensitivity.PRIVATE
    trust: Trust = Trust.OBSERVED
    watermark: str | None = None

    @property
    def tenant(self) -> str:
        """The tenant that holds the cube."""
        return self.scope.tenant

    @property
    def owner(self) -> str | None:
        """The user it is about, or else the agent."""
        return self.scope.user or self.scope.agent


@dataclass(frozen=True, slots=True)
class Behavioural:
    """How the cube came to be as it is. Uses and last use are kept beside the header, not in it."""

    version: int = 0
    parent: int | None = None
    derivations: tuple[Link, ...] = ()
    method: str | None = None
    state: State = State.GENERATED
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    superseded_by: str | None = None
    space: str | None = None
    model: ModelIdentity | None = None


@dataclass(frozen=True, slots=True)
class MemCube:
    """A memory: header and payload. Immutable; `version` 0 is a draft that no vault has taken in yet."""

    payload: Payload
    descriptive: Descriptive = field(default_factory=Descriptive)
    governance: Governance = field(default_factory=Governance)
    behavioural: Behavioural = field(default_factory=Behavioural)

    def __post_init__(self) -> None:
        kind = KINDS[type(self.payload)]
        if self.descriptive.kind is not kind:
            object.__setattr__(self, "descriptive", replace(self.descriptive, kind=kind))

    @property
    def id(self) -> str:
        """A UUIDv7; empty for a draft."""
        return self.descriptive.id

    @property
    def kind(self) -> Kind:
        """Text, activation or parameters."""
        return self.descriptive.kind

    @property
    def text(self) -> str:
        """The words; empty for a KV cache or an adapter."""
        return self.payload.text if isinstance(self.payload, Text) else ""

    @property
    def version(self) -> int:
        """1 for the first; 0 for a draft."""
        return self.behavioural.version

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self.behavioural.state

    @property
    def scope(self) -> Scope:
        """About whom it is."""
        return self.governance.scope

    @property
    def tags(self) -> tuple[str, ...]:
        """The labels it was given."""
        return self.descriptive.tags

    @property
    def metadata(self) -> Mapping[str, Scalar]:
        """What the caller wrote beside the text."""
        return self.descriptive.metadata

    @property
    def ref(self) -> str | None:
        """The caller's own name for it; unique within the scope it was written in."""
        return self.descriptive.origin.ref

    @property
    def speaker(self) -> str | None:
        """Who said it, if it was said."""
        return self.descriptive.origin.speaker

    @property
    def observed(self) -> datetime | None:
        """When it was said or seen."""
        return self.descriptive.observed

    def __repr__(self) -> str:
        head = f"MemCube {self.id or 'draft'} v{self.version} {self.kind} {self.state}"
        if self.kind is not Kind.TEXT or self.governance.sensitivity >= Sensitivity.SECRET:
            return f"<{head}>"
        return f"<{head} {self.text if len(self.text) <= 60 else self.text[:59] + '…'!r}>"


def check_text(text: str) -> str:
    """Return `text` if a cube can hold it.

    Raises
    ------
    InvalidRequest
        If it is no string, blank, longer than `MAX_TEXT`, or has NUL characters or lone surrogates (what is left of
        bytes that were not UTF-8).
    """
    if not isinstance(text, str):
        raise InvalidRequest(f"A memory's text must be a string, not {type(text).__name__}; decode bytes first.")
    if not text.strip():
        raise InvalidRequest("The text is empty; a memory needs words.")
    if len(text) > MAX_TEXT:
        raise InvalidRequest(
            f"The text has {len(text):,} characters and one memory holds {MAX_TEXT:,}; "
            "give it as a document (`remember_document`, `tercet remember --file`) and it is read in passages."
        )
    if "\0" in text:
        raise InvalidRequest("The text has a NUL character in it; remove it (is this a binary file?).")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The text is not valid Unicode at character {error.start} (bytes that were not UTF-8?)."
        ) from None
    return text


def derive(
    sources: Sequence[MemCube], payload: Payload, *, method: str, type: str = "summary", share: bool = False
) -> MemCube:
    """Make a draft from other cubes: the one constructor of made things.

    It names every source (cube, version) and takes from them the intersection of their access, the strictest
    sensitivity, the earliest end, any hold and the lowest trust, so that nothing is laundered by being summarised.

    Parameters
    ----------
    method
        The mechanism that made it, e.g. "summary/v1".
    share
        Whether the caller has the right to mix what different owners hold.

    Raises
    ------
    InvalidRequest
        If there is no source, or one is a draft.
    Refused
        If sources belong to different tenants, or to different owners and `share` is not given.
    """
    if not sources:
        raise InvalidRequest("A derived memory needs at least one source.")
    if any(source.version == 0 for source in sources):
        raise InvalidRequest("A draft cannot be a source: remember it first.")
    rules = [source.governance for source in sources]
    if len({rule.tenant for rule in rules}) > 1:
        raise Refused("Memories of different tenants are never mixed.")
    if len({rule.owner for rule in rules}) > 1 and not share:
        raise Refused("These memories have different owners; mixing them needs the right to share.")
    ends = [rule.expires for rule in rules if rule.expires is not None]
    half_lives = [rule.half_life_days for rule in rules if rule.half_life_days is not None]
    return MemCube(
        payload,
        Descriptive(type=type, origin=Origin(Source.MODEL, detail=method)),
        Governance(
            scope=common_scope([rule.scope for rule in rules]),
            access=frozenset.intersection(*(rule.access for rule in rules)),
            expires=min(ends, default=None),
            half_life_days=min(half_lives, default=None),
            hold=next((rule.hold for rule in rules if rule.hold), None),
            sensitivity=max(rule.sensitivity for rule in rules),
            trust=min(rule.trust for rule in rules),
        ),
        Behavioural(derivations=tuple(Link(source.id, source.version) for source in sources), method=method),
    )


def common_scope(scopes: Sequence[Scope]) -> Scope:
    """What scopes of one tenant have in common: a part that differs between them is left out."""
    first = scopes[0]

    def shared(part: str) -> str | None:
        values = {getattr(scope, part) for scope in scopes}
        return getattr(first, part) if len(values) == 1 else None

    return Scope(first.tenant, shared("user"), shared("agent"), shared("session"))
