"""The inverted index in plain tables, keyed by owner first. It stores and finds; scoring is the reader's.

The postings of an owner's term stand in blocks: a row for up to MOST cubes, keyed by a number that none of them is
below, so that reading a frequent word costs a row for a hundred cubes. A posting is two little-endian uint32: the
cube's number less the key, and how often the term occurs. Within a block cubes ascend, and blocks do not overlap.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from tercet.vault.connection import query, scalar, undamaged
from tercet.vault.search import analyse

Ints = NDArray[np.int64]
Posting = tuple[int, int]
"""A cube's number, and how often the term occurs in it."""

MOST = 112
"""Postings of a block: as many as SQLite keeps within a page of such a table."""
SIZE = 8
"""Bytes of a posting."""
_FARTHEST = 2**32 - 1

_LAST = "SELECT first, cubes FROM postings WHERE owner = ? AND term = ? ORDER BY first DESC LIMIT 1"
_AT = "SELECT first, cubes FROM postings WHERE owner = ? AND term = ? AND first <= ? ORDER BY first DESC LIMIT 1"
_NEXT = "SELECT min(first) FROM postings WHERE owner = ? AND term = ? AND first > ?"
_PUT = "INSERT INTO postings VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET cubes = excluded.cubes"
_DROP = "DELETE FROM postings WHERE owner = ? AND term = ? AND first = ?"


def counts(text: str) -> Counter[str]:
    """How often each term occurs in a text."""
    return Counter(analyse.terms(text))


def add(connection: apsw.Connection, rows: Iterable[tuple[int, int, Mapping[str, int]]]) -> None:
    """Index (owner, cube, term counts); inside the transaction that writes the cube."""
    # In key order the pages of the tree are filled one after the other instead of at random.
    flat = sorted((owner, term, cube, count) for owner, cube, terms in rows for term, count in terms.items())
    blocks = []
    for (owner, term), group in groupby(flat, key=lambda row: row[:2]):
        new = [(cube, count) for _, _, cube, count in group]
        last = connection.execute(_LAST, (owner, term)).fetchone()
        if last is None or new[0][0] > _final(last):
            blocks += [(owner, term, *block) for block in _appended(last, new)]
        else:
            _insert(connection, owner, term, new)
    connection.executemany(_PUT, blocks)


def remove(connection: apsw.Connection, owner: int, cube: int, terms: Iterable[str]) -> None:
    """Take a cube out again, given the terms of the text it was indexed with."""
    for term in terms:
        block = connection.execute(_AT, (owner, term, cube)).fetchone()
        if block is not None:
            _write(connection, owner, term, block[0], [posting for posting in _read(block) if posting[0] != cube])


def find(connection: apsw.Connection, owners: Sequence[int] | None, term: str) -> tuple[Ints, Ints]:
    """The cubes of these owners (None: of all) that have the term, and how often; ascending within an owner.

    Raises
    ------
    VaultDamaged
        If a block is not what was written.
    """
    if owners is None:
        statement = "SELECT first, cubes FROM postings WHERE owner IN (SELECT n FROM owners) AND term = ?"
        return _unpack(query(connection, statement, (term,)))
    blocks: list[tuple[int, bytes]] = []
    for owner in owners:
        blocks += query(connection, "SELECT first, cubes FROM postings WHERE owner = ? AND term = ?", (owner, term))
    return _unpack(blocks)


def times(connection: apsw.Connection, owner: int, cube: int, term: str) -> int | None:
    """How often the index says that a cube has a term; None if it says nothing."""
    block = connection.execute(_AT, (owner, term, cube)).fetchone()
    return None if block is None or not _sound(block) else dict(_read(block)).get(cube)


def held(connection: apsw.Connection) -> Counter[int]:
    """How many postings each cube has, of whatever owner and term; a block that cannot be read counts for cube 0."""
    found: Counter[int] = Counter()
    for block in connection.execute("SELECT first, cubes FROM postings"):
        found.update([cube for cube, _ in _read(block)] if _sound(block) else [0])
    return found


def purge(connection: apsw.Connection, cubes: set[int]) -> None:
    """Take cubes out wherever they stand, and whole blocks that cannot be read; reads all of the index."""
    blocks = [
        (owner, term, block)
        for owner, term, *block in query(connection, "SELECT owner, term, first, cubes FROM postings")
        if not _sound(block) or any(cube in cubes for cube, _ in _read(block))
    ]
    for owner, term, block in blocks:
        kept = [posting for posting in _read(block) if posting[0] not in cubes] if _sound(block) else []
        _write(connection, owner, term, block[0], kept)


def _unpack(blocks: Sequence[tuple[int, bytes]]) -> tuple[Ints, Ints]:
    with undamaged("The index of words"):
        sizes = np.array([len(cubes) // SIZE for _, cubes in blocks], dtype=np.int64)
        flat = np.frombuffer(b"".join(cubes for _, cubes in blocks), dtype="<u4").reshape(-1, 2).astype(np.int64)
        return flat[:, 0] + np.repeat(np.array([first for first, _ in blocks], dtype=np.int64), sizes), flat[:, 1]


def _sound(block: Sequence[Any]) -> bool:
    """Whether a row is a block: whole postings whose cubes ascend."""
    first, cubes = block
    if not isinstance(first, int) or not isinstance(cubes, bytes) or not cubes or len(cubes) % SIZE:
        return False
    found = [cube for cube, _ in _read((first, cubes))]
    return found == sorted(set(found))


def _read(block: Sequence[Any]) -> list[Posting]:
    first, cubes = block
    return [(first + offset, count) for offset, count in struct.iter_unpack("<II", cubes)]


def _pack(first: int, postings: Sequence[Posting]) -> bytes:
    return b"".join(struct.pack("<II", cube - first, count) for cube, count in postings)


def _final(block: tuple[int, bytes]) -> int:
    first, cubes = block
    offset, _ = struct.unpack("<II", cubes[-SIZE:])
    return first + int(offset)


def _appended(last: tuple[int, bytes] | None, new: Sequence[Posting]) -> Iterator[tuple[int, bytes]]:
    """Blocks to write for postings that come after all that are there."""
    start = 0
    if last is not None and new[-1][0] - last[0] <= _FARTHEST:
        start = max(0, MOST - len(last[1]) // SIZE)
        if start:
            yield last[0], last[1] + _pack(last[0], new[:start])
    for at in range(start, len(new), MOST):
        yield new[at][0], _pack(new[at][0], new[at : at + MOST])


def _insert(connection: apsw.Connection, owner: int, term: str, new: Sequence[Posting]) -> None:
    """Put postings where they belong, block by block."""
    while new:
        block = connection.execute(_AT, (owner, term, new[0][0])).fetchone() or (new[0][0], b"")
        end = scalar(connection, _NEXT, (owner, term, new[0][0]))
        here = [posting for posting in new if end is None or posting[0] < end]
        _write(connection, owner, term, block[0], sorted((dict(_read(block)) | dict(here)).items()))
        new = new[len(here) :]


def _write(connection: apsw.Connection, owner: int, term: str, first: int, postings: Sequence[Posting]) -> None:
    """Replace a block by as many as its postings need, of about the same size."""
    connection.execute(_DROP, (owner, term, first))
    parts = -(-len(postings) // MOST)
    for part in range(parts):
        some = postings[part * len(postings) // parts : (part + 1) * len(postings) // parts]
        key = some[0][0] if part else first
        connection.execute(_PUT, (owner, term, key, _pack(key, some)))
