"""A turn over KV memories says what a turn over their texts says, and what it saved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.activation.kept import files
from tests.tiny_vault import Open

from tercet.schedule.promotion import Candidate, MeasuredCost, Pace
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import FAMILIES, tiny_engine


def test_one_cache_gives_the_answer_of_its_text(alice: ScopedMemory) -> None:
    text = alice.remember("Pears are ripe.")
    plain = alice.chat("Which pears?", max_tokens=12)
    cube = alice.promote(text, precision="fp32")
    over = alice.chat("Which pears?", max_tokens=12)
    assert (over.text, over.tokens, over.memories) == (plain.text, plain.tokens, (text.id,))
    assert (plain.kv, plain.reused, over.kv) == ((), 0, (cube.id,))
    assert over.reused == cube.payload.tokens  # type: ignore[union-attr]
    assert over.first > 0


@pytest.mark.parametrize("family", [*FAMILIES])
def test_joined_caches_give_the_answer_of_their_texts_at_100(opened: Open, family: str) -> None:
    engine = tiny_engine(family, sliding_window=400) if family == "gemma" else tiny_engine(family)
    with opened(engines={"x": engine}) as t:
        alice = t.scope(user="alice")
        texts = [alice.remember(f"{fruit} are ripe.") for fruit in ("Pears", "Plums", "Figs")]
        plain = [alice.promote(text, precision="fp32") for text in texts]
        over = alice.chat("Which are ripe?", max_tokens=10, share=100)
        assert set(over.kv) == {cube.id for cube in plain}
        assert set(over.memories) == {text.id for text in texts}
        run = engine.run()
        order = {cube.id: t.kv.use(t.vault.tenant("default"), alice.scope, cube.id, engine) for cube in plain}
        first, *later = (order[id] for id in over.kv)
        from tercet.converse import frame

        _, behind = frame(engine, [{"role": "user", "content": "Which are ripe?"}])
        prompt = [*first.cache.tokens, *(token for one in later for token in one.cache.tokens[one.manifest.head :])]
        scores = run.extend((*prompt, *engine.encode(behind)))
        assert over.text == "".join(run.pieces(scores, max_tokens=10))


def test_what_is_recalled_and_has_no_cache_is_read_as_text(alice: ScopedMemory) -> None:
    pears, plums = alice.remember("Pears are ripe."), alice.remember("Plums are ripe.")
    cube = alice.promote(pears)
    reply = alice.chat("Which are ripe?", max_tokens=3)
    assert (reply.kv, set(reply.memories)) == ((cube.id,), {pears.id, plums.id})
    assert reply.tokens is not None
    assert reply.tokens > reply.reused


def test_too_many_memories_leave_the_least_out(alice: ScopedMemory) -> None:
    for n in range(8):
        alice.remember(f"Pears of sort {n} are ripe, " + "very " * 12)
    reply = alice.chat("Which pears?", max_tokens=8)
    assert reply.left_out
    assert reply.tokens is not None
    assert reply.tokens <= 512 - 8


def test_remembers_the_turn_if_asked(alice: ScopedMemory) -> None:
    reply = alice.chat("Which pears?", max_tokens=6)
    assert len(alice.list()) == 0
    assert reply.text.strip(), "another seed: this random model says nothing"
    alice.chat("Which pears?", max_tokens=6, remember=True)
    assert next(cube.text for cube in alice.list()) == "Which pears?"
    assert len(alice.list()) == 2


PACE = Pace(prefill=1e-3, load=5e-5, bytes=23_000)


def test_the_policy_weighs_what_a_cache_saves_against_what_it_costs() -> None:
    policy = MeasuredCost(half_life=2.0, horizon=4.0, price=2.0, effort=1.2)
    hot, cold = Candidate("hot", 1000, 2.0), Candidate("cold", 1000, 0.4)
    assert policy.uses(2.0) == pytest.approx(2.77, abs=0.01)
    assert policy.worth(1000, 2.0, PACE, kept=False) == pytest.approx(2.773 * 0.95 - 0.023 * 8 - 1.2, abs=1e-3)
    assert policy.decide([cold, hot], PACE) == (["hot"], [])
    held = [
        Candidate("hot", 1000, 2.0, kept=True),
        Candidate("warm", 1000, 0.4, kept=True),
        Candidate("x", 9, 0.01, kept=True),
    ]
    assert policy.decide(held, PACE) == ([], ["x"])  # the warm one would not be made, and is not dropped


def test_what_is_read_often_is_promoted_and_what_went_cold_demoted(opened: Open) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with opened(clock=lambda: now[0]) as t:
        alice = t.scope(user="alice")
        hot, cold = alice.remember("Pears are ripe."), alice.remember("Zebras graze.")
        assert t.tend() == {"default": {"promoted": [], "demoted": []}}
        for _ in range(40):
            alice.recall("pears", limit=1)
        now[0] += timedelta(hours=2)
        t.work(until_idle=True)  # the worker tends where there is one engine
        [cube] = [cube for cube in alice.list() if cube.kind == "activation"]
        assert [link.id for link in cube.behavioural.derivations] == [hot.id]
        assert t.tend() == {"default": {"promoted": [], "demoted": []}}
        numbers = t.stats()
        assert numbers["tenants"]["default"]["kv"]["caches"] == 1
        assert numbers["tenants"]["default"]["kv"]["text_uses"] == 40
        assert numbers["kv_paces"]
        now[0] += timedelta(days=60)
        assert t.tend()["default"]["demoted"] == [cube.id]
        assert {cube.id for cube in alice.list()} == {hot.id, cold.id}
        alice.promote(hot)
        alice.revise(hot.id, "Pears are gone.")
        assert len(t.tend()["default"]["demoted"]) == 1


def test_a_second_cache_is_kept_for_joining_and_is_used_where_much_stands_before(opened: Open) -> None:
    engine = tiny_engine("llama", max_position_embeddings=8192)
    with opened(engines={"x": engine}) as t:
        alice, tenant = t.scope(user="alice"), t.vault.tenant("default")
        texts = [alice.remember(f"{fruit} are ripe. {'They hang in the garden. ' * 40}") for fruit in ("Pears", "Figs")]
        cubes = [alice.promote(text, precision="fp32") for text in texts]
        for cube in cubes:
            exact, apart = (t.kv.use(tenant, alice.scope, cube.id, engine, joined=joined) for joined in (False, True))
            assert exact.cache.tokens == apart.cache.tokens
            last = [used.cache.entries[-1].tensors["v"][:, -1] for used in (exact, apart)]
            assert float((last[0] - last[1]).abs().max()) > 1e-3
        with_it = alice.chat("Which are ripe?", max_tokens=6, share=0)
        assert set(with_it.kv) == {cube.id for cube in cubes}
        assert alice.promote(texts[0], precision="fp32", joinable=False).id != cubes[0].id
        exact_again = alice.chat("Which are ripe?", max_tokens=6, share=100)
        assert exact_again.tokens == with_it.tokens
        alice.forget([text.id for text in texts])
        assert files(t) == []
