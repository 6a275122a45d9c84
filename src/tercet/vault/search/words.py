"""The inverted index in plain tables, keyed by owner first. It stores and finds; scoring is the reader's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import apsw

from tercet.vault.connection import query
from tercet.vault.search import analyse


def counts(text: str) -> Counter[str]:
    """How often each term occurs in a text."""
    return Counter(analyse.terms(text))


def add(connection: apsw.Connection, rows: Iterable[tuple[int, int, Mapping[str, int]]]) -> None:
    """Index (owner, cube, term counts); inside the transaction that writes the cube."""
    # In key order the pages of the tree are filled one after the other instead of at random.
    flat = sorted((owner, term, cube, count) for owner, cube, terms in rows for term, count in terms.items())
    connection.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", flat)


def remove(connection: apsw.Connection, owner: int, cube: int, terms: Iterable[str]) -> None:
    """Take a cube out again, given the terms of the text it was indexed with."""
    connection.executemany(
        "DELETE FROM postings WHERE owner = ? AND term = ? AND cube = ?", [(owner, term, cube) for term in terms]
    )


def find(connection: apsw.Connection, owners: Sequence[int] | None, term: str) -> list[tuple[int, int]]:
    """(cube, count) of every cube of these owners (None: of all) that has the term."""
    if owners is None:
        statement = "SELECT cube, count FROM postings WHERE owner IN (SELECT n FROM owners) AND term = ?"
        return query(connection, statement, (term,))
    rows: list[tuple[int, int]] = []
    for owner in owners:
        rows += query(connection, "SELECT cube, count FROM postings WHERE owner = ? AND term = ?", (owner, term))
    return rows
