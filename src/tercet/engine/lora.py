"""Low-rank adapters on a loaded model: added to the outputs of its linear modules, never merged into its weights.

A thread says which adapters it uses; the others compute with the base, whose outputs are then handed on untouched. So
adapters come and go without a lock, without reloading, and the base stays the same to the bit.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tercet.errors import InvalidRequest


class LowRank(Protocol):
    """One module's delta: scale * b @ a, with a (r, in) and b (out, r)."""

    @property
    def a(self) -> Tensor:
        """(r, in)."""

    @property
    def b(self) -> Tensor:
        """(out, r)."""

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""


@dataclass(frozen=True, slots=True)
class _Held:
    a: Tensor
    b: Tensor
    scale: float


class Adapters:
    """The adapters of one model.

    Attributes
    ----------
    shapes:
        (out, in) of each linear module that may be adapted, by its path; the output embedding is none of them.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401  # a torch module
        head = model.get_output_embeddings()
        linear = {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
        self._linear = {name: one for name, one in linear.items() if one is not head}
        self.shapes = {name: (one.out_features, one.in_features) for name, one in self._linear.items()}
        self._held: dict[str, Mapping[str, LowRank]] = {}
        self._hooked: set[str] = set()
        self._thread = threading.local()
        self._lock = threading.Lock()

    @property
    def attached(self) -> tuple[str, ...]:
        """The keys of all that are ready for use."""
        with self._lock:
            return tuple(self._held)

    @property
    def active(self) -> tuple[str, ...]:
        """The keys of those that this thread uses now, in order."""
        return tuple(key for key, _ in self._using())

    def attach(self, modules: Mapping[str, LowRank]) -> str:
        """Make an adapter ready for use; returns its key, which is a hash of what it holds. Twice is once.

        Raises InvalidRequest if it has a module that the model has not, or another shape.
        """
        self._check(modules)
        key = content_hash(modules)
        dtypes = {name: one.weight.dtype for name, one in self._linear.items()}
        held = {name: _Held(one.a.detach().to(dtypes[name]), one.b.detach().to(dtypes[name]), one.scale)
                for name, one in modules.items()}  # fmt: skip
        self._hook(modules)
        with self._lock:
            self._held.setdefault(key, held)
        return key

    def detach(self, key: str) -> None:
        """Let go of an adapter; a thread that is using it goes on until it is done."""
        with self._lock:
            self._held.pop(key, None)

    @contextmanager
    def using(self, keys: Sequence[str]) -> Iterator[None]:
        """Compute with these adapters, all added up, in this thread. Raises InvalidRequest for one not attached."""
        with self._lock:
            missing = [key for key in keys if key not in self._held]
            chosen = tuple((key, self._held[key]) for key in keys if key in self._held)
        if missing or len(set(keys)) < len(keys):
            raise InvalidRequest(f"Adapters are attached before they are used, each once: {missing or list(keys)}.")
        with self._set(chosen):
            yield

    @contextmanager
    def training(self, modules: Mapping[str, LowRank]) -> Iterator[None]:
        """Compute with tensors that are being trained: gradients reach them, and no weight of the model."""
        self._check(modules)
        self._hook(modules)
        with self._set((("in training", modules),)):
            yield

    @contextmanager
    def watching(self, modules: Collection[str], seen: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Tell `seen` of the input, (…, in), of each of these modules whenever a thread computes one."""

        def hook_of(name: str) -> Callable[..., None]:
            return lambda _module, given: seen(name, given[0])

        held = [self._linear[name].register_forward_pre_hook(hook_of(name)) for name in modules]
        try:
            yield
        finally:
            for one in held:
                one.remove()

    @contextmanager
    def _set(self, chosen: tuple[tuple[str, Mapping[str, LowRank]], ...]) -> Iterator[None]:
        before = self._using()
        self._thread.using = chosen
        try:
            yield
        finally:
            self._thread.using = before

    def _using(self) -> tuple[tuple[str, Mapping[str, LowRank]], ...]:
        found: tuple[tuple[str, Mapping[str, LowRank]], ...] = getattr(self._thread, "using", ())
        return found

    def _check(self, modules: Mapping[str, LowRank]) -> None:
        if not modules:
            raise InvalidRequest("The adapter is empty.")
        for name, one in modules.items():
            wanted = self.shapes.get(name)
            if wanted is None:
                raise InvalidRequest(f"The model has no linear module {name!r} to adapt.")
            if (one.b.shape[0], one.a.shape[1]) != wanted or one.a.shape[0] != one.b.shape[1]:
                raise InvalidRequest(
                    f"The adapter's {name} is {tuple(one.b.shape)} by {tuple(one.a.shape)}; the module is {wanted}."
                )

    def _hook(self, modules: Mapping[str, LowRank]) -> None:
        with self._lock:
            for name in modules.keys() - self._hooked:
                self._linear[name].register_forward_hook(self._hook_of(name))
                self._hooked.add(name)

    def _hook_of(self, name: str) -> Callable[..., Tensor | None]:
        def added(_module: object, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            changed = None
            for _, modules in self._using():
                if (one := modules.get(name)) is not None:
                    x = given[0]
                    delta = (x @ one.a.to(x.dtype).T) @ one.b.to(x.dtype).T
                    changed = torch.add(out if changed is None else changed, delta, alpha=one.scale)
            return changed  # None: the module's own output, untouched

        return added


def content_hash(modules: Mapping[str, LowRank]) -> str:
    """The SHA-256 of an adapter's modules, shapes, scales and values, whatever order they are in."""
    digest = hashlib.sha256()
    for name in sorted(modules):
        one = modules[name]
        digest.update(f"{name} {tuple(one.a.shape)} {tuple(one.b.shape)} {one.scale!r}\n".encode())
        for side in (one.a, one.b):
            digest.update(side.detach().float().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
