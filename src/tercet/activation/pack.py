"""A KV cache as one safetensors file: written as a stream, read as a map, checked before anything is believed.

    u64 header length · header (JSON) · tensors, row-major, one behind the other · "checks"

Tensors are named `layer.{i}.{kind}.{part}`, then "tokens" and "positions" (int32). The last tensor, "checks", has the
CRC-32 of every MiB before it, the header included: any flipped bit and any cut is found when the file is loaded, at
some 3 GB/s; the SHA-256 that names the file is compared by `doctor`. The header's metadata say how to read the rest.
"""

from __future__ import annotations

import json
import math
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.activation.precision import PRECISIONS
from tercet.engine.cache import ATTENTION, Entry, EntryKind, KVCache
from tercet.errors import InvalidRequest, VaultDamaged

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.cube import ModelIdentity

FORMAT = "tercet kv 1"
CHECK_EVERY = 1 << 20
MOST_HEADER = 16 << 20
TYPES: Mapping[str, tuple[str, int]] = {
    "F32": ("float32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I32": ("int32", 4),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
}
Write = Callable[[memoryview], None]
Buffer = bytes | bytearray | mmap.mmap


@dataclass(frozen=True, slots=True)
class Packed:
    """A cache whose tensors are views of a buffer, as they were packed; `size` is the buffer's, in bytes."""

    precision: str
    tokens: tuple[int, ...]
    parts: tuple[tuple[Entry, Mapping[str, Tensor]], ...]
    size: int

    def cache(self, model: ModelIdentity, kind: Any) -> KVCache:  # noqa: ANN401  # torch.dtype
        """Unpacked, in a dtype. What needs no unpacking stays a view: nobody writes into it."""
        how = PRECISIONS[self.precision]
        made = []
        for entry, held in self.parts:
            tensors = held
            if entry.kind in ATTENTION:
                keys, values = how.unpack(held, kind)
                tensors = {"k": keys, "v": values}
            made.append(Entry(entry.layer, entry.kind, tensors, entry.first, entry.rows))
        return KVCache(model, self.tokens, tuple(made))


def write(cache: KVCache, precision: str, out: Write) -> None:
    """Write a cache, layer by layer. Raises InvalidRequest for an unknown precision, or one that cannot hold it."""
    import torch

    if precision not in PRECISIONS:
        raise InvalidRequest(f"A precision is one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if precision == "int4" and any(one.tensors["k"].shape[2] % 2 for one in cache.entries if "k" in one.tensors):
        raise InvalidRequest("Heads of an odd width cannot be kept in int4; use int8.")
    how = PRECISIONS[precision]
    tokens = torch.tensor(cache.tokens, dtype=torch.int32)
    tail = {"tokens": tokens, "positions": torch.arange(len(cache.tokens), dtype=torch.int32)}

    def parts(entry: Entry) -> Iterator[tuple[str, Tensor]]:
        held: Mapping[str, Tensor] = entry.tensors
        if entry.kind in ATTENTION:
            keys, values = entry.tensors["k"], entry.tensors["v"]
            held = how.pack(keys, values)
        for name, tensor in held.items():
            yield f"layer.{entry.layer}.{entry.kind}.{name}", tensor.contiguous()
        if entry.rows is not None:
            yield f"layer.{entry.layer}.{entry.kind}.rows", entry.rows.int().contiguous()

    # Shapes are known before the data only by packing; a layer at a time, so that no second copy of all is in memory.
    shapes = [(name, _type_of(one), list(one.shape)) for entry in cache.entries for name, one in parts(entry)]
    shapes += [(name, "I32", [len(cache.tokens)]) for name in tail]
    meta = {
        "format": FORMAT,
        "precision": precision,
        "entries": json.dumps([[one.layer, one.kind.value, one.first, one.rows is not None] for one in cache.entries]),
    }
    header = _header(shapes, meta)
    stream = _Checked(out)
    stream.write(memoryview(len(header).to_bytes(8, "little") + header))
    for entry in cache.entries:
        for _, tensor in parts(entry):
            stream.write(_bytes(tensor))
    for tensor in tail.values():
        stream.write(_bytes(tensor))
    out(memoryview(b"".join(one.to_bytes(4, "little") for one in stream.end())))


def mapped(path: Path) -> Buffer:
    """A file as memory that is read when it is looked at; private, so that nothing can reach the file."""
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise VaultDamaged(f"Blob {path.name[:12]} is empty.") from None


def loaded(path: Path) -> Buffer:
    """A file as memory of its own."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(path.stat().st_size)
        view, filled = memoryview(buffer), 0
        while filled < len(buffer) and (count := file.readinto(view[filled:])):
            filled += count
    if filled < len(buffer):
        raise VaultDamaged(f"Blob {path.name[:12]} was cut short while it was read.")
    return buffer


def read(buffer: Buffer, *, most: int, check: bool = True) -> Packed:
    """A packed cache from what `write` wrote.

    Parameters
    ----------
    most
        Tokens that it may have at most: those that the model takes.
    check
        Whether to compare the checksums of all blocks.

    Raises
    ------
    VaultDamaged
        If the bytes are not what was written: cut, altered, pickled, or claiming what they do not hold.
    """
    try:
        header, start = _open(buffer)
        if check:
            _check(buffer, header, start)
        meta, tensors = header["__metadata__"], _tensors(buffer, header, start)
        if meta["format"] != FORMAT or meta["precision"] not in PRECISIONS:
            raise ValueError(f"it is of the format {meta['format']!r:.40}, which this Tercet does not read")
        tokens = tensors["tokens"].tolist()
        if len(tokens) > most:
            raise ValueError(f"it claims {len(tokens):,} tokens and the model takes {most:,}")
        if tensors["positions"].tolist() != list(range(len(tokens))):
            raise ValueError("its positions do not run from 0 without a gap")
        parts = tuple(_entry(row, tensors, len(tokens)) for row in json.loads(meta["entries"]))
        return Packed(meta["precision"], tuple(tokens), parts, len(buffer))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise VaultDamaged(f"A KV cache's file is not what was written: {error}; promote the memory again.") from error


class _Checked:
    """Passes bytes on, and keeps the CRC-32 of each block."""

    def __init__(self, out: Write) -> None:
        self._out, self._sums, self._crc, self._filled = out, list[int](), 0, 0

    def write(self, data: memoryview) -> None:
        self._out(data)
        while len(data):
            part = data[: CHECK_EVERY - self._filled]
            self._crc, self._filled, data = zlib.crc32(part, self._crc), self._filled + len(part), data[len(part) :]
            if self._filled == CHECK_EVERY:
                self._sums.append(self._crc)
                self._crc = self._filled = 0

    def end(self) -> list[int]:
        return [*self._sums, *([self._crc] if self._filled else [])]


def _header(shapes: Sequence[tuple[str, str, list[int]]], meta: Mapping[str, str]) -> bytes:
    """The header of these tensors and the checks behind them, whose number depends on the header's own length."""
    blocks = 0
    while True:
        fields: dict[str, Any] = {"__metadata__": dict(meta)}
        place = 0
        for name, kind, shape in shapes:
            size = TYPES[kind][1] * math.prod(shape)
            fields[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + size]}
            place += size
        fields["checks"] = {"dtype": "U8", "shape": [4 * blocks], "data_offsets": [place, place + 4 * blocks]}
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 64 + 56)  # data begin at a multiple of 64
        wanted = -(-(8 + len(text) + place) // CHECK_EVERY)
        if wanted == blocks:
            return text
        blocks = wanted


def _open(buffer: Buffer) -> tuple[dict[str, Any], int]:
    if len(buffer) < 8:
        raise ValueError("it is cut short")
    length = int.from_bytes(buffer[:8], "little")
    if not 2 <= length <= min(MOST_HEADER, len(buffer) - 8):
        raise ValueError("it does not begin as safetensors do")
    header = json.loads(buffer[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no table")  # noqa: TRY004  # bytes that are wrong, not a wrong argument
    return header, 8 + length


def _check(buffer: Buffer, header: Mapping[str, Any], start: int) -> None:
    first, last = header["checks"]["data_offsets"]
    if not all(isinstance(one, int) for one in (first, last)) or start + last != len(buffer) or first < 0:
        raise ValueError("it has another length than it says")
    with memoryview(buffer) as view:
        blocks = range(0, start + first, CHECK_EVERY)
        if last - first != 4 * len(blocks):
            raise ValueError("it has another number of checksums than of blocks")
        for place, begin in enumerate(blocks):
            wanted = int.from_bytes(view[start + first + 4 * place : start + first + 4 * place + 4], "little")
            if zlib.crc32(view[begin : min(begin + CHECK_EVERY, start + first)]) != wanted:
                raise ValueError(f"the checksum of block {place} does not fit: its bytes were altered")


def _tensors(buffer: Buffer, header: Mapping[str, Any], start: int) -> dict[str, Tensor]:
    """Views of all tensors; offsets must follow each other without a gap, and fit the shapes."""
    import torch

    made, place = dict[str, Any](), 0
    for name, told in header.items():
        if name == "__metadata__":
            continue
        kind, size = TYPES[told["dtype"]]
        shape, (begin, end) = told["shape"], told["data_offsets"]
        if any(type(one) is not int or one < 0 for one in (*shape, begin, end)):
            raise ValueError(f"{name} has an odd shape")
        if begin != place or end - begin != size * math.prod(shape) or start + end > len(buffer):
            raise ValueError(f"{name} does not lie where it should")
        place = end
        dtype = getattr(torch, kind)
        if end == begin:
            made[name] = torch.empty(shape, dtype=dtype)
        elif (start + begin) % size:
            made[name] = torch.frombuffer(bytearray(buffer[start + begin : start + end]), dtype=dtype).view(shape)
        else:
            flat = torch.frombuffer(buffer, dtype=dtype, count=(end - begin) // size, offset=start + begin)
            made[name] = flat.view(shape)
    if start + place != len(buffer):
        raise ValueError("there is something behind its end")
    return made


def _entry(row: Sequence[Any], tensors: Mapping[str, Tensor], count: int) -> tuple[Entry, Mapping[str, Tensor]]:
    layer, kind, first, sparse = row
    lead = f"layer.{layer}.{kind}."
    held = {name.removeprefix(lead): one for name, one in tensors.items() if name.startswith(lead)}
    rows = held.pop("rows") if sparse else None
    kind = EntryKind(kind)
    if type(layer) is not int or type(first) is not int or not held:
        raise ValueError(f"layer {layer!r:.20} lacks its tensors")
    if kind in ATTENTION:
        there = held["k"].shape[1] + (held["k.sink"].shape[1] if "k.sink" in held else 0)
        if rows is None and first + there != count:
            raise ValueError(f"layer {layer} has {there} rows from {first} on, for {count} tokens")
        if rows is not None and (int(rows.max()) >= count or rows.shape[-1] != there):
            raise ValueError(f"layer {layer} names rows that are not there")
    return Entry(layer, kind, {}, first, rows), held


def _type_of(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return next(name for name, (one, _) in TYPES.items() if one == kind)


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())
