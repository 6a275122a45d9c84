"""Adapters as files: what fits comes back, what is broken, foreign or pickled stays outside."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tercet.errors import InvalidRequest, Refused, TercetError, VaultDamaged
from tercet.parametric.adapter import CONFIG, PREFIX, WEIGHTS, Adapter, Pair, load, save

SHAPES = {"model.layers.0.mlp.up_proj": (12, 6), "model.layers.0.mlp.down_proj": (6, 12)}


def an_adapter(rank: int = 2, seed: int = 0, scale: float = 2.0) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    return Adapter(
        {
            name: Pair(torch.randn(rank, wide, generator=draw), torch.randn(high, rank, generator=draw), scale)
            for name, (high, wide) in SHAPES.items()
        }
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    adapter = an_adapter()
    save(adapter, tmp_path, base="a-base")
    again = load(tmp_path, SHAPES)
    for name, pair in adapter.modules.items():
        assert torch.allclose(again.modules[name].delta(), pair.delta(), atol=1e-6)
    assert again.rank == 2


def test_the_scale_is_pefts(tmp_path: Path) -> None:
    save(an_adapter(scale=1), tmp_path, base="a-base")
    plain = load(tmp_path, SHAPES).modules["model.layers.0.mlp.up_proj"].delta()
    change(tmp_path, lambda config: config | {"lora_alpha": 6})
    assert torch.allclose(load(tmp_path, SHAPES).modules["model.layers.0.mlp.up_proj"].delta(), 3 * plain)
    change(tmp_path, lambda config: config | {"use_rslora": True})
    wanted = 6 / 2**0.5 * plain
    assert torch.allclose(load(tmp_path, SHAPES).modules["model.layers.0.mlp.up_proj"].delta(), wanted, atol=1e-5)


def change(folder: Path, how: Callable[[dict[str, object]], object]) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(how(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"r": 10**6}, Refused), ({"r": 0}, Refused), ({"r": "2"}, Refused), ({"lora_alpha": -1}, Refused),
        ({"lora_alpha": float("inf")}, Refused), ({"lora_alpha": 1e9}, Refused), ({"peft_type": "IA3"}, Refused),
        ({"modules_to_save": ["lm_head"]}, Refused), ({"layer_replication": [[0, 2]]}, Refused),
        ({"use_dora": True}, Refused), ({"bias": "all"}, Refused), ({"auto_mapping": {"x": "y"}}, Refused),
        ({"r": 3}, InvalidRequest),
    ],
)  # fmt: skip
def test_settings_that_mean_something_else_are_refused(
    tmp_path: Path, setting: dict[str, object], error: type[TercetError]
) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    change(tmp_path, lambda config: config | setting)
    with pytest.raises(error):
        load(tmp_path, SHAPES)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(Refused, match="pickled"):
        load(tmp_path, SHAPES)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:4],
        lambda data: data[:0],
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
        lambda data: data[:8] + b"\x80\x04" + data[10:],
    ],
)
def test_a_file_that_is_not_whole_is_noticed(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    path = tmp_path / WEIGHTS
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(VaultDamaged):
        load(tmp_path, SHAPES)


@pytest.mark.parametrize(
    "table",
    [
        lambda a, _: {"data_offsets": a["data_offsets"]}, lambda a, _: a | {"dtype": ["F32"]},
        lambda a, _: a | {"data_offsets": "ab"}, lambda a, b: a | {"data_offsets": b["data_offsets"]}, lambda *_: 7,
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_its_bytes_is_noticed(
    tmp_path: Path, table: Callable[[dict[str, object], dict[str, object]], object]
) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    path = tmp_path / WEIGHTS
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    first, second = (key for key in header if key != "__metadata__" and "up_proj" in key)
    header[first] = table(header[first], header[second])
    words = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(words)) + words + data[8 + length :])
    with pytest.raises(VaultDamaged, match="does not fit"):
        load(tmp_path, SHAPES)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    adapter = an_adapter()
    adapter.modules["model.layers.0.mlp.up_proj"].a[0, 0] = torch.nan
    save(adapter, tmp_path, base="a-base")
    with pytest.raises(Refused, match="finite"):
        load(tmp_path, SHAPES)


def test_another_base_is_noticed(tmp_path: Path) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    with pytest.raises(InvalidRequest, match="no linear module"):
        load(tmp_path, {"model.layers.0.mlp.up_proj": (12, 6)})
    with pytest.raises(InvalidRequest, match="shapes"):
        load(tmp_path, SHAPES | {"model.layers.0.mlp.up_proj": (24, 6)})


@pytest.mark.parametrize("key", ["lora_A.weight", f"{PREFIX}../../x.lora_A.weight", f"{PREFIX}half.lora_A.weight"])
def test_keys_that_name_no_module_are_refused(tmp_path: Path, key: str) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    save_file({key: torch.zeros(2, 6)}, tmp_path / WEIGHTS)
    with pytest.raises(InvalidRequest):
        load(tmp_path, SHAPES)


def test_one_side_alone_and_whole_numbers_are_refused(tmp_path: Path) -> None:
    save(an_adapter(), tmp_path, base="a-base")
    name = f"{PREFIX}model.layers.0.mlp.up_proj.lora_"
    save_file({f"{name}A.weight": torch.zeros(2, 6)}, tmp_path / WEIGHTS)
    with pytest.raises(InvalidRequest, match="shapes"):
        load(tmp_path, SHAPES)
    whole = {f"{name}A.weight": torch.zeros(2, 6, dtype=torch.int8), f"{name}B.weight": torch.zeros(12, 2)}
    save_file(whole, tmp_path / WEIGHTS)
    with pytest.raises(Refused, match="float"):
        load(tmp_path, SHAPES)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=CONFIG):
        load(tmp_path, SHAPES)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(VaultDamaged):
        load(tmp_path, SHAPES)
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    with pytest.raises(InvalidRequest, match=WEIGHTS):
        load(tmp_path, SHAPES)
    with pytest.raises(InvalidRequest, match="rank"):
        save(Adapter({**an_adapter().modules, "x": Pair(torch.zeros(5, 6), torch.zeros(6, 5))}), tmp_path, base="b")
