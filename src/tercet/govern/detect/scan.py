"""Searching many texts at once for what the table of rules describes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tercet.govern.detect.fold import Folded, fold
from tercet.govern.detect.rules import RULES, Rule

SEAM = 400
"""Characters on each side of a seam between two messages in which a secret that was split over both is looked for."""
_JOINING = frozenset("_-+/=.:@%")
_OPEN_KEY = re.compile(r"(?!.*-----END )-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY", re.DOTALL)
_KEY_LINES = re.compile(r"[A-Za-z0-9+/=\s]{24,}(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)?")


@dataclass(frozen=True, slots=True)
class Found:
    """Something of a `kind` (and what it is `of`) at `start` to `end` of a text; `value` is it, without disguise.

    What was split over two messages is found in both, with the whole as its value.
    """

    kind: str
    of: str
    start: int
    end: int
    value: str


def scan(
    texts: Sequence[str], kinds: Collection[str], *, seams: Collection[tuple[int, int]] = ()
) -> dict[int, list[Found]]:
    """What the texts hold of these kinds, by the text's place, each in order and without overlaps.

    `seams` names pairs of texts that follow one another: a secret may begin in the first and end in the second.
    """
    rules = [rule for rule in RULES if rule.kind in kinds]
    if not rules or not texts:
        return {}
    folded = [fold(text) for text in texts]
    joined = "\0".join(one.text for one in folded)
    starts = list(accumulate((len(one.text) + 1 for one in folded), initial=0))[:-1]
    due: dict[int, list[Rule]] = {}
    for rule in rules:
        for place in _where(rule, joined, starts):
            due.setdefault(place, []).append(rule)
    found = {place: some for place, wanted in due.items() if (some := _find(folded[place], wanted))}
    for pair in seams:
        _across(pair, folded, rules, found)
    if "private_key" in kinds and "PRIVATE KEY" in joined:
        _follow_keys(texts, folded, seams, found)
    return found


def _where(rule: Rule, joined: str, starts: Sequence[int]) -> Iterator[int]:
    """The places of the texts in which a rule has to look: each is named once."""
    seen = -1
    for need in [rule.needs] if isinstance(rule.needs, re.Pattern) else rule.needs:
        at = _next(need, joined, 0)
        while at >= 0:
            place = bisect_right(starts, at) - 1
            if place != seen or need is not rule.needs:
                yield place
            seen = place
            at = _next(need, joined, starts[place + 1]) if place + 1 < len(starts) else -1


def _next(need: str | re.Pattern[str], joined: str, start: int) -> int:
    if isinstance(need, str):
        return joined.find(need, start)
    match = need.search(joined, start)
    return match.start() if match else -1


def _find(folded: Folded, rules: Sequence[Rule]) -> list[Found]:
    found: list[Found] = []
    taken: list[tuple[int, int]] = []
    for rule in dict.fromkeys(rules):
        for match in rule.pattern.finditer(folded.text):
            span = match.span() if rule.check is None else rule.check(match)
            if span is None or any(span[0] < end and start < span[1] for start, end in taken):
                continue
            taken.append(span)
            found.append(Found(rule.kind, rule.of, *folded.span(*span), folded.text[slice(*span)]))
    return sorted(found, key=lambda one: one.start)


def _across(
    pair: tuple[int, int], folded: Sequence[Folded], rules: Sequence[Rule], found: dict[int, list[Found]]
) -> None:
    """Look at the seam of two texts that follow one another."""
    first, second = folded[pair[0]], folded[pair[1]]
    if not (_joins(first.text[-1:]) and _joins(second.text[:1])):
        return
    tail, head = first.text[-SEAM:], second.text[:SEAM]
    whole, cut, skipped = tail + head, len(tail), len(first.text) - len(tail)
    near = [rule for rule in rules if _wanted(rule, whole)]
    for one in _find(Folded(whole), near):
        if not one.start < cut < one.end:
            continue
        parts = [
            (pair[0], first.span(skipped + one.start, skipped + cut)),
            (pair[1], second.span(0, one.end - cut)),
        ]
        # One that is whole on its own side does not reach over.
        if any(held.start < end and start < held.end for n, (start, end) in parts for held in found.get(n, ())):
            continue
        for n, (start, end) in parts:
            found[n] = sorted(
                [*found.get(n, ()), Found(one.kind, one.of, start, end, one.value)], key=lambda f: f.start
            )


def _joins(character: str) -> bool:
    return character.isalnum() or character in _JOINING


def _wanted(rule: Rule, text: str) -> bool:
    if isinstance(rule.needs, re.Pattern):
        return rule.needs.search(text) is not None
    return any(need in text for need in rule.needs)


def _follow_keys(
    texts: Sequence[str],
    folded: Sequence[Folded],
    seams: Collection[tuple[int, int]],
    found: dict[int, list[Found]],
) -> None:
    """A private key that a text breaks off is gone on with in those that follow, up to its end."""
    for first, second in seams:
        last = found.get(first, [None])[-1]
        if last is None or last.kind != "private_key" or last.end < len(texts[first].rstrip()):
            continue
        if not (_OPEN_KEY.search(last.value) or last.of == "pem, its middle"):
            continue
        if second in found and found[second][0].kind == "private_key" and found[second][0].start == 0:
            continue
        if match := _KEY_LINES.match(folded[second].text):
            span = folded[second].span(*match.span())
            more = Found("private_key", "pem, its middle", *span, match[0])
            if "-----END" in match[0]:
                more = Found("private_key", "pem, its end", *span, match[0])
            found[second] = [more, *(one for one in found.get(second, ()) if one.start >= span[1])]
