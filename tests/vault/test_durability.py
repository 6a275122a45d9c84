"""No acknowledged write is lost: not to a kill, to other processes, to threads, nor to a call that fails half-way."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import Tercet, VaultBusy
from tercet.testing import BrokenEmbedder, FakeEmbedder, SeededClock, kills
from tercet.testing.base import all_clear
from tercet.testing.crash import PHASES, Book, kill_in, kill_once
from tercet.testing.crowd import Member, gather
from tercet.testing.dump import dump
from tercet.testing.processes import finish, run, start
from tercet.vault.connection import connect
from tercet.vault.ids import RandomIds

WRITER = """
import sys
from tercet import Tercet
from tercet.testing import FakeEmbedder
folder, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()                      # all begin at once
with Tercet.open(folder, embedder=FakeEmbedder()) as t:
    scope = t.scope(user="shared")
    for i in range(count):
        cube = scope.remember(f"process {number} wrote {i}", ref=f"{number}-{i}")
        assert scope.get(cube.id) == cube
        assert cube.id in [hit.cube.id for hit in scope.recall(f"process {number} wrote {i}", limit=1000)]
        if i % 5 == 4:
            assert scope.revise(cube.id, f"process {number} rewrote {i}", expect=1).version == 2
        if i % 5 == 3:
            scope.forget(cube.id)
    assert scope.remember("everybody's", ref="everybody's").text == "everybody's"
"""


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    book = Book()
    for seed in range(20):
        kill_once(tmp_path, book, seed=seed)
    assert book.acknowledged > 20
    assert book.erased


@pytest.mark.slow
@pytest.mark.parametrize("deed", [deed for deed in kills.DEEDS if deed != "writing"])
def test_a_kill_in_the_middle_of_a_deed_loses_nothing(tmp_path: Path, deed: str) -> None:
    """Indexing, consolidation, backup, re-embedding; the benchmark kills 200 in each."""
    book, ended = Book(), Counter[str]()
    for seed in range(50):
        ended[kills.kill_once(tmp_path / "vault", book, seed=seed, deed=deed)] += 1
        if seed >= 4 and ended[deed]:  # on a quick machine the deed may be over before the first kills
            break
    assert book.acknowledged > 20
    assert ended[deed], ended


@pytest.mark.slow
def test_a_crowd_of_processes_reads_what_each_was_told(tmp_path: Path) -> None:
    """Eight processes for a while; the benchmark has them at it for ten minutes."""
    done = gather(tmp_path, processes=8, seconds=12)
    assert min(done["calls"][name] for name in ("ask", "look", "turn_pages", "erase", "revise", "work")) > 0
    assert done["erased"] > 10


def test_two_that_make_a_file_at_once_both_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits for nobody when it begins a log; whoever comes second has to."""
    path = tmp_path / "a.db"
    with closing(apsw.Connection(str(path))) as first, ThreadPoolExecutor() as pool:
        first.execute("BEGIN IMMEDIATE")
        second = pool.submit(connect, path)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)
        first.execute("COMMIT")
        with closing(second.result(timeout=30)) as connection:
            assert connection.pragma("journal_mode") == "wal"
            connection.pragma("journal_mode", "delete")
        first.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("tercet.vault.connection.BUSY_MS", 50)
        with pytest.raises(VaultBusy):
            connect(path)


def test_the_crowd_sees_a_loss_and_a_stale_read(tmp_path: Path) -> None:
    """A member that is told of something that is not so fails."""
    with Tercet.open(tmp_path / "vault", embedder=FakeEmbedder()) as t, ExitStack() as stack:
        member = stack.enter_context(closing(Member(t, tmp_path, 0)))
        member.write()
        for check in (member.look, member.ask, member.turn_pages):
            check()
        id = member.own[0]
        member.note(gone=[id])
        for check in (member.ask, member.turn_pages):
            with pytest.raises(AssertionError, match="erased and"):
                check()
        member.ledgers.gone.clear()
        member.note(kept=[(id, 2, "p0w1 is newer")])
        with pytest.raises(AssertionError, match="after 2 was acknowledged"):
            member.look()
        member.scope.forget(id)
        with pytest.raises(AssertionError, match="is lost"):
            member.look()
        with pytest.raises(AssertionError, match="not listed"):
            member.turn_pages()


def test_kills_during_branch_and_restore_leave_the_old_or_the_new(tmp_path: Path) -> None:
    book = Book()
    for seed in range(8):
        kill_once(tmp_path, book, seed=seed, travels=0.8)
    assert book.acknowledged > 8


@pytest.mark.parametrize("phase", PHASES)
def test_a_kill_leaves_no_erasure_half_done(phase: str, tmp_path: Path) -> None:
    book = Book()
    for seed in range(3):
        kill_in(phase, tmp_path, book, seed=seed)
    assert book.erased


def test_the_check_sees_a_loss(tmp_path: Path) -> None:
    """A memory in the book that is not in the vault, and one that is there twice, fail."""
    from tercet.testing.crash import USER, check

    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        cubes = t.scope(user=USER).remember_many(["memory 1", "memory 2"])
        twins = t.scope(user=USER).remember_many(["memory 3", "memory 3"])
    book = Book({cube.id: cube.text for cube in cubes})
    with pytest.raises(AssertionError, match="lost or changed"):
        check(Tercet.open(tmp_path, embedder=FakeEmbedder()), book, None)
    book.texts.update({cube.id: cube.text for cube in twins})
    with pytest.raises(AssertionError, match="kept twice"):
        check(Tercet.open(tmp_path, embedder=FakeEmbedder()), book, None)
    with pytest.raises(AssertionError, match="half done"):
        check(Tercet.open(tmp_path, embedder=FakeEmbedder()), book, {"doing": ["memory 1", "memory 5"]})


@pytest.mark.slow
def test_four_processes_write_and_read_at_once(tmp_path: Path) -> None:
    """Each reads its own writes at once and none meets a lock error; in the end all writes are there, once."""
    writers = [start(WRITER, tmp_path, number, 15) for number in range(4)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        finish(writer)
    wanted = {
        f"process {n} {'rewrote' if i % 5 == 4 else 'wrote'} {i}" for n in range(4) for i in range(15) if i % 5 != 3
    }
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        texts = [cube.text for cube in t.scope(user="shared").list(limit=1000)]
        assert sorted(texts) == sorted(wanted | {"everybody's"})
        t.work(until_idle=True)
        all_clear(t)


@pytest.mark.slow
def test_processes_that_make_one_vault_at_once_agree(tmp_path: Path) -> None:
    for attempt in range(3):
        writers = [start(WRITER, tmp_path / str(attempt), number, 1) for number in range(3)]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        for writer in writers:
            finish(writer)
        with Tercet.open(tmp_path / str(attempt), embedder=None) as t:
            assert t.scope(user="shared").list().total == 4
            all_clear(t)


def test_threads_that_make_one_vault_at_once_agree(tmp_path: Path) -> None:
    def write(number: int) -> str:
        with Tercet.open(tmp_path, embedder=None) as t:
            return t.scope(user="shared").remember(f"thread {number}").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(write, range(8)))
    with Tercet.open(tmp_path, embedder=None) as t:
        assert {cube.id for cube in t.scope(user="shared").list()} == ids
        all_clear(t)


def test_a_reader_keeps_its_moment_while_others_write(tmp_path: Path) -> None:
    """A recall in a snapshot that was begun before another thread's write and recall answers as of its beginning."""
    from tercet.text.recall.policies import POLICIES
    from tercet.text.recall.recall import ask, recall

    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope(user="alice")
        old = alice.remember("The boiler code is 4417.")
        tenant = t.vault.tenant("default")
        with tenant.reading() as reader:
            assert reader.head(old.id, alice.scope)[1] == old
            alice.remember("The boiler is loud.")
            assert alice.recall("boiler").total == 2
            view = tenant.view(reader, alice.scope, None)
            hits = recall(view, reader.cubes, ask("boiler", view, None), POLICIES["words"], limit=10)
            assert [hit.cube.id for hit in hits] == [old.id]
        assert alice.recall("boiler").total == 2


class Interrupting:
    """Raises at the n-th use, then never again."""

    def __init__(self, use: Callable[..., Any], at: int, error: BaseException) -> None:
        self.use, self.left, self.error = use, at, error

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401  # whatever it stands in for
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.use(*arguments)


@pytest.fixture
def before(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A vault with something in it, and its dump."""
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        cube = alice.remember("The boiler code is 4417.", ref="r")
        alice.revise(cube.id, "The boiler code is 9921.")
        yield {"id": cube.id, "dump": dump(t)}


ERRORS = (RuntimeError("no entropy"), KeyboardInterrupt(), MemoryError())
CALLS: dict[str, Callable[[Any, str], object]] = {
    "remember": lambda scope, _: scope.remember("One more.", tags=["a"]),
    "remember_many": lambda scope, _: scope.remember_many([f"Number {i}." for i in range(5)]),
    "revise": lambda scope, cube: scope.revise(cube, "The boiler is gone."),
    "rollback": lambda scope, cube: scope.rollback(cube, version=1),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("nth", [1, 2, 5])
def test_entropy_that_fails_half_way_changes_nothing(
    tmp_path: Path, before: dict[str, Any], error: BaseException, call: str, nth: int
) -> None:
    """Salts are drawn inside the transaction, between the rows: whatever is raised there undoes them all."""
    entropy = Interrupting(os.urandom, nth, error)
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), entropy=entropy) as t:
        scope = t.scope(user="alice")
        with suppress(type(error)):
            CALLS[call](scope, before["id"])
            assert entropy.left > 0, "the error was swallowed"
            return  # this call draws less often
        assert dump(t) == before["dump"]
        assert scope.remember("After it.").version == 1  # the lock is free and the handle usable
        all_clear(t)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_id_source_or_clock_that_fails_changes_nothing(
    tmp_path: Path, before: dict[str, Any], error: BaseException
) -> None:
    for options in ({"ids": Interrupting(RandomIds(), 3, error)}, {"clock": Interrupting(SeededClock(), 2, error)}):
        with Tercet.open(tmp_path, embedder=FakeEmbedder(), **options) as t:  # type: ignore[arg-type]
            with pytest.raises(type(error)):
                t.scope(user="alice").remember_many(["One.", "Two.", "Three."])
            assert dump(t) == before["dump"]


def test_an_interrupted_embedder_changes_nothing(tmp_path: Path, before: dict[str, Any]) -> None:
    """Whoever presses the interrupt key while a text is embedded has written nothing."""
    with Tercet.open(tmp_path, embedder=BrokenEmbedder(KeyboardInterrupt())) as t:
        for call in CALLS.values():
            with pytest.raises(KeyboardInterrupt):
                call(t.scope(user="alice"), before["id"])
        assert dump(t) == before["dump"]


def test_a_failed_erasure_changes_nothing(tmp_path: Path, before: dict[str, Any]) -> None:
    """A disk that fails in the middle of an erasure leaves all of it."""
    with Tercet.open(tmp_path, embedder=None) as t:
        scope = t.scope(user="alice")
        with t.vault.tenant("default").maintaining() as connection:
            connection.execute(
                "CREATE TRIGGER fail BEFORE DELETE ON episodes BEGIN SELECT raise(ABORT, 'the disk fails'); END"
            )
        with pytest.raises(Exception, match="the disk fails"):
            scope.forget(before["id"])
        with t.vault.tenant("default").maintaining() as connection:
            connection.execute("DROP TRIGGER fail")
        assert dump(t) == before["dump"]
        assert scope.recall("boiler")[0].cube.id == before["id"]


def test_a_lock_held_for_too_long_is_said(tmp_path: Path, before: dict[str, Any]) -> None:
    """Another process in a transaction: an error that names the cause, and nothing is lost or changed."""
    from tercet import VaultBusy

    holder = start(
        "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print('held', flush=True); "
        "sys.stdin.readline(); c.execute('ROLLBACK')",
        tmp_path / "tenants" / "default.db",
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with Tercet.open(tmp_path, embedder=None) as t:
        with t.vault.tenant("default").maintaining() as connection:
            connection.set_busy_timeout(50)
        with pytest.raises(VaultBusy, match="lock"):
            t.scope(user="alice").remember("Too late.")
        assert t.scope(user="alice").get(before["id"]).version == 2  # reading goes on
        finish(holder)
        assert dump(t) == before["dump"]
        assert t.scope(user="alice").remember("In time.").version == 1


@pytest.mark.usefixtures("before")
def test_a_writer_waits_for_another_process(tmp_path: Path) -> None:
    """A lock that is let go of in time is no error."""
    holder = start(
        "import sys, time, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        "print('held', flush=True); time.sleep(0.5); c.execute('ROLLBACK')",
        tmp_path / "tenants" / "default.db",
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope(user="alice").remember("Patience.").version == 1
    finish(holder)


@pytest.mark.usefixtures("before")
def test_another_process_sees_a_write_at_once(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        cube = t.scope(user="alice").remember(
            "The cellar is flooded.", at=datetime.fromisoformat("2024-05-01T12:00:00Z")
        )
        told = run(
            "import sys; from tercet import Tercet\n"
            "with Tercet.open(sys.argv[1], embedder=None) as t:\n"
            "    print(t.scope(user='alice').recall('flooded cellar')[0].cube.id)",
            tmp_path,
        )
        assert told.strip() == cube.id


KILLED_AT = """
import json, os, shutil, sys
from pathlib import Path
from tercet import Tercet
from tercet.vault import sqlite
base, call = Path(sys.argv[1]), sys.argv[2]
connect = sqlite.connect_sealed  # which opens every file of a tenant

def counting(limit):
    left = [limit]
    def trace(cursor, statement, bindings):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        return True
    def opened(*given, **options):
        connection = connect(*given, **options)
        connection.exec_trace = trace
        return connection
    return opened

for point in range(1, 500):
    folder = base.parent / f"{call}-{point}"
    shutil.copytree(base, folder)
    child = os.fork()
    if child == 0:
        sqlite.connect_sealed = counting(point)
        alice = Tercet.open(folder, embedder=None).scope(user="alice")
        [cube] = alice.list(where={"ref": "r"})
        if call == "remember_many":
            alice.remember_many(["One.", "Two.", "Three."])
        elif call == "revise":
            alice.revise(cube.id, "Revised.")
        else:
            alice.forget(cube.id)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    with Tercet.open(folder, embedder=None) as t:
        texts = sorted(cube.text for cube in t.scope(user="alice").list())
        found = [finding.what for some in t.doctor().values() for finding in some]
        t.work(until_idle=True)
    left = any(b"canary" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    print(json.dumps([texts, found, left]))
    shutil.rmtree(folder)
    if not killed:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("remember_many", ["Keep.", "One.", "The canary sings.", "Three.", "Two."]),
        ("revise", ["Keep.", "Revised."]),
        ("forget", ["Keep."]),
    ],
)
def test_a_kill_at_any_statement_does_all_or_nothing(tmp_path: Path, call: str, after: list[str]) -> None:
    """Killed before each SQL statement in turn: the call is undone, or done whole, never one after the other."""
    before = ["Keep.", "The canary sings."]
    with Tercet.open(tmp_path / "base", embedder=None) as t:
        t.scope(user="alice").remember("Keep.")
        t.scope(user="alice").remember("The canary sings.", ref="r")
    points = [json.loads(line) for line in run(KILLED_AT, tmp_path / "base", call).splitlines()]
    texts = [found for found, _, _ in points]
    assert len(points) > 20
    assert [found for found in texts if found not in (before, after)] == []
    assert texts == [found for found in texts if found == before] + [found for found in texts if found == after]
    assert texts[0] == before
    assert texts[-1] == after
    assert [findings for _, findings, _ in points if findings] == []
    if call == "forget":  # whenever it was killed after the commit, whoever works next scrubs the bytes
        assert [left for found, _, left in points if found == after and left] == []
