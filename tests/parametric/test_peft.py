"""PEFT itself loads what we make, and we load what it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

peft = pytest.importorskip("peft", reason="pip install 'tercet[models]'")

import torch  # noqa: E402

from tercet.parametric.adapter import Adapter, Pair, load, save  # noqa: E402
from tercet.testing.tiny import tiny_engine  # noqa: E402

# PEFT asks transformers by a name that is to go; both are others' and neither is ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
IDS = torch.arange(5, 30)[None]


def test_peft_loads_ours(tmp_path: Path) -> None:
    engine = tiny_engine()
    draw = torch.Generator().manual_seed(0)
    ours = Adapter(
        {
            name: Pair(torch.randn(2, wide, generator=draw), 0.1 * torch.randn(high, 2, generator=draw), 0.5)
            for name, (high, wide) in engine.adapters.shapes.items()
        }
    )
    save(ours, tmp_path, base="tiny")
    with engine.adapters.using([engine.adapters.attach(ours.modules)]), torch.no_grad():
        wanted = engine.head(engine.read(IDS))
    theirs = peft.PeftModel.from_pretrained(tiny_engine().model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=IDS).logits, wanted, atol=1e-4, rtol=1e-4)


def test_we_load_pefts(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=3, lora_alpha=6, target_modules=["up_proj", "q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    theirs = peft.get_peft_model(tiny_engine().model, config)
    theirs.save_pretrained(tmp_path)
    engine = tiny_engine()
    ours = load(tmp_path, engine.adapters.shapes)
    with engine.adapters.using([engine.adapters.attach(ours.modules)]), torch.no_grad():
        found = engine.head(engine.read(IDS))
        torch.testing.assert_close(theirs.eval()(input_ids=IDS).logits, found, atol=1e-4, rtol=1e-4)
