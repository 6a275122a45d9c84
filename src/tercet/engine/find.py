"""Engines by name: given to `open`, or told of in the vault's `tercet.toml`. A model is loaded when it is first used.

[engines.small]
kind = "transformers"            # or "llama.cpp", "openai", "vllm"
model = "smollm2-135m"           # what the kind's `load` takes
dtype = "bfloat16"
"""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from tercet.engine.base import Engine
from tercet.errors import InvalidRequest

KINDS: Mapping[str, tuple[str, str]] = {
    "transformers": ("tercet.engine.transformers", "TransformersEngine"),
    "llama.cpp": ("tercet.engine.llama_cpp", "LlamaCpp"),
    "openai": ("tercet.engine.openai", "OpenAICompatible"),
    "vllm": ("tercet.engine.vllm", "VLLM"),
}
"""Kind -> (module, class); the class has `load`."""
CONFIG = "tercet.toml"

Wanted: TypeAlias = "Engine | Mapping[str, Any] | str"
"""An engine, the table of one as in tercet.toml, or the model of a transformers engine."""


def configured(folder: Path) -> dict[str, Wanted]:
    """The engines that a folder's `tercet.toml` names. Raises InvalidRequest if it cannot be read."""
    path = folder / CONFIG
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    engines = told.get("engines", {})
    if not isinstance(engines, dict) or not all(isinstance(one, dict) for one in engines.values()):
        raise InvalidRequest(f"{path}: engines are tables, such as [engines.small].")
    return dict(engines)


def find_engine(wanted: Wanted) -> Engine:
    """The engine that is asked for, loaded.

    Raises
    ------
    InvalidRequest
        For an unknown kind or option, or a model that is not there.
    Unsupported
        If something is not installed.
    """
    if isinstance(wanted, str):
        wanted = {"model": wanted}
    if not isinstance(wanted, Mapping):
        return wanted
    options = dict(wanted)
    kind = options.pop("kind", "transformers")
    if kind not in KINDS:
        raise InvalidRequest(f"An engine's kind is one of {', '.join(KINDS)}, not {kind!r}.")
    module, name = KINDS[kind]
    load = getattr(import_module(module), name).load
    try:
        engine: Engine = load(**options)
    except TypeError as error:
        raise InvalidRequest(f"An engine of the kind {kind} does not take these options: {error}.") from error
    return engine


class Engines:
    """Engines by name, each loaded when it is first asked for."""

    def __init__(self, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = dict(wanted)
        self._loaded: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """What may be asked for."""
        return sorted(self._wanted)

    def check(self, name: str) -> None:
        """Return if an engine has that name; none is loaded. Raises InvalidRequest."""
        if name not in self._wanted:
            raise InvalidRequest(f"No engine {name!r}; known are {', '.join(self.names()) or 'none'} (see {CONFIG}).")

    def loaded(self) -> dict[str, Engine]:
        """Those that are loaded already."""
        with self._lock:
            return dict(self._loaded)

    def get(self, name: str | None = None) -> Engine:
        """An engine; without a name the only one. Raises InvalidRequest for a name that is not known."""
        if name is None:
            if len(self._wanted) != 1:
                raise InvalidRequest(
                    f"Say which engine: {', '.join(self.names())}."
                    if self._wanted
                    else f"No engine is named: give `engines` to `open`, or write [engines.NAME] into {CONFIG}."
                )
            [name] = self._wanted
        self.check(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = find_engine(self._wanted[name])
            return self._loaded[name]

    def close(self) -> None:
        """Let go of those that were loaded here; an engine that was handed in stays its owner's."""
        with self._lock:
            for name, engine in self._loaded.items():
                if isinstance(self._wanted[name], str | Mapping):
                    engine.close()
            self._loaded.clear()
