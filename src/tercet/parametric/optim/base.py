"""What every optimiser shares: parameters with names, steps that survive bad gradients, and the bytes of its state."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol, overload

import torch
from torch import Tensor

from tercet.errors import InvalidRequest

Named = Iterable[tuple[str, torch.nn.Parameter]]
"""Parameters with their names, as `Module.named_parameters` gives them."""


class OptimizerSpec(Protocol):
    """A published optimiser: its fields are its hyper-parameters."""

    def optimizer(self, named: Named) -> torch.optim.Optimizer:
        """The optimiser over these parameters. Raises InvalidRequest if there are none, or a hyper-parameter is off."""


class NamedOptimizer(torch.optim.Optimizer):  # type: ignore[misc, unused-ignore]
    """The loop around `direction`. State holds tensors and plain numbers only, so that it loads without unpickling.

    A gradient that is not finite is passed over: its parameter keeps its value and its state for that step, and
    `skipped` counts it.
    """

    decay_first: ClassVar[bool] = False
    """Whether decay comes before the update (as in AdamW) or after it."""

    def __init__(self, named: Named, defaults: dict[str, Any]) -> None:
        listed = list(named)
        if not listed:
            raise InvalidRequest("There is nothing to train: no parameter was given.")
        if len({name for name, _ in listed}) < len(listed):
            raise InvalidRequest("Two parameters have one name; seeds and state are kept by name.")
        positive("lr", defaults["lr"])
        super().__init__(listed, defaults)
        self.skipped = 0

    def direction(self, name: str, parameter: Tensor, gradient: Tensor, options: dict[str, Any]) -> Tensor | None:
        """What is subtracted, times the learning rate; None to leave the parameter alone. It keeps `self.state`."""
        raise NotImplementedError

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure`, if given, is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for options in self.param_groups:
            for name, parameter in zip(options["param_names"], options["params"], strict=True):
                if parameter.grad is None:
                    continue
                if not torch.isfinite(parameter.grad).all():
                    self.skipped += 1
                    continue
                self._move(name, parameter, options)
        return loss

    def _move(self, name: str, parameter: Tensor, options: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None  # noqa: S101  # `step` has looked
        change = self.direction(name, parameter, gradient, options)
        if change is None:
            return
        shrink = 1 - options["lr"] * options["weight_decay"]
        if self.decay_first:
            parameter.mul_(shrink).add_(change, alpha=-options["lr"])
        else:
            parameter.add_(change, alpha=-options["lr"]).mul_(shrink)


class ProjectedOptimizer(NamedOptimizer):
    """Those that keep Adam's moments in a small space: of matrices large enough; all else is moved by Adam itself."""

    def direction(self, name: str, parameter: Tensor, gradient: Tensor, options: dict[str, Any]) -> Tensor | None:
        """What `within` says of the gradient, turned so that it has no more rows than columns."""
        state = self.state[parameter]
        if gradient.ndim != 2 or min(gradient.shape) < options["thin"] * options["rank"]:
            return adam(state, gradient, options["betas"], options["eps"])
        turned = gradient.shape[0] > gradient.shape[1]
        change = self.within(name, state, gradient.T if turned else gradient, options)
        return change if change is None or not turned else change.T

    def within(self, name: str, state: dict[str, Any], wide: Tensor, options: dict[str, Any]) -> Tensor | None:
        """As `direction`, of a gradient (m, n) with m <= n."""
        raise NotImplementedError


def adam(state: dict[str, Any], gradient: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
    """Adam's direction m^ / (sqrt(v^) + eps), bias corrected before eps is added (Kingma and Ba 2015, as in torch).

    Keeps `step`, `first` and `second` in `state`; the moments have the gradient's shape.
    """
    if "first" not in state:
        state |= {"step": 0, "first": torch.zeros_like(gradient), "second": torch.zeros_like(gradient)}
    state["step"] += 1
    state["first"].lerp_(gradient, 1 - betas[0])
    state["second"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    unbiased = (state["second"] / (1 - betas[1] ** state["step"])).sqrt_().add_(eps)
    found: Tensor = state["first"] / (1 - betas[0] ** state["step"]) / unbiased
    return found


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The bytes of all tensors in an optimiser's state."""
    return sum(_bytes(value) for held in optimizer.state.values() for value in held.values())


def seed_of(name: str, period: int = 0) -> int:
    """A seed from a parameter's name, so that the order of parameters changes nothing."""
    return zlib.crc32(f"{name}\0{period}".encode())


def positive(what: str, value: float) -> float:
    """Return a number above 0. Raises InvalidRequest for any other."""
    if not value > 0:
        raise InvalidRequest(f"{what} must be above 0, not {value!r}.")
    return value


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return int(value.numel() * value.element_size())
    return sum(_bytes(one) for one in value) if isinstance(value, list | tuple) else 0
