"""The file of a cache: whole, or refused."""

from __future__ import annotations

import json
import pickle
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.activation import pack
from tercet.activation.precision import PRECISIONS, Int4
from tercet.cube import ModelIdentity
from tercet.engine.cache import Entry, EntryKind, KVCache
from tercet.errors import InvalidRequest, VaultDamaged

MODEL = ModelIdentity("m", "r", "w", "t", "c", "x", "float32")


def made(rows: int = 70, *, width: int = 16) -> KVCache:
    """A hybrid model's cache: attention, a window, a convolution and a recurrence."""
    torch.manual_seed(rows)
    entries = (
        Entry(0, EntryKind.KV, {"k": torch.randn(2, rows, width), "v": torch.randn(2, rows, width)}),
        Entry(1, EntryKind.WINDOW_KV, {"k": torch.randn(2, 9, width), "v": torch.randn(2, 9, width)}, rows - 9),
        Entry(2, EntryKind.CONV_STATE, {"state": torch.randn(8, 3)}),
        Entry(2, EntryKind.SSM_STATE, {"state": torch.randn(4, 5, 6)}),
    )
    return KVCache(MODEL, tuple(range(100, 100 + rows)), entries)


def written(cache: KVCache, precision: str = "fp32") -> bytearray:
    out = bytearray()
    pack.write(cache, precision, out.extend)
    return out


def again(data: bytearray) -> KVCache:
    return pack.read(data, most=512).cache(MODEL, torch.float32)


@pytest.mark.parametrize("rows", [9, 64, 69, 133])
@pytest.mark.parametrize(("precision", "worst"), [("fp32", 0.0), ("bf16", 0.004), ("int8", 0.009), ("int4", 0.12)])
def test_comes_back(precision: str, worst: float, rows: int) -> None:
    cache = made(rows)
    found = again(written(cache, precision))
    assert (found.tokens, found.model) == (cache.tokens, cache.model)
    for old, new in zip(cache.entries, found.entries, strict=True):
        assert (old.layer, old.kind, old.first) == (new.layer, new.kind, new.first)
        for name, tensor in old.tensors.items():
            # What is no attention is never coarsened.
            bound = worst if old.kind in {EntryKind.KV, EntryKind.WINDOW_KV} else 0.0
            assert float((tensor - new.tensors[name]).norm() / tensor.norm()) <= bound


def test_rows_left_out_come_back() -> None:
    entry = made().entries[0]
    rows = torch.tensor([[0, 3, 5], [1, 2, -1]], dtype=torch.int32)
    kept = Entry(0, EntryKind.KV, {name: one[:, :3] for name, one in entry.tensors.items()}, rows=rows)
    found = again(written(KVCache(MODEL, tuple(range(70)), (kept,))))
    assert torch.equal(found.entries[0].rows, rows)
    assert found.compressed


def test_fewer_bits_are_fewer_bytes() -> None:
    sizes = [len(written(made(400, width=64), name)) for name in ("fp32", "bf16", "int8", "int4")]
    assert all(small < 0.7 * large for large, small in pairwise(sizes))


def test_a_channel_far_out_does_not_spoil_the_others() -> None:
    """The sheet's check: with one channel at +20, keys in 4 bits by channel lose less than by token."""
    torch.manual_seed(0)
    keys = torch.randn(2, 256, 64)
    keys[..., 7] += 20
    how = Int4(sinks=0)
    got, _ = how.unpack(how.pack(keys, keys), torch.float32)
    _, by_token = how.unpack(how.pack(keys, keys), torch.float32)
    others = [place for place in range(64) if place != 7]
    assert (got - keys)[..., others].norm() < 0.3 * (by_token - keys)[..., others].norm()


def test_the_sheets_nibbles() -> None:
    values = torch.tensor([[[-1.0, 0.0, 1.0, 2.0]]])
    held = Int4(sinks=0).pack(values, values)
    assert held["v"].flatten().tolist() == [0x50, 0xFA]


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    from safetensors import safe_open

    (tmp_path / "x").write_bytes(written(made()))
    with safe_open(tmp_path / "x", "pt") as file:
        assert torch.equal(file.get_tensor("layer.0.kv.k"), made().entries[0].tensors["k"])
        assert file.get_tensor("positions").tolist() == list(range(70))


@pytest.mark.parametrize("precision", [*PRECISIONS])
def test_any_flipped_bit_is_found(precision: str) -> None:
    data, chance = written(made(), precision), random.Random(precision)  # noqa: S311  # the same bits in every run
    places = [*range(64), *chance.sample(range(len(data)), 150), len(data) - 1]
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << chance.randrange(8)
        with pytest.raises(VaultDamaged):
            pack.read(broken, most=512)


@given(st.integers(0, 30_000))
def test_any_cut_is_found(cut: int) -> None:
    data = written(made())
    with pytest.raises(VaultDamaged):
        pack.read(data[: min(cut, len(data) - 1)], most=512)


@given(st.binary(max_size=200))
def test_what_is_no_cache_is_refused(data: bytes) -> None:
    with pytest.raises(VaultDamaged):
        pack.read(bytearray(data), most=512)


class Bomb:
    """Would tell if it was unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


def test_pickled_content_is_refused() -> None:
    with pytest.raises(VaultDamaged):
        pack.read(bytearray(pickle.dumps(Bomb())), most=512)


def tampered(change: Any) -> bytearray:  # noqa: ANN401  # a change of the header
    """A file whose header was rewritten with care: all else fits, the checksums too."""
    data = written(made())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)
    body = data[8 + length : -4 * (-(-(len(data) - 4) // pack.CHECK_EVERY))]
    out = bytearray()
    stream = pack._Checked(out.extend)
    stream.write(memoryview(len(text).to_bytes(8, "little") + text + bytes(body)))
    return out + b"".join(one.to_bytes(4, "little") for one in stream.end())


def claim(name: str, **fields: object) -> Any:  # noqa: ANN401
    return lambda header: header[name].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        claim("tokens", shape=[10**12]),
        claim("tokens", shape=[10**12], data_offsets=[0, 4 * 10**12]),
        claim("layer.0.kv.k", shape=[2, -1, 16]),
        claim("layer.0.kv.k", shape=[2, 70, 16.0]),
        claim("layer.0.kv.k", dtype="object"),
        claim("layer.0.kv.k", data_offsets=[64, 64]),
        claim("__metadata__", format="tercet kv 99"),
        claim("__metadata__", precision="fp2"),
        claim("__metadata__", entries='[[0, "kv", 5, false]]'),
        claim("__metadata__", entries='[["../x", "kv", 0, false]]'),
        claim("__metadata__", entries="[" * 100_000),
        lambda header: header.pop("tokens"),
    ],
)
def test_a_header_that_lies_is_refused(change: Any) -> None:  # noqa: ANN401
    assert again(tampered(lambda _: None)).tokens == made().tokens  # the tampering itself is sound
    with pytest.raises(VaultDamaged):
        pack.read(tampered(change), most=512)


def test_more_tokens_than_the_model_takes_are_refused() -> None:
    with pytest.raises(VaultDamaged, match="takes 64"):
        pack.read(written(made()), most=64)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fp32, bf16, int8, int4"):
        written(made(), "int2")
    with pytest.raises(InvalidRequest, match="odd width"):
        written(made(width=15), "int4")
