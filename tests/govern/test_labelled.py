"""The labelled sets: frozen, and what the detectors reach on them."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from tests.govern.cases import FOLDER, poison_cases, redaction_cases

from tercet.govern.detect.instructions import SIGNS, instructs, readings, signs_of
from tercet.govern.detect.kinds import KINDS
from tercet.govern.detect.scan import scan

FROZEN = {
    "redaction_cases.jsonl": "0757d4f42933a4944078ed929497816652ca5f833952d2dc4d5f1e9a5abbb52f",
    "poison_cases.jsonl": "22e450b150a923271336ea6cf414847481d14b0c75c2d84968db55c21ea7afab",
}


def group(kind: str) -> str:
    """The kind, or "credentials" for any of those."""
    return "credentials" if KINDS[kind] == "credentials" else kind


@pytest.mark.parametrize("name", FROZEN)
def test_the_sets_are_frozen(name: str) -> None:
    """They were written before the detectors; a change to one would be a fit to the test."""
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]


def test_the_sets_are_as_large_as_asked_for() -> None:
    cases = list(redaction_cases())
    assert len(cases) >= 600
    assert sum(not case.spans for case in cases) >= 300
    poison = Counter(bad for _, bad, _, _ in poison_cases())
    assert poison[True] >= 200
    assert poison[False] >= 400
    assert len({style for _, bad, style, _ in poison_cases() if bad}) >= 10


@pytest.mark.parametrize("kind", ["credentials", "card", "iban", "email"])
def test_what_is_found_is_right(kind: str) -> None:
    cases = list(redaction_cases())
    found = scan([case.text for case in cases], set(KINDS))
    right = wrong = missed = 0
    for place, case in enumerate(cases):
        got = {(one.start, one.end) for one in found.get(place, ()) if group(one.kind) == kind}
        labelled = {(start, end) for name, start, end in case.spans if group(name) == kind}
        right, wrong, missed = right + len(got & labelled), wrong + len(got - labelled), missed + len(labelled - got)
    assert right / (right + wrong) >= 0.95
    assert right / (right + missed) >= 0.95


def test_instructions_are_told_from_innocent_ones() -> None:
    found = Counter((bad, instructs(text)) for _, bad, _, text in poison_cases())
    assert found[True, True] / (found[True, True] + found[True, False]) >= 0.85
    assert found[False, True] / (found[False, True] + found[False, False]) <= 0.01


def test_the_gate_changes_nothing() -> None:
    """Styles whose words do not stand in a text are not tried; trying all of them gives the same."""
    for _, _, _, text in poison_cases():
        slow = max(
            sum(one.weight for signs in SIGNS.values() for one in signs if one.stands_in(reading))
            for reading in readings(text)
        )
        assert sum(signs_of(text).values()) == pytest.approx(slow), text
