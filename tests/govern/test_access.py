"""Every call, under rules: what a caller may not see is not there, and what it may only see it cannot change."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import (
    AsyncTercet,
    Caller,
    InvalidRequest,
    MemCube,
    MissingMemory,
    Refused,
    Scope,
    ScopedMemory,
    Tercet,
    derive,
)
from tercet.cube import Descriptive, Governance, Grant, Sensitivity, Text
from tercet.exchange.archive import export_scope, read_archive
from tercet.exchange.restore import import_archive
from tercet.govern.policy import Rules
from tercet.govern.rules import Rule
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.isolation import told
from tercet.vault.allowed import grant_value
from tercet.vault.schema import STEPS, migrate

ROOT, ANN = Caller("root"), Caller("ann", roles={"reader"})
EVERY = frozenset({"administer", "read", "write", "revise", "forget", "share"})
MADE_UP = "0190f7d2-7a60-7000-8000-000000000001"
RULES = (
    Rule("allow", "root", EVERY),
    Rule("allow", "role:reader", {"read", "write"}),
    Rule("allow", "role:reader", {"revise", "forget"}, tags={"open"}),
    Rule("deny", "role:reader", {"read", "write"}, tags={"hidden"}),
    Rule("deny", "role:reader", {"read", "write"}, min_sensitivity=Sensitivity.SECRET),
)


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        for rule in RULES:
            t.admin(by=ROOT).add_rule(rule)
        yield t
        all_clear_as(t, ROOT)


def all_clear_as(t: Tercet, by: Caller) -> None:
    assert t.doctor(by=by) == {name: [] for name in t.vault.tenants()}


@pytest.fixture
def root(t: Tercet) -> ScopedMemory:
    return t.scope(by=ROOT)


@pytest.fixture
def ann(t: Tercet) -> ScopedMemory:
    return t.scope(by=ANN)


def secret(text: str, level: Sensitivity = Sensitivity.SECRET) -> MemCube:
    return MemCube(Text(text), governance=Governance(sensitivity=level))


def test_reading_calls_leave_out_what_is_denied(t: Tercet, root: ScopedMemory, ann: ScopedMemory) -> None:
    seen = root.remember("The boiler is loud.")
    hidden = [
        root.remember("The boiler code is 4417.", tags=["hidden"]),
        root.remember(secret("The boiler is stolen.")),
    ]
    assert [cube.id for cube in ann.list()] == [seen.id]
    assert ann.list().total == 1
    assert ann.list(where={"tags": "hidden"}).total == 0
    hits = ann.recall("boiler")
    assert [hit.cube.id for hit in hits] == [seen.id]
    assert (hits.total, hits.truncated) == (1, False)
    assert list(ann.recall("boiler", where={"tags": "hidden"})) == []
    assert "4417" not in ann.context("boiler code")
    assert {line.id for line in ann.changes()} == {seen.id}
    calls: list[Callable[[str], object]] = [
        ann.get,
        ann.history,
        ann.forget,
        lambda one: ann.revise(one, "Mine."),
        lambda one: ann.rollback(one, version=1),
    ]
    for call in calls:
        answers = {str(told(t, "default", one, partial(call, one))) for one in (MADE_UP, *(cube.id for cube in hidden))}
        assert len(answers) == 1
        assert "MissingMemory" in answers.pop()
    assert root.list().total == 3


def test_denied_cubes_change_no_score(root: ScopedMemory, ann: ScopedMemory) -> None:
    """Neither by their number, their words or their speakers, nor while they come and go."""
    for day, text in enumerate(["The boiler code is 4417.", "I moved to Oslo.", "The boiler is old."], 1):
        root.remember({"role": "user", "name": "Ann", "content": text, "at": f"2024-05-0{day}T12:00:00Z"})

    def ranking() -> list[object]:
        told: list[object] = []
        for question in ("What is the boiler code?", "Where did Zoe move?", "Oslo"):
            for policy in ("balanced", "words", "vectors"):
                hits = ann.recall(question, policy=policy)
                told += [[(hit.cube.id, hit.score, dict(hit.why)) for hit in hits], hits.total, ann.context(question)]
        return told

    before = ranking()
    hidden = root.remember_many([MemCube(Text(f"The boiler code of Zoe, Oslo {n}."), Descriptive(tags=("hidden",)),
                                         Governance(Scope())) for n in range(30)])  # fmt: skip
    assert ranking() == before
    root.forget([cube.id for cube in hidden[:10]])
    root.revise(hidden[20].id, "boiler boiler boiler")
    assert ranking() == before
    root.revise(hidden[21].id, "The boiler code is known to all.", tags=["plain"])
    assert ranking() != before  # the test can fail


def test_a_right_to_read_is_none_to_change(root: ScopedMemory, ann: ScopedMemory) -> None:
    cube, open_one = root.remember("Soup."), root.remember("Bread.", tags=["open"])
    for call in (
        lambda: ann.revise(cube.id, "Salt."),
        lambda: ann.forget(cube.id),
        lambda: ann.forget([open_one.id, cube.id]),
    ):
        with pytest.raises(Refused, match="may not"):
            call()
    assert ann.history(cube.id) == [cube]
    assert ann.revise(open_one.id, "Butter.").version == 2
    with pytest.raises(Refused):  # what it would become is judged, too
        ann.revise(open_one.id, "Butter.", tags=["closed"])
    assert ann.rollback(open_one.id, version=1).text == "Bread."
    assert ann.forget(where={"kind": "text"}).erased == (open_one.id,)
    assert root.list().total == 1


def test_versions_are_judged_one_by_one(root: ScopedMemory, ann: ScopedMemory) -> None:
    cube = root.remember("The code is 4417.", tags=["hidden"])
    root.revise(cube.id, "The code is changed.", tags=["plain"])
    assert [one.version for one in ann.history(cube.id)] == [2]
    assert [one.version for one in root.history(cube.id)] == [1, 2]
    stream = io.BytesIO()
    assert export_scope(ann, stream) == 0  # an archive has every version, or nothing of a memory
    assert export_scope(root, io.BytesIO()) == 1


def test_what_may_not_be_written_is_not(root: ScopedMemory, ann: ScopedMemory) -> None:
    drafts: list[Any] = ["Fine.", secret("Not fine.")]
    with pytest.raises(Refused):
        ann.remember_many(drafts)
    with pytest.raises(Refused):
        ann.remember("x", tags=["hidden"])
    with pytest.raises(Refused, match="share"):  # a grant gives rights away
        ann.remember(MemCube(Text("x"), governance=Governance(access=frozenset({Grant("ann", "forget")}))))
    assert root.list().total == 0
    assert ann.remember("Fine.").version == 1


def test_a_refused_text_reaches_no_embedder(tmp_path: Path) -> None:
    class Recording(FakeEmbedder):
        texts: list[str] = []  # noqa: RUF012  # one instance

        def embed(self, texts: Any, **options: Any) -> Any:  # noqa: ANN401
            self.texts.extend(texts)
            return super().embed(texts, **options)

    embedder = Recording()
    with Tercet.open(tmp_path, embedder=embedder, access=Rules(RULES)) as t:
        with pytest.raises(Refused):
            t.scope(by=ANN).remember("x", tags=["hidden"])
        t.scope(by=ANN).remember("y")
    assert embedder.texts == ["y"]


def test_a_ref_that_may_not_be_read_tells_nothing(root: ScopedMemory, ann: ScopedMemory) -> None:
    root.remember("The pin is 4417.", ref="pin", tags=["hidden"])
    answers = []
    for guess in ("The pin is 4417.", "The pin is 4418."):
        with pytest.raises(Refused) as caught:
            ann.remember(guess, ref="pin")
        answers.append(str(caught.value))
    assert answers[0] == answers[1]


def test_what_may_not_be_read_is_no_source(root: ScopedMemory, ann: ScopedMemory) -> None:
    hidden = root.remember("The pin is 4417.", tags=["hidden"])
    with pytest.raises(MissingMemory):
        ann.remember(derive([hidden], Text("A pin."), method="m"))
    assert root.remember(derive([hidden], Text("A pin."), method="m")).version == 1


def test_erasure_is_whole_even_where_a_product_may_not_be_read(root: ScopedMemory, ann: ScopedMemory) -> None:
    source = root.remember("Bread.", tags=["open"])
    made = root.remember(derive([source], Text("About bread."), method="m"))
    assert set(ann.forget(source.id).erased) == {source.id, made.id}


def test_export_and_import_keep_to_the_rules(t: Tercet, root: ScopedMemory, ann: ScopedMemory) -> None:
    seen, hidden = root.remember("Soup."), root.remember("Pin 4417.", tags=["hidden"])
    stream = io.BytesIO()
    assert export_scope(ann, stream) == 1
    assert b"Pin 4417" not in stream.getvalue()
    assert [record.id for record in read_archive(io.BytesIO(stream.getvalue()), tenant="default")] == [seen.id]
    whole = io.BytesIO()
    export_scope(root, whole)
    with pytest.raises(Refused):  # it holds what ann may not write
        import_archive(ann, io.BytesIO(whole.getvalue()))
    root.revise(seen.id, "Soup, hot.")
    later = io.BytesIO()
    export_scope(root.tercet.scope(by=ROOT), later)
    root.forget([seen.id, hidden.id])
    plain = t.scope(tenant="plain", by=ROOT)  # without rules
    assert len(import_archive(plain, io.BytesIO(stream.getvalue())).added) == 1


def test_an_import_tells_no_more_than_that_an_id_is_taken(t: Tercet, root: ScopedMemory, ann: ScopedMemory) -> None:
    hidden = root.remember("Pin 4417.", tags=["hidden"])
    elsewhere = t.scope(tenant="elsewhere")
    stream = io.BytesIO()
    import_text = MemCube(Text("Pin 4417."), Descriptive(id=hidden.id))
    elsewhere.remember(import_text)
    export_scope(elsewhere, stream)
    done = import_archive(ann, io.BytesIO(stream.getvalue()))
    assert [(one.id, one.reason) for one in done.skipped] == [(hidden.id, "its id is taken by another memory")]


def test_an_import_revises_only_by_right(t: Tercet, root: ScopedMemory, ann: ScopedMemory) -> None:
    cube = root.remember("Soup.")
    stream = io.BytesIO()
    export_scope(root, stream)
    copy = t.scope(tenant="copy")
    import_archive(copy, io.BytesIO(stream.getvalue()))
    copy.revise(cube.id, "Soup, hot.")
    later = io.BytesIO()
    export_scope(copy, later)
    assert [one.reason for one in import_archive(ann, io.BytesIO(later.getvalue())).skipped] == [
        "it is here, and this caller may not revise it"
    ]
    assert import_archive(root, io.BytesIO(later.getvalue())).updated == (cube.id,)


def test_a_grant_widens_and_a_deny_still_wins(t: Tercet, root: ScopedMemory) -> None:
    def granting(text: str, *grants: Grant, tags: tuple[str, ...] = ()) -> MemCube:
        return root.remember(MemCube(Text(text), Descriptive(tags=tags), Governance(access=frozenset(grants))))

    bob = t.scope(by=Caller("bob", purpose="trip"))
    with pytest.raises(Refused):
        bob.list()
    plain = granting("Train at nine.", Grant("bob", "read"))
    trip = granting("Train at ten.", Grant("bob", "read", "trip"), Grant("bob", "revise", "trip"))
    granting("Train at noon.", Grant("bob", "read", "work"))
    granting("Train at one.", Grant("bobby", "read"))
    root.remember("Train at two.")
    assert {cube.id for cube in bob.list()} == {plain.id, trip.id}
    assert {hit.cube.id for hit in bob.recall("train")} == {plain.id, trip.id}
    assert bob.revise(trip.id, "Train at eleven.").governance.access == trip.governance.access
    with pytest.raises(Refused):
        bob.revise(plain.id, "Train at never.")
    with pytest.raises(Refused):
        bob.remember("x")
    assert [cube.id for cube in t.scope(by=Caller("bob")).list()] == [plain.id]
    t.admin(by=ROOT).add_rule(Rule("deny", "bob", {"read"}, cubes={plain.id}))
    assert [cube.id for cube in bob.list()] == [trip.id]
    root.forget([trip.id, plain.id])
    with pytest.raises(Refused):
        t.scope(by=Caller("bob")).list()


def test_a_grant_to_oneself_gives_nothing(t: Tercet, root: ScopedMemory) -> None:
    """Whoever may write and share one memory cannot write another by granting himself the rights in it."""
    every = frozenset(Grant("bob", right) for right in ("read", "write", "share", "revise"))
    cube = root.remember(MemCube(Text("Bob's."), governance=Governance(access=every)))
    bob = t.scope(by=Caller("bob"))
    assert bob.revise(cube.id, "Still Bob's.").version == 2
    draft = MemCube(Text("Bob's, too."), governance=Governance(access=every))
    with pytest.raises(Refused):
        bob.remember(draft)
    elsewhere, stream = t.scope(tenant="elsewhere"), io.BytesIO()
    elsewhere.remember(draft)
    export_scope(elsewhere, stream)
    with pytest.raises(Refused):
        import_archive(bob, io.BytesIO(stream.getvalue()))
    assert root.list().total == 1


def test_a_grant_reaches_no_other_tenant(t: Tercet) -> None:
    """A caller that belongs to one tenant is refused in another before a statement is run, whatever a cube grants."""
    other = t.scope(tenant="other", by=ROOT)
    t.admin(tenant="other", by=ROOT).add_rule(RULES[0])
    cube = other.remember(
        MemCube(Text("Open to bob."), governance=Governance(access=frozenset({Grant("bob", "read")})))
    )
    bound = t.scope(tenant="other", by=Caller("bob", within=Scope("default")))
    answer, statements = told(t, "other", cube.id, lambda: bound.get(cube.id))
    assert answer.startswith("Refused")
    assert statements == []


def test_a_bound_caller_keeps_to_its_scope(t: Tercet) -> None:
    """Even where all is allowed; parts that are left out are its own."""
    plain = t.scope(tenant="plain")
    his, hers = (
        t.scope(tenant="plain", user="bob").remember("His."),
        t.scope(tenant="plain", user="ann").remember("Hers."),
    )
    by = Caller("bob", within=Scope("plain", user="bob"), rights={"read", "write"})
    bob = t.scope(by=by)
    assert bob.scope == Scope("plain", user="bob")
    assert [cube.id for cube in bob.list()] == [his.id]
    assert bob.remember("Mine.").scope.user == "bob"
    with pytest.raises(MissingMemory):
        bob.get(hers.id)
    for call in (lambda: bob.forget(his.id), lambda: t.scope(user="ann", by=by).list(), lambda: t.admin(by=by),
                 lambda: t.scope(tenant="default", by=by).list(), lambda: t.stats(by=by), lambda: t.doctor(by=by),
                 lambda: t.backup("nowhere", by=by)):  # fmt: skip
        with pytest.raises(Refused):
            call()
    assert plain.list().total == 3


def test_rules_of_the_file_hold_beside_those_of_the_handle(tmp_path: Path) -> None:
    """Opening with AllowAll is no way around them, and neither policy can widen the other."""
    with Tercet.open(tmp_path, embedder=None) as t:
        t.admin(by=ROOT).add_rule(RULES[0])
        t.scope(by=ROOT).remember("Kept.")
    from tercet.govern.access import AllowAll

    with Tercet.open(tmp_path, embedder=None, access=AllowAll()) as t, pytest.raises(Refused):
        t.scope(by=ANN).list()
    with Tercet.open(tmp_path, embedder=None, access=Rules(RULES[1:])) as t:
        for by in (ANN, ROOT):
            with pytest.raises(Refused):
                t.scope(by=by).list()


def test_a_policy_denies_other_tenants_before_they_are_opened(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None, access=Rules(RULES)) as t:
        t.scope(by=ROOT).remember("Here.")
        for call in (
            lambda: t.scope(tenant="other", by=ROOT).list(),
            lambda: t.scope(tenant="other", by=ROOT).remember("x"),
        ):
            with pytest.raises(Refused):
                call()
        assert t.vault.open_tenants() == ["default"]
    everywhere = [Rule("allow", "root", EVERY, tenant=None)]
    with Tercet.open(tmp_path, embedder=None, access=Rules(everywhere)) as t:
        t.scope(tenant="other", by=ROOT).remember("There.")
        assert t.admin(by=ROOT).tenants() == ["default", "other"]


def test_a_change_of_rules_holds_at_once_everywhere(tmp_path: Path) -> None:
    """In this handle and in another one, whose recall had its columns ready."""
    with Tercet.open(tmp_path, embedder=None) as one, Tercet.open(tmp_path, embedder=None) as two:
        for rule in RULES:
            one.admin(by=ROOT).add_rule(rule)
        one.scope(by=ROOT).remember("The boiler is loud.", tags=["plain"])
        views = [t.scope(by=ANN) for t in (one, two)]
        assert [view.recall("boiler").total for view in views] == [1, 1]
        kept = one.admin(by=ROOT).add_rule(Rule("deny", "ann", {"read"}, tags={"plain"}))
        assert [view.recall("boiler").total for view in views] == [0, 0]
        two.admin(by=ROOT).remove_rule(kept.n)
        assert [view.recall("boiler").total for view in views] == [1, 1]
        one.scope(by=ROOT).revise(one.scope(by=ROOT).list()[0].id, "The boiler is loud.", tags=["hidden"])
        assert [view.recall("boiler").total for view in views] == [0, 0]


def test_somebody_must_be_left_who_can_administer(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        admin = t.admin(by=ROOT)
        refused: list[Callable[[], object]] = [
            lambda: admin.add_rule(Rule("allow", "ann", EVERY)),  # root itself could not go on
            lambda: admin.add_rule(Rule("allow", "root", {"read"})),
            lambda: admin.add_rule(Rule("allow", "root", EVERY, until=t.clock().replace(year=2090))),
            lambda: admin.add_rule(Rule("allow", "root", EVERY, user="ann")),
            lambda: admin.add_rule(Rule("allow", "root", EVERY, tenant="other")),
            lambda: admin.add_rule("allow root"),  # type: ignore[arg-type]
        ]
        for call in refused:
            with pytest.raises(InvalidRequest):
                call()
        assert admin.rules() == []
        first = admin.add_rule(Rule("allow", "root", EVERY))
        for rule in (Rule("deny", "root", {"administer"}), Rule("deny", "*", {"administer"}),
                     Rule("deny", "*", {"administer"}, purposes={"sales"})):  # fmt: skip
            with pytest.raises(InvalidRequest, match="could"):
                admin.add_rule(rule)
        for n in (first.n, 99, "1", True):
            with pytest.raises(InvalidRequest):
                admin.remove_rule(n)  # type: ignore[arg-type]
        admin.add_rule(Rule("allow", "role:ops", {"administer"}))
        with pytest.raises(InvalidRequest, match="who asks"):  # another could, but not the one who asks
            admin.remove_rule(first.n)
        t.admin(by=Caller("eve", roles={"ops"})).remove_rule(first.n)
        with pytest.raises(Refused):
            t.admin(by=ROOT)
        assert [kept.rule.subject for kept in t.admin(by=Caller("eve", roles={"ops"})).rules()] == ["role:ops"]


def test_a_rule_that_cannot_be_read_lets_nobody_in(t: Tercet, root: ScopedMemory) -> None:
    from tercet import VaultDamaged

    root.remember("Kept.")
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute('UPDATE rules SET body = \'{"effect": "allow"}\', at = at + 1 WHERE n = 2')
    for by in (ROOT, ANN):
        with pytest.raises(VaultDamaged, match="Rule 2"):
            t.scope(by=by).list()
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("DELETE FROM rules WHERE n = 2")


def test_the_same_with_await(t: Tercet, root: ScopedMemory) -> None:
    root.remember("Soup.")
    root.remember("Pin 4417.", tags=["hidden"])

    async def run() -> tuple[int, int, list[str]]:
        twin = AsyncTercet(t)
        ann = twin.scope(by=ANN)
        admin = twin.admin(by=ROOT)
        made = await admin.create_key("ann", rights={"read"}, roles={"reader"})
        keyed = twin.scope(by=await twin.caller(made.text))
        names = [kept.rule.subject for kept in await admin.rules()]
        return (await ann.list()).total, (await keyed.recall("pin")).total, names

    total, counted, names = asyncio.run(run())
    assert (total, counted) == (1, 1)
    assert names == [rule.subject for rule in RULES]


def test_statistics_are_for_administrators(t: Tercet, root: ScopedMemory) -> None:
    t.admin(tenant="other", by=Caller("eve")).add_rule(Rule("allow", "eve", {"administer"}))
    root.remember("Soup.")
    assert set(t.stats(by=ROOT)["tenants"]) == {"default"}
    assert set(t.stats(by=Caller("eve"))["tenants"]) == {"other"}
    for call in (lambda: t.stats(by=ANN), t.stats, t.doctor, lambda: t.backup("nowhere")):
        with pytest.raises(Refused):
            call()
    with t.vault.tenant("other").maintaining() as connection:
        connection.execute("DELETE FROM rules")


def test_all_clear_sees_grants(tmp_path: Path) -> None:
    """Doctor knows which lines of the index grants have, and makes them again."""
    with Tercet.open(tmp_path, embedder=None) as t:
        t.scope().remember(MemCube(Text("x"), governance=Governance(access=frozenset({Grant("bob", "read")}))))
        all_clear(t)
        with t.vault.tenant("default").maintaining() as connection:
            connection.execute("DELETE FROM attributes")
        assert [one.what for one in t.doctor(repair=True)["default"]] == ["attributes"]
        all_clear(t)


def test_grants_of_an_older_file_are_found() -> None:
    """The step that brought the index of grants fills it from the headers that are there."""
    connection = apsw.Connection(":memory:")
    connection.execute(f"{STEPS[1]}; CREATE TABLE migrations (step INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO migrations VALUES (1)")
    connection.execute(
        "INSERT INTO owners (user) VALUES ('a'); INSERT INTO scopes (owner, agent, session) VALUES (1, '', '')"
    )
    connection.execute("INSERT INTO cubes (id, scope, kind, type, state, version, observed, words, marks) "
                       "VALUES (x'00', 1, 'text', 'fact', 'generated', 1, 0, 1, 0)")  # fmt: skip
    header = '{"access":[["bob","read",null],["日本","read","a b"]]}'
    connection.execute("INSERT INTO versions VALUES (1, 1, 1, 0, NULL, 'x', ?, x'00', x'00')", (header,))
    migrate(connection)
    kept = {value for (value,) in connection.execute("SELECT value FROM attributes WHERE key = 'access'")}
    assert kept == {grant_value("bob", "read", None), grant_value("日本", "read", "a b")}
    connection.close()
