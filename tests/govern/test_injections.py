"""The injection log: what entered which prompt, written in groups, and what is left of it after an erasure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command_line import Cli

from tercet import MissingMemory, ScopedMemory, Tercet
from tercet.govern.injections import TOGETHER
from tercet.testing import SeededClock, SeededEntropy
from tercet.testing.base import all_clear
from tercet.testing.processes import start


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[ScopedMemory]:
    with Tercet.open(tmp_path, embedder=None) as t:
        yield t.scope(user="alice")
        all_clear(t)


def rows(memory: ScopedMemory, table: str = "injections") -> int:
    with memory.tercet.vault.tenant("default").reading() as reader:
        [(count,)] = reader.connection.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
        return int(count)


def test_there_and_back(memory: ScopedMemory) -> None:
    boiler, soup = memory.remember("The boiler code is 4417."), memory.remember("Lunch was soup.")
    passage = memory.context("boiler code", limit=1)
    assert isinstance(passage, str)
    [answer] = memory.trace(passage.answer)
    assert [(one.cube, one.version) for one in answer.memories] == [(boiler.id, 1)]
    assert answer.memories[0].score == passage.hits[0].score
    assert (answer.by, answer.scope) == ("local", memory.scope)
    assert memory.trace(boiler.id) == [answer]
    assert memory.trace(soup.id) == []


def test_only_what_fitted_is_there(memory: ScopedMemory) -> None:
    memory.remember_many([f"The code of door {n} is {n}." for n in range(20)])
    passage = memory.context("door code", budget=80)
    [answer] = memory.trace(passage.answer)
    assert len(answer.memories) == len(passage.hits) == passage.count("The code") < 20


def test_an_empty_passage_is_no_answer(memory: ScopedMemory) -> None:
    passage = memory.context("anything")
    assert (passage, passage.answer, passage.hits) == ("", "", ())
    assert rows(memory) == 0


def test_the_version_that_was_in_it_is_told(memory: ScopedMemory) -> None:
    cube = memory.remember("The boiler code is 4417.")
    first = memory.context("boiler").answer
    memory.revise(cube.id, "The boiler code is 9921.")
    second = memory.context("boiler").answer
    assert [(one.answer, one.memories[0].version) for one in memory.trace(cube.id)] == [(first, 1), (second, 2)]


def test_forgetting_leaves_an_id(memory: ScopedMemory, tmp_path: Path) -> None:
    cube, other = memory.remember("The boiler code is 4417."), memory.remember("The boiler is from 1990.")
    answer = memory.context("what is the boiler code of Zanzibar").answer
    memory.trace(answer)
    late = memory.context("boiler").answer  # not written yet when it is forgotten
    memory.forget(cube.id)
    for id in (answer, late):
        [found] = memory.trace(id)
        assert {one.cube: (one.version is None, one.score is None) for one in found.memories} == {
            cube.id: (True, True),
            other.id: (False, False),
        }
    assert {one.answer for one in memory.trace(cube.id)} == {answer, late}
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*.db*"))
    assert b"Zanzibar" not in held
    assert b"code is 4417" not in held


def test_whose_it_is(memory: ScopedMemory) -> None:
    """An answer is told within its scope; a memory's answers to whoever sees the memory."""
    t = memory.tercet
    cube = memory.remember("The boiler code is 4417.")
    mine, anybody = memory.context("boiler").answer, t.scope().context("boiler").answer
    assert {one.answer for one in memory.trace(cube.id)} == {mine, anybody}
    for id in (anybody, "nonsense", "018f6e2c-0000-7000-8000-000000000000"):
        with pytest.raises(MissingMemory):
            memory.trace(id)
    for stranger in (t.scope(user="bob"), t.scope(tenant="other")):
        for id in (cube.id, mine):
            with pytest.raises(MissingMemory):
                stranger.trace(id)
    memory.forget(cube.id)
    assert [one.answer for one in memory.trace(cube.id)] == [mine]
    with pytest.raises(MissingMemory):
        t.scope(user="bob").trace(cube.id)


def test_they_are_written_in_groups(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        memory = t.scope()
        memory.remember("The boiler code is 4417.")
        for _ in range(TOGETHER - 1):
            memory.context("boiler")
        assert rows(memory) == 0
        memory.context("boiler")
        assert rows(memory) == rows(memory, "injected") == TOGETHER
        memory.context("boiler")
    with Tercet.open(tmp_path, embedder=None) as t:
        assert rows(t.scope()) == TOGETHER + 1


KILLED = """
import os, sys
from tercet import Tercet
t = Tercet.open(sys.argv[1], embedder=None)
t.scope().remember("The boiler code is 4417.")
for _ in range(70):
    t.scope().context("boiler")
os._exit(9)
"""


def test_what_a_kill_loses_is_less_than_a_group(tmp_path: Path) -> None:
    with start(KILLED, tmp_path) as process:
        assert process.wait(60) == 9
    with Tercet.open(tmp_path, embedder=None) as t:
        assert rows(t.scope()) == TOGETHER
        assert t.scope().list().total == 1


def test_a_vault_that_cannot_be_written_keeps_them_waiting(
    memory: ScopedMemory, caplog: pytest.LogCaptureFixture
) -> None:
    memory.remember("The boiler code is 4417.")
    tenant = memory.tercet.vault.tenant("default")
    with tenant.maintaining() as connection:
        connection.pragma("query_only", "ON")
    with caplog.at_level(logging.WARNING):
        for _ in range(TOGETHER):
            assert memory.context("boiler")
    assert "not traced yet" in caplog.text
    with tenant.maintaining() as connection:
        connection.pragma("query_only", "OFF")
    assert len(memory.trace(memory.list()[0].id)) == TOGETHER


def test_reading_changes_no_id_of_a_write(tmp_path: Path) -> None:
    """The same writes give the same ids and salts, whatever was asked in between."""
    kept = []
    for name, asks in (("a", 0), ("b", 3)):
        with Tercet.open(tmp_path / name, embedder=None, clock=SeededClock(), entropy=SeededEntropy(7)) as t:
            first = t.scope().remember("One.", at="2024-05-01T09:00:00Z")
            for _ in range(asks):
                t.scope().context("one")
            second = t.scope().remember("Two.", at="2024-05-01T09:00:00Z")
            kept.append([first.id[-12:], second.id[-12:]])
    assert kept[0] == kept[1]


def test_the_command_line(cli: Cli) -> None:
    id = cli.id("The boiler code is 4417.")
    answer = cli("context", "boiler", "--json").json["answer"]
    assert cli("trace", answer, "--json").json["answers"][0]["memories"][0]["id"] == id
    assert cli("trace", id, "--json").json["answers"][0]["answer"] == answer
    assert answer in cli("trace", id).out
    assert cli("trace", "nonsense").code == 4
    cli("forget", id)
    assert "forgotten since" in cli("trace", answer).out
