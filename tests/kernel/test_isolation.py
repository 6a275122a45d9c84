"""Tenants and users: no call gives what is another's, and another's writes change nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import Hits, ScopedMemory, Tercet
from tercet.cli import main
from tercet.testing import FakeEmbedder, SeededClock, isolation, texts
from tercet.testing.base import all_clear, told_apart
from tercet.text.read.message import Message

QUESTIONS = ("What is the code of the boiler?", "Where did she move in May?", "北京", "OR *")
OURS = [
    Message("The boiler code is 4417.", name="Ann", at="2024-05-01T12:00:00Z", tags=("home",), metadata={"n": 1}),  # type: ignore[arg-type]
    Message("I moved to Oslo in May.", name="Ben", at="2024-05-01T12:01:00Z"),  # type: ignore[arg-type]
    Message("我住在北京。", name="Ann", at="2024-05-02T12:00:00Z"),  # type: ignore[arg-type]
    Message("The boiler is old and loud.", name="Ben", at="2024-05-03T12:00:00Z"),  # type: ignore[arg-type]
]


@dataclass
class Tracer:
    """The statements that a tenant's connections ran, as SQLite saw them."""

    statements: list[str] = field(default_factory=list)

    @contextmanager
    def on(self, t: Tercet, tenant: str) -> Iterator[None]:
        """Record while inside. The handle must be idle: its connections are those that the next calls take."""

        def record(_: apsw.Cursor, statement: str, bindings: Any) -> bool:  # noqa: ANN401  # as apsw calls it
            self.statements.append(f"{statement} {bindings!r}")
            return True

        held = t.vault.tenant(tenant)
        with held.reading() as reader:
            reader.connection.exec_trace = record
        yield
        for connection in held._idle:
            connection.exec_trace = None


def ranking(hits: Hits) -> list[tuple[str, float, object]]:
    """Everything that a recall answers."""
    return [(hit.cube.id, hit.score, dict(hit.why)) for hit in hits] + [("total", hits.total, hits.truncated)]


def recalled(scope: ScopedMemory) -> list[object]:
    """What the calls tell that rank."""
    told: list[object] = []
    for question in QUESTIONS:
        told += [ranking(scope.recall(question)), scope.context(question), ranking(scope.recall(question, limit=1))]
    return told


def answers(scope: ScopedMemory) -> list[object]:
    """What every reading call of the contract tells."""
    cubes = scope.list(limit=1000)
    told: list[object] = [list(cubes), cubes.total, cubes.cursor]
    told += [
        list(scope.changes()),
        list(scope.list(where={"tags": "home"})),
        list(scope.list(where={"n": {"$gte": 0}})),
    ]
    return told + [scope.history(cube.id) for cube in cubes] + recalled(scope)


def noise(scope: ScopedMemory, texts: list[str]) -> list[str]:
    """Every kind of write; returns the ids that it made."""
    cubes = scope.remember_many([*OURS, *texts])
    for cube in cubes[:3]:
        scope.revise(cube.id, f"{cube.text} And again: boiler, Oslo, 4417.")
    scope.rollback(cubes[0].id, version=1)
    scope.recall("boiler")
    scope.forget(cubes[1].id)
    return [cube.id for cube in cubes]


@pytest.mark.parametrize("embedder", [None, FakeEmbedder()], ids=["words", "vectors"])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"tenant": "a", "user": "x"}, {"tenant": "b", "user": "x"}),
        ({"tenant": "a"}, {"tenant": "b"}),
        ({"user": "alice"}, {"user": "bob"}),
        ({"user": "alice"}, {"user": "bob", "agent": "alice", "session": "alice"}),
        ({"user": "alice", "session": "s"}, {"user": "bob", "session": "s"}),
    ],
)
def test_anothers_writes_change_no_answer(
    tmp_path: Path, embedder: FakeEmbedder | None, mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Neither ranks nor scores, reasons, totals, changes or contexts; before and after, warm and cold."""
    with Tercet.open(tmp_path, embedder=embedder) as t:
        scope, other = t.scope(**mine), t.scope(**theirs)
        scope.remember_many(OURS)
        before = answers(scope)
        foreign = noise(other, ["The boiler code of another.", "Oslo Oslo Oslo May"] * 20)
        assert answers(scope) == before
        for id in foreign:
            assert id not in repr(answers(scope))
        rankings = recalled(scope)
    with Tercet.open(tmp_path, embedder=embedder) as t:
        assert recalled(t.scope(**mine)) == rankings


def test_another_tenants_writes_change_no_statement(tmp_path: Path) -> None:
    """The same calls run the same SQL with the same bindings, whatever another tenant has written."""
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=SeededClock(step=timedelta(0))) as t:
        scope = t.scope(tenant="a", user="x")
        scope.remember_many(OURS)
        answers(scope)
        before, after = Tracer(), Tracer()
        with before.on(t, "a"):
            answers(scope)
        noise(t.scope(tenant="b", user="x"), ["The boiler code of another."] * 20)
        with after.on(t, "a"):
            answers(scope)
        assert len(before.statements) > 50
        assert after.statements == before.statements


def test_the_tracer_sees_a_difference(tmp_path: Path) -> None:
    """Its own tenant's writes do change what is run: the test above can fail."""
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        scope = t.scope(tenant="a", user="x")
        scope.remember_many(OURS)
        before, after = Tracer(), Tracer()
        with before.on(t, "a"):
            scope.recall("boiler")
        scope.remember("The boiler code is 9921.")
        with after.on(t, "a"):
            scope.recall("boiler")
        assert after.statements != before.statements


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7), texts()), max_size=12))
@pytest.mark.parametrize("apart", ["tenant", "user"])
def test_no_call_gives_a_foreign_cube(
    apart: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, steps: list[tuple[bool, int, str]]
) -> None:
    """Random writes on both sides: every answer holds only one's own, and foreign ids are told as made-up ones are."""
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=FakeEmbedder()) as t:
        parts: list[dict[str, Any]] = [{apart: name} for name in ("one", "two")]
        scopes = [t.scope(**part) for part in parts]
        mine: list[dict[str, str]] = [{}, {}]
        for second, action, text in steps:
            _act(scopes[second], mine[second], action, text, data)
        for scope, own, foreign in zip(scopes, mine, reversed(mine), strict=True):
            seen = {cube.id: cube.text for cube in scope.list(limit=1000)}
            assert seen == own
            for question in (*QUESTIONS, *[text for _, _, text in steps][:3]):
                assert {hit.cube.id for hit in scope.recall(question, limit=1000)} <= set(own)
            assert not {line.id for line in scope.changes()} & set(foreign)
            made_up = told_apart(scope, str(uuid.uuid4()))
            for id in list(foreign)[:3]:
                assert told_apart(scope, id) == made_up
        all_clear(t)


def _act(scope: ScopedMemory, own: dict[str, str], action: int, text: str, data: st.DataObject) -> None:
    if action <= 3 or not own:
        cube = scope.remember(text, tags=["home"])
        own[cube.id] = text
        return
    id = data.draw(st.sampled_from(sorted(own)))
    if action <= 5:
        scope.revise(id, text)
        own[id] = text
    elif action == 6:
        own[id] = scope.rollback(id, version=1).text
    else:
        scope.forget(where={"ref": "no such"})
        scope.forget(id)
        del own[id]


def test_a_broad_condition_reaches_nobody_else(tmp_path: Path) -> None:
    """Forgetting everything that meets a condition true of all takes one's own only."""
    with Tercet.open(tmp_path, embedder=None) as t:
        scopes = [t.scope(tenant=tenant, user=user) for tenant in ("a", "b") for user in ("alice", "bob")]
        for scope in scopes:
            scope.remember_many(OURS)
        assert len(scopes[0].forget(where={"kind": "text"}).erased) == len(OURS)
        assert [scope.list().total for scope in scopes] == [0, 4, 4, 4]


def test_a_draft_cannot_be_placed_elsewhere(tmp_path: Path) -> None:
    """A draft that names another user, or is made from another tenant's, is refused."""
    from tercet import InvalidRequest, MemCube, Refused, Text, derive
    from tercet.cube import Governance
    from tercet.scope import Scope

    with Tercet.open(tmp_path, embedder=None) as t:
        alice, other = t.scope(user="alice"), t.scope(tenant="other", user="alice")
        theirs = other.remember("Theirs.")
        calls: list[tuple[type[Exception], Callable[[], object]]] = [
            (InvalidRequest, lambda: alice.remember(MemCube(Text("x"), governance=Governance(Scope(user="bob"))))),
            (Refused, lambda: alice.remember(derive([theirs], Text("x"), method="m"))),
        ]
        for error, call in calls:
            with pytest.raises(error):
                call()
        assert alice.list().total == 0


def test_many_tenants_through_every_door(tmp_path: Path) -> None:
    """Random operations by Python, `await`, command line and archive, held against a book of what each may see."""
    done = isolation.run(tmp_path, main, tenants=6, operations=400, seed=3)
    assert done["leaks"] == 0
    assert done["foreign_ids_compared"]


@pytest.mark.slow
def test_a_hundred_tenants_through_every_door(tmp_path: Path) -> None:
    """The benchmark does 100,000."""
    done = isolation.run(tmp_path, main, tenants=100, operations=6_000, seed=4)
    assert done["leaks"] == 0
    doors = set(done["by_door"])  # type: ignore[call-overload]
    assert {
        "archive export",
        "archive import",
        "cli list",
        "cli recall",
        "cli show",
        "async recall",
        "python recall",
    } <= doors


LEAKS: dict[str, dict[str, object]] = {
    "tercet.vault.reader.Reader": {"under": lambda self, _: self},
    "tercet.vault.search.columns.Columns": {"_owned": "TRUE", "_owners": ()},
    "tercet.scope.Scope": {"covers": lambda *_: True},
    "tercet.vault.shares.ShareRow": {"live": lambda *_: True},
}
"""What a wall is called, and what it is like when it is broken."""


@pytest.mark.parametrize("wall", [*LEAKS])
def test_the_book_sees_a_leak(wall: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wall broken, the run above fails: it can."""
    for name, broken in LEAKS[wall].items():
        monkeypatch.setattr(f"{wall}.{name}", broken)
    with pytest.raises(isolation.LeakError):
        isolation.run(tmp_path, main, tenants=6, operations=1_500, seed=3)
