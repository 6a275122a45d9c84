"""Adapters to one adapter: what it is made from, who may, what withdraws it, and what the gate and the rank refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.parametric.conftest import OPEN, PASSED, QUICK, Open
from tests.parametric.test_promote import FACTS, _quarantine, files, payload, promoted

from tercet import Caller, Tercet
from tercet.cube import Kind, MemCube, Source, Text, derive
from tercet.engine.transformers import TransformersEngine
from tercet.errors import GateFailed, InvalidRequest, MissingMemory, Refused, TercetError
from tercet.govern.rules import Rule
from tercet.parametric import merging
from tercet.parametric import promote as promotion
from tercet.parametric.adapter import Adapter
from tercet.parametric.memory import REPORT, fetch, read_blob
from tercet.parametric.merge import MERGES
from tercet.parametric.promote import Teaching
from tercet.parametric.signature import MANIFEST, SIGNATURE
from tercet.relearning import _recorded
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine
from tercet.vault import jobs

pytestmark = pytest.mark.usefixtures("short_gate")
TEXTS = (*FACTS, "Mara plays the cello.")
MASTER = bytes(range(32))


@pytest.fixture
def ids(alice: ScopedMemory) -> list[str]:
    return [cube.id for cube in alice.remember_many(TEXTS)]


@pytest.fixture
def two(alice: ScopedMemory, ids: list[str]) -> list[str]:
    """Adapters of the first text and of the second."""
    return [promoted(alice, [id]).id for id in ids[:2]]


def merged(alice: ScopedMemory, adapters: list[str], how: Teaching = PASSED, **options: Any) -> MemCube:  # noqa: ANN401
    return alice.merge(adapters, teaching=how, **options)


def report(t: Tercet, cube: MemCube) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_blob(t.vault.tenant("default"), payload(cube), REPORT))
    return found


def held(t: Tercet, alice: ScopedMemory, tiny: TransformersEngine, id: str) -> Adapter:
    return fetch(t.vault.tenant("default"), payload(alice.get(id)), tiny)


def test_a_merged_adapter_is_made_from_all_texts_judged_signed_and_used(
    t: Tercet, alice: ScopedMemory, ids: list[str], two: list[str], tiny: TransformersEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked, judge = list[str](), promotion.judge  # type: ignore[attr-defined]

    def noted(engine: Any, key: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401  # as judge
        asked.append(key)
        return judge(engine, key, *rest, **more)

    monkeypatch.setattr(promotion, "judge", noted)
    made = merged(alice, two, weights=[1, -0.5])
    assert (made.kind, made.descriptive.type, payload(made).rank) == (Kind.PARAMETERS, "adapter", 4)
    assert (made.behavioural.method, made.descriptive.origin.source) == ("merge", Source.TUNING)
    assert [(link.id, link.version) for link in made.behavioural.derivations] == [(id, 1) for id in ids[:2]]
    told, tenant = report(t, made), t.vault.tenant("default")
    assert told["recipe"] == {
        "merge": "concatenate", "weights": [1.0, -0.5], "options": {}, "parts": [f"{id}@1" for id in two],
    }  # fmt: skip
    assert (told["record"]["ranks"], told["record"]["rank"], told["passed"]) == ([2, 2], 4, True)
    assert {row["source"][0] for row in told["rows"]} == set(ids[:2])
    manifest = json.loads(read_blob(tenant, payload(made), MANIFEST))
    assert (asked, manifest["rank"]) == ([manifest["content"]], 4)
    assert SIGNATURE in {one.role for one in payload(made).blobs}
    assert alice.chat("Where?", max_tokens=1, adapters=[made.id]).adapters == (made.id,)
    assert t.lora.use(tenant, alice.scope, made.id, tiny) == asked[0]
    first, second = (held(t, alice, tiny, id).modules for id in two)
    for name, pair in held(t, alice, tiny, made.id).modules.items():
        exact = first[name].delta() - 0.5 * second[name].delta()
        assert torch.allclose(pair.delta(), exact, atol=1e-2 * float(exact.abs().max()))
    assert t.doctor() == {"default": []}


def test_the_same_merge_twice_is_the_same_cube_and_another_is_not(alice: ScopedMemory, two: list[str]) -> None:
    made = merged(alice, two)
    assert merged(alice, [f"{two[0]}@1", two[1]], weights=(1, 1.0)).id == made.id
    others = [
        merged(alice, two, weights=[1, 2]), merged(alice, two[::-1]), merged(alice, two, method="linear"),
        merged(alice, two, replace(PASSED, stored="int8")), merged(alice, two, method="svd", rank=2),
        merged(alice, two, method="svd", rank=3),
    ]  # fmt: skip
    assert len({made.id, *(one.id for one in others)}) == 7


@pytest.mark.parametrize(
    ("method", "options", "rank", "told"),
    [
        ("svd", {"rank": 3}, 3, {"rank": 3}),
        ("linear", {}, 2, {}),
        ("ties", {"rank": 2, "density": 1}, 2, {"rank": 2, "density": 1.0, "scale": 1.0}),
        ("dare", {"rank": 2, "seed": 5}, 2, {"rank": 2, "density": 0.5, "seed": 5}),
    ],
)
def test_every_other_method_says_what_it_took(
    t: Tercet, alice: ScopedMemory, two: list[str], tiny: TransformersEngine, method: str, options: dict[str, Any],
    rank: int, told: dict[str, float],
) -> None:  # fmt: skip
    made = merged(alice, two, method=method, **options)
    assert (payload(made).rank, report(t, made)["recipe"]["options"]) == (rank, told)
    parts = [(held(t, alice, tiny, id), 1.0) for id in two]
    wanted = MERGES[method](parts, **told)
    for name, pair in held(t, alice, tiny, made.id).modules.items():
        exact = wanted.modules[name].delta()
        assert torch.allclose(pair.delta(), exact, atol=2e-2 * float(exact.abs().max()))


def test_adapters_of_different_layers_and_ranks_are_merged_as_they_are(
    t: Tercet, alice: ScopedMemory, ids: list[str], tiny: TransformersEngine
) -> None:
    high, wide = (replace(PASSED, recipe=replace(QUICK, rank=rank, top=top)) for rank, top in ((2, 0.3), (3, 1.0)))
    parts = [promoted(alice, ids[:1], high).id, promoted(alice, ids[1:2], wide).id]
    made = merged(alice, parts)
    upper, whole = (held(t, alice, tiny, id).modules for id in parts)
    assert upper.keys() < whole.keys()
    for name, pair in held(t, alice, tiny, made.id).modules.items():
        exact = whole[name].delta() + (upper[name].delta() if name in upper else 0)
        assert pair.rank == 5
        assert torch.allclose(pair.delta(), exact, atol=1e-2 * float(exact.abs().max()))


def test_merged_ones_and_versions_are_merged_too(
    t: Tercet, alice: ScopedMemory, ids: list[str], two: list[str]
) -> None:
    second = promoted(alice, ids[2:], replace(PASSED, replaces=two[0]))
    both = merged(alice, [f"{two[0]}@1", two[0]])
    assert report(t, both)["recipe"]["parts"] == [f"{two[0]}@1", f"{two[0]}@2"]
    all_three = merged(alice, [both.id, two[1]])
    assert {link.id for link in all_three.behavioural.derivations} == set(ids)
    next_one = merged(alice, [two[1], second.id], replace(PASSED, replaces=two[1]))
    assert (next_one.id, next_one.version, payload(next_one).rank) == (two[1], 2, 4)
    assert alice.chat("?", max_tokens=1, adapters=[f"{two[1]}@1"]).adapters == (f"{two[1]}@1",)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ("A", InvalidRequest, "list of two"),
        ([], InvalidRequest, "list of two"),
        (["A"], InvalidRequest, "list of two"),
        (["A", 7], InvalidRequest, "list of two"),
        (["A", "A"], InvalidRequest, "once"),
        (["A", "B", "A@1"], InvalidRequest, "once"),
        (["A", "TEXT"], InvalidRequest, "not an adapter"),
        (["A", "B@9"], InvalidRequest, "no version 9"),
        (["A", "B@new"], InvalidRequest, "ID@VERSION"),
        (["A", "nobody"], MissingMemory, "nobody"),
    ],
)
def test_ids_that_cannot_be_merged(
    alice: ScopedMemory,
    ids: list[str],
    two: list[str],
    asked: Any,  # noqa: ANN401
    error: type[TercetError],
    words: str,
) -> None:
    names = {"A": two[0], "B": two[1], "TEXT": ids[0]}

    def named(one: Any) -> Any:  # noqa: ANN401  # whatever a caller gives
        return "@".join([names.get(part, part) for part in one.split("@")]) if isinstance(one, str) else one

    with pytest.raises(error, match=words):
        merged(alice, [named(one) for one in asked] if isinstance(asked, list) else named(asked))
    assert alice.list(where={"kind": "parameters"}).total == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "average"}, "known are concatenate"), ({"method": "svd"}, "needs a rank"),
        ({"rank": 2}, "takes no option"), ({"method": "svd", "rank": 2, "density": 0.5}, "takes rank, and not density"),
        ({"method": "svd", "rank": 0}, "whole number from 1 to 256"), ({"method": "svd", "rank": 257}, "1 to 256"),
        ({"method": "svd", "rank": 2.0}, "whole number"), ({"method": "svd", "rank": True}, "whole number"),
        ({"method": "dare", "rank": 2, "seed": -1}, "whole number from 0"),
        ({"method": "dare", "rank": 2, "density": "most"}, "is a number"),
        ({"method": "dare", "rank": 2, "density": float("nan")}, "is a number"),
        ({"method": "ties", "rank": 2, "density": 1.5}, "at most 1"),
        ({"weights": [1]}, "has a weight"), ({"weights": [1, 0]}, "not 0"),
        ({"weights": [1, float("inf")]}, "has a weight"), ({"weights": [1, "2"]}, "has a weight"),
    ],
)  # fmt: skip
def test_ways_that_are_none(alice: ScopedMemory, two: list[str], given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        merged(alice, two, **given)
    assert alice.list(where={"kind": "parameters"}).total == 2


def test_too_high_a_rank_names_the_way_out(
    t: Tercet, alice: ScopedMemory, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MAX_RANK", 3)
    before = files(t)
    with pytest.raises(InvalidRequest, match=r"rank 4, and 3 is the most; the method 'svd'"):
        merged(alice, two)
    assert files(t) == before
    assert payload(merged(alice, two, method="svd", rank=3)).rank == 3


def test_another_models_adapter_is_not_merged(opened: Open, tiny: TransformersEngine) -> None:
    with opened(engines={"tiny": tiny, "other": tiny_engine(seed=3)}) as t:
        alice = t.scope(user="alice")
        one, two = alice.remember_many(FACTS)
        parts = [
            alice.promote(text, to="parameters", engine=name, teaching=PASSED).id
            for text, name in ((one, "tiny"), (two, "other"))
        ]
        for engine in ("tiny", "other"):
            with pytest.raises(InvalidRequest, match="another model"):
                merged(alice, parts, engine=engine)


@pytest.mark.parametrize("change", ["revise", "quarantine", "archive a text", "archive it", "forget"])
def test_an_adapter_that_does_not_stand_is_not_merged(
    t: Tercet, alice: ScopedMemory, ids: list[str], two: list[str], change: str
) -> None:
    if change == "revise":
        alice.revise(ids[0], "Mara works as a tailor.")
    elif change == "quarantine":
        _quarantine(alice, ids[0])
    elif change == "forget":
        alice.forget(ids[0])
    else:
        alice.archive(ids[0] if change == "archive a text" else two[0])
    left = files(t)
    with pytest.raises(MissingMemory if change == "forget" else Refused):
        merged(alice, two)
    assert files(t) == left


def test_an_unsigned_part_is_not_merged_where_adapters_are_signed(opened: Open) -> None:
    with opened(signing_key=None) as t:
        alice = t.scope(user="alice")
        two = [promoted(alice, [cube.id]).id for cube in alice.remember_many(FACTS)]
    with opened() as t, pytest.raises(Refused, match="not signed"):
        merged(t.scope(user="alice"), two)


def test_erasing_a_text_retires_it_and_what_is_left_is_taught_again(
    t: Tercet, alice: ScopedMemory, ids: list[str], two: list[str]
) -> None:
    made = merged(alice, [*two, promoted(alice, ids[2:]).id])
    alice.chat("?", max_tokens=1, adapters=[made.id])
    receipt = alice.forget(ids[0])
    assert (set(receipt.derived), receipt.rebuilding) == ({two[0], made.id}, 1)
    with pytest.raises(MissingMemory):
        alice.chat("?", max_tokens=1, adapters=[made.id])
    t.teaching = PASSED
    t.work(until_idle=True)
    found = [[link.id for link in cube.behavioural.derivations] for cube in alice.list(where={"kind": "parameters"})]
    assert sorted(found) == sorted([[ids[1]], [ids[2]], ids[1:]])
    with t.vault.tenant("default").reading() as reader:
        assert "rebuild" not in jobs.counts(reader.connection)


def test_a_text_that_was_made_by_a_method_of_that_name_is_no_adapter(t: Tercet, alice: ScopedMemory) -> None:
    one, two = alice.remember_many(FACTS)
    alice.remember(derive([one, two], Text("Mara is a smith in Graz."), method="merge"))
    assert alice.forget(one.id).rebuilding == 1
    t.teaching = PASSED
    t.work(until_idle=True)
    assert alice.list(where={"kind": "parameters"}).total == 0


def test_dropping_a_part_leaves_it_and_dropping_it_leaves_the_parts(
    t: Tercet, alice: ScopedMemory, two: list[str]
) -> None:
    made = merged(alice, two)
    assert alice.demote(two[0]).erased == (two[0],)
    assert alice.chat("?", max_tokens=1, adapters=[made.id]).adapters == (made.id,)
    assert alice.externalise(made.id) == []
    left = files(t)
    assert alice.demote(made.id).erased == (made.id,)
    assert alice.chat("?", max_tokens=1, adapters=[two[1]]).adapters == (two[1],)
    assert len(files(t)) < len(left)


def test_who_may_not_read_a_text_or_not_promote_it_merges_nothing(t: Tercet) -> None:
    root = Caller("root")
    for rule in (
        Rule("allow", "root", frozenset({"administer", "read", "write", "promote"})),
        Rule("allow", "ann", frozenset({"read", "promote"})),
        Rule("deny", "ann", frozenset({"read"}), tags=frozenset({"hidden"})),
        Rule("allow", "bob", frozenset({"read", "promote"})),
        Rule("deny", "bob", frozenset({"promote"}), tags=frozenset({"hidden"})),
        Rule("allow", "eve", frozenset({"read"})),
        Rule("allow", "kit", frozenset({"read", "promote"})),
        Rule("deny", "kit", frozenset({"promote"}), types=frozenset({"adapter"})),
    ):
        t.admin(by=root).add_rule(rule)
    house = t.scope(by=root)
    two = [
        promoted(house, [house.remember(FACTS[0]).id]).id,
        promoted(house, [house.remember(FACTS[1], tags=["hidden"]).id]).id,
    ]
    with pytest.raises(MissingMemory):
        merged(t.scope(by=Caller("ann")), two)
    for name in ("bob", "eve", "kit"):
        with pytest.raises(Refused, match="promote"):
            merged(t.scope(by=Caller(name)), two)
    made = merged(house, two)
    with pytest.raises(MissingMemory):
        t.scope(by=Caller("ann")).chat("?", max_tokens=1, limit=0, adapters=[made.id])
    assert house.chat("?", max_tokens=1, limit=0, adapters=[made.id]).adapters == (made.id,)


def test_two_owners_adapters_are_not_mixed_and_a_branch_is_no_place_for_it(t: Tercet, two: list[str]) -> None:
    bob = t.scope(user="bob")
    his = promoted(bob, [bob.remember("Jon plays the harp.").id])
    with pytest.raises(Refused, match="different owners"):
        merged(t.scope(), [two[0], his.id])
    with pytest.raises(MissingMemory):
        merged(bob, [two[0], his.id])
    t.branch("b")
    with pytest.raises(InvalidRequest, match="main line"):
        merged(t.scope(user="alice", branch="b"), two)


def test_what_does_not_pass_and_what_is_interrupted_leaves_nothing(
    t: Tercet, alice: ScopedMemory, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(t)
    with pytest.raises(GateFailed, match=r"held-out wordings went from .*greater `weights`") as caught:
        merged(alice, two, Teaching(bounds=replace(OPEN, margin=0.25)))
    assert caught.value.report["recipe"]["parts"] == [f"{id}@1" for id in two]  # type: ignore[index]
    with pytest.raises(Refused, match="finite"):
        merged(alice, two, weights=[1e300, 1])

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promotion, "judge", stop)
    with pytest.raises(KeyboardInterrupt):
        merged(alice, two)
    assert files(t) == before
    assert alice.list(where={"kind": "parameters"}).total == 2


def test_what_parts_were_taught_stays_a_source_where_a_newer_text_says_otherwise(
    t: Tercet, alice: ScopedMemory
) -> None:
    old = alice.remember("Jon lives in Oslo.", at="2024-01-01T00:00:00+00:00")
    new = alice.remember("Jon lives in Bergen.", at="2025-01-01T00:00:00+00:00")
    made = merged(alice, [promoted(alice, [cube.id]).id for cube in (old, new)])
    assert {link.id for link in made.behavioural.derivations} == {old.id, new.id}
    told = report(t, made)
    [clash] = told["contradictions"]
    assert (clash["kept"]["id"], clash["left"]["id"]) == (new.id, old.id)
    assert {row["gold"] for row in told["rows"]} <= {"Bergen", "Jon"}


def test_a_merged_one_moves_to_another_model_by_its_texts(opened: Open, tiny: TransformersEngine) -> None:
    other = tiny_engine(seed=3)
    with opened(engines={"tiny": tiny, "other": other}) as t:
        alice = t.scope(user="alice")
        texts = alice.remember_many(FACTS)
        parts = [alice.promote(one, to="parameters", engine="tiny", teaching=PASSED).id for one in texts]
        made = merged(alice, parts, replace(PASSED, stored="int8"), engine="tiny")
        assert _recorded(alice, payload(made)) == Teaching(stored="int8")  # it has no recipe: the default
        t.teaching = PASSED
        plan = alice.migrate_model("tiny", "other")
        assert {one.id: one.outcome for one in plan.items} == dict.fromkeys((*parts, made.id), "moved")
        now = alice.get(made.id)
        assert (now.version, payload(now).model, now.behavioural.method) == (2, other.base, "distil")
        assert [link.id for link in now.behavioural.derivations] == [text.id for text in texts]


@pytest.mark.parametrize("sealing", [MASTER, None])
def test_a_restart_reads_a_merged_and_coded_one_back(opened: Open, sealing: bytes | None) -> None:
    given = {} if sealing is None else {"sealing": sealing}
    with opened(**given) as t:
        alice = t.scope(user="alice")
        parts = [promoted(alice, [cube.id], replace(PASSED, stored="nf4")).id for cube in alice.remember_many(FACTS)]
        made = merged(alice, parts, replace(PASSED, stored="int8"))
        assert report(t, made)["stored"] == "int8"
    with opened(**given) as t:
        alice = t.scope(user="alice")
        assert alice.chat("?", max_tokens=1, adapters=[made.id]).adapters == (made.id,)
        assert merged(alice, parts, replace(PASSED, stored="int8")).id == made.id


@pytest.fixture(autouse=True)
def _detached(tiny: TransformersEngine) -> Iterator[None]:
    yield
    for key in tiny.adapters.attached:
        tiny.adapters.detach(key)
