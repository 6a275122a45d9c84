"""Compressors of KV caches: each says which rows of a layer to keep. One mechanism, one file, one line in the table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tercet.activation.compress.ada_kv import AdaKV
from tercet.activation.compress.base import Compressor
from tercet.activation.compress.expected_attention import ExpectedAttention
from tercet.activation.compress.k_norm import KNorm
from tercet.activation.compress.scale_kv import ScaleKV
from tercet.activation.compress.snap_kv import SnapKV
from tercet.activation.compress.streaming_llm import StreamingLLM
from tercet.activation.compress.tova import Tova

COMPRESSORS: Mapping[str, Compressor] = MappingProxyType(
    {
        "streaming-llm": StreamingLLM(),
        "k-norm": KNorm(),
        "snap-kv": SnapKV(),
        "tova": Tova(),
        "expected-attention": ExpectedAttention(),
        "ada-kv": AdaKV(),
        "scale-kv": ScaleKV(),
    }
)
"""Name -> compressor with its published hyper-parameters."""
