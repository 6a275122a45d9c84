"""The inverted index in blocks says what a plain mapping of the same writes says."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.vault.connection import connect, query
from tercet.vault.schema import STEPS, migrate
from tercet.vault.search import words

Posting = tuple[int, str, int]


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    made = connect(None)
    migrate(made)
    made.execute("INSERT INTO owners VALUES (1, 'a'), (2, 'b')")
    yield made
    made.close()


def index_of(connection: apsw.Connection) -> dict[Posting, int]:
    found = {}
    for owner in (1, 2):
        for term in ("x", "y"):
            cubes, counts = words.find(connection, [owner], term)
            assert cubes.tolist() == sorted(set(cubes.tolist()))
            found.update(
                {(owner, term, cube): count for cube, count in zip(cubes.tolist(), counts.tolist(), strict=True)}
            )
    return found


cubes = st.lists(st.integers(1, 900), min_size=1, max_size=300, unique=True)
steps = st.lists(st.tuples(st.booleans(), st.integers(1, 2), st.sampled_from("xy"), cubes), max_size=8)


@given(steps)
@settings(max_examples=50, deadline=None)
def test_equals_a_mapping_after_any_writes(steps: list[tuple[bool, int, str, list[int]]]) -> None:
    connection = connect(None)
    migrate(connection)
    held: dict[Posting, int] = {}
    for adds, owner, term, some in steps:
        if adds:
            words.add(connection, [(owner, cube, {term: 1 + cube % 3}) for cube in some])
            held.update({(owner, term, cube): 1 + cube % 3 for cube in some})
        else:
            for cube in some:
                words.remove(connection, owner, cube, [term])
                held.pop((owner, term, cube), None)
    assert index_of(connection) == held
    assert words.held(connection).total() == len(held)
    assert all(words.times(connection, owner, cube, term) == n for (owner, term, cube), n in held.items())
    sizes = query(connection, "SELECT length(cubes) FROM postings")
    assert all(0 < size <= words.MOST * words.SIZE for (size,) in sizes)
    connection.close()


def test_no_byte_of_what_was_removed_is_left(connection: apsw.Connection) -> None:
    words.add(connection, [(1, cube, {"x": 1}) for cube in range(1, 300)])
    for cube in range(1, 300):
        words.remove(connection, 1, cube, ["x"])
    assert query(connection, "SELECT * FROM postings") == []


def test_a_purge_reaches_every_owner_and_what_cannot_be_read(connection: apsw.Connection) -> None:
    words.add(connection, [(owner, cube, {"x": 1, "y": 2}) for owner in (1, 2) for cube in (3, 4)])
    connection.execute("INSERT INTO postings VALUES (1, 'z', 5, x'00')")
    assert words.held(connection)[0] == 1
    words.purge(connection, {3})
    assert words.held(connection) == {4: 4}


def test_a_file_of_the_first_schema_is_packed_as_it_was() -> None:
    connection = connect(None)
    connection.execute(STEPS[1])
    connection.execute("CREATE TABLE migrations (step INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO migrations VALUES (1)")
    rows = [(owner, term, cube, 1 + cube % 5) for owner in (1, 2) for term in "xy" for cube in range(owner, 700, owner)]
    connection.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", rows)
    migrate(connection)
    assert index_of(connection) == {(owner, term, cube): count for owner, term, cube, count in rows}
    connection.close()
