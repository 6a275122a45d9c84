"""What a cube's row repeats of its newest version, so that lists, filters and indexes need open none."""

from __future__ import annotations

from datetime import datetime

from tercet.cube import MemCube, Scalar
from tercet.vault.allowed import grant_value
from tercet.vault.codec import to_micros


def attributes(cube: MemCube) -> list[tuple[str, Scalar]]:
    """What filters find a cube by beside its columns: (key, value)."""
    held: list[tuple[str, Scalar]] = [("tags", tag) for tag in cube.tags]
    held += [("access", grant_value(grant.subject, grant.right, grant.context)) for grant in cube.governance.access]
    return held + [(f"metadata.{key}", value) for key, value in cube.metadata.items() if value is not None]


def heading(cube: MemCube) -> dict[str, Scalar]:
    """What a cube's head repeats of its newest version, by column."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    return {
        "kind": d.kind.value,
        "type": d.type,
        "ref": d.origin.ref,
        "speaker": d.origin.speaker,
        "role": d.origin.role,
        "observed": _micros(d.observed),
        "happened_from": _micros(d.happened.start) if d.happened else None,
        "happened_to": _micros(d.happened.end) if d.happened else None,
        "expires": _micros(g.expires),
        "half_life": g.half_life_days,
        "held": int(g.hold is not None),
        "sensitivity": int(g.sensitivity),
        "trust": int(g.trust),
        "subject": d.slot.subject if d.slot else None,
        "attribute": d.slot.attribute if d.slot else None,
        "valid_from": _micros(b.valid_from),
        "valid_to": _micros(b.valid_to),
    }


def _micros(when: datetime | None) -> int | None:
    return None if when is None else to_micros(when)
