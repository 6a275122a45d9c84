"""The training loop: low-rank pairs by any optimiser, from a plan of steps that is fixed before it begins.

The order of examples comes from the seed and the epoch alone, and a checkpoint holds all that the loop goes on from;
so a run that was killed and taken up again ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tercet.engine.halves import cut
from tercet.errors import InvalidRequest, VaultDamaged
from tercet.parametric.adapter import Adapter, Pair
from tercet.parametric.examples import Example, Read, losses
from tercet.parametric.optim import FOR_PAIRS, OPTIMIZERS
from tercet.parametric.optim.base import state_bytes
from tercet.parametric.spare import Spared, shades

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine

Progress = Callable[[int, int], None]
Batch = tuple[Sequence[Example], bool]
"""The conversations of a step, and whether it ends a pass."""
CHECKPOINT = "checkpoint.safetensors"
REPLAYS, PASSES, MOST = 2, 2, 6
"""General pieces beside each step's conversations at least; how often all of them are read, since few facts make few
steps and what is not replayed is forgotten; pieces a step at most for that."""
SPREAD = 100_003
"""Between the draws of two seeds, so that a pass of one is not that of another."""
PER_TOKEN = 20
"""Values that training keeps for each token and layer, in multiples of the width (measured: 1.3 MB a token in float32
for a model of 30 layers and 576)."""


SUITED: Sequence[tuple[float, Mapping[str, Any]]] = (
    (10, {}),
    (40, {"pieces": 5, "spare": 7.0}),
    (150, {"epochs": 3, "pieces": 4}),
    (math.inf, {"epochs": 3, "wordings": 8, "pieces": 4}),
)
"""(facts at most, how their recipe departs from the default). Found at 20, 100 and 400 facts; see `docs/LOG.md`."""


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained.

    Attributes
    ----------
    rank, alpha:
        The delta of a module is alpha / rank * B A.
    optimizer, lr:
        A name of OPTIMIZERS; at its rate in FOR_PAIRS, else its published one, if `lr` is None.
    epochs:
        Passes over all questions at most; it stops earlier once an epoch's loss a token is below `stop` nats.
    wordings:
        Questions about a fact at most, all if None: with many facts each wording need not be learnt with each.
    batch, pack:
        Conversations a step, and questions in each.
    pieces:
        Pieces of general text beside each step's conversations; as many as `beside` says if None.
    ce, kl, replay:
        Weights of the loss on answers, of the divergence from the model reading the text, and of that from the base on
        general text.
    targets:
        "all" linear modules, or "mlp" alone.
    top:
        The share of the layers, from the last downwards, that are adapted. What the others make of general text is
        computed once and kept.
    spare:
        How strongly what is taught is held to directions that general text hardly uses (see `spare.py`): the less, the
        more strictly; 0 not at all. It takes the general text of `replay`.
    seconds:
        A time that is converted to steps before training begins, by measuring two passes.
    memory_mb:
        What training may take beyond the model; it is refused where a single conversation takes more.
    """

    rank: int = 16
    alpha: float = 32.0
    optimizer: str = "adamw"
    lr: float | None = None
    epochs: int = 5
    wordings: int | None = None
    batch: int = 2
    pack: int = 6
    pieces: int | None = None
    ce: float = 1.0
    kl: float = 0.0
    replay: float = 2.0
    warm_up: float = 0.05
    stop: float = 0.005
    targets: str = "all"
    top: float = 0.9
    spare: float = 3.0
    seconds: float | None = None
    memory_mb: float | None = None
    checkpoint_every: int = 25
    seed: int = 0

    @classmethod
    def suited(cls, facts: int, **changes: Any) -> Recipe:  # noqa: ANN401  # as the class takes
        """The recipe for so many facts, but for `changes`: many facts take fewer passes, and fewer wordings each.

        Raises InvalidRequest for a change that no recipe can have.
        """
        settings = next(found for most, found in SUITED if facts <= most)
        try:
            return cls(**{**settings, **changes})
        except TypeError as error:
            raise InvalidRequest(f"A recipe has no such setting: {error}.") from error

    def __post_init__(self) -> None:
        counts = (self.rank, self.epochs, self.batch, self.pack, self.checkpoint_every)
        weights = (self.ce, self.kl, self.replay, self.spare)
        if min(counts) < 1 or self.alpha <= 0 or min(weights) < 0 or self.ce + self.kl <= 0:
            raise InvalidRequest(f"A recipe's counts are 1 or more and its weights 0 or more: {self}.")
        if any(one is not None and one < 1 for one in (self.wordings, self.pieces)):
            raise InvalidRequest(f"A recipe's wordings and pieces are 1 or more: {self}.")
        if self.optimizer not in OPTIMIZERS:
            raise InvalidRequest(f"No optimiser {self.optimizer!r}; known are {', '.join(OPTIMIZERS)}.")
        if not 0 < self.top <= 1:
            raise InvalidRequest(f"The share of layers that are adapted is above 0 and at most 1, not {self.top}.")
        if self.targets not in {"all", "mlp"}:
            raise InvalidRequest(f"targets is 'all' or 'mlp', not {self.targets!r}.")
        if any(one is not None and not one > 0 for one in (self.seconds, self.memory_mb)):
            raise InvalidRequest("A budget of seconds or memory is above 0.")


@dataclass
class Record:
    """What a run did: it goes into the adapter's report."""

    steps: int = 0
    planned: int = 0
    seconds_per_step: float | None = None
    seconds: float = 0.0
    resumed_at: int | None = None
    stopped_early: bool = False
    epoch_losses: list[float] = field(default_factory=list)
    state_bytes: int = 0
    running: list[float] = field(default_factory=lambda: [0.0, 0.0])


def fresh(engine: AdapterEngine, recipe: Recipe) -> dict[str, Pair]:
    """Pairs to begin with: A uniform as Kaiming's, drawn from the seed and module by module in order, B = 0."""
    draw = torch.Generator().manual_seed(recipe.seed)
    made = {}
    for name, (high, wide) in sorted(engine.adapters.shapes.items()):
        if (recipe.targets == "mlp" and ".mlp." not in name) or _layer(name) < first_layer(engine, recipe):
            continue
        bound = 1 / math.sqrt(wide)
        a = torch.empty(recipe.rank, wide).uniform_(-bound, bound, generator=draw)
        made[name] = Pair(
            torch.nn.Parameter(a), torch.nn.Parameter(torch.zeros(high, recipe.rank)), recipe.alpha / recipe.rank
        )
    if not made:
        raise InvalidRequest(f"The model has no linear modules of the kind {recipe.targets!r}.")
    return made


def first_layer(engine: Any, recipe: Recipe) -> int:  # noqa: ANN401  # an engine with a torch model
    """The lowest layer that is adapted."""
    layers = int(engine.config.num_hidden_layers)
    return layers - max(1, round(layers * recipe.top))


def _layer(name: str) -> int:
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else 0


class Kept:
    """Reads general text for training: what the layers below the first adapted one make of each is computed once."""

    def __init__(self, engine: Any, recipe: Recipe) -> None:  # noqa: ANN401  # an engine with a torch model
        self._halves = cut(engine.model, first_layer(engine, recipe))
        self._states: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """See `examples.Read`."""
        return self._halves.above(pad_sequence([self._below(one) for one in examples], batch_first=True))

    def _below(self, one: Example) -> Tensor:
        if one.tokens not in self._states:
            self._states[one.tokens] = self._halves.below(torch.tensor([one.tokens]))[0]
        return self._states[one.tokens]


def train(
    engine: AdapterEngine, taught: Sequence[Sequence[Example]], replay: Sequence[Example], recipe: Recipe, *,
    read: Read | None = None, folder: Path | None = None, progress: Progress | None = None,
) -> tuple[Adapter, Record]:  # fmt: skip
    """Train an adapter on `taught`, pass by pass, beside `replay`, over and over, which `read` reads.

    With a folder, checkpoints are kept there, and it goes on from one that is there.

    Raises
    ------
    InvalidRequest
        If there is nothing to learn, or one conversation alone does not fit the memory.
    VaultDamaged
        If a checkpoint is not what was written.
    """
    batches = _batches(taught, recipe)
    if not batches:
        raise InvalidRequest("There is nothing to learn.")
    begin = time.perf_counter()
    modules, record, read = fresh(engine, recipe), Record(), read or Kept(engine, recipe)
    check_fits(engine, recipe, [one for part in taught for one in part], replay)
    shaded = shades(engine, modules, replay, read, recipe.spare) if recipe.spare and replay else {}
    spared = Spared(modules, shaded)
    lr = FOR_PAIRS.get(recipe.optimizer) if recipe.lr is None else recipe.lr
    spec = OPTIMIZERS[recipe.optimizer]()
    optimizer = (spec if lr is None else replace(spec, lr=lr)).optimizer(spared.named)  # type: ignore[type-var]
    rates = [group["lr"] for group in optimizer.param_groups]
    pieces = recipe.pieces or beside(len(replay), len(batches))
    frozen = [one for one in engine_parameters(engine) if one.requires_grad]
    for one in frozen:
        one.requires_grad_(False)
    try:
        with engine.adapters.training(modules):
            path = folder / CHECKPOINT if folder is not None else None
            if path is not None and path.is_file():
                _resume(path, dict(spared.named), optimizer, record)
                record.planned = min(record.planned, len(batches))  # an older release may have packed more of them
                spared.put()
            if not record.planned:
                record.planned = _plan(engine, batches, _cycled(replay, 0, pieces), recipe, record, read)
                spared.draw()
            while record.steps < record.planned and not record.stopped_early:
                _pace(optimizer, rates, _rate(record.steps, record.planned, recipe.warm_up))
                chosen, last = batches[record.steps]
                kept = _cycled(replay, record.steps * pieces, pieces)
                optimizer.zero_grad(set_to_none=True)
                _gradients(engine, chosen, kept, record, read)
                spared.draw()
                optimizer.step()
                spared.put()
                record.steps += 1
                if last:
                    _end_of_epoch(record, recipe.stop)
                if progress is not None:
                    progress(record.steps, record.planned)
                if path is not None and record.steps % recipe.checkpoint_every == 0:
                    _keep(path, dict(spared.named), optimizer, record)
    finally:
        for one in frozen:
            one.requires_grad_(True)
    record.seconds += time.perf_counter() - begin
    record.state_bytes = state_bytes(optimizer)
    return Adapter({name: Pair(p.a.detach(), p.b.detach(), p.scale) for name, p in modules.items()}), record


def engine_parameters(engine: Any) -> list[torch.nn.Parameter]:  # noqa: ANN401  # an engine with a torch model
    """The model's own weights, which take no gradient here."""
    return list(engine.model.parameters())


def check_fits(engine: AdapterEngine, recipe: Recipe, taught: Sequence[Example], replay: Sequence[Example]) -> None:
    """Raises InvalidRequest if the longest of all examples does not keep within the memory."""
    if recipe.memory_mb is None:
        return
    config: Any = engine.config  # type: ignore[attr-defined]
    size = 2 if "16" in engine.base.dtype else 4
    longest = max(len(one.tokens) for one in (*taught, *replay))
    marks = max(len(one.marks) for one in (*taught, *replay))
    trained = config.num_hidden_layers - first_layer(engine, recipe)
    each = longest * trained * config.hidden_size * PER_TOKEN * size + marks * engine.vocabulary * 12
    modules = fresh(engine, recipe)
    values = sum(pair.a.numel() + pair.b.numel() for pair in modules.values())
    kept = sum(len(one.tokens) for one in replay) * config.hidden_size * size
    if recipe.spare and recipe.replay:
        kept += sum(4 * engine.adapters.shapes[name][1] ** 2 for name in modules)
    room = recipe.memory_mb * 1e6 - 16 * values - kept
    if room < each:
        raise InvalidRequest(
            f"Training needs about {(each + 16 * values + kept) / 1e6:,.0f} MB beyond the model and may take "
            f"{recipe.memory_mb:,.0f}; give more, or fewer facts, a lower rank or `pack`."
        )


def _plan(
    engine: AdapterEngine, batches: Sequence[Batch], kept: Sequence[Example], recipe: Recipe, record: Record, read: Read
) -> int:
    if recipe.seconds is None:
        return len(batches)
    spent = []
    for place in range(2):  # the first also pays for what is done once
        begin = time.perf_counter()
        _gradients(engine, batches[place % len(batches)][0], kept, Record(), read)
        spent.append(time.perf_counter() - begin)
    record.seconds_per_step = spent[-1]
    return max(1, min(len(batches), int((recipe.seconds - sum(spent)) / spent[-1])))


def _batches(taught: Sequence[Sequence[Example]], recipe: Recipe) -> list[Batch]:
    """Each pass in an order of its own."""
    made = list[Batch]()
    for turn, part in enumerate(taught):
        draw = torch.Generator().manual_seed(recipe.seed * SPREAD + turn)
        order = [part[number] for number in torch.randperm(len(part), generator=draw).tolist()]
        size = recipe.batch
        made += [(order[place : place + size], place + size >= len(order)) for place in range(0, len(order), size)]
    return made


def _gradients(
    engine: AdapterEngine, chosen: Sequence[Example], kept: Sequence[Example], record: Record, read: Read
) -> None:
    """Each conversation is read by itself: to pad one to the other's length took a tenth more time."""
    for part, how in ((chosen, None), (kept, read)):
        marks = sum(len(one.marks) for one in part)
        for one in part:
            total, crossed = losses(engine, [one], how)
            (total / marks).backward()
            record.running[0] += crossed
    record.running[1] += sum(len(one.marks) for one in chosen)


def beside(replay: int, steps: int) -> int:
    """General pieces a step, where there are `replay` in all and so many steps."""
    return min(MOST, max(REPLAYS, math.ceil(PASSES * replay / steps)))


def _cycled(replay: Sequence[Example], start: int, count: int) -> list[Example]:
    """The next general pieces, from the beginning again after the last."""
    return [replay[(start + place) % len(replay)] for place in range(count)] if replay else []


def _end_of_epoch(record: Record, stop: float) -> None:
    mean = record.running[0] / record.running[1]
    record.epoch_losses.append(mean)
    record.running = [0.0, 0.0]
    record.stopped_early = mean < stop


def _pace(optimizer: torch.optim.Optimizer, rates: Sequence[float], share: float) -> None:
    for group, full in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = full * share


def _rate(step: int, steps: int, warm_up: float) -> float:
    """Up linearly over the first share of steps, then down as a cosine."""
    first = max(1, round(warm_up * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def _keep(path: Path, named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, record: Record) -> None:
    from safetensors.torch import save_file

    tensors = {f"value|{name}": one.detach().contiguous() for name, one in named.items()}
    plain: dict[str, Any] = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"state|{name}|{key}"] = value.contiguous()
            else:
                plain[f"{name}|{key}"] = value
    told = {**vars(record), "plain": plain}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"told": json.dumps(told)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _resume(path: Path, named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, record: Record) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["told"])
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        plain = told.pop("plain")
        with torch.no_grad():
            for name, one in named.items():
                one.copy_(held.pop(f"value|{name}"))
        for key, value in [*held.items(), *((f"state|{key}", value) for key, value in plain.items())]:
            _, name, what = key.split("|")
            optimizer.state[named[name]][what] = value
        for key, value in told.items():
            setattr(record, key, value)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise VaultDamaged(
            f"The checkpoint {path.name} is not to be used: {error}; delete it and train again."
        ) from error
    record.resumed_at = record.steps
