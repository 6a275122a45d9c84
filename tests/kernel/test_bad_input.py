"""Bad input gives a clear error of ours, or the right result, and leaves the vault as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import InvalidRequest, MemCube, ScopedMemory, StaleWrite, Tercet, TercetError, Text
from tercet.cube import Behavioural, Descriptive, Governance, Happened, Origin
from tercet.lifecycle import State
from tercet.testing import FakeEmbedder
from tercet.testing.dump import dump
from tercet.text.read.message import Message

NAIVE = datetime(2024, 5, 1, 12)  # noqa: DTZ001  # what is to be refused


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tercet]:
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        cube = alice.remember("The boiler code is 4417.", ref="r", tags=["home"])
        alice.revise(cube.id, "The boiler code is 9921.")
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    return t.scope(user="alice")


def draft(text: str = "x", **parts: Any) -> MemCube:  # noqa: ANN401  # as MemCube
    return MemCube(Text(text), **parts)


TEXTS: dict[str, tuple[Any, str]] = {
    "empty": ("", "empty"),
    "white space": (" \n\t\u3000", "empty"),
    "too long": ("word " * 2_000_000, "document"),
    "NUL": ("a\0b", "NUL"),
    "invalid UTF-8": (b"caf\xe9".decode("utf-8", "surrogateescape"), "UTF-8"),
    "lone surrogate": ("\ud83c", "Unicode"),
    "bytes": (b"bytes", "bytes"),
    "None": (None, "NoneType"),
    "number": (17, "int"),
    "list": (["a"], "list"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_cannot_be_kept(t: Tercet, alice: ScopedMemory, name: str) -> None:
    text, hint = TEXTS[name]
    before = dump(t)
    [cube] = alice.list()
    calls: list[Callable[[], object]] = [
        lambda: alice.remember(text),
        lambda: alice.remember_many(["Good.", text]),
        lambda: alice.remember({"role": "user", "content": text}),
        lambda: alice.revise(cube.id, text),
        lambda: alice.remember(Message(text)),
    ]
    for i, call in enumerate(calls):
        if (name, i) in {("list", 2), ("number", 2), ("bytes", 2), ("None", 2)}:
            continue  # content in parts, and what is no content at all, are the reader's to judge
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert len(str(caught.value)) < 500
        if i == 0:
            assert hint in str(caught.value)
    assert dump(t) == before


KEPT = {
    "emoji": "Pizza 🍕 with 👩‍👩‍👧 and 🇳🇴",
    "right to left": "مرحبا بالعالم שלום",
    "control characters": "bell \x07 escape \x1b[31m tab \t line\r\nfeed \x85",
    "direction marks": "\u202eevil\u202c \u200bzero\ufeffwidth",
    "combining": "Zalgo " + "a\u0301\u0302\u0303" * 20,
    "unassigned and private": "\U000e0001 \ue000 \uffff",
    "one letter": "a",
    "one sign": "!",
    "a very long word": "x" * 100_000,
    "many lines": "\n".join(["line"] * 1000),
    "looks like SQL": "'); DROP TABLE cubes; --",
    "looks like JSON": '{"role": "system"}',
}


@pytest.mark.parametrize("name", KEPT)
def test_texts_that_are_odd_and_kept(tmp_path: Path, name: str) -> None:
    """Verbatim, found again, listed, shown in a context, and forgotten."""
    text = KEPT[name]
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        cube = alice.remember(text)
        assert alice.get(cube.id).text == text
        assert [hit.cube.text for hit in alice.recall(text[:5000])] == [text]
        assert text in alice.context(text[:200], budget=1_000_000)
        assert repr(cube)
        assert t.doctor() == {"default": []}
        alice.forget(cube.id)
        assert alice.list().total == 0


WRONG: dict[str, Callable[[ScopedMemory], object]] = {
    "naive time": lambda s: s.remember("x", at=NAIVE),
    "naive text time": lambda s: s.remember("x", at="2024-05-01T12:00:00"),
    "no time": lambda s: s.remember("x", at="yesterday"),
    "milliseconds": lambda s: s.remember("x", at=1714564800000),  # type: ignore[arg-type]
    "naive message": lambda s: s.remember(Message("x", at=NAIVE)),
    "naive mapping": lambda s: s.remember({"content": "x", "created_at": "2024-05-01 12:00"}),
    "naive draft": lambda s: s.remember(draft(descriptive=Descriptive(observed=NAIVE))),
    "naive happening": lambda s: s.remember(draft(descriptive=Descriptive(happened=Happened(NAIVE, NAIVE)))),
    "naive expiry": lambda s: s.remember(draft(governance=Governance(expires=NAIVE))),
    "naive validity": lambda s: s.remember(draft(behavioural=Behavioural(valid_from=NAIVE))),
    "naive since": lambda s: s.recall("x", since=NAIVE),
    "naive revision": lambda s: s.revise(s.list()[0].id, "x", at=NAIVE),
    "unknown field": lambda s: s.remember({"content": "x", "colour": "red"}),
    "unknown role": lambda s: s.remember({"role": "king", "content": "x"}),
    "no item": lambda s: s.remember(17),  # type: ignore[arg-type]
    "bare string of items": lambda s: s.remember_many("abc"),
    "one message for many": lambda s: s.remember_many(Message("x")),  # type: ignore[arg-type]
    "no items": lambda s: s.remember_many(17),  # type: ignore[arg-type]
    "tags as a string": lambda s: s.remember("x", tags="home"),
    "tags as a number": lambda s: s.remember("x", tags=17),  # type: ignore[arg-type]
    "empty tag": lambda s: s.remember("x", tags=[""]),
    "number among tags": lambda s: s.remember("x", tags=[1]),  # type: ignore[list-item]
    "tag with NUL": lambda s: s.remember("x", tags=["a\0b"]),
    "tag with surrogate": lambda s: s.remember("x", tags=["\ud800"]),
    "long tag": lambda s: s.remember("x", tags=["x" * 1001]),
    "metadata as a list": lambda s: s.remember("x", metadata=[1]),  # type: ignore[arg-type]
    "nested metadata": lambda s: s.remember("x", metadata={"a": {"b": 1}}),  # type: ignore[dict-item]
    "metadata by number": lambda s: s.remember("x", metadata={1: "a"}),  # type: ignore[dict-item]
    "NaN": lambda s: s.remember("x", metadata={"a": math.nan}),
    "infinity": lambda s: s.remember("x", metadata={"a": -math.inf}),
    "too large a number": lambda s: s.remember("x", metadata={"a": 2**63}),
    "metadata with surrogate": lambda s: s.remember("x", metadata={"a": "\ud800"}),
    "empty ref": lambda s: s.remember("x", ref=""),
    "ref as a number": lambda s: s.remember("x", ref=17),  # type: ignore[arg-type]
    "ref with another text": lambda s: s.remember("Something else.", ref="r"),
    "empty type": lambda s: s.remember("x", type=""),
    "type as a number": lambda s: s.remember("x", type=17),  # type: ignore[arg-type]
    "speaker with surrogate": lambda s: s.remember(draft(descriptive=Descriptive(origin=Origin(speaker="\ud800")))),
    "speaker with control": lambda s: s.remember(Message("x", name="a\nb")),
    "session with control": lambda s: s.remember(Message("x", session="a\0b")),
    "draft that is erased": lambda s: s.remember(draft(behavioural=Behavioural(state=State.EXPIRED))),
    "draft with a bad id": lambda s: s.remember(draft(descriptive=Descriptive(id="17"))),
    "draft that is there": lambda s: s.remember(replace(s.list()[0], descriptive=Descriptive(id=s.list()[0].id))),
    "stale expect": lambda s: s.revise(s.list()[0].id, "x", expect=1),
    "version 0": lambda s: s.rollback(s.list()[0].id, version=0),
    "limit 0": lambda s: s.list(limit=0),
    "limit -1": lambda s: s.recall("x", limit=-1),
    "limit of changes": lambda s: s.changes(limit=0),
    "since as text": lambda s: s.changes(since="now"),  # type: ignore[arg-type]
    "since too large": lambda s: s.changes(since=2**70),
    "min_score as text": lambda s: s.recall("x", min_score="high"),  # type: ignore[arg-type]
    "question with surrogate": lambda s: s.recall("\ud800 x"),
    "long question": lambda s: s.recall("word " * 100_000),
    "id as a number": lambda s: s.get(17),  # type: ignore[arg-type]
    "ids as a number": lambda s: s.forget(17),  # type: ignore[arg-type]
    "id with surrogate": lambda s: s.get("\ud800"),
    "document that is not there": lambda s: s.remember_document("/no/such/file.txt"),
    "document that is a folder": lambda s: s.remember_document("/"),
    "context without budget": lambda s: s.context("x", budget=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_mean_anything(t: Tercet, alice: ScopedMemory, name: str) -> None:
    """An error of our tree, short, and not one row is touched."""
    before = dump(t)
    with pytest.raises(TercetError) as caught:
        WRONG[name](alice)
    assert 10 < len(str(caught.value)) < 500
    assert dump(t) == before
    if "naive" in name:
        assert "zone" in str(caught.value)


def test_a_zone_hint_says_what_to_write(alice: ScopedMemory) -> None:
    with pytest.raises(InvalidRequest, match=r"\+02:00|tzinfo|astimezone"):
        alice.remember("x", at=NAIVE)


def test_a_stale_expectation_says_what_it_found(t: Tercet, alice: ScopedMemory) -> None:
    before, [cube] = dump(t), alice.list()
    with pytest.raises(StaleWrite, match="version 2, not 1"):
        alice.revise(cube.id, "x", expect=1)
    assert dump(t) == before


def test_the_same_ref_twice_writes_nothing(t: Tercet, alice: ScopedMemory) -> None:
    before, [cube] = dump(t), alice.list()
    assert alice.remember("The boiler code is 9921.", ref="r") == cube
    assert dump(t) == before


def test_a_scope_with_slashes_is_a_scope(tmp_path: Path) -> None:
    """It names nothing in the file system."""
    with Tercet.open(tmp_path / "vault", embedder=None) as t:
        scope = t.scope(tenant="../../evil/..", user="a/b/../c", agent="\\\\x", session="s;--")
        cube = scope.remember("Here.")
        assert scope.get(cube.id) == cube
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.parent for path in files} == {Path("vault/tenants")}


def test_times_of_any_zone_are_kept_and_compared(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope()
        for hours in (-12, 0, 14):
            at = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=hours)))
            assert alice.remember(f"At {hours}.", at=at).observed == at
        hits = alice.recall("at", since="2024-05-01T11:00:00Z", limit=10)
        assert {hit.cube.text for hit in hits} == {"At -12.", "At 0."}


def test_ancient_and_future_times_are_kept(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        for at in ("0001-01-02T00:00:00+00:00", "1905-06-30T00:00:00+00:00", "9999-12-30T00:00:00+00:00"):
            cube = t.scope().remember(f"In {at}.", at=at)
            assert t.scope().get(cube.id).observed == datetime.fromisoformat(at)
        assert len(t.scope().recall("in")) >= 0
        assert t.scope().list(where={"observed": {"$lt": "1950-01-01T00:00:00Z"}}).total == 2


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=JUNK, call=st.sampled_from(["item", "field", "at", "tags", "metadata", "where", "cursor", "question", "id"])
)
def test_junk_meets_an_error_of_ours_or_nothing(t: Tercet, alice: ScopedMemory, junk: Any, call: str) -> None:  # noqa: ANN401
    """Whatever stands where something is expected: no error but ours, and a failed call changes nothing."""
    calls: dict[str, Callable[[], object]] = {
        "item": lambda: alice.remember(junk),
        "field": lambda: alice.remember({"content": "junk", "session": junk, "name": junk, "tool_calls": junk}),
        "at": lambda: alice.remember("junk", at=junk),
        "tags": lambda: alice.remember("junk", tags=junk),
        "metadata": lambda: alice.remember("junk", metadata=junk),
        "where": lambda: alice.list(where=junk),
        "cursor": lambda: alice.list(cursor=junk),
        "question": lambda: alice.recall(junk),
        "id": lambda: alice.get(junk),
    }
    before = dump(t)
    try:
        calls[call]()
    except TercetError:
        assert dump(t) == before
    else:
        alice.forget(where={"ref": None})  # what could be kept goes again
    assert len(alice.list()) == 1
