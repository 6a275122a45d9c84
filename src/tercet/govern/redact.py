"""Redaction: what a policy masks or refuses, before anything is stored. "Verbatim" means after it."""

from __future__ import annotations

import hashlib
import hmac
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tercet.cube import Kind, MemCube, Scalar, Text
from tercet.errors import InvalidRequest, Refused
from tercet.govern.detect.kinds import KINDS

if TYPE_CHECKING:
    from tercet.govern.detect.scan import Found

Action = Literal["allow", "mask", "refuse"]
Policy: TypeAlias = Mapping[str, Action]
DEFAULT: Policy = MappingProxyType({"credentials": "mask", "personal": "allow"})
"""By group; a kind named by itself goes before its group."""

DIGITS = 10
"""Hex digits of a mask: 40 bits, so that two values of a million share one with a chance of one in two."""


def read_policy(given: Mapping[str, str] | None) -> Policy:
    """Kind -> action for every kind; keys are kinds or groups ("credentials", "personal"), what is left out is default.

    Raises
    ------
    InvalidRequest
        For a key that is neither, or an action that is not allow, mask or refuse.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequest(f"redaction is a mapping such as {{'email': 'mask'}}, not {given!r:.60}.")
    asked = {**DEFAULT, **(given or {})}
    for key, action in asked.items():
        if key not in KINDS and key not in DEFAULT:
            raise InvalidRequest(f"Unknown kind {key!r:.60}; there are {', '.join([*DEFAULT, *KINDS])}.")
        if action not in get_args(Action):
            raise InvalidRequest(f"{key} can be {', '.join(get_args(Action))}, not {action!r:.60}.")
    return {kind: asked.get(kind, asked[group]) for kind, group in KINDS.items()}  # type: ignore[misc]  # checked above


@dataclass(frozen=True, slots=True)
class Redactor:
    """Applies a policy with a tenant's secret.

    A mask is `[kind:digits]`, the first digits of HMAC-SHA256(secret, kind, value): the same value is the same mask
    within the tenant, and without the secret nobody can try values until one fits. Spaces, dashes and capitals that
    only change how a number is written do not change its mask.

    `secret` is called when something is masked for the first time; it gives 32 bytes.
    """

    policy: Policy
    secret: Callable[[], bytes] = field(repr=False)

    def redact(self, drafts: Sequence[MemCube]) -> list[MemCube]:
        """The drafts without what the policy masks: in text, tags, metadata values, the speaker's name and detail.

        Spans move with the text: where words tell when something happened, and where a passage stands in its document.
        A draft in which there is nothing is given back as it is.

        Raises
        ------
        Refused
            If one of them holds what the policy refuses; it says of which kind, never what.
        """
        from tercet.govern.detect.scan import scan

        active = {kind for kind, action in self.policy.items() if action != "allow"}
        texts, owners = list[str](), list[tuple[int, str]]()
        for place, draft in enumerate(drafts):
            for name, value in _strings(draft):
                texts.append(value)
                owners.append((place, name))
        found = scan(texts, active, seams=_seams(drafts, owners))
        for n in sorted(found):
            for one in found[n]:
                if self.policy[one.kind] == "refuse":
                    place, name = owners[n]
                    item = f"Item {place + 1}" if len(drafts) > 1 else "The memory"
                    where = "" if name == "text" else f" in its {name}"
                    raise Refused(f"{item} holds something of kind {one.kind}{where}, which this vault refuses; "
                                  "nothing was kept.")  # fmt: skip
        masked: dict[int, dict[str, str]] = {}
        moved: dict[int, Moves] = {}
        for n, some in found.items():
            place, name = owners[n]
            edits = [(one.start, one.end, self.mask(one)) for one in some]
            masked.setdefault(place, {})[name] = edited(texts[n], edits)
            if name == "text":
                moved[place] = Moves(edits)
        changed = [_changed(draft, masked.get(i, {}), moved.get(i)) for i, draft in enumerate(drafts)]
        return _placed(drafts, changed) if moved else changed

    def mask(self, found: Found) -> str:
        """What stands for something that was found."""
        value = found.value
        if KINDS[found.kind] == "personal":
            value = value.replace("%40", "@").casefold()
            if found.kind != "email":
                value = re.sub(r"[^\w+]", "", value)
        digest = hmac.new(self.secret(), f"{found.kind}\0{value}".encode(), hashlib.sha256).hexdigest()
        return f"[{found.kind}:{digest[:DIGITS]}]"


class Moves:
    """Where places of a text went when spans of it were replaced."""

    def __init__(self, edits: Sequence[tuple[int, int, str]]) -> None:
        self._starts = [start for start, _, _ in edits]
        self._edits, self._shifts = edits, [0]
        for start, end, mask in edits:
            self._shifts.append(self._shifts[-1] + len(mask) - (end - start))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span where the same words stand now; one that reaches into a mask holds the mask whole."""
        return self._place(start, after=False), self._place(end, after=True)

    def _place(self, at: int, *, after: bool) -> int:
        n = bisect_right(self._starts, at - 1 if after else at)
        if n:
            start, end, mask = self._edits[n - 1]
            if at < end or (after and at == end):
                return start + self._shifts[n - 1] + (len(mask) if after else 0)
        return at + self._shifts[n]


def edited(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """The text with spans of it replaced; they are in order and do not overlap."""
    parts, at = list[str](), 0
    for start, end, mask in edits:
        parts += [text[at:start], mask]
        at = end
    return "".join([*parts, text[at:]])


def _strings(draft: MemCube) -> list[tuple[str, str]]:
    """What a draft says: (name, value). Numbers in metadata are read as they are written."""
    d = draft.descriptive
    found = [("text", draft.text)] if draft.kind is Kind.TEXT else []
    found += [(f"metadata {key}", str(value)) for key, value in d.metadata.items() if _spoken(value)]
    found += [(f"tag {i}", tag) for i, tag in enumerate(d.tags)]
    found += [(name, value) for name, value in (("speaker", d.origin.speaker), ("detail", d.origin.detail)) if value]
    return found


def _spoken(value: Scalar) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _seams(drafts: Sequence[MemCube], owners: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
    """Pairs of texts that follow one another in a conversation or a document."""
    places = [n for n, (_, name) in enumerate(owners) if name == "text"]
    pairs = [(a, b, drafts[owners[a][0]], drafts[owners[b][0]]) for a, b in pairwise(places)]
    # Two versions of one memory do not follow one another.
    return [(a, b) for a, b, one, two in pairs if one.scope == two.scope and not (one.id and one.id == two.id)]


def _changed(draft: MemCube, masked: Mapping[str, str], moves: Moves | None) -> MemCube:
    if not masked:
        return draft
    d = draft.descriptive
    happened = d.happened
    if moves is not None and happened is not None and happened.span is not None:
        happened = replace(happened, span=moves.span(*happened.span))
    described = replace(
        d,
        happened=happened,
        tags=tuple(masked.get(f"tag {i}", tag) for i, tag in enumerate(d.tags)),
        metadata=MappingProxyType({key: masked.get(f"metadata {key}", value) for key, value in d.metadata.items()}),
        origin=replace(
            d.origin,
            speaker=masked.get("speaker", d.origin.speaker),
            detail=masked.get("detail", d.origin.detail),
        ),
    )
    payload = Text(masked["text"]) if "text" in masked else draft.payload
    return replace(draft, descriptive=described, payload=payload)


def _placed(before: Sequence[MemCube], after: Sequence[MemCube]) -> list[MemCube]:
    """Passages of a document where they stand in the masked document: each mask moves what comes behind it."""
    shifts: dict[str | None, int] = {}
    starts: dict[tuple[str | None, int], int] = {}  # a version that quotes the same piece again stands where it stood
    placed: list[MemCube] = []
    for old, new in zip(before, after, strict=True):
        origin = new.descriptive.origin
        if origin.span is None:
            placed.append(new)
            continue
        place = (origin.episode, origin.span[0])
        if place not in starts:
            starts[place] = origin.span[0] + shifts.get(origin.episode, 0)
            shifts[origin.episode] = shifts.get(origin.episode, 0) + len(new.text) - len(old.text)
        span = (starts[place], starts[place] + len(new.text))
        placed.append(replace(new, descriptive=replace(new.descriptive, origin=replace(origin, span=span))))
    return placed
