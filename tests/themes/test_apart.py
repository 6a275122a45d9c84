"""T11, T5: nobody sees, counts or changes what is another's, whatever rules and keys there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import Caller, MissingMemory, Refused, Rule, Scope, ScopedMemory, Tercet
from tercet.testing.base import all_clear

EVERY = frozenset({"administer", "read", "write", "revise", "forget"})
OWN = Rule("allow", "*", {"read", "write", "revise", "forget"}, own=True)


def fill(memory: ScopedMemory, name: str) -> list[str]:
    return [memory.remember(f"{name} keeps the boiler code {n}.", ref=f"r{n}").id for n in range(3)]


def all_of(memory: ScopedMemory) -> set[str]:
    """Every id that any reading call gives."""
    found = {cube.id for cube in memory.list()} | {hit.cube.id for hit in memory.recall("boiler code", limit=100)}
    return found | {line.id for line in memory.changes()}


def test_t11_one_rule_keeps_users_apart(tmp_path: Path) -> None:
    """`own` lets everybody at what is about them, in a scope that names nobody, too, and at nothing else."""
    with Tercet.open(tmp_path, embedder=None) as t:
        t.admin(by=Caller("root")).add_rule(Rule("allow", "root", EVERY))
        t.admin(by=Caller("root")).add_rule(OWN)
        names = ("alice", "bob", "Alice")
        ids = {name: fill(t.scope(user=name, by=Caller(name)), name) for name in names}
        for name in names:
            whole = t.scope(by=Caller(name))
            assert all_of(whole) == set(ids[name])
            assert whole.list().total == whole.recall("boiler", limit=1).total == 3
            for other in set(names) - {name}:
                with pytest.raises(Refused):
                    t.scope(user=other, by=Caller(name)).list()
                with pytest.raises(Refused):
                    t.scope(user=other, by=Caller(name)).remember("Planted.")
                with pytest.raises(MissingMemory):
                    whole.get(ids[other][0])


def test_t11_one_key_opens_one_tenant_and_user(tmp_path: Path) -> None:
    """Two users of two tenants with the same names: each key reaches a quarter."""
    with Tercet.open(tmp_path, embedder=None) as t:
        places = [Scope(tenant, user) for tenant in ("a", "b") for user in ("alice", "bob")]
        ids = {place: fill(t.scope(tenant=place.tenant, user=place.user), str(place)) for place in places}
        texts = {
            place: t.admin(tenant=place.tenant).create_key("same", rights=EVERY, within=place).text for place in places
        }
        for place in places:
            mine = t.scope(by=t.caller(texts[place]))
            assert all_of(mine) == set(ids[place])
            for other in places:
                if other != place:
                    foreign = t.scope(tenant=other.tenant, user=other.user, by=mine.by)
                    for call in (foreign.list, foreign.changes, partial(foreign.recall, "boiler"),
                                 partial(foreign.remember, "Planted.")):  # fmt: skip
                        with pytest.raises(Refused):
                            call()
                    with pytest.raises(MissingMemory):
                        mine.forget(ids[other][0])
        all_clear(t)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob"]),
            st.sampled_from(["revise", "rollback", "forget", "remember", "all"]),
            st.integers(0, 5),
        ),
        max_size=10,
    )
)
def test_t5_no_change_crosses_subjects(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    """Whoever does what with whichever id: what is about the other user stays word for word."""
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=None) as t:
        t.admin(by=Caller("root")).add_rule(Rule("allow", "root", EVERY))
        t.admin(by=Caller("root")).add_rule(OWN)
        root = t.scope(by=Caller("root"))
        ids = [id for name in ("alice", "bob") for id in fill(t.scope(user=name, by=Caller(name)), name)]
        for name, action, which in steps:
            memory = t.scope(by=Caller(name))  # a scope that names no user: the rules alone stand between
            before = {cube.id: cube for cube in root.list() if cube.scope.user != name}
            calls: dict[str, Callable[[], object]] = {
                "revise": lambda: memory.revise(ids[which], "Changed."),  # noqa: B023  # called at once
                "rollback": lambda: memory.rollback(ids[which], version=1),  # noqa: B023
                "forget": lambda: memory.forget(ids[which]),  # noqa: B023
                "remember": lambda: t.scope(user=name, by=Caller(name)).remember("More.", ref="r9"),  # noqa: B023
                "all": lambda: memory.forget(where={"kind": "text"}),  # noqa: B023
            }
            try:
                calls[action]()
            except MissingMemory:
                assert action in {"revise", "rollback", "forget"}
            assert {cube.id: cube for cube in root.list() if cube.scope.user != name} == before
