"""What a caller may use a right on, as a condition that SQLite can judge. The vault applies it; `govern` makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tercet.cube import MemCube


@dataclass(frozen=True, slots=True)
class Allowed:
    """A condition over `cubes c` and `scopes s`, with its bindings; equal ones allow the same cubes.

    `gone` is the condition over `scopes s` alone under which lines of the journal are told of cubes that are there no
    more, whose tags nobody can ask any longer. `covers` judges a cube in hand (a draft, an old version).
    """

    condition: str
    bindings: tuple[Any, ...] = ()
    gone: str = "FALSE"
    gone_bindings: tuple[Any, ...] = ()
    covers: Callable[[MemCube], bool] = field(compare=False, repr=False, default=lambda _: False)

    def both(self, other: Allowed) -> Allowed:
        """What both allow."""
        if self is EVERYTHING or other is EVERYTHING:
            return other if self is EVERYTHING else self
        return Allowed(
            f"({self.condition} AND {other.condition})",
            (*self.bindings, *other.bindings),
            f"({self.gone} AND {other.gone})",
            (*self.gone_bindings, *other.gone_bindings),
            lambda cube: self.covers(cube) and other.covers(cube),
        )


EVERYTHING = Allowed("TRUE", gone="TRUE", covers=lambda _: True)
NOTHING = Allowed("FALSE")


def everything(_: object) -> Allowed:
    """No limits."""
    return EVERYTHING


def grant_value(subject: str, right: str, context: str | None) -> str:
    """One line of a cube's access list as `attributes` keeps it under the key "access"."""
    return json.dumps([subject, right, context], ensure_ascii=False, separators=(",", ":"))
