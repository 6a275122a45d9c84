"""Low-rank deltas written as PEFT's folder, which PEFT itself and servers of adapters read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.engine.lora import LowRank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def write(modules: Mapping[str, LowRank], folder: Path, *, base: str) -> None:
    """Write PEFT's two files. Raises InvalidRequest if modules have different ranks."""
    put(*form(modules, base=base), folder)


def form(modules: Mapping[str, LowRank], *, base: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the two files hold, tensors and configuration; scales go into B: one alpha serves modules of any scale.

    Raises InvalidRequest if modules have different ranks, which this form has no simple word for.
    """
    ranks = {int(pair.a.shape[0]) for pair in modules.values()}
    if len(ranks) != 1:
        raise InvalidRequest(f"PEFT's simple form has one rank for all modules, not {sorted(ranks)}.")
    [rank] = ranks
    tensors = {}
    for module, pair in modules.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = pair.a.contiguous()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = (pair.b * pair.scale).contiguous()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": rank, "use_rslora": False, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(modules), "fan_in_fan_out": False,
    }  # fmt: skip
    return tensors, config


def put(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Write the two files."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
