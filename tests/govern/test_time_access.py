"""The time machine and the audit under rules: who may use them, and what is seen of the past and of branches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tercet import AsyncTercet, Caller, InvalidRequest, MissingMemory, Receipt, Refused, Scope, ScopedMemory, Tercet
from tercet.govern.rules import Rule
from tercet.testing import FakeEmbedder
from tercet.testing.travelling import found, texts
from tercet.vault.journal import head
from tercet.vault.writer import Writer

ROOT, ANN, CHIEF = Caller("root"), Caller("ann"), Caller("chief")
EVERY = frozenset({"administer", "read", "write", "revise", "forget", "share"})
RULES = (
    Rule("allow", "root", EVERY),
    Rule("allow", "ann", EVERY - {"administer"}),
    Rule("deny", "ann", {"read"}, tags={"hidden"}),
)


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path / "vault", embedder=FakeEmbedder(), signing_key=tmp_path / "key") as t:
        for rule in RULES:
            t.admin(by=ROOT).add_rule(rule)
        t.admin(tenant="other", by=CHIEF).add_rule(Rule("allow", "chief", EVERY, tenant="other"))
        yield t
        t.admin(tenant="other", by=CHIEF).add_rule(Rule("allow", "root", {"administer"}, tenant="other"))
        assert not any(t.doctor(by=ROOT).values())


@pytest.fixture
def root(t: Tercet) -> ScopedMemory:
    return t.scope(by=ROOT)


@pytest.fixture
def receipt(t: Tercet, root: ScopedMemory) -> Receipt:
    """A vault with a snapshot, a branch and an erasure; the receipt of that."""
    root.remember_many(["Soup.", "Salad."])
    t.snapshot("s", by=ROOT)
    t.branch("b", by=ROOT)
    return root.forget(root.remember("Goes.").id)


def heads(t: Tercet) -> dict[str, tuple[int, bytes]]:
    """The end of each tenant's journal, which every change moves."""
    found = {}
    for name in t.vault.tenants():
        with t.vault.tenant(name).reading() as reader:
            found[name] = head(reader.connection)
    return found


def calls(t: Tercet | AsyncTercet, by: Caller | None, receipt: Receipt, paper: Path) -> dict[str, Callable[[], object]]:
    return {
        "snapshot": lambda: t.snapshot("new", by=by),
        "branch": lambda: t.branch("new", by=by),
        "snapshots": lambda: t.snapshots(by=by),
        "branches": lambda: t.branches(by=by),
        "diff": lambda: t.diff("s", by=by),
        "diff of what is not there": lambda: t.diff("x", by=by),
        "restore": lambda: t.restore("s", by=by),
        "drop": lambda: t.drop("b", by=by),
        "audit": lambda: t.audit(by=by),
        "receipt": lambda: t.receipt(receipt.seq, by=by),
        "verify": lambda: t.verify(receipt, by=by),
        "verify_audit": lambda: t.verify_audit([receipt], by=by),
        "anchor": lambda: t.anchor(paper, by=by),
    }


def test_only_administrators_travel_and_audit(t: Tercet, receipt: Receipt, tmp_path: Path) -> None:
    """Whoever else asks, by name, with a key, or from another tenant, is refused and changes nothing."""
    key = t.admin(by=ROOT).create_key("ci", rights={"read", "write", "revise", "forget"})
    bound = t.admin(by=ROOT).create_key("root", rights={"administer"}, within=Scope(user="alice"))
    before, paper = heads(t), tmp_path / "paper"
    for by in (None, ANN, CHIEF, t.caller(key.text), t.caller(bound.text)):
        for name, call in calls(t, by, receipt, paper).items():
            with pytest.raises(Refused):
                call()
            assert not paper.exists(), name
    assert heads(t) == before
    made = t.admin(by=ROOT).create_key("root", rights={"administer"})
    caller = t.caller(made.text)
    t.admin(by=ROOT).revoke_key(made.key.id)
    for call in calls(t, caller, receipt, paper).values():
        with pytest.raises(Refused, match="opens nothing"):
            call()
    for name, call in calls(t, ROOT, receipt, paper).items():
        if name in {"branch", "diff of what is not there"}:
            with pytest.raises((InvalidRequest, LookupError)):  # the name is taken; there is no x
                call()
        else:
            call()
    assert paper.exists()
    assert t.verify_audit([paper, receipt], by=ROOT).passed


@pytest.mark.usefixtures("receipt")
def test_a_right_that_ends_meanwhile(t: Tercet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look at the rules and the transaction: nothing is changed."""
    made = t.admin(by=ROOT).create_key("root", rights={"administer"})
    caller, tenant = t.caller(made.text), t.vault.tenant("default")
    real, seen = tenant.writing, heads(t)

    def writing(*, by: str, branch: str | None = None) -> AbstractContextManager[Writer]:
        monkeypatch.setattr(tenant, "writing", real)
        t.admin(by=ROOT).revoke_key(made.key.id)
        seen.update(heads(t))
        return real(by=by, branch=branch)

    monkeypatch.setattr(tenant, "writing", writing)
    with pytest.raises(Refused, match="opens nothing"):
        t.restore("s", by=caller)
    assert heads(t) == seen


def test_the_same_with_await(t: Tercet, receipt: Receipt, tmp_path: Path) -> None:
    twin, before = AsyncTercet(t), heads(t)

    async def run() -> None:
        for by in (None, ANN, CHIEF):
            for call in calls(twin, by, receipt, tmp_path / "paper").values():
                awaited = call()
                assert isinstance(awaited, Awaitable)
                with pytest.raises(Refused):
                    await awaited
        assert [one.name for one in await twin.snapshots(by=ROOT)] == ["s"]

    asyncio.run(run())
    assert heads(t) == before


def test_a_key_travels_in_its_own_tenant(t: Tercet) -> None:
    """Where no tenant is named it is the key's, as for its memories."""
    made = t.admin(tenant="other", by=CHIEF).create_key("chief", rights={"administer", "read", "write"})
    chief = t.caller(made.text)
    t.scope(by=chief).remember("Theirs.")
    t.snapshot("theirs", by=chief)
    assert [one.name for one in t.snapshots(by=chief)] == ["theirs"]
    assert t.snapshots(by=ROOT) == []
    with pytest.raises(Refused):
        t.snapshots(tenant="default", by=chief)


def test_what_is_denied_is_in_no_past_and_on_no_branch(t: Tercet, root: ScopedMemory) -> None:
    """Each version is judged as it was: neither an older nor a newer label opens one that is hidden."""
    seen, closed, opened, changed = root.remember_many(["Soup is on.", "Pin 1.", "Pin 2.", "Plan 3."])
    hidden = root.remember("The pin is 4417.", tags=["hidden"])
    root.revise(closed.id, "The pin is 1.", tags=["hidden"])
    root.revise(opened.id, "The pin is 2.", tags=["hidden"])
    then = root.changes(limit=1000)[-1].seq
    t.snapshot("s", by=ROOT)
    root.revise(opened.id, "Nothing to hide.", tags=[])
    t.branch("b", from_="s", by=ROOT)
    on_b = t.scope(branch="b", by=ROOT)
    on_b.revise(changed.id, "The plan is 3.", tags=["hidden"])
    on_b.remember("Only on b: pin 5.", tags=["hidden"])
    on_b.remember("Only on b: soup.")
    ann, question = t.scope(by=ANN), "pin plan soup hide only b"
    assert texts(ann) == found(ann, question) == {"Soup is on.", "Nothing to hide.", "Plan 3."}
    past, b = ann.as_of(known=then), t.scope(branch="b", by=ANN)
    assert texts(past) == found(past, question) == {"Soup is on.", "Plan 3."}
    assert texts(b) == found(b, question) == {"Soup is on.", "Only on b: soup."}
    assert (past.list().total, b.list().total, b.recall(question).total) == (2, 2, 2)
    assert "pin" not in past.context(question).lower() + b.context(question).lower()
    assert [cube.text for cube in ann.history(opened.id)] == ["Pin 2.", "Nothing to hide."]
    for view, ids in ((past, (hidden.id, closed.id, opened.id)), (b, (hidden.id, closed.id, changed.id))):
        for id in ids:
            for call in (view.get, view.history):
                with pytest.raises(MissingMemory):
                    call(id)
    assert changed.id not in {one.id for one in b.changes(limit=1000) if one.action == "revise"}
    assert seen.id in {cube.id for cube in b.list()}


def test_another_tenant_sees_no_past_and_no_branch(t: Tercet, root: ScopedMemory) -> None:
    cube = root.remember("The pin is 4417.")
    then = root.changes()[-1].seq
    t.branch("b", by=ROOT)
    chief = t.scope(tenant="other", by=CHIEF)
    chief.remember("Theirs.")
    for view in (chief.as_of(known=then), chief):
        assert "4417" not in repr([*view.list(), *view.recall("pin 4417")])
        with pytest.raises(MissingMemory):
            view.get(cube.id)
    with pytest.raises(LookupError, match="b"):  # their tenant has no such branch
        t.scope(tenant="other", branch="b", by=CHIEF).list()
    for view in (t.scope(by=CHIEF), t.scope(by=CHIEF).as_of(known=then), t.scope(branch="b", by=CHIEF)):
        with pytest.raises(Refused):
            view.list()


@pytest.mark.parametrize("seed", range(4))
def test_lists_under_rules_equal_a_judgement_of_every_cube(t: Tercet, tmp_path: Path, seed: int) -> None:
    """What is kept between lists is as good as judging anew, whatever was written, moved, hidden or erased meanwhile,
    by this process or another.
    """
    dice = random.Random(seed)  # noqa: S311  # a test's choices
    other = Tercet.open(tmp_path / "vault", embedder=None)
    t.snapshot("0", by=ROOT)

    def check() -> None:
        for user in ("alice", "bob", None):
            for where in (None, {"tags": "b"}, {"tags": {"$ne": "b"}, "type": "fact"}):
                judged = [cube for cube in t.scope(user=user, by=ROOT).list(limit=1000, where=where)
                          if "hidden" not in cube.tags]  # fmt: skip
                ann = t.scope(user=user, by=ANN)
                page = ann.list(limit=3, where=where)
                pages, cursor = [*page], page.cursor
                while cursor is not None:
                    turned = ann.list(limit=3, where=where, cursor=cursor)
                    pages, cursor = [*pages, *turned], turned.cursor
                    assert turned.total == len(judged)
                assert (pages, page.total) == (judged, len(judged))

    for step in range(25):
        memory = dice.choice((t, other)).scope(user=dice.choice(("alice", "bob")), by=ROOT)
        there = [cube.id for cube in memory.list(limit=1000)]
        tags = dice.sample(("hidden", "b", "c"), dice.randrange(3))
        deed = dice.random()
        if deed < 0.5 or not there:
            memory.remember(f"Memory {step}.", tags=tags)
        elif deed < 0.7:
            memory.revise(dice.choice(there), f"Changed {step}.", tags=tags)
        elif deed < 0.8:
            memory.forget(dice.choice(there))
        elif deed < 0.9:
            t.restore(t.snapshots(by=ROOT)[dice.randrange(len(t.snapshots(by=ROOT)))].name, by=ROOT)
        else:
            t.snapshot(str(step), by=ROOT)
        if dice.random() < 0.7:
            check()
    check()
    other.close()


def test_a_list_judges_only_what_changed(t: Tercet, root: ScopedMemory) -> None:
    """The second list asks the rules of no cube that was judged for the first."""
    root.remember_many([f"Memory {i}." for i in range(50)])
    ann, asked = t.scope(by=ANN), list[str]()
    ann.list(limit=1)
    new = root.remember("New.")

    def trace(_: object, statement: str, __: object) -> bool:
        if "group_concat" in statement:
            asked.append(statement)
        return True

    with t.vault.tenant("default").maintaining() as connection:
        connection.exec_trace = trace
    assert ann.list(limit=100)[-1] == new
    assert len(asked) == 1
    assert "c.n IN (?)" in asked[0]
    asked.clear()
    assert ann.list(limit=1).total == 51
    assert asked == []
