"""Recite, then read: a model's weights give back a passage from its beginning, and the answer comes from the passage.

Weights behave like a tape and not like an array (Zhu et al., "Beyond Memorization: The Challenge of Random Memory
Access in Language Models", ACL 2024, 2403.07805): from a key a model replays what it was taught, but it cannot jump
into the middle of it. Replayed into the prompt, the same words can be read anywhere. Reciting the wrong passage is
worse than not reciting, so a passage counts only if it is, to the letter, what its source's salted commitment was made
from; the source's words are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tercet.cube import Link, MemCube, Text
from tercet.errors import InvalidRequest, MissingMemory
from tercet.vault.codec import commit
from tercet.vault.connection import query

if TYPE_CHECKING:
    from tercet.engine.base import Engine
    from tercet.scope import Scope
    from tercet.vault.reader import Reader

Check = Callable[[Link, str], "MemCube | None"]
"""Gives the cube that a source is, if a passage is its text: see `written`."""
_CHECKSUM = "SELECT salt, header, commitment FROM versions WHERE cube = ? AND version = ? ORDER BY branch"


@dataclass(frozen=True, slots=True)
class Key:
    """What brings a source's passage back: for each of its sentences, in order, requests in several wordings."""

    source: Link
    requests: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Recited:
    """Sources whose passages came back as they were written, and how many came back as something else."""

    cubes: tuple[MemCube, ...] = ()
    unverified: int = 0


@dataclass(frozen=True, slots=True)
class Recite:
    """What may be recited before an answer.

    Attributes
    ----------
    passages:
        How many are recited at most, those first that recall found first.
    max_tokens:
        Tokens of a sentence at most; what is longer comes back cut and does not verify.
    """

    passages: int = 4
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if self.passages < 1 or self.max_tokens < 1:
            raise InvalidRequest(f"At least one passage of one token is recited, not {self}.")

    def recite(self, engine: Engine, keys: Sequence[Key], check: Check) -> Recited:
        """Have the engine recite, with the adapters it uses in this thread, and keep what `check` says was written."""
        cubes, failed = list[MemCube](), 0
        for key in [one for one in keys if one.requests][: self.passages]:
            cube = self._one(engine, key, check)
            if cube is None:
                failed += 1
            else:
                cubes.append(cube)
        return Recited(tuple(cubes), failed)

    def _one(self, engine: Engine, key: Key, check: Check) -> MemCube | None:
        for turn in range(max(len(part) for part in key.requests)):
            asked = [part[min(turn, len(part) - 1)] for part in key.requests]
            passage = " ".join(self._said(engine, one) for one in asked)
            if (cube := check(key.source, passage)) is not None:
                return cube
        return None

    def _said(self, engine: Engine, request: str) -> str:
        return "".join(engine.generate([{"role": "user", "content": request}], max_tokens=self.max_tokens)).strip()


def written(reader: Reader, scope: Scope, source: Link, passage: str) -> MemCube | None:
    """The cube that a source's version is, if a passage is its text; it is told by the commitment alone.

    The sign at the end may be missing, or be a full stop too many: a model ends its sentences.
    """
    try:
        n, cube = reader.head(source.id, scope)
    except MissingMemory:
        return None
    if cube.version != source.version:
        return None
    for salt, header, commitment in query(reader.connection, _CHECKSUM, (n, source.version)):
        for spelled in dict.fromkeys((passage, passage.rstrip(".!?"), f"{passage.rstrip('.!?')}.")):
            if spelled.strip() and commit(salt, replace(cube, payload=Text(spelled)), header) == commitment:
                return cube
    return None
