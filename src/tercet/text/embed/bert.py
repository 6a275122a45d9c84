"""all-MiniLM-L6-v2 as an ONNX graph with int8 weights, made from the published safetensors file.

Weights are int8 with one scale per output channel; activations are uint8 with one scale per text (so texts of a batch do not
share one), biases, norms, attention and GELU stay float32. Word embeddings stay outside the graph: their rows are read from the
memory-mapped file, so that 47 MB need not be resident.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.text.embed.onnxfile import Graph

Tensors = dict[str, npt.NDArray[Any]]

HIDDEN, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12


def read_tensors(file: Path) -> Tensors:
    """Every tensor of a safetensors file, memory-mapped: a row is read from disk when it is looked at."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    dtypes = {"F32": "<f4", "I64": "<i8"}
    return {
        name: np.memmap(file, dtypes[entry["dtype"]], "r", 8 + size + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def build(tensors: Tensors) -> bytes:
    """The model from embedded tokens `x` (batch, tokens, 384) to `states`, the same shape, and `mean` (batch, 384)."""
    graph = Graph("all-MiniLM-L6-v2")
    x = graph.input("x", "float32", ["batch", "tokens", HIDDEN])
    x = _norm(graph, tensors, "embeddings.LayerNorm", x)
    for i in range(LAYERS):
        x = _layer(graph, tensors, f"encoder.layer.{i}", x)
    states = graph.add("Identity", [x], "states")
    mean = graph.add("ReduceMean", [x], "mean", axes=[1], keepdims=0)
    graph.output(states, "float32", ["batch", "tokens", HIDDEN])
    graph.output(mean, "float32", ["batch", HIDDEN])
    return graph.model()


def _layer(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    attention = f"{name}.attention"
    parts = [_linear(graph, tensors, f"{attention}.self.{part}", x) for part in ("query", "key", "value")]
    mixed = graph.add("MultiHeadAttention", parts, f"{attention}.mixed", contrib=True, num_heads=HEADS)
    back = _linear(graph, tensors, f"{attention}.output.dense", mixed)
    x = _norm(graph, tensors, f"{attention}.output.LayerNorm", graph.add("Add", [back, x], f"{back}.sum"))
    wide = _linear(graph, tensors, f"{name}.intermediate.dense", x)
    wide = graph.add("Gelu", [wide], f"{wide}.gelu", contrib=True)
    back = _linear(graph, tensors, f"{name}.output.dense", wide)
    return _norm(graph, tensors, f"{name}.output.LayerNorm", graph.add("Add", [back, x], f"{back}.sum"))


def _norm(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    scale = graph.constant(f"{name}.weight", tensors[f"{name}.weight"])
    shift = graph.constant(f"{name}.bias", tensors[f"{name}.bias"])
    return graph.add("LayerNormalization", [x, scale, shift], name, axis=-1, epsilon=EPSILON)


def _linear(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    weight = np.asarray(tensors[f"{name}.weight"]).T  # (in, out)
    scale = np.abs(weight).max(axis=0) / 127
    whole = np.rint(weight / scale).astype(np.int8)
    inputs = [
        x,
        graph.constant(f"{name}.weight", whole),
        graph.constant(f"{name}.scale", scale.astype(np.float32)),
        "",
        graph.constant(f"{name}.bias", tensors[f"{name}.bias"]),
    ]
    return graph.add("DynamicQuantizeMatMul", inputs, name, contrib=True)
