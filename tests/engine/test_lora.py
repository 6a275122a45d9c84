"""Adapters on a loaded model: exact, several at once, a thread's own choice, and part of the identity."""

from __future__ import annotations

import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'tercet[models]'")

from tercet.engine.transformers import TransformersEngine  # noqa: E402
from tercet.errors import InvalidRequest  # noqa: E402
from tercet.parametric.adapter import Adapter, Pair  # noqa: E402
from tercet.testing.tiny import tiny_engine  # noqa: E402

PROMPT = tuple(range(7, 40))


def an_adapter(engine: TransformersEngine, seed: int = 0, rank: int = 2) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    return Adapter(
        {
            name: Pair(torch.randn(rank, wide, generator=draw), 0.1 * torch.randn(high, rank, generator=draw), 0.5)
            for name, (high, wide) in engine.adapters.shapes.items()
        }
    )


@pytest.fixture
def engine() -> TransformersEngine:
    return tiny_engine()


def scores(engine: TransformersEngine) -> Any:  # noqa: ANN401  # a tensor
    return engine.run().extend(PROMPT, every=True)


def test_an_adapter_computes_what_merged_weights_would(engine: TransformersEngine) -> None:
    one, other = an_adapter(engine), an_adapter(engine, 1, rank=3)
    keys = [engine.adapters.attach(one.modules), engine.adapters.attach(other.modules)]
    with engine.adapters.using(keys):
        found = scores(engine)
    merged = tiny_engine()
    with torch.no_grad():
        for adapter in (one, other):
            for name, pair in adapter.modules.items():
                merged.model.get_submodule(name).weight += pair.delta()
    torch.testing.assert_close(found, scores(merged), atol=1e-3, rtol=0)
    assert (found - scores(engine)).abs().max() > 0.01


def test_the_base_stays_the_same_to_the_bit(engine: TransformersEngine) -> None:
    before, base = scores(engine), engine.identity
    keys = [engine.adapters.attach(an_adapter(engine, seed).modules) for seed in (0, 1)]
    with engine.adapters.using(keys[:1]):
        first = scores(engine)
        with engine.adapters.using(keys[1:]):
            assert not torch.equal(scores(engine), first)
        assert torch.equal(scores(engine), first)
    assert torch.equal(scores(engine), before)
    engine.adapters.detach(keys[0])
    assert torch.equal(scores(engine), before)
    assert engine.identity == base == tiny_engine().identity


def test_a_thread_chooses_for_itself(engine: TransformersEngine) -> None:
    before, found = scores(engine), list[Any]()
    key = engine.adapters.attach(an_adapter(engine).modules)
    with engine.adapters.using([key]):
        other = threading.Thread(target=lambda: found.append(scores(engine)))
        other.start()
        other.join()
    assert torch.equal(found[0], before)


def test_a_run_keeps_to_the_adapters_it_began_with(engine: TransformersEngine) -> None:
    key = engine.adapters.attach(an_adapter(engine).modules)
    with engine.adapters.using([key]):
        whole, run = scores(engine), engine.run()
    torch.testing.assert_close(run.extend(PROMPT, every=True), whole)
    assert run.cache().model.adapters == (key,)


def test_a_cache_made_under_other_adapters_is_refused(engine: TransformersEngine) -> None:
    key = engine.adapters.attach(an_adapter(engine).modules)
    plain = engine.prefill(PROMPT)
    with engine.adapters.using([key]):
        made = engine.prefill(PROMPT)
        engine.run(made)
        with pytest.raises(InvalidRequest, match="adapters: "):
            engine.run(plain)
    with pytest.raises(InvalidRequest, match="adapters: "):
        engine.run(made)


def test_the_key_is_what_the_adapter_holds(engine: TransformersEngine) -> None:
    one = an_adapter(engine)
    assert engine.adapters.attach(one.modules) == engine.adapters.attach(dict(reversed(list(one.modules.items()))))
    assert engine.adapters.attach(one.modules) != engine.adapters.attach(an_adapter(engine, 1).modules)


def test_what_does_not_fit_is_refused(engine: TransformersEngine) -> None:
    [name, *_] = engine.adapters.shapes
    for modules in (
        {},
        {"lm_head": Pair(torch.ones(1, 32), torch.ones(261, 1))},
        {name: Pair(torch.ones(1, 3), torch.ones(64, 1))},
    ):
        with pytest.raises(InvalidRequest):
            engine.adapters.attach(modules)
    with pytest.raises(InvalidRequest, match="attached before"), engine.adapters.using(["nothing"]):
        pass


def test_texts_padded_behind_read_as_alone(engine: TransformersEngine) -> None:
    ids = torch.zeros(2, 20, dtype=torch.long)
    ids[0, :20], ids[1, :11] = torch.arange(20, 40), torch.arange(50, 61)
    with torch.no_grad():
        got = engine.head(engine.read(ids)).float()
    torch.testing.assert_close(got[1, :11], engine.run().extend(range(50, 61), every=True), atol=1e-4, rtol=0)
