"""all-MiniLM-L6-v2 as an ONNX graph, made from the published safetensors file: with int8 weights, or in float32.

Int8: a weight has one scale per output channel; an activation is uint8 within a fixed range, so that a text's vector
cannot depend on its batch. A few channels are many times larger than the rest and would waste that range. Around
attention, each channel is therefore divided by a scale of its own, which the next weight takes back (Xiao et al. 2022,
"SmoothQuant", arXiv:2211.10438); around GELU, the largest are multiplied apart, in float32 (Dettmers et al. 2022,
"LLM.int8()", arXiv:2208.07339). What rounding a weight does to the average activation is taken back in the bias (Nagel
et al. 2019, arXiv:1906.04721). `calibrate.py` measures all of these. Biases, norms, attention and GELU stay float32,
and the integer sums are exact: where a processor's products of uint8 and int8 overflow (x86 without VNNI, see
`overflows`), the weights are shifted to uint8, whose products do not, and the sums are the same.

Word embeddings stay outside the graph: their rows are read from the mapped file, so that 47 MB need not be resident.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.text.embed.onnxfile import Graph

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

HIDDEN, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12
RANGES = Path(__file__).with_name("minilm_ranges.safetensors")
SITES = ("states", "mixed", "middle", "wide")  # what is rounded in each layer: the inputs of its matrix products


def read_tensors(file: Path) -> Tensors:
    """Every tensor of a safetensors file, memory-mapped: a row is read from disk when it is looked at."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    dtypes = {"F32": "<f4", "I64": "<i8"}
    body = np.asarray(np.memmap(file, np.uint8, "r", 8 + size))
    tensors = {}
    for name, entry in header.items():
        tensors[name] = body[slice(*entry["data_offsets"])].view(dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def overflows() -> bool:
    """Whether products of uint8 and int8 overflow here: two of them are then added in 16 bits."""
    import onnxruntime

    graph = Graph("overflow")
    x = graph.input("x", "uint8", [1, 64])
    out = graph.add("MatMulInteger", [x, graph.constant("weight", np.full((64, 16), 127, np.int8))], "sum")
    graph.output(out, "int32", [1, 16])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
    [found] = session.run(["sum"], {"x": np.full((1, 64), 255, np.uint8)})
    return bool((np.asarray(found) != 255 * 127 * 64).any())


def build(tensors: Tensors, ranges: Tensors | None, *, shifted: bool = False) -> bytes:
    """The model from embedded tokens `x` (batch, tokens, 384) to their last hidden states, `states`, the same shape.

    `ranges` holds, for layer i and each of SITES, either `i.site.scale` (channels,) or `i.site.few`, the numbers of the
    channels to be kept apart; and, of the scaled activations, `i.site.range` (2,), low and high, and `i.site.mean`
    (channels,). Without `ranges` the graph is float32 and also puts out every site, as `i.site`: the reference, and
    what calibration sees. `shifted` weights are uint8, with 128 for zero.
    """
    bert = _Bert(tensors, ranges or {}, shifted)
    x = bert.graph.input("x", "float32", ["batch", "tokens", HIDDEN])
    x = bert.norm("embeddings.LayerNorm", x, "0.states")
    for layer in range(LAYERS):
        x = bert.layer(layer, x)
    bert.graph.output(x, "float32", ["batch", "tokens", HIDDEN])
    return bert.graph.model()


@dataclass
class _Bert:
    tensors: Tensors
    ranges: Tensors  # empty: nothing is rounded
    shifted: bool = False
    graph: Graph = field(default_factory=lambda: Graph("all-MiniLM-L6-v2"))

    def layer(self, i: int, x: str) -> str:
        name = f"encoder.layer.{i}"
        inputs = self.rounded(x)
        heads = [self.linear(f"{name}.attention.self.{part}", inputs, x) for part in ("query", "key")]
        heads.append(self.linear(f"{name}.attention.self.value", inputs, x, ahead=f"{i}.mixed"))
        mixed = self.graph.add("MultiHeadAttention", heads, f"{i}.mixed", contrib=True, num_heads=HEADS)
        back = self.linear(f"{name}.attention.output.dense", self.rounded(mixed, divided=True), mixed)
        x = self.norm(f"{name}.attention.output.LayerNorm", self.sum(back, x), f"{i}.middle")
        wide = self.linear(f"{name}.intermediate.dense", self.rounded(x), x)
        wide = self.graph.add("Gelu", [wide], f"{i}.wide", contrib=True)
        back = self.linear(f"{name}.output.dense", self.rounded(wide), wide)
        out = "states" if i == LAYERS - 1 else f"{i + 1}.states"
        return self.norm(f"{name}.output.LayerNorm", self.sum(back, x), out)

    def sum(self, back: str, x: str) -> str:
        return self.graph.add("Add", [back, x], f"{back}.sum")

    def norm(self, name: str, x: str, out: str) -> str:
        weights = [self.graph.constant(part, self.tensors[part]) for part in (f"{name}.weight", f"{name}.bias")]
        return self.graph.add("LayerNormalization", [x, *weights], out, axis=-1, epsilon=EPSILON)

    def rounded(self, site: str, *, divided: bool = False) -> str:
        """A site as uint8. `divided`: the product that made it has already divided each channel by its scale."""
        if not self.ranges:
            self.graph.output(site, "float32", ["batch", "tokens", 4 * HIDDEN if site.endswith("wide") else HIDDEN])
            return site
        low, high = (float(end) for end in self.ranges[f"{site}.range"])
        step = np.float32((high - low) / 255)
        self.graph.constant(f"{site}.step", np.array(step))
        self.graph.constant(f"{site}.zero", np.array(np.rint(-low / step), np.uint8))
        x = site
        if not divided and f"{site}.scale" in self.ranges:
            inverse = np.float32(1) / self.ranges[f"{site}.scale"]
            x = self.graph.add("Mul", [site, self.graph.constant(f"{site}.inverse", inverse)], f"{site}.even")
        return self.graph.add("QuantizeLinear", [x, f"{site}.step", f"{site}.zero"], f"{site}.rounded")

    def linear(self, name: str, x: str, site: str, *, ahead: str = "") -> str:
        """`x` (the rounded site) times a weight, plus a bias; divided by the scales of the site `ahead`, if named."""
        weight = np.asarray(self.tensors[f"{name}.weight"]).T  # (in, out)
        bias = np.asarray(self.tensors[f"{name}.bias"])
        if not self.ranges:
            product = self.graph.add("MatMul", [x, self.graph.constant(f"{name}.weight", weight)], f"{name}.product")
            return self.graph.add("Add", [product, self.graph.constant(f"{name}.bias", bias)], name)
        if ahead:
            weight, bias = weight / self.ranges[f"{ahead}.scale"], bias / self.ranges[f"{ahead}.scale"]
        few = self.ranges.get(f"{site}.few")
        if few is None:
            return self.product(name, x, site, weight * self.ranges[f"{site}.scale"][:, None], bias)
        picked = self.graph.add("Gather", [site, self.graph.constant(f"{site}.few", few)], f"{site}.picked", axis=2)
        exact = self.graph.add("MatMul", [picked, self.graph.constant(f"{name}.few", weight[few])], f"{name}.exact")
        weight = weight.copy()
        weight[few] = 0
        return self.graph.add("Add", [self.product(f"{name}.rest", x, site, weight, bias), exact], name)

    def product(self, name: str, x: str, site: str, weight: Array, bias: Array) -> str:
        """The rounded site times a weight (in, out) in int8, plus a bias: float32 again."""
        scale = np.abs(weight).max(axis=0) / 127
        whole = np.rint(weight / scale).astype(np.int8)
        bias = bias + self.ranges[f"{site}.mean"] @ (weight - whole * scale)
        constants = {"weight": whole, "scale": scale, "bias": bias.astype(np.float32)}
        if self.shifted:
            constants |= {"weight": (whole.astype(np.int16) + 128).astype(np.uint8), "zero": np.array(128, np.uint8)}
        named = {part: self.graph.constant(f"{name}.{part}", array) for part, array in constants.items()}
        zero = named.get("zero", "")
        inputs = [x, named["weight"], f"{site}.step", named["scale"], f"{site}.zero", zero, named["bias"]]
        return self.graph.add("MatMulIntegerToFloat", inputs, name, contrib=True)
