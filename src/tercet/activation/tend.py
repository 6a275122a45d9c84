"""Carrying out what a promotion policy says: what is read often gets a KV cache, what went cold loses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tercet.activation import pack
from tercet.activation.memory import KVMemory, standing
from tercet.cube import Activation, MemCube
from tercet.errors import MissingMemory, Refused

if TYPE_CHECKING:
    from tercet.engine.base import CacheEngine
    from tercet.scope import Scope
    from tercet.vault.sqlite import Tenant

PROBE = 256
"""Tokens that are prefilled to learn an engine's pace."""


@dataclass(frozen=True, slots=True)
class Held:
    """A text that was used, the tokens it has, and its cache if there is one that stands."""

    text: MemCube
    heat: float
    tokens: int
    cache: MemCube | None


def pace(engine: CacheEngine, precision: str) -> tuple[float, float, float]:
    """Seconds a token to prefill and to load, and bytes a token, measured now."""
    tokens = [place % 200 for place in range(PROBE)]
    engine.prefill(tokens[:8])  # what is done once is done now
    begin = time.perf_counter()
    cache = engine.prefill(tokens)
    read = time.perf_counter() - begin
    data = bytearray()
    pack.write(cache, precision, data.extend)
    begin = time.perf_counter()
    engine.run(pack.read(data, most=PROBE).cache(cache.model, getattr(engine, "dtype", None)), room=16)
    return read / PROBE, (time.perf_counter() - begin) / PROBE, len(data) / PROBE


def survey(
    tenant: Tenant, scope: Scope, engine: CacheEngine, heats: Mapping[int, float], memory: KVMemory
) -> list[Held]:
    """What was used and is text, with its cache under this model; and caches whose text went cold."""
    found, seen = list[Held](), set[str]()
    with tenant.reading() as reader:
        for n in sorted(heats):
            cube = next(iter(reader.cubes([n])), None)
            if cube is None or isinstance(cube.payload, Activation) or not cube.text:
                continue
            caches = [one for one in memory.covering(reader, scope, engine, [cube.id])
                      if len(one.behavioural.derivations) == 1]  # fmt: skip
            seen |= {one.id for one in caches}
            found.append(Held(cube, heats[n], len(engine.encode(cube.text)), caches[0] if caches else None))
        for n in reader.numbers(scope, {"kind": "activation"}):
            for cube in reader.cubes([n]):
                payload = cube.payload
                alone = len(cube.behavioural.derivations) == 1
                if (
                    cube.id in seen
                    or not isinstance(payload, Activation)
                    or payload.model != engine.identity
                    or not alone
                ):
                    continue
                try:
                    standing(reader, scope, cube.id)
                    _, text = reader.head(cube.behavioural.derivations[0].id, scope)
                except (MissingMemory, Refused):
                    continue  # withdrawn: demoting it is `tend`'s, by the list of those that do not stand
                found.append(Held(text, 0.0, payload.tokens, cube))
    return found


def fallen(tenant: Tenant, scope: Scope) -> list[str]:
    """Caches that do not stand any more, since a source was revised, archived or quarantined."""
    gone = []
    with tenant.reading() as reader:
        for cube in reader.cubes(reader.numbers(scope, {"kind": "activation"})):
            try:
                standing(reader, scope, cube.id)
            except (MissingMemory, Refused):
                gone.append(cube.id)
    return gone


def carry_out(
    up: Sequence[str], down: Sequence[str], promote: Callable[[str], MemCube], demote: Callable[[str], object]
) -> dict[str, list[str]]:
    """Promote and demote; returns the ids of texts promoted and caches demoted."""
    for id in down:
        demote(id)
    return {"promoted": [promote(id).id for id in up], "demoted": list(down)}
