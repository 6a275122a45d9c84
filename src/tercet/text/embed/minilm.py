"""all-MiniLM-L6-v2 on ONNX Runtime: no torch, no network, one text's vector the same in any company."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercet.text.embed import bert, weights
from tercet.text.embed.base import Embedding, Floats, Ints
from tercet.text.embed.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CLS, SEP = 101, 102
WINDOW = 254  # tokens of the text in one window: the model was trained to read 256, two of them its own
OVERLAP = 32  # tokens that neighbouring windows share
PIECE = 1 << 16  # characters handed to the tokenizer at once, so that a huge text needs no huge encoding
BUILD = "1"  # raise it when the graph changes: it names the cached file, and the space


@dataclass(frozen=True)
class MiniLM:
    """Sentence vectors of 384 numbers, for English above all. Safe to share between threads.

    `threads` is the number of batches that are computed at once (by default one a core). The graph with its int8 weights is built on first
    use and kept in `cache` (see `weights.cache_folder`).
    """

    weights: Weights
    threads: int = 0
    cache: Path | None = None

    @classmethod
    def find(cls, path: Path | None = None, *, threads: int = 0, cache: Path | None = None) -> MiniLM | None:
        """The embedder with the weights found on this machine (see `weights.find`), or None if there are none."""
        found = weights.find(path, cache=cache)
        return cls(found, threads=threads, cache=cache) if found else None

    @property
    def space(self) -> str:
        """Model, weights, coding of the weights."""
        return f"{weights.MODEL}/{weights.SHA256['model.safetensors'][:8]}/int8-{BUILD}"

    @property
    def dim(self) -> int:
        """384."""
        return bert.HIDDEN

    def count_tokens(self, text: str) -> int:
        """How many tokens the text has, the model's own [CLS] and [SEP] not counted. Loads the tokenizer only."""
        return sum(len(self._tokenizer.encode(piece, add_special_tokens=False)) for piece in _pieces(text))

    def embed(self, texts: Sequence[str], *, states: bool = False) -> list[Embedding]:
        """Embed each text; with `states`, return its tokens' last hidden states too (the same pass through the model)."""
        tokens = [self._tokens(text) for text in texts]
        windows = [_windows(len(ids)) for ids in tokens]
        buckets: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for text, spans in enumerate(windows):
            for window, (start, end) in enumerate(spans):
                buckets[end - start].append((text, window))
        vectors = [np.empty((len(spans), self.dim), np.float32) for spans in windows]
        hidden = [np.empty((len(ids), self.dim), np.float32) if states else None for ids in tokens]

        def run(batch: list[tuple[int, int]]) -> None:
            spans = [windows[text][window] for text, window in batch]
            ids = np.array([tokens[text][start:end] for (text, _), (start, end) in zip(batch, spans, strict=True)])
            means, all_states = self._forward(ids, states=states)
            for row, (text, window) in enumerate(batch):
                vectors[text][window] = means[row]
                out = hidden[text]
                if out is not None and all_states is not None:
                    first, last = _owned(windows[text], window)
                    start = windows[text][window][0]
                    out[first:last] = all_states[row, 1 + first - start : 1 + last - start]

        batches = [[job] for length in sorted(buckets) for job in buckets[length]]
        workers = min(self.threads or os.cpu_count() or 1, len(batches))
        if workers <= 1:
            for batch in batches:
                run(batch)
        else:
            with ThreadPoolExecutor(workers) as pool:
                for _ in pool.map(run, batches):
                    pass
        return [Embedding(vectors[i], hidden[i], tokens[i] if states else None) for i in range(len(texts))]

    def _tokens(self, text: str) -> Ints:
        ids = [
            np.array(self._tokenizer.encode(piece, add_special_tokens=False).ids, np.int32) for piece in _pieces(text)
        ]
        return np.concatenate(ids) if len(ids) > 1 else ids[0]

    def _forward(self, ids: Ints, *, states: bool) -> tuple[Floats, Floats | None]:
        whole = np.empty((len(ids), ids.shape[1] + 2), np.int32)
        whole[:, 0], whole[:, -1], whole[:, 1:-1] = CLS, SEP, ids
        words, places = self._tables
        x = words[whole] + places[: whole.shape[1]]
        found: list[Any] = self._session.run(["mean", "states"] if states else ["mean"], {"x": x})
        means: Floats = found[0]
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return means, found[1] if states else None

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.weights.tokenizer))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _tables(self) -> tuple[Floats, Floats]:
        tensors = bert.read_tensors(self.weights.model)
        places = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        return tensors["embeddings.word_embeddings.weight"], places

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread a run: batches run side by side instead, which scales better, leaves no pool to a forked child, and sums in one order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Beyond the basic level it would fuse the sum and the norm into an operator that is four times slower.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        return onnxruntime.InferenceSession(self._model(), options, providers=["CPUExecutionProvider"])

    def _model(self) -> bytes:
        """The graph, from the cache where it is whole there: 32 bytes of sha256, then the model."""
        file = weights.cache_folder(self.cache) / f"{self.space.replace('/', '-')}.onnx"
        try:
            content = file.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return content[32:]
        except OSError:
            pass  # not built yet
        model = bert.build(bert.read_tensors(self.weights.model))
        try:
            weights.write_atomically(file, hashlib.sha256(model).digest() + model)
        except OSError:
            pass  # a cache that cannot be written costs time at the next start, nothing else
        return model


def _pieces(text: str) -> Iterator[str]:
    """Cut a huge text where a space is, so that its pieces have the tokens that the whole has."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no character
    start = 0
    while len(text) - start > PIECE:
        space = text.rfind(" ", start, start + PIECE)
        end = space if space > start else start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def _windows(tokens: int) -> list[tuple[int, int]]:
    """Spans of at most WINDOW tokens that cover all of them; each after the first begins OVERLAP before the last one's end."""
    spans = [(0, min(tokens, WINDOW))]
    while spans[-1][1] < tokens:
        start = spans[-1][1] - OVERLAP
        spans.append((start, min(tokens, start + WINDOW)))
    return spans


def _owned(spans: list[tuple[int, int]], window: int) -> tuple[int, int]:
    """The tokens whose states come from this window: those not nearer to a neighbour's middle."""
    cuts = [0, *((left[1] + right[0]) // 2 for left, right in pairwise(spans)), spans[-1][1]]
    return cuts[window], cuts[window + 1]
