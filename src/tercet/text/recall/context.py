"""Hits as a passage for a prompt: in time order, with speakers and dates, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from tercet.cube import MemCube
from tercet.errors import InvalidRequest, Unsupported
from tercet.text.recall.hits import Hit

if TYPE_CHECKING:
    from tercet.text.embed.minilm import MiniLM

Counter = Callable[[str], int]


def count_minilm(text: str) -> int:
    """Word pieces of all-MiniLM-L6-v2's tokenizer. Raises Unsupported where its files are not on this machine."""
    model = _minilm()
    if model is None:
        raise Unsupported("all-MiniLM-L6-v2's tokenizer is not on this machine; use tokenizer='bytes' or a callable.")
    return model.count_tokens(text)


@cache
def _minilm() -> MiniLM | None:
    from tercet.text.embed.minilm import MiniLM

    return MiniLM.find()


def count_bytes(text: str) -> int:
    """A bound that holds for byte-level tokenizers of any language: one token for every two bytes, rounded up."""
    return (len(text.encode()) + 1) // 2


TOKENIZERS: Mapping[str, Counter] = {
    "minilm": count_minilm,
    "bytes": count_bytes,
}


def render(hits: Sequence[Hit], *, budget: int, count: Counter) -> str:
    """As many of the best hits as fit in `budget` tokens, in the order in which they were said.

    A hit that does not fit is left out and the next, shorter one is tried: words are never cut in the middle.

    Raises
    ------
    InvalidRequest
        If the budget is not positive.
    """
    check_budget(budget)
    chosen: list[MemCube] = []
    for hit in hits:
        if count(lay_out([*chosen, hit.cube])) <= budget:
            chosen.append(hit.cube)
    return lay_out(chosen)


def check_budget(budget: int) -> int:
    """Return `budget` if it is positive."""
    if budget < 1:
        raise InvalidRequest(f"The budget must be at least 1 token, not {budget}.")
    return budget


def find_counter(tokenizer: str | Counter) -> Counter:
    """The counter that a name stands for, or the callable itself."""
    if callable(tokenizer):
        return tokenizer
    if tokenizer not in TOKENIZERS:
        raise InvalidRequest(f"Unknown tokenizer {tokenizer!r}; known are {', '.join(TOKENIZERS)}, or give a callable.")
    return TOKENIZERS[tokenizer]


def lay_out(cubes: Sequence[MemCube]) -> str:
    """Cubes in the order in which they were said, with speakers and dates, a line each."""
    lines, day = [], ""
    for cube in sorted(cubes, key=_when):
        today = f"{cube.observed:%A, %d %B %Y}" if cube.observed else ""
        if today != day:
            lines.append(f"{today}:")
            day = today
        clock = f"{cube.observed:%H:%M} " if cube.observed else ""
        lines.append(f"- {clock}{cube.speaker + ': ' if cube.speaker else ''}{cube.text}")
    return "\n".join(lines)


def _when(cube: MemCube) -> tuple[float, str]:
    return (cube.observed.timestamp() if cube.observed else 0.0, cube.id)
