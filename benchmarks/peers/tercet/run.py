"""Tercet as it comes: the default policy, a conversation a user, one `remember_many` for a conversation's turns."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.peers.driver import Turn, main


class Own:
    def __init__(self, folder: Path) -> None:
        from tercet import Tercet

        self.store = Tercet.open(folder)

    def add_batch(self, user: str, turns: Sequence[Turn]) -> None:
        self.store.scope(user=user).remember_many([self._message(turn) for turn in turns])

    def add_one(self, user: str, turn: Turn) -> None:
        self.store.scope(user=user).remember(self._message(turn))

    def settle(self) -> None:
        self.store.work(until_idle=True)

    def recall(self, user: str, question: str, limit: int) -> list[str]:
        return [str(hit.cube.ref) for hit in self.store.scope(user=user).recall(question, limit=limit)]

    def embed(self, texts: Sequence[str]) -> object:
        if self.store.embedder is None:
            raise RuntimeError("this environment lacks the embedding weights, so there is nothing to compare")
        return self.store.embedder.embed(list(texts))

    def close(self) -> None:
        self.store.close()

    @staticmethod
    def _message(turn: Turn) -> object:
        from tercet import Message

        return Message(turn.text, name=turn.speaker, at=turn.at, ref=turn.ref, session=turn.session)


main("tercet", lambda: version("tercet"), Own)
