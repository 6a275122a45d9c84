"""Write an ONNX model without the `onnx` package: the few protobuf messages a graph needs, and nothing else.

Field numbers are those of onnx.proto3. A message is built as bytes from the leaves up, since protobuf prefixes each
with its length.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Attribute = int | float | str | Sequence[int]

OPSET = 17
CONTRIB = "com.microsoft"  # operators that only ONNX Runtime has: fused attention, fused norms, integer products
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers travel as their two's complement in ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _bytes(tag: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(tag << 3 | 2) + _varint(len(raw)) + raw


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case int():
            body = _number(3, value) + _number(20, 2)
        case float():
            body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
        case str():
            body = _bytes(4, value) + _number(20, 3)
        case _:
            body = b"".join(_number(8, item) for item in value) + _number(20, 7)
    return _bytes(1, name) + body


def _tensor(name: str, array: Array) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return dims + _number(2, _TYPES[array.dtype.name]) + _bytes(8, name) + _bytes(9, little.tobytes())


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    sizes = (_number(1, size) if isinstance(size, int) else _bytes(2, size) for size in shape)
    dims = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _TYPES[dtype]) + _bytes(2, dims)))


@dataclass
class Graph:
    """A graph under construction. `add` and `constant` return the name of what they made, to be passed on."""

    name: str
    nodes: list[bytes] = field(default_factory=list)
    constants: dict[str, bytes] = field(default_factory=dict)
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in `shape` names a size that is known at run time only."""
        self.inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare that the value called `name` leaves the graph."""
        self.outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, array: Array) -> str:
        """Store a weight, named once; a second array of the same name is refused."""
        if name in self.constants:
            raise ValueError(f"The graph already has a constant {name!r}.")
        self.constants[name] = _tensor(name, array)
        return name

    def add(self, kind: str, inputs: Sequence[str], out: str, *, contrib: bool = False, **attributes: Attribute) -> str:
        """Append one operator with one output. An empty input name leaves an optional input out."""
        body = [_bytes(1, name) for name in inputs] + [_bytes(2, out), _bytes(3, out), _bytes(4, kind)]
        body += [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
        if contrib:
            body.append(_bytes(7, CONTRIB))
        self.nodes.append(b"".join(body))
        return out

    def model(self) -> bytes:
        """The whole model, ready to be written to a file or handed to `onnxruntime.InferenceSession`."""
        graph = b"".join(_bytes(1, node) for node in self.nodes) + _bytes(2, self.name)
        graph += b"".join(_bytes(5, constant) for constant in self.constants.values())
        graph += b"".join(_bytes(11, value) for value in self.inputs)
        graph += b"".join(_bytes(12, value) for value in self.outputs)
        opsets = _bytes(8, _bytes(1, "") + _number(2, OPSET)) + _bytes(8, _bytes(1, CONTRIB) + _number(2, 1))
        return _number(1, 8) + _bytes(2, "tercet") + opsets + _bytes(7, graph)
