"""Adapters to one adapter cube: merged, judged on what all of them were taught, and kept as made from all their texts.

It comes from the texts, not from the adapters: erasing a text reaches it as it reaches them, and dropping one of them
leaves it.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import torch

from tercet.errors import InvalidRequest
from tercet.parametric.adapter import MAX_RANK, Adapter, Pair
from tercet.parametric.gate import Advice
from tercet.parametric.memory import MERGED
from tercet.parametric.merge import MERGES
from tercet.parametric.promote import Candidate, Teaching, begun, check_sources, clashed, kept, lesson, running
from tercet.parametric.runs import destroy

if TYPE_CHECKING:
    from tercet.cube import MemCube
    from tercet.engine.base import AdapterEngine
    from tercet.scope import Scope
    from tercet.vault.sqlite import Tenant


@dataclass(frozen=True)
class Merge:
    """How adapters become one: a name of MERGES, a weight for each, and all that the method takes besides."""

    method: str
    weights: tuple[float, ...]
    options: Mapping[str, float]

    @classmethod
    def asked(cls, method: str, weights: Sequence[float] | None, options: Mapping[str, float], *, parts: int) -> Self:
        """What somebody asks for, of so many parts; what is left out is 1 for a weight, or the method's own default.

        Raises InvalidRequest for an unknown method, an option that it does not take or lacks, and a value that is none.
        """
        if method not in MERGES:
            raise InvalidRequest(f"No merge {method!r:.80}; known are {', '.join(MERGES)}.")
        taken = {one.name: one.default for one in inspect.signature(MERGES[method]).parameters.values()
                 if one.kind is one.KEYWORD_ONLY}  # fmt: skip
        if unknown := sorted(options.keys() - taken):
            known = f"takes {', '.join(taken)}" if taken else "takes no option"
            raise InvalidRequest(f"The merge {method!r} {known}, and not {', '.join(unknown)}.")
        given = {name: options.get(name, default) for name, default in taken.items()}
        for name, value in given.items():
            if value is inspect.Parameter.empty:
                raise InvalidRequest(f"The merge {method!r} needs a {name}, e.g. {name}=16.")
            _check(name, value)
        given = {name: int(value) if name in WHOLE else float(value) for name, value in given.items()}
        shares = (1.0,) * parts if weights is None else tuple(weights)
        if len(shares) != parts or not all(_number(one) and one for one in shares):
            raise InvalidRequest(
                f"Each of {parts} adapters has a weight, a number that is not 0: {list(shares)!r:.80}."
            )
        return cls(method, tuple(float(one) for one in shares), MappingProxyType(given))

    def of(self, adapters: Sequence[Adapter]) -> Adapter:
        """The merged adapter, all its modules of one rank. Raises InvalidRequest for other bases, too high a rank."""
        made = MERGES[self.method](list(zip(adapters, self.weights, strict=True)), **self.options)
        if made.rank > MAX_RANK:
            raise InvalidRequest(
                f"Merged by {self.method!r} they have rank {made.rank}, and {MAX_RANK} is the most; the method 'svd' "
                "keeps what comes nearest at the rank that you give it."
            )
        return padded(made)


WEIGHED = Advice("greater `weights` may help", "smaller `weights` move less of it")
WHOLE: Mapping[str, range] = MappingProxyType({"rank": range(1, MAX_RANK + 1), "seed": range(1 << 63)})
"""Options that are whole numbers, and which; the others are numbers."""


def merge(
    tenant: Tenant, scope: Scope, parts: Sequence[tuple[MemCube, Adapter]], sources: Sequence[MemCube],
    engine: AdapterEngine, way: Merge, how: Teaching, *, by: str,
) -> MemCube:  # fmt: skip
    """Merge adapters whose sources are these, and keep what comes of it if it passes the gate, asked about all of them.

    Of `how` the recipe counts for nothing. The same adapters, merged in the same way, are the cube that is there
    already. Raises InvalidRequest, Refused, GateFailed, StaleWrite.
    """
    check_sources(sources)
    names = [[cube.id, cube.version] for cube, _ in parts]
    said = [MERGED, names, repr(engine.base), way.method, way.weights, dict(way.options)]
    run, twin = begun(tenant, said, sources, engine, how, MERGED)
    if twin is not None:
        return twin
    facts, clashes, _ = lesson(sources)
    start = time.perf_counter()
    made = way.of([adapter for _, adapter in parts])
    told = {
        "contradictions": clashed(clashes),
        "record": {
            "ranks": [adapter.rank for _, adapter in parts], "rank": made.rank, "modules": len(made.modules),
            "seconds": time.perf_counter() - start,
        },
        "recipe": {
            "merge": way.method, "weights": list(way.weights), "options": dict(way.options),
            "parts": [f"{cube.id}@{cube.version}" for cube, _ in parts],
        },
    }  # fmt: skip
    # What an adapter was taught is in it whether a newer text says otherwise or not: all of them are its sources.
    candidate = Candidate(made, facts, sources, MERGED, told, run, WEIGHED)
    folder = running(tenant, run, sources)
    try:
        return kept(tenant, scope, engine, candidate, how, folder=folder, by=by)
    finally:
        destroy(folder)  # there is nothing to go on from


def padded(adapter: Adapter) -> Adapter:
    """The same deltas, all modules at the greatest rank of any: rows of A and columns of B that are zero."""

    def wide(pair: Pair) -> Pair:
        more = adapter.rank - pair.rank
        pad = torch.nn.functional.pad
        return Pair(pad(pair.a, (0, 0, 0, more)), pad(pair.b, (0, more)), pair.scale)

    return Adapter({name: wide(pair) for name, pair in adapter.modules.items()})


def _check(name: str, value: Any) -> None:  # noqa: ANN401  # whatever a caller gives
    if name in WHOLE:
        whole = WHOLE[name]
        if type(value) is not int or value not in whole:
            raise InvalidRequest(f"A {name} is a whole number from {whole[0]} to {whole[-1]}, not {value!r:.80}.")
    elif not _number(value):
        raise InvalidRequest(f"A {name} is a number, not {value!r:.80}.")


def _number(value: Any) -> bool:  # noqa: ANN401  # whatever a caller gives
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
