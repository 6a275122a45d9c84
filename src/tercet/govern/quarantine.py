"""Quarantine: what reads like an instruction to a model, and comes from where nobody vouches for it, is kept apart.

It is stored and shown to a person. It enters no prompt, no answer of `recall` that did not ask for it, and nothing that
is trained; what is made from it is quarantined, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from tercet.cube import Kind, MemCube, Source, Trust
from tercet.errors import InvalidRequest, Refused

TIERS: Mapping[str, Trust] = MappingProxyType(
    {
        Source.USER.value: Trust.OBSERVED,
        Source.MODEL.value: Trust.UNTRUSTED,  # it may repeat what it has read
        Source.RETRIEVAL.value: Trust.UNTRUSTED,
        Source.TUNING.value: Trust.UNTRUSTED,
        Source.IMPORT.value: Trust.UNTRUSTED,
        "role tool": Trust.UNTRUSTED,
    }
)
"""Origin -> the most trust that something has for coming from there; of a source and a role the lower counts."""


def tier(cube: MemCube) -> Trust:
    """How far a cube may be believed for where it comes from; what was made from others has what they gave it."""
    if cube.behavioural.derivations:
        return cube.governance.trust
    origin = cube.descriptive.origin
    given = min(TIERS[origin.source.value], TIERS.get(f"role {origin.role}", Trust.CONFIRMED))
    # Whoever hands in a draft as confirmed has looked at it.
    return cube.governance.trust if cube.governance.trust is Trust.CONFIRMED else min(cube.governance.trust, given)


def screened(cube: MemCube, *, foreign: bool = False) -> MemCube:
    """The draft with the trust of its tier; quarantined if it is untrusted and reads like an instruction to a model.

    What is `foreign` (an archive) keeps its trust, and is looked at whatever it says of its own origin.
    """
    trust = cube.governance.trust if foreign else tier(cube)
    if (foreign or trust <= Trust.UNTRUSTED) and trust is not Trust.QUARANTINED:
        from tercet.govern.detect.instructions import instructs

        if any(map(instructs, _words(cube))):
            trust = Trust.QUARANTINED
    return with_trust(cube, trust)


def released(cube: MemCube) -> MemCube:
    """The cube as a person releases it: believed as if that person had said it. Raises InvalidRequest if it is free."""
    if cube.governance.trust is not Trust.QUARANTINED:
        raise InvalidRequest(f"Memory {cube.id} is not in quarantine.")
    return with_trust(cube, Trust.OBSERVED)


def with_trust(cube: MemCube, trust: Trust) -> MemCube:
    """The cube, believed so far."""
    if cube.governance.trust is trust:
        return cube
    return replace(cube, governance=replace(cube.governance, trust=trust))


def free(cubes: Iterable[MemCube]) -> list[MemCube]:
    """Those that are not in quarantine: what may enter a prompt."""
    return [cube for cube in cubes if cube.governance.trust is not Trust.QUARANTINED]


def check_trainable(cubes: Iterable[MemCube]) -> None:
    """Raise Refused if one of them is in quarantine: nothing is trained on it, or kept as a model's state."""
    for cube in cubes:
        if cube.governance.trust is Trust.QUARANTINED:
            raise Refused(f"Memory {cube.id} is in quarantine and is not built upon; `tercet quarantine release` it.")


def check_shareable(cubes: Iterable[MemCube]) -> None:
    """Raise Refused if one of them is in quarantine: nobody is handed what no prompt of one's own may have."""
    for cube in cubes:
        if cube.governance.trust is Trust.QUARANTINED:
            raise Refused(f"Memory {cube.id} is in quarantine and is not shared; `tercet quarantine release` it.")


def _words(cube: MemCube) -> Iterable[str]:
    """What of a cube may end up in a prompt."""
    if cube.kind is Kind.TEXT:
        yield cube.text
    yield from (value for value in cube.descriptive.metadata.values() if isinstance(value, str))
    yield from cube.tags
    if cube.speaker:
        yield cube.speaker
