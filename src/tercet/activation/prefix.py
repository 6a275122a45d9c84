"""Finding what can be reused: the longest prefix of a prompt, by token ids, among the caches that are kept.

A chain of hashes over blocks of `BLOCK` tokens, H_0 = sha256(salt, model), H_i = sha256(H_{i-1}, block i as int32),
makes the search as long as the prompt, however many caches there are; the rest of the last block is compared token by
token. The salt is the tenant's, so that two tenants' equal texts have nothing in common.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

from tercet.cube import ModelIdentity

BLOCK = 16


def chain(tokens: Sequence[int], *, salt: str, model: ModelIdentity) -> Iterator[bytes]:
    """The hash of every prefix of whole blocks, from none on."""
    state = hashlib.sha256(f"{salt}\0{model!r}".encode()).digest()
    yield state
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        state = hashlib.sha256(state + struct.pack(f"<{BLOCK}i", *tokens[start : start + BLOCK])).digest()
        yield state


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


class PrefixIndex:
    """Token sequences by key, found by the longest prefix that a prompt shares with one of them."""

    def __init__(self, *, salt: str, model: ModelIdentity) -> None:
        self.salt, self.model = salt, model
        self._tokens: dict[str, tuple[int, ...]] = {}
        self._keys: dict[bytes, set[str]] = {}

    def add(self, key: str, tokens: Sequence[int]) -> None:
        """Put a sequence in; the same key again replaces it."""
        self.drop(key)
        self._tokens[key] = tuple(tokens)
        for state in chain(tokens, salt=self.salt, model=self.model):
            self._keys.setdefault(state, set()).add(key)

    def drop(self, key: str) -> None:
        """Take a sequence out, if it is in."""
        for state in chain(self._tokens.pop(key, ()), salt=self.salt, model=self.model):
            if key in (keys := self._keys.get(state, set())):
                keys.discard(key)
                if not keys:
                    del self._keys[state]

    def keys(self) -> set[str]:
        """What is in."""
        return set(self._tokens)

    def longest(self, prompt: Sequence[int]) -> tuple[str, int] | None:
        """The key that shares most of the prompt's beginning, and how many tokens; None if none shares a token."""
        best: set[str] = set()
        for state in chain(prompt, salt=self.salt, model=self.model):
            if state not in self._keys:
                break
            best = self._keys[state]
        found = max(((common(self._tokens[key], prompt), key) for key in sorted(best)), default=(0, ""))
        return (found[1], found[0]) if found[0] else None
