"""Rules: what each part of one means, and that the condition SQLite judges is the decision that Python makes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import Caller, InvalidRequest, MemCube, Scope, Tercet
from tercet.cube import Descriptive, Governance, Grant, Sensitivity, Text
from tercet.govern.policy import Rules
from tercet.govern.rules import Rule, from_json, to_json
from tercet.scope import RIGHTS
from tercet.vault.reader import Reader

NOON = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
ANN = Caller("ann", purpose="care", roles={"nurse"}, network="10.1.2.3")
READ = frozenset({"read"})
USERS = ("ann", "bob", None)
TAGS = ("home", "work", "日本")
SUBJECTS = ("ann", "bob", "role:nurse", "role:cook", "*", "key:k1")

subsets = st.frozensets(st.sampled_from(TAGS), max_size=2)
maybe_user = st.sampled_from(USERS)
levels = st.sampled_from([None, *Sensitivity])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    return Rule(
        draw(st.sampled_from(["allow", "allow", "deny"])),
        draw(st.sampled_from(SUBJECTS)),
        draw(st.sampled_from([READ, frozenset({"read", "write"}), frozenset({"write"})])),
        tenant=draw(st.sampled_from(["default", "default", None, "other"])),
        user=draw(maybe_user),
        session=draw(st.sampled_from([None, None, "s"])),
        own=draw(st.booleans()) and draw(st.booleans()),
        types=draw(st.sampled_from([frozenset[str](), frozenset({"fact"})])),
        tags=draw(subsets),
        min_sensitivity=draw(levels),
        max_sensitivity=draw(levels),
        purposes=draw(st.sampled_from([frozenset[str](), frozenset({"care"}), frozenset({"sales"})])),
        hours=draw(st.sampled_from([None, (9, 17), (17, 9)])),
        networks=draw(st.sampled_from([frozenset[str](), frozenset({"10.0.0.0/8"}), frozenset({"192.0.2.0/24"})])),
    )


GRANTS = ((), (Grant("ann", "read"),), (Grant("ann", "read", "sales"), Grant("bob", "read")),
          (Grant("role:nurse", "read", "care"), Grant("ann", "write")))  # fmt: skip


def drafts() -> list[MemCube]:
    """One memory for each combination of what rules look at."""
    tags = ((), ("home",), ("work", "日本"))
    facts = itertools.product(USERS, (None, "s"), ("fact", "event"), tags, Sensitivity, GRANTS)
    return [
        MemCube(
            Text(f"Soup {n}."),
            Descriptive(type=type, tags=tagged),
            Governance(Scope(user=user, session=session), access=frozenset(granted), sensitivity=level),
        )
        for n, (user, session, type, tagged, level, granted) in enumerate(facts)
    ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, list[MemCube]]]:
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=None) as t:
        kept = t.scope().remember_many(drafts())
        with t.vault.tenant("default").reading() as reader:
            yield reader, kept


callers = st.sampled_from([ANN, Caller("bob"), Caller("bob", purpose="sales", network="192.0.2.9"),
                           Caller("carol", key="k1~2"), Caller("dave", roles={"cook"})])  # fmt: skip


def naive(policy: list[Rule], caller: Caller, cube: MemCube, at: datetime) -> bool:
    """The manual's sentence, word for word: an independent reading of it, slow and plain."""

    def matches(rule: Rule) -> bool:
        unknown = rule.effect == "deny"
        subjects = {"*", caller.name, *(f"role:{role}" for role in caller.roles)}
        if caller.key:
            subjects.add("key:" + caller.key.split("~")[0])
        start, end = rule.hours or (0, 24)
        in_hours = start <= at.hour < end if start < end else not end <= at.hour < start
        network = {"10.0.0.0/8": "10.", "192.0.2.0/24": "192.0.2."}
        near = any((caller.network or "").startswith(network[one]) for one in rule.networks)
        return all(
            [
                rule.subject in subjects,
                "read" in rule.rights,
                rule.tenant in (None, "default"),
                rule.user is None or cube.scope.user == rule.user,
                rule.session is None or cube.scope.session == rule.session,
                not rule.own or cube.scope.user == caller.name,
                not rule.types or cube.descriptive.type in rule.types,
                not rule.tags or set(cube.tags) & rule.tags,
                rule.min_sensitivity is None or cube.governance.sensitivity >= rule.min_sensitivity,
                rule.max_sensitivity is None or cube.governance.sensitivity <= rule.max_sensitivity,
                not rule.purposes or (unknown if caller.purpose is None else caller.purpose in rule.purposes),
                not rule.networks or (unknown if caller.network is None else near),
                in_hours,
            ]
        )

    matching = [rule.effect for rule in policy if matches(rule)]
    names = {caller.name, *(f"role:{role}" for role in caller.roles)}
    granted = any(
        grant.subject in names and grant.right == "read" and grant.context in (None, caller.purpose)
        for grant in cube.governance.access
    )
    return "deny" not in matching and ("allow" in matching or granted)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    policy=st.lists(rules(), max_size=6),
    caller=callers,
    scope=st.builds(Scope, user=maybe_user, session=st.sampled_from([None, None, "s"])),
)
def test_sqlite_python_and_the_manual_agree(
    filled: tuple[Reader, list[MemCube]], policy: list[Rule], caller: Caller, scope: Scope
) -> None:
    reader, kept = filled
    allowed = Rules(policy).allowed(caller, "read", scope, at=NOON, granted=True)
    wanted = {cube.id for cube in kept if naive(policy, caller, cube, NOON) and scope.covers(cube.scope)}
    assert {cube.id for cube in reader.cubes(reader.under(allowed).numbers(scope))} == wanted
    assert {cube.id for cube in kept if allowed.covers(cube) and scope.covers(cube.scope)} == wanted


def sees(policy: list[Rule], caller: Caller, cube: MemCube, at: datetime = NOON) -> bool:
    return Rules(policy).allowed(caller, "read", Scope(), at=at).covers(cube)


ALL = Rule("allow", "*", READ)
CUBE = MemCube(Text("Soup."), Descriptive(id="0190f7d2-7a60-7000-8000-000000000001", tags=("home",)),
               Governance(Scope(user="ann", agent="cook", session="s"), sensitivity=Sensitivity.SECRET))  # fmt: skip


def test_no_rule_no_right() -> None:
    assert not sees([], ANN, CUBE)
    assert not sees([Rule("allow", "*", {"write"})], ANN, CUBE)
    assert sees([ALL], ANN, CUBE)


def test_a_deny_wins_in_any_order() -> None:
    deny = Rule("deny", "role:nurse", READ)
    assert not sees([ALL, deny], ANN, CUBE)
    assert not sees([deny, ALL], ANN, CUBE)
    assert sees([deny, ALL], Caller("ann"), CUBE)


@pytest.mark.parametrize(
    ("caller", "subject", "met"),
    [
        (Caller("ann"), "ann", True),
        (Caller("ann"), "Ann", False),
        (Caller("role:nurse"), "role:nurse", False),  # a name is not a role, however it is spelt
        (Caller("x", roles={"nurse"}), "nurse", False),
        (Caller("key:k1"), "key:k1", False),
        (Caller("x", key="k1"), "key:k1", True),
        (Caller("x", key="k1~7"), "key:k1", True),
        (Caller("x", key="k12"), "key:k1", False),
        (Caller("*"), "*", True),
    ],
)
def test_subjects(*, caller: Caller, subject: str, met: bool) -> None:
    assert sees([Rule("allow", subject, READ)], caller, CUBE) is met


@pytest.mark.parametrize(
    ("part", "met"),
    [
        ({"user": "ann"}, True), ({"user": "bob"}, False), ({"agent": "cook"}, True), ({"agent": "x"}, False),
        ({"session": "s"}, True), ({"session": "t"}, False), ({"own": True}, True), ({"tenant": None}, True),
        ({"tenant": "other"}, False), ({"kinds": {"text"}}, True), ({"kinds": {"activation"}}, False),
        ({"types": {"fact"}}, True), ({"types": {"event"}}, False), ({"tags": {"home", "x"}}, True),
        ({"tags": {"x"}}, False), ({"cubes": {CUBE.id.upper()}}, True),
        ({"cubes": {"0190f7d2-7a60-7000-8000-000000000002"}}, False), ({"min_sensitivity": 3}, True),
        ({"max_sensitivity": Sensitivity.PRIVATE}, False), ({"purposes": {"care"}}, True),
        ({"purposes": {"sales"}}, False), ({"hours": (9, 13)}, True), ({"hours": (13, 9)}, False),
        ({"hours": (13, 13 - 1)}, False), ({"hours": (12, 9)}, True), ({"networks": {"10.1.0.0/16"}}, True),
        ({"networks": {"10.2.0.0/16", "fd00::/8"}}, False), ({"until": NOON + timedelta(seconds=1)}, True),
        ({"until": NOON}, False),
    ],
    ids=repr,
)  # fmt: skip
def test_each_part_narrows(*, part: dict[str, Any], met: bool) -> None:
    assert sees([Rule("allow", "ann", READ, **part)], ANN, CUBE) is met
    assert sees([ALL, Rule("deny", "ann", READ, **part)], ANN, CUBE) is not met


@pytest.mark.parametrize("part", [{"purposes": {"care"}}, {"networks": {"10.0.0.0/8"}}], ids=repr)
def test_what_is_not_known_meets_a_deny_and_no_allow(part: dict[str, Any]) -> None:
    assert not sees([Rule("allow", "*", READ, **part)], Caller("ann"), CUBE)
    assert not sees([ALL, Rule("deny", "*", READ, **part)], Caller("ann"), CUBE)


@given(rule=rules())
def test_a_rule_is_kept_as_json(rule: Rule) -> None:
    kept = json.loads(json.dumps(to_json(rule)))
    again = from_json(kept, "default")
    assert to_json(again) == kept
    assert again.tenant == "default"


def test_every_field_is_kept() -> None:
    rule = Rule("deny", "role:x", {*RIGHTS}, user="u", agent="a", session="s", own=True, kinds={"text"}, types={"t"},
                tags={"g"}, cubes={CUBE.id}, min_sensitivity=Sensitivity.PUBLIC, max_sensitivity=Sensitivity.SECRET,
                purposes={"p"}, hours=(22, 6), networks={"10.0.0.0/8"}, until=NOON)  # fmt: skip
    assert from_json(json.loads(json.dumps(to_json(rule))), "default") == rule


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rule("maybe", "ann", READ),  # type: ignore[arg-type]
        lambda: Rule("allow", "", READ),
        lambda: Rule("allow", "role:", READ),
        lambda: Rule("allow", "ann", set()),
        lambda: Rule("allow", "ann", {"fly"}),
        lambda: Rule("allow", "ann", "read"),  # type: ignore[arg-type]
        lambda: Rule("allow", "ann", READ, tags="home"),  # type: ignore[arg-type]
        lambda: Rule("allow", "ann", READ, tags={""}),
        lambda: Rule("allow", "ann", READ, kinds={"txt"}),
        lambda: Rule("allow", "ann", READ, cubes={"17"}),
        lambda: Rule("allow", "ann", READ, max_sensitivity=9),  # type: ignore[arg-type]
        lambda: Rule("allow", "ann", READ, hours=(9, 9)),
        lambda: Rule("allow", "ann", READ, hours=(0, 24)),
        lambda: Rule("allow", "ann", READ, hours=(9, 25)),
        lambda: Rule("allow", "ann", READ, networks={"10.0.0.1/8"}),
        lambda: Rule("allow", "ann", READ, until=datetime(2026, 1, 1)),  # noqa: DTZ001  # no zone is the point
        lambda: Rule("allow", "ann", READ, user="a\n"),
        lambda: Caller("ann", network="here"),
        lambda: Caller("ann", roles="nurse"),  # type: ignore[arg-type]
        lambda: Caller("ann", rights={"fly"}),
        lambda: Caller("ann", rights=set()),
    ],
)
def test_what_is_no_rule_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_a_rule_that_opens_and_closes_does_so(tmp_path: Path) -> None:
    """The same handle answers by the hour: what was worked out in the morning does not hold at night."""
    now = [NOON]
    policy = Rules([Rule("allow", "ann", {"read", "write"}, hours=(9, 17))])
    with Tercet.open(tmp_path, embedder=None, access=policy, clock=lambda: now[0]) as t:
        memory = t.scope(by=ANN)
        memory.remember("The boiler code is 4417.")
        assert len(memory.recall("boiler")) == 1
        now[0] += timedelta(hours=6)
        for call in (memory.list, lambda: memory.recall("boiler"), lambda: memory.remember("x")):
            with pytest.raises(PermissionError):
                call()
        now[0] += timedelta(hours=18)
        assert memory.list().total == 1
