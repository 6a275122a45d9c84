"""API keys: shown once, kept as a hash, confined, rotated, revoked; whatever is wrong with one is told in one way."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tercet import Caller, InvalidRequest, Refused, Scope, Tercet
from tercet.admin import Admin
from tercet.govern.rules import Rule
from tercet.testing import SeededEntropy
from tercet.testing.isolation import traced
from tercet.testing.processes import run
from tercet.vault.backup import restore

READ = frozenset({"read"})
HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> list[datetime]:
    return [datetime.fromisoformat("2026-05-01T12:00:00+00:00")]


@pytest.fixture
def t(tmp_path: Path, now: list[datetime]) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=None, clock=lambda: now[0]) as t:
        t.scope(user="alice").remember("The boiler code is 4417.")
        t.scope(user="bob").remember("The garden is green.")
        yield t


@pytest.fixture
def admin(t: Tercet) -> Admin:
    return t.admin()


def test_a_key_opens_its_scope_and_gives_its_rights(t: Tercet, admin: Admin) -> None:
    made = admin.create_key("ci", rights={"read", "forget"}, within=Scope(user="alice"), roles={"robot"})
    caller = t.caller(made.text, network="192.0.2.7")
    assert caller == Caller("ci", None, {"robot"}, "192.0.2.7", Scope(user="alice"), {"read", "forget"}, made.key.id)
    alice = t.scope(by=caller)
    [cube] = alice.list()
    assert alice.recall("boiler").total == 1
    bob, other = t.scope(user="bob", by=caller), t.scope(tenant="other", by=caller)
    for call in (lambda: alice.remember("x"), lambda: alice.revise(cube.id, "x"), bob.list, other.list,
                 lambda: t.admin(by=caller)):  # fmt: skip
        with pytest.raises(Refused):
            call()
    alice.forget(cube.id)
    assert t.scope().changes()[-1].by == f"ci (key {made.key.id})"


def test_256_bits_that_nothing_keeps(tmp_path: Path, t: Tercet, admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = admin.create_key("ci", rights=READ)
    found = re.fullmatch(r"tk_([A-Za-z0-9_-]+)\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})", made.text)
    assert found is not None
    assert base64.urlsafe_b64decode(found[1] + "==").startswith(b"default")
    assert len(base64.urlsafe_b64decode(found[3] + "=")) == 32
    caller = t.caller(made.text)
    t.scope(by=caller).recall("boiler")
    said = f"{made!r} {made.key!r} {caller!r} {admin.keys()!r} {t.stats()!r} {caplog.text}"
    with t.vault.tenant("default").reading() as reader:
        said += repr(list(reader.connection.execute("SELECT * FROM journal")))
        [(kept,)] = reader.connection.execute("SELECT hash FROM keys")
    assert kept == hashlib.sha256(made.text.encode()).digest()
    assert found[3] not in said
    assert found[2] in said
    t.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or found[3].encode() not in path.read_bytes()


def test_seeded_entropy_makes_no_guessable_key(tmp_path: Path) -> None:
    texts = set()
    for name in "ab":
        with Tercet.open(tmp_path / name, embedder=None, entropy=SeededEntropy(1)) as t:
            texts.add(t.admin().create_key("ci", rights=READ).text)
    assert len(texts) == 2


def test_whatever_is_wrong_is_told_alike(t: Tercet, admin: Admin, now: list[datetime]) -> None:
    good, other = admin.create_key("a", rights=READ), t.admin(tenant="other").create_key("b", rights=READ)
    expired = admin.create_key("c", rights=READ, expires=now[0] + HOUR)
    revoked = admin.create_key("d", rights=READ)
    admin.revoke_key(revoked.key.id)
    now[0] += HOUR
    head, id, tail = good.text.split(".")
    theirs = other.text.split(".")
    wrong = ["", "x", "tk_", head, f"{head}.{id}.", f"{head}.{id}.{'A' * 43}", f"{head}.{id}.{tail[:-1]}",
             f"{good.text}=", f"{good.text} ", good.text.upper(), f"{head}.{'0' * 16}.{tail}",
             f"{theirs[0]}.{id}.{tail}",
             f"{head}.{other.key.id}.{theirs[2]}", "tk_bm9ib2R5.x.y", expired.text, revoked.text]  # fmt: skip
    answers = set()
    for text in wrong:
        with pytest.raises(Refused) as caught:
            t.caller(text)
        answers.add(str(caught.value))
        assert caught.value.__cause__ is None
    assert len(answers) == 1
    with pytest.raises(Refused):
        t.caller(17)  # type: ignore[arg-type]
    assert sorted(t.admin().tenants()) == ["default", "other"]  # asking made none
    assert t.caller(good.text).name == "a"
    assert t.caller(other.text).within == Scope("other")


def test_a_wrong_and_a_revoked_key_run_the_same_statements(t: Tercet, admin: Admin) -> None:
    good, revoked = admin.create_key("a", rights=READ), admin.create_key("b", rights=READ)
    admin.revoke_key(revoked.key.id)
    told = []
    for text in (revoked.text, good.text[:-2] + "AA", good.text.replace(good.key.id, "0" * 16)):
        with traced(t, "default") as statements, pytest.raises(Refused):
            t.caller(text)
        told.append([line.split("?")[0] for line in statements])
    assert told[0]
    assert told[0] == told[1] == told[2]


def test_revoking_ends_callers_that_are_in_use(tmp_path: Path, t: Tercet, admin: Admin) -> None:
    made = admin.create_key("ci", rights={"read", "write"})
    memory = t.scope(by=t.caller(made.text))
    assert memory.list().total == 2
    program = f"""
from tercet import Tercet
with Tercet.open({str(tmp_path)!r}, embedder=None) as t:
    t.admin().revoke_key({made.key.id!r})
"""
    run(program)
    for call in (memory.list, lambda: memory.recall("boiler"), lambda: memory.remember("x"), memory.changes):
        with pytest.raises(Refused, match="opens nothing"):
            call()
    assert admin.revoke_key(made.key.id) == []


def test_a_key_that_expires_meanwhile_ends_too(t: Tercet, admin: Admin, now: list[datetime]) -> None:
    memory = t.scope(by=t.caller(admin.create_key("ci", rights=READ, expires=now[0] + HOUR).text))
    assert memory.list().total == 2
    now[0] += HOUR
    with pytest.raises(Refused):
        memory.list()


def test_rotation(t: Tercet, admin: Admin, now: list[datetime]) -> None:
    first = admin.create_key("ci", rights=READ, within=Scope(user="alice"))
    second = admin.rotate_key(first.key.id, grace=HOUR)
    assert (second.key.name, second.key.within, second.key.rights) == ("ci", Scope(user="alice"), READ)
    assert t.caller(first.text).name == t.caller(second.text).name == "ci"
    now[0] += HOUR
    with pytest.raises(Refused):
        t.caller(first.text)
    third = admin.rotate_key(first.key.id)  # by the id it always had; at once
    with pytest.raises(Refused):
        t.caller(second.text)
    assert third.key.id == f"{first.key.id}~3"
    admin.add_rule(Rule("allow", "local", {"administer"}))
    admin.add_rule(Rule("allow", f"key:{first.key.id}", READ))
    assert t.scope(by=t.caller(third.text)).list().total == 1  # a rule for the key holds through rotations
    assert [key.id for key in admin.revoke_key(first.key.id)] == [third.key.id]
    for call in (lambda: admin.rotate_key(first.key.id), lambda: admin.rotate_key("nothing"),
                 lambda: admin.revoke_key("nothing"), lambda: admin.rotate_key(third.key.id, grace=-HOUR)):  # fmt: skip
        with pytest.raises(InvalidRequest):
            call()


def test_purposes(t: Tercet, admin: Admin) -> None:
    one = admin.create_key("ci", rights=READ, purposes={"support"}).text
    two = admin.create_key("ci", rights=READ, purposes={"support", "billing"}).text
    assert t.caller(one).purpose == "support"
    assert t.caller(two, purpose="billing").purpose == "billing"
    for text, purpose in ((one, "sales"), (two, None), (two, "sales")):
        with pytest.raises(Refused, match="purpose"):
            t.caller(text, purpose=purpose)


def test_rules_bind_keys_too(t: Tercet, admin: Admin) -> None:
    """A key's rights narrow what rules give; they give nothing themselves."""
    made = admin.create_key("ci", rights={"read", "write"}, roles={"robot"})
    admin.add_rule(Rule("allow", "local", {"administer"}))
    memory = t.scope(by=t.caller(made.text))
    with pytest.raises(Refused):
        memory.list()
    admin.add_rule(Rule("allow", "role:robot", {"read", "forget"}, user="bob"))
    assert memory.list().total == 1
    with pytest.raises(Refused):
        memory.forget(where={})


def test_only_administrators_make_keys(t: Tercet, admin: Admin) -> None:
    admin.add_rule(Rule("allow", "local", {"administer"}))
    with pytest.raises(Refused):
        t.admin(by=Caller("eve"))
    keyed = t.caller(admin.create_key("ops", rights={"administer", "read"}).text)
    with pytest.raises(Refused):  # the rules do not know ops
        t.admin(by=keyed)
    admin.add_rule(Rule("allow", "ops", {"administer"}))
    assert len(t.admin(by=keyed).keys()) == 1
    narrow = t.caller(admin.create_key("ops", rights={"administer"}, within=Scope(user="alice")).text)
    with pytest.raises(Refused):
        t.admin(by=narrow)


@pytest.mark.parametrize(
    "make",
    [
        lambda admin, _: admin.create_key("", rights=READ),
        lambda admin, _: admin.create_key("a", rights=set()),
        lambda admin, _: admin.create_key("a", rights={"fly"}),
        lambda admin, _: admin.create_key("a", rights="read"),
        lambda admin, _: admin.create_key("a", rights=READ, within=Scope("other")),
        lambda admin, _: admin.create_key("a", rights=READ, roles="x"),
        lambda admin, _: admin.create_key("a", rights=READ, purposes="x"),
        lambda admin, now: admin.create_key("a", rights=READ, expires=now),
        lambda admin, now: admin.create_key("a", rights=READ, expires=now.replace(tzinfo=None)),
    ],
)
def test_what_is_no_key_is_refused(
    make: Callable[[Admin, datetime], object], admin: Admin, now: list[datetime]
) -> None:
    with pytest.raises(InvalidRequest):
        make(admin, now[0])
    assert admin.keys() == []


def test_a_restore_brings_no_revoked_key_and_no_old_rule_back(tmp_path: Path) -> None:
    vault, copy = tmp_path / "vault", tmp_path / "copy"
    with Tercet.open(vault, embedder=None) as t:
        t.scope().remember("Kept.")
        made = t.admin().create_key("ci", rights=READ)
        assert t.backup(copy)
        t.admin().revoke_key(made.key.id)
        t.admin().add_rule(Rule("allow", "local", {"administer"}))
    restore(copy, vault)
    with Tercet.open(vault, embedder=None) as t:
        with pytest.raises(Refused):
            t.caller(made.text)
        with pytest.raises(Refused):
            t.scope().list()
        assert t.doctor() == {"default": []}
