"""Adapters in int8 and NF4: bounds on the error, exact levels, exact bytes."""

from __future__ import annotations

import pytest
import torch

from tercet.errors import InvalidRequest, VaultDamaged
from tercet.parametric.quant.blocks import CODECS, NF4, Int8, NormalFloat4


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", [(8, 576), (1536, 8), (3, 5), (7,), (1, 1)])
def test_a_tensor_comes_back_in_its_shape_and_near(name: str, shape: tuple[int, ...]) -> None:
    codec, values = CODECS[name], some(*shape)
    back = codec.decode(codec.encode(values), shape)
    assert back.shape == values.shape
    assert back.dtype == torch.float32
    assert float((back - values).norm() / values.norm()) < {"int8": 0.01, "nf4": 0.13}[name]
    assert torch.equal(codec.decode(codec.encode(values.clone()), shape), back)


def test_int8_is_within_half_a_step() -> None:
    values = some(16, 100)
    parts = Int8().encode(values)
    step = parts["scale"].float()[:, None]
    assert ((Int8().decode(parts, (16, 100)) - values).abs() <= step * 0.51).all()


def test_nf4_keeps_its_levels_zero_and_the_ends() -> None:
    values = torch.tensor(NF4).repeat(4) * 2
    assert torch.equal(NormalFloat4().decode(NormalFloat4().encode(values), (64,)), values)
    assert list(NF4) == sorted(NF4)
    assert len(NF4) == 16


def test_bytes_are_what_they_should_be() -> None:
    values = some(64, 128)
    coded = {name: codec.encode(values).values() for name, codec in CODECS.items()}
    size = {name: sum(part.numel() * part.element_size() for part in parts) for name, parts in coded.items()}
    assert size == {"int8": 64 * 128 + 2 * 64, "nf4": 64 * 128 // 2 + 2 * 128}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", [(8, 576), (1536, 8), (3, 5), (7,), (1, 1)])
def test_what_a_tensor_becomes_is_known_from_its_shape(name: str, shape: tuple[int, ...]) -> None:
    words = {torch.int8: "I8", torch.uint8: "U8", torch.float16: "F16"}
    found = {end: (words[part.dtype], list(part.shape)) for end, part in CODECS[name].encode(some(*shape)).items()}
    assert CODECS[name].parts(shape) == found


def test_zeros_stay_zeros() -> None:
    for codec in CODECS.values():
        assert not codec.decode(codec.encode(torch.zeros(4, 70)), (4, 70)).any()


@pytest.mark.parametrize("name", CODECS)
def test_what_cannot_be_kept_or_read_is_refused(name: str) -> None:
    codec = CODECS[name]
    with pytest.raises(InvalidRequest, match="finite"):
        codec.encode(torch.tensor([[1.0, torch.inf]]))
    parts = codec.encode(some(4, 64))
    with pytest.raises(VaultDamaged):
        codec.decode(parts, (5, 64))
    with pytest.raises(VaultDamaged):
        codec.decode({"q": parts["q"]}, (4, 64))
    if name == "nf4":
        with pytest.raises(VaultDamaged):
            codec.decode(parts | {"q": parts["q"][:-1]}, (4, 64))
