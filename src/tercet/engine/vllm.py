"""A model on a vLLM server that takes adapters while it runs: `POST /v1/load_lora_adapter`, `/v1/unload_lora_adapter`.

The server must run with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and see the folder in which adapters
are put down for it. A request names its adapter where it would name the model. Nothing is trained through it; and what
weights the server really has, only its operator knows: `base` says so, and adapters of another base are refused.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tercet.engine import peft
from tercet.engine.base import Ability
from tercet.engine.openai import OpenAICompatible
from tercet.errors import EngineFailed, InvalidRequest

if TYPE_CHECKING:
    from tercet.cube import ModelIdentity
    from tercet.engine.lora import LowRank

log = logging.getLogger(__name__)


class VLLM(OpenAICompatible):
    """A model behind an address, and the adapters that are loaded there.

    Parameters
    ----------
    model, url, key_env, context, timeout
        As for any endpoint; `url` goes up to and with `/v1`.
    base
        The identity of the model that the server has.
    shapes
        (out, in) of each linear module of it, by its path.
    folder
        Where adapters are put down for the server, as this program sees it.
    there
        The same folder as the server sees it; left out: alike.
    """

    abilities: frozenset[Ability] = frozenset({"generate", "adapters"})

    def __init__(
        self, model: str, *, base: ModelIdentity, shapes: Mapping[str, tuple[int, int]], folder: str | Path,
        there: str | None = None, **endpoint: Any,  # noqa: ANN401  # as OpenAICompatible takes
    ) -> None:  # fmt: skip
        super().__init__(model, **endpoint)
        self.base = base
        self.adapters = Routes(self, shapes, Path(folder).expanduser(), there)

    @classmethod
    def load(cls, model: str, **options: Any) -> Self:  # noqa: ANN401  # as the class takes
        """The same as the class, but that `base` names the model as a transformers engine would, and `dtype` its dtype.

        Its configuration, tokenizer and weights' hash are read on this machine; its weights are not loaded. Raises
        InvalidRequest, Unsupported as that engine does.
        """
        from tercet.engine.transformers import TransformersEngine

        try:
            base, dtype = options.pop("base"), options.pop("dtype", "bfloat16")
        except KeyError:
            raise InvalidRequest(
                "A vllm engine says in `base` which model the server has, and in which dtype."
            ) from None
        told = TransformersEngine.described(base, dtype=dtype)
        return cls(model, base=told.base, shapes=told.adapters.shapes, **options)

    @property
    def asked(self) -> str:
        """What a request of this thread names as its model."""
        return self.adapters.active[0] if self.adapters.active else self.model

    def close(self) -> None:
        """Have the server let go of all that was loaded from here."""
        for key in self.adapters.attached:
            self.adapters.detach(key)

    def tell(self, route: str, body: Mapping[str, object]) -> None:
        """Post to one of the routes. Raises EngineFailed, with what the server said."""
        request = urllib.request.Request(f"{self.url}/{route}", json.dumps(body).encode(), self.headers())  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.timeout):  # noqa: S310  # checked when it was made
                return
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode("utf-8", "replace")
            hint = " Does it run with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True?" * (error.code == 404)
            raise EngineFailed(f"{self.url}/{route} answered {error.code}: {said}.{hint}") from error
        except OSError as error:
            raise EngineFailed(f"{self.url} could not be reached: {error}.") from error


class Routes:
    """What `tercet.engine.lora.Adapters` is for a model in this process: adapters by key, each thread with its own."""

    def __init__(
        self, engine: VLLM, shapes: Mapping[str, tuple[int, int]], folder: Path, there: str | None
    ) -> None:  # fmt: skip
        self._engine, self.shapes, self._folder = engine, dict(shapes), folder
        self._there = there if there is not None else str(folder.absolute())
        self._held: set[str] = set()
        self._thread = threading.local()
        self._lock = threading.Lock()

    @property
    def attached(self) -> tuple[str, ...]:
        """The keys of all that the server was told to load."""
        with self._lock:
            return tuple(sorted(self._held))

    @property
    def active(self) -> tuple[str, ...]:
        """The key of the one that this thread uses now, if any."""
        found: tuple[str, ...] = getattr(self._thread, "using", ())
        return found

    def attach(self, modules: Mapping[str, LowRank]) -> str:
        """Put an adapter down and have the server load it; returns its key, which is a hash of what it holds.

        Raises EngineFailed if the server does not take it.
        """
        from tercet.engine.lora import content_hash

        key = content_hash(modules)
        with self._lock:
            if key not in self._held:
                folder = self._folder / key
                peft.write(modules, folder, base=self._engine.base.name)
                try:
                    self._engine.tell("load_lora_adapter", {"lora_name": key, "lora_path": f"{self._there}/{key}"})
                except EngineFailed:
                    shutil.rmtree(folder)
                    raise
                self._held.add(key)
        return key

    def detach(self, key: str) -> None:
        """Have the server let go of an adapter, and take its files away.

        A server that does not do so is told of in the log: what asked for it, an erasure perhaps, is done all the same.
        """
        with self._lock:
            if key not in self._held:
                return
            self._held.discard(key)
            shutil.rmtree(self._folder / key, ignore_errors=True)
            try:
                self._engine.tell("unload_lora_adapter", {"lora_name": key})
            except EngineFailed as error:
                log.warning("adapter %s may still be loaded: %s", key[:12], error)

    @contextmanager
    def using(self, keys: Sequence[str]) -> Iterator[None]:
        """Ask with this adapter in this thread. Raises InvalidRequest for several, or for one that is not attached."""
        if len(keys) > 1:
            raise InvalidRequest("A vLLM server answers with one adapter a request; merge them, or name one.")
        if missing := set(keys) - set(self.attached):
            raise InvalidRequest(f"Adapters are attached before they are used: {sorted(missing)}.")
        before = self.active
        self._thread.using = tuple(keys)
        try:
            yield
        finally:
            self._thread.using = before
