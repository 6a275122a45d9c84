"""all-MiniLM-L6-v2 on ONNX Runtime: no torch, no network, and one text's vector is the same in any company."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tercet.engine.files import cache_folder
from tercet.text.embed import bert, weights, windows
from tercet.text.embed.base import Embedding, Floats, Ints
from tercet.text.embed.weights import Weights

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from tercet.text.embed.tokens import WordPieces

CLS, SEP = 101, 102
Batch = list[tuple[int, int]]  # (text, window): windows of one length

BATCH = 512  # tokens computed at once: enough to keep the products busy, few enough to stay in a core's cache
BUILD = 2  # raise it when the graph or its ranges change: it names the space, and the file in the cache


@dataclass(frozen=True, eq=False)
class MiniLM:
    """Vectors of 384 numbers for texts, English ones above all. Safe to share between threads, and usable after a fork.

    Attributes
    ----------
    weights:
        Verified files; `MiniLM.find()` looks for them.
    threads:
        Batches computed at once; 0 means one for each core.
    cache:
        Where the graph is kept once it is built (see `engine.files`). Where it cannot be written, the graph is
        built again by each process, which takes about half a second.
    exact:
        Compute in float32 instead of int8: three times slower; the reference that int8 is measured against.
    """

    gives_states: ClassVar[bool] = True

    weights: Weights
    threads: int = 0
    cache: Path | None = None
    exact: bool = False

    @classmethod
    def find(cls, path: Path | None = None, *, threads: int = 0, cache: Path | None = None) -> MiniLM | None:
        """The embedder with the weights found on this machine (see `weights.find`), or None where there are none."""
        found = weights.find(path, cache=cache)
        return cls(found, threads, cache) if found else None

    @classmethod
    def fetch(cls, name: str, *, threads: int = 0, cache: Path | None = None) -> MiniLM:
        """The embedder with weights downloaded by name (see `weights.fetch`): the one call that uses the network."""
        return cls(weights.fetch(name, cache=cache), threads, cache)

    @property
    def space(self) -> str:
        """Model, weights, coding: what two vectors must share to be comparable."""
        coding = "float32" if self.exact else f"int8.{BUILD}"
        return f"{weights.MODEL}/{weights.SHA256['model.safetensors'][:8]}/{coding}"

    @property
    def dim(self) -> int:
        """384."""
        return bert.HIDDEN

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, [CLS] and [SEP] not counted. Loads the tokenizer, not the model."""
        return len(self.token_ids(text))

    def token_ids(self, text: str) -> Ints:
        """The text's tokens, int32 (tokens,), [CLS] and [SEP] left out."""
        return self._pieces.ids(text)

    def embed(self, texts: Sequence[str], *, states: bool = False) -> list[Embedding]:
        """Embed each text, in order; with `states`, give its tokens' last hidden states too (of the same pass).

        Texts of one length share a batch, so there is no padding, and all arithmetic is by row or in exact integers:
        the result for a text is the same bits whatever else is in `texts`.
        """
        ids = [self.token_ids(text) for text in texts]
        spans = [windows.spans(len(each)) for each in ids]
        vectors = [np.empty((len(each), self.dim), np.float32) for each in spans]
        hidden = [np.empty((len(each), self.dim), np.float32) for each in ids] if states else []

        def run(batch: Batch) -> None:
            rows = np.stack([ids[text][slice(*spans[text][window])] for text, window in batch])
            found = self.forward(rows, ["states"])["states"]
            for each, (text, window) in zip(found, batch, strict=True):
                mean = each.mean(axis=0)  # row by row: summed over a batch, the last bits would depend on its size
                vectors[text][window] = mean / np.linalg.norm(mean)
                if states:
                    first, last = windows.owned(spans[text], window)
                    shift = 1 - spans[text][window][0]  # [CLS] comes first
                    hidden[text][first:last] = each[first + shift : last + shift]

        _side_by_side(run, _batches(spans), self.threads)
        if not states:
            return [Embedding(each) for each in vectors]
        return [Embedding(*each) for each in zip(vectors, hidden, ids, strict=True)]

    def forward(self, ids: Ints, outputs: Sequence[str]) -> dict[str, Floats]:
        """One pass over token ids (batch, tokens), [CLS] and [SEP] being added here. `bert.build` names the outputs."""
        whole = np.empty((len(ids), ids.shape[1] + 2), np.int32)
        whole[:, 0], whole[:, 1:-1], whole[:, -1] = CLS, ids, SEP
        words, places = self._tables
        x = words[whole] + places[: whole.shape[1]]
        return dict(zip(outputs, self._session.run(list(outputs), {"x": x}), strict=True))

    @cached_property
    def _pieces(self) -> WordPieces:
        from tercet.text.embed.tokens import WordPieces

        return WordPieces(self.weights.tokenizer)

    @cached_property
    def _tables(self) -> tuple[Floats, Floats]:
        """Word embeddings (30522, 384), left on disk until looked at, and the sum of place and segment (512, 384)."""
        tensors = bert.read_tensors(self.weights.model)
        segment = tensors["embeddings.token_type_embeddings.weight"][0]
        return (
            tensors["embeddings.word_embeddings.weight"],
            np.asarray(tensors["embeddings.position_embeddings.weight"] + segment),
        )

    @cached_property
    def _session(self) -> InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread a run; batches run side by side instead. That scales better, and leaves no pool to a forked child.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Beyond this level it would fuse sum and norm into an operator that takes four times as long.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        return onnxruntime.InferenceSession(self._model(), options, providers=["CPUExecutionProvider"])

    def _model(self) -> bytes:
        """The graph: from the cache where it is whole there (four bytes of CRC-32, then the model), else built."""
        tensors = bert.read_tensors(self.weights.model)
        if self.exact:
            return bert.build(tensors, None)
        shifted = bert.overflows()  # the numbers are the same, and so is the space
        name = f"{self.space.replace('/', '-')}{'-shifted' if shifted else ''}.onnx"
        file = cache_folder(self.cache) / name
        with contextlib.suppress(OSError):  # not built yet
            content = file.read_bytes()
            model = content[4:]
            if content[:4] == zlib.crc32(model).to_bytes(4, "little"):
                return model
        model = bert.build(tensors, bert.read_tensors(bert.RANGES), shifted=shifted)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time at the next start, nothing else
            weights.write_atomically(file, zlib.crc32(model).to_bytes(4, "little") + model)
        return model


def _batches(spans: list[list[windows.Span]]) -> list[Batch]:
    """Group windows, as (text, window), by length; the longest first, so that the last to finish is a short one."""
    lengths: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for text, each in enumerate(spans):
        for window, (start, end) in enumerate(each):
            lengths[end - start].append((text, window))
    batches = []
    for length in sorted(lengths, reverse=True):
        same, size = lengths[length], max(1, BATCH // (length + 2))
        batches += [same[i : i + size] for i in range(0, len(same), size)]
    return batches


def _side_by_side(run: Callable[[Batch], None], batches: list[Batch], threads: int) -> None:
    if threads == 1 or len(batches) <= 1:
        for batch in batches:
            run(batch)
        return
    with ThreadPoolExecutor(min(threads or os.cpu_count() or 1, len(batches))) as pool:
        for _ in pool.map(run, batches):
            pass
