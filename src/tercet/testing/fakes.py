"""Fakes you can reason about: what they answer is planned, and an unplanned call is a failure."""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from tercet.text.embed.base import Embedding, Floats


class FakeEmbedder:
    """Places a text by the hashes of its words: deterministic, quick, and blind to meaning.

    Texts that share words are near each other. For tests of determinism and plumbing, not of recall's quality.

    Parameters
    ----------
    dim
        The length of a vector.
    pause
        Seconds that each call takes, for tests of slow embedders.
    """

    def __init__(self, dim: int = 32, *, space: str | None = None, pause: float = 0.0) -> None:
        self.dim, self.space, self.pause = dim, space or f"fake/{dim}", pause
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """One unit vector a text."""
        time.sleep(self.pause)
        self.asked += texts
        return [Embedding(self.vector(text)[None]) for text in texts]

    def vector(self, text: str) -> Floats:
        """(dim,) float32 of unit norm."""
        # The text itself counts a little: a text without words has a place too, and no two texts share one.
        total = 0.1 * _direction(text, self.dim)
        for word in re.findall(r"\w+", text.lower()):
            total = total + _direction(word, self.dim)
        return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


class BrokenEmbedder(FakeEmbedder):
    """A `FakeEmbedder` while `error` is None; else every call raises it. Set `error` to None to mend it."""

    def __init__(self, error: BaseException | None, *, dim: int = 32) -> None:
        super().__init__(dim)
        self.error = error

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """As `FakeEmbedder`, or raise `error`."""
        if self.error is not None:
            raise self.error
        return super().embed(texts)


class Scripted:
    """Says what it is told to, in order, and remembers being asked. A model, or an embedder given as a callable."""

    def __init__(self, *replies: object) -> None:
        self.replies, self.prompts = deque(replies), list[object]()

    def __call__(self, prompt: object) -> object:
        """The next reply; one that is an exception is raised. IndexError: nobody planned this call."""
        self.prompts.append(prompt)
        reply = self.replies.popleft()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def complete(self, prompt: str) -> str:
        """The next reply, as a language model gives it."""
        return str(self(prompt))


def _direction(word: str, dim: int) -> Floats:
    raw = hashlib.shake_256(word.encode()).digest(2 * dim)
    return (np.frombuffer(raw, dtype="<u2").astype(np.float32) - 32767.5) / 32767.5
