"""GGUF models on llama.cpp, through the server that `xllamacpp` runs in this process, on 127.0.0.1 alone.

It answers with text, and can save what its slot holds and take it back whole. Such a state is llama.cpp's own: it
cannot be looked into, joined or coarsened, so `cache` and `compose` are not among the abilities; but greedy text after
a restore is the text before. A state is bound to the model's file, the library's build and the context's settings, and
its SHA-256 is checked before llama.cpp sees a byte of it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from tercet.cube import ModelIdentity
from tercet.engine import files
from tercet.engine.base import Ability, Turn
from tercet.errors import EngineFailed, InvalidRequest, Unsupported, VaultDamaged

MAGIC = b"TERCET SLOT 1\n"
PATIENCE = 600.0


class LlamaCpp:
    """One model with one slot. Calls wait for each other."""

    abilities: frozenset[Ability] = frozenset({"generate"})

    def __init__(
        self, server: Any, source: Path, folder: tempfile.TemporaryDirectory[str], *, context: int,  # noqa: ANN401
        adapter: Path | None = None,
    ) -> None:  # fmt: skip
        self._server, self._source, self._folder, self.context = server, source, folder, context
        self._lock = threading.Lock()
        weights = files.sha256(source)
        inside = f"gguf:{weights[:16]}"  # tokenizer, template and rope settings lie in the file
        self.identity = ModelIdentity(
            source.stem, weights[:12], weights, inside, inside, f"{inside} context {context}",
            f"gguf, llama.cpp of xllamacpp {version('xllamacpp')}", () if adapter is None else (files.sha256(adapter),),
        )  # fmt: skip

    @classmethod
    def load(
        cls, model: str | Path, *, context: int = 4096, threads: int | None = None, adapter: str | Path | None = None
    ) -> Self:
        """A GGUF file, or a packaged model's name; with `adapter`, a GGUF file of a LoRA that is laid over it.

        Raises
        ------
        InvalidRequest
            If there is no such file, or llama.cpp cannot read it.
        Unsupported
            If `xllamacpp` is not installed.
        """
        source = files.gguf_of(model)
        lora = None if adapter is None else Path(adapter).expanduser()
        if lora is not None and not lora.is_file():
            raise InvalidRequest(f"There is no adapter {lora}; `tercet export FILE.gguf --adapter ID` writes one.")
        try:
            import xllamacpp
        except ImportError as error:
            raise Unsupported("Running llama.cpp here needs `pip install 'tercet[llama]'`.") from error
        folder = tempfile.TemporaryDirectory(prefix="tercet-slots-")
        told = xllamacpp.CommonParams()
        told.model.path = str(source)
        told.n_ctx, told.n_parallel, told.n_gpu_layers = context, 1, 0
        told.slot_save_path, told.endpoint_slots = f"{folder.name}/", True
        told.port, told.warmup, told.offline, told.verbosity = 0, False, True, -1
        told.sampling.temp = 0.0
        if lora is not None:
            info = xllamacpp.CommonAdapterLoraInfo()
            info.path, info.scale = str(lora), 1.0
            told.lora_adapters = [info]
        if threads is not None:
            told.cpuparams.n_threads = told.cpuparams_batch.n_threads = threads
        try:
            server = xllamacpp.Server(told)
        except RuntimeError as error:
            raise InvalidRequest(f"llama.cpp cannot load {source}: {error}") from error
        return cls(server, source, folder, context=context, adapter=lora)

    def generate(self, messages: Sequence[Turn], *, max_tokens: int = 256) -> Iterator[str]:
        """Answer, greedily, in one piece."""
        asked = {"messages": list(messages), "max_tokens": max_tokens, "temperature": 0, "cache_prompt": True}
        with self._lock:
            found = self._answer(self._server.handle_chat_completions(asked))
        yield str(found["choices"][0]["message"]["content"])

    def complete(self, prompt: str, *, max_tokens: int = 64) -> str:
        """The greedy continuation of a text; what the slot holds of its beginning is not read again."""
        asked = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "cache_prompt": True, "id_slot": 0}
        with self._lock:
            return str(self._answer(self._server.handle_completions(asked))["choices"][0]["text"])

    def held(self, prompt: str) -> int:
        """Read a text and give one token; returns how many of its tokens were in the slot already."""
        asked = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "cache_prompt": True, "id_slot": 0}
        with self._lock:
            return int(self._answer(self._server.handle_completions(asked))["timings"]["cache_n"])

    def save(self) -> bytes:
        """All that the slot holds, bound to this model. Raises EngineFailed."""
        with self._lock:
            path = Path(self._folder.name) / "state"
            self._post("/slots/0?action=save", {"filename": path.name})
            state = path.read_bytes()
            path.unlink()
        head = json.dumps({"model": repr(self.identity), "sha256": hashlib.sha256(state).hexdigest()}).encode()
        return MAGIC + head + b"\n" + state

    def restore(self, saved: bytes) -> int:
        """Put a saved state into the slot; returns how many tokens it has.

        Raises
        ------
        VaultDamaged
            If the bytes are not what `save` gave.
        InvalidRequest
            If another model, build or context gave them.
        """
        begin, head, state = [*saved.split(b"\n", 2), b"", b"", b""][:3]
        try:
            told = json.loads(head)
            if begin + b"\n" != MAGIC or hashlib.sha256(state).hexdigest() != told["sha256"]:
                raise ValueError("the hash is another")
            model = told["model"]
        except (ValueError, KeyError, TypeError) as error:
            raise VaultDamaged(f"This state of a slot is not what was saved: {error}.") from error
        if model != repr(self.identity):
            raise InvalidRequest(f"This state was saved by {model}, not by {self.identity!r}.")
        with self._lock:
            path = Path(self._folder.name) / "state"
            path.write_bytes(state)
            found = self._post("/slots/0?action=restore", {"filename": path.name})
            path.unlink()
        return int(found["n_restored"])

    def erase(self) -> None:
        """Empty the slot."""
        with self._lock:
            self._post("/slots/0?action=erase", {})

    def close(self) -> None:
        """Stop the server and remove its files."""
        self._server = None
        self._folder.cleanup()

    def _post(self, path: str, body: object) -> Any:  # noqa: ANN401  # a JSON document
        request = urllib.request.Request(  # noqa: S310  # our own server, on this machine
            f"{self._server.listening_address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                return json.loads(answer.read())
        except (urllib.error.URLError, ValueError) as error:
            raise EngineFailed(f"llama.cpp's server did not do {path}: {error}.") from error

    @staticmethod
    def _answer(found: Any) -> Any:  # noqa: ANN401  # a JSON document
        if not isinstance(found, dict) or "choices" not in found:
            raise EngineFailed(f"llama.cpp answered {found!r:.200}.")
        return found
