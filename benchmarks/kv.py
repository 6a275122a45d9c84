"""What the benchmarks of KV memory share: the model, texts of a wanted length, agreement and KL."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import RESULTS, data_file

from tercet.engine.transformers import TransformersEngine

MODEL = "smollm2-135m"


def engine(dtype: str, threads: int | None = None) -> TransformersEngine:
    """SmolLM2-135M-Instruct from its package, on the CPU; `threads` of torch's, all by default."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return TransformersEngine.load(MODEL, dtype=dtype)


def quicker(threads: int | None = None) -> str:
    """The dtype in which this machine multiplies sooner: a processor without bfloat16 is many times slower in it."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    taken = {}
    for name in ("float32", "bfloat16"):
        left, right = (torch.ones(shape, dtype=getattr(torch, name)) for shape in ((256, 576), (576, 1536)))
        taken[name] = timed(partial(torch.mm, left, right), 9)
    return min(taken, key=taken.__getitem__)


def sessions() -> list[str]:
    """LoCoMo's development conversations, a text for each session. Raises DataMissingError."""
    told = json.loads(data_file("locomo_dev.json").read_text(encoding="utf-8"))
    found = []
    for conversation in told:
        talk = conversation["conversation"]
        for name in sorted((key for key in talk if key.startswith("session_") and key.split("_")[1].isdigit()
                            and key.count("_") == 1), key=lambda key: int(key.split("_")[1])):  # fmt: skip
            lines = [f"- {turn['speaker']}: {turn['text']}" for turn in talk[name]]
            found.append(f"{talk.get(f'{name}_date_time', '')}:\n" + "\n".join(lines) + "\n")
    return found


def tokens(model: TransformersEngine, count: int, *, skip: int = 0) -> tuple[int, ...]:
    """`count` tokens of conversation, beginning with session `skip`."""
    made: list[int] = []
    texts = sessions()
    for place in range(len(texts)):
        made += model.encode(texts[(skip + place) % len(texts)])
        if len(made) >= count:
            return tuple(made[:count])
    raise ValueError(f"there are fewer than {count} tokens")


def timed(work: Callable[[], object], rounds: int) -> float:
    """The median wall time of `work`, in seconds, after one round that warms up."""
    work()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def drop_cache(path: Path) -> None:
    """Ask the system to forget a file's pages, so that the next read comes from the disk."""
    import os

    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compared(exact: Any, found: Any) -> tuple[float, float]:  # noqa: ANN401  # (n, vocab) scores
    """Mean KL(exact || found) in nats and the share of places where both put the same token first."""
    import torch

    p, q = torch.log_softmax(exact.double(), -1), torch.log_softmax(found.double(), -1)
    kl = (p.exp() * (p - q)).sum(-1).mean()
    return float(kl), float((exact.argmax(-1) == found.argmax(-1)).double().mean())


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")


@contextmanager
def plot(name: str) -> Iterator[Any]:
    """Axes whose picture is saved beside the results."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    yield figure.subplots()
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=130)
