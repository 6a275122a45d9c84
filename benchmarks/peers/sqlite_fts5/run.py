"""Plain SQLite FTS5: Porter stems, BM25, a question's stop words dropped. No vectors: the floor to stay above."""

import re
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.peers.driver import Turn, main

_STOP = (
    "a about after all am an and any are as at be been before being but by can could did do does doing during for from "
    "had has have having he her hers him his how i if in into is it its just may me might my no not of on or our out "
    "over own shall she should so some such than that the their them then there these they this those to under until "
    "up us was we were what when where which while who whom whose why will with would you your s t d ll m re ve"
)
STOP = frozenset(_STOP.split())


class Fts5:
    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "turns.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS turns "
            "USING fts5(text, user UNINDEXED, ref UNINDEXED, tokenize='porter')"
        )

    def add_batch(self, user: str, turns: Sequence[Turn]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO turns VALUES (?, ?, ?)", [(turn.line, user, turn.ref) for turn in turns])
        self.db.execute("COMMIT")

    def add_one(self, user: str, turn: Turn) -> None:
        self.add_batch(user, [turn])

    def settle(self) -> None:
        pass

    def recall(self, user: str, question: str, limit: int) -> list[str]:
        words = re.findall(r"\w+", question.lower())
        kept = [word for word in words if word not in STOP] or words
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(kept))
        rows = self.db.execute(
            "SELECT ref FROM turns WHERE turns MATCH ? AND user = ? ORDER BY rank LIMIT ?", (match, user, limit)
        )
        return [ref for (ref,) in rows]

    def embed(self, _texts: Sequence[str]) -> object:
        return None

    def close(self) -> None:
        self.db.close()


main("sqlite_fts5", lambda: sqlite3.sqlite_version, Fts5)
