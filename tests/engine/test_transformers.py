"""A run over kept rows gives what a fresh prefill gives, in every family's shape."""

from __future__ import annotations

import pytest
import torch

from tercet.engine.base import differences
from tercet.engine.cache import EntryKind
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest
from tercet.testing.tiny import FAMILIES, tiny_engine

PROMPT = tuple(range(7, 67))


@pytest.fixture(scope="module", params=[*FAMILIES])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return tiny_engine(request.param)


def reference(engine: TransformersEngine, tokens: tuple[int, ...]) -> torch.Tensor:
    """What transformers itself says, with its own attention, masks and no cache."""
    engine.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            return engine.model(torch.tensor([tokens])).logits[0].float()
    finally:
        engine.model.set_attn_implementation("tercet")


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


def test_a_prefill_is_that_of_transformers(engine: TransformersEngine) -> None:
    close(engine.run().extend(PROMPT, every=True), reference(engine, PROMPT))


@pytest.mark.parametrize("cut", [1, 23, 24, 40, 59])
def test_going_on_from_a_cache_equals_a_fresh_prefill(engine: TransformersEngine, cut: int) -> None:
    cache = engine.prefill(PROMPT[:cut])
    close(engine.run(cache, room=80).extend(PROMPT[cut:], every=True), reference(engine, PROMPT)[cut:])


def test_token_by_token_equals_at_once(engine: TransformersEngine) -> None:
    run = engine.run(engine.prefill(PROMPT[:30]), room=2)  # less room than is taken: the buffers grow
    got = torch.stack([run.extend([token]) for token in PROMPT[30:]])
    close(got, reference(engine, PROMPT)[30:])


def test_the_stored_cache_is_never_changed(engine: TransformersEngine) -> None:
    cache = engine.prefill(PROMPT[:40])
    before = [entry.tensors["k"].clone() for entry in cache.entries]
    for _ in range(2):
        run = engine.run(cache, room=40)
        run.extend(PROMPT[40:])
        if cache.divisible:
            run.extend([3], again=[5, 9])
    assert all(torch.equal(old, entry.tensors["k"]) for old, entry in zip(before, cache.entries, strict=True))


def test_all_rows_computed_anew_equal_a_fresh_prefill(engine: TransformersEngine) -> None:
    short = PROMPT[:20]  # within the window, so that every layer has every row
    wrong = engine.prefill(tuple(reversed(short)))
    run = engine.run(type(wrong)(wrong.model, short, wrong.entries), room=60)
    close(run.extend(PROMPT[20:], again=range(20), every=True), reference(engine, PROMPT)[20:])


def test_a_window_keeps_what_later_tokens_can_see() -> None:
    cache = tiny_engine("gemma").prefill(PROMPT)
    assert [(entry.kind, entry.tensors["k"].shape[1], entry.first) for entry in cache.entries][1:3] == [
        (EntryKind.WINDOW_KV, 23, 37),
        (EntryKind.KV, 60, 0),
    ]
    with pytest.raises(InvalidRequest, match="cannot be cut"):
        cache.prefix(50)


def test_a_cut_cache_is_that_of_the_shorter_prompt(engine: TransformersEngine) -> None:
    cut = engine.prefill(PROMPT[:22]).prefix(9)
    fresh = engine.prefill(PROMPT[:9])
    for left, right in zip(cut.entries, fresh.entries, strict=True):
        close(left.tensors["k"], right.tensors["k"])
        close(left.tensors["v"], right.tensors["v"])


def test_rotated_keys_are_those_of_the_new_place(engine: TransformersEngine) -> None:
    """Layer 0 has seen nothing but its own token: moved keys equal fresh ones, and values are the same."""
    alone, moved = engine.prefill(PROMPT[10:20]), engine.prefill(PROMPT[:20])
    keys = engine.rotated(alone.entries[0].tensors["k"], 0, 10)
    close(keys, moved.entries[0].tensors["k"][:, 10:])
    close(alone.entries[0].tensors["v"], moved.entries[0].tensors["v"][:, 10:])
    close(engine.rotated(keys, 0, -10), alone.entries[0].tensors["k"])


def test_two_rotations_are_one() -> None:
    """The sheet's check: d = 4, theta = 10^4, rope([1, 0, 0, 1], 2) in the half-split pairing."""
    engine = tiny_engine("llama", head_dim=4, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    x = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    want = torch.tensor([[[-0.41615, -0.02000, 0.90930, 0.99980]]])
    torch.testing.assert_close(engine.rotated(x, 0, 2), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(engine.rotated(engine.rotated(x, 0, 5), 0, -3), want, atol=1e-5, rtol=0)


def test_another_models_cache_is_refused_with_what_differs() -> None:
    one, other = tiny_engine("llama"), tiny_engine("llama", seed=1)
    with pytest.raises(InvalidRequest, match="weights: ") as caught:
        other.run(one.prefill(PROMPT))
    assert "tokenizer:" not in str(caught.value)
    rope = tiny_engine("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e3})
    assert differences(one.identity, rope.identity).startswith("rope: ")
    assert "dtype: bfloat16 is not float32" in differences(one.identity, tiny_engine(dtype="bfloat16").identity)


def test_what_the_model_does_not_take_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidRequest, match="more than tiny"):
        engine.prefill([5] * 513)
    with pytest.raises(InvalidRequest, match="Token ids"):
        engine.prefill([261])
    run = engine.run(engine.prefill(PROMPT[:20]))
    for wrong in ([3, 3], [4, 2], [20], [-1]):
        with pytest.raises(InvalidRequest, match="must rise"):
            run.extend([1], again=wrong)
    with pytest.raises(InvalidRequest, match="no token"):
        run.extend([])


def test_generates_text_in_whole_characters(engine: TransformersEngine) -> None:
    pieces = list(engine.generate([{"role": "user", "content": "Grüße"}], max_tokens=12))
    text = "".join(pieces)
    run = engine.run()
    scores, made = run.extend(engine.encode(engine.render([{"role": "user", "content": "Grüße"}]))), list[int]()
    while len(made) < 12 and (token := int(scores.argmax())) not in engine.ends:
        made.append(token)
        scores = run.extend([token])
    assert text == engine.decode(made)


def test_a_rope_that_depends_on_the_length_cannot_compose() -> None:
    engine = tiny_engine("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    assert "compose" not in engine.abilities


def test_what_compressors_ask_for_is_seen_and_nothing_stays_attached(engine: TransformersEngine) -> None:
    cache, queries = engine.observe(PROMPT)
    assert cache.tokens == PROMPT
    assert set(queries) == {layer for layer, window in enumerate(engine.windows) if window is None}
    assert all(asked.shape == (4, 60, 16) for asked in queries.values())
    again = engine.prefill(PROMPT)
    for one, other in zip(cache.entries, again.entries, strict=True):
        close(one.tensors["k"], other.tensors["k"])
