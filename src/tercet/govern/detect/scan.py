"""Searching many texts at once for what the table of rules describes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tercet.govern.detect.fold import Folded, fold
from tercet.govern.detect.kinds import KINDS
from tercet.govern.detect.rules import RULES, Gate, Rule, compiled

SEAM = 400
"""Characters on each side of a seam between two messages in which a secret that was split over both is looked for."""
LONG = 12
"""No credential is written without a word of so many characters: `password=a1b`."""
_NUMBER_OR_AT = re.compile(r"[\d@＠]")
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
    groups = {KINDS[kind] for kind in kinds}
    chosen = [place for place, text in enumerate(texts) if _worth(text, groups)]
    if not rules:
        return {}
    found = {chosen[n]: some for n, some in _search([fold(texts[place]) for place in chosen], rules).items()}
    if joined := [pair for pair in seams if _joins(texts[pair[0]], texts[pair[1]], groups)]:
        _across(joined, texts, rules, found)
    if any(one.kind == "private_key" for some in found.values() for one in some):
        _follow_keys(texts, seams, found)
    return found


def _worth(text: str, groups: Collection[str]) -> bool:
    """Whether a text can hold anything: most of what people say has neither a long word nor a number in it."""
    if "credentials" in groups and max(map(len, text.split()), default=0) >= LONG:
        return True
    return "personal" in groups and _NUMBER_OR_AT.search(text) is not None


def _search(folded: Sequence[Folded], rules: Sequence[Rule]) -> dict[int, list[Found]]:
    """What the rules find, by place. The texts are joined to look for what each rule needs in all of them at once."""
    joined = "\0".join(one.text for one in folded)
    starts = list(accumulate((len(one.text) + 1 for one in folded), initial=0))[:-1]
    due: dict[int, list[Rule]] = {}
    for rule in rules if folded else ():
        for place in _where(rule, joined, starts):
            due.setdefault(place, []).append(rule)
    return {place: some for place, wanted in due.items() if (some := _find(folded[place], wanted))}


def _where(rule: Rule, joined: str, starts: Sequence[int]) -> Iterator[int]:
    """The places of the texts in which a rule has to look: each is named once."""
    seen = -1
    for need in [rule.needs] if isinstance(rule.needs, Gate) else rule.needs:
        at = _next(need, joined, 0)
        while at >= 0:
            place = bisect_right(starts, at) - 1
            if place != seen or need is not rule.needs:
                yield place
            seen = place
            at = _next(need, joined, starts[place + 1]) if place + 1 < len(starts) else -1


def _next(need: str | Gate, joined: str, start: int) -> int:
    if isinstance(need, str):
        return joined.find(need, start)
    match = compiled(need.pattern).search(joined, start)
    return match.start() if match else -1


def _find(folded: Folded, rules: Sequence[Rule]) -> list[Found]:
    found: dict[tuple[int, int], Found] = {}
    taken: list[tuple[int, int]] = []  # in order, so that only neighbours need be looked at
    for rule in dict.fromkeys(rules):
        for match in compiled(rule.pattern).finditer(folded.text):
            span = match.span() if rule.check is None else rule.check(match)
            if span is None:
                continue
            place = bisect_right(taken, span)
            if (place and taken[place - 1][1] > span[0]) or (place < len(taken) and taken[place][0] < span[1]):
                continue
            taken.insert(place, span)
            found[span] = Found(rule.kind, rule.of, *folded.span(*span), folded.text[slice(*span)])
    return [found[span] for span in taken]


def _across(
    pairs: Sequence[tuple[int, int]], texts: Sequence[str], rules: Sequence[Rule], found: dict[int, list[Found]]
) -> None:
    """Look at the seams of texts that follow one another."""
    sides = [(fold(texts[a][-SEAM:]), fold(texts[b][:SEAM])) for a, b in pairs]
    for n, some in _search([Folded(tail.text + head.text) for tail, head in sides], rules).items():
        (a, b), (tail, head) = pairs[n], sides[n]
        cut, skipped = len(tail.text), max(len(texts[a]) - SEAM, 0)
        for one in some:
            if not one.start < cut < one.end:
                continue
            start, end = tail.span(one.start, cut)
            parts = [(a, skipped + start, skipped + end), (b, *head.span(0, one.end - cut))]
            # One that is whole on its own side does not reach over.
            if any(held.start < end and start < held.end for side, start, end in parts for held in found.get(side, ())):
                continue
            for side, start, end in parts:
                more = Found(one.kind, one.of, start, end, one.value)
                found[side] = sorted([*found.get(side, ()), more], key=lambda each: each.start)


def _joins(first: str, second: str, groups: Collection[str]) -> bool:
    """Whether what ends the first text and begins the second could be one thing."""
    last, next_ = first[-1:], second[:1]
    if not ((last.isalnum() or last in _JOINING) and (next_.isalnum() or next_ in _JOINING)):
        return False
    ends = first[-SEAM:].rsplit(None, 1)[-1:] + second[:SEAM].split(None, 1)[:1]
    return sum(map(len, ends)) >= LONG or ("personal" in groups and any(c.isdigit() for word in ends for c in word))


def _follow_keys(
    texts: Sequence[str],
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
        following = fold(texts[second])
        if match := _KEY_LINES.match(following.text):
            span = following.span(*match.span())
            more = Found("private_key", "pem, its middle", *span, match[0])
            if "-----END" in match[0]:
                more = Found("private_key", "pem, its end", *span, match[0])
            found[second] = [more, *(one for one in found.get(second, ()) if one.start >= span[1])]
