"""What was forgotten is in no file, no answer and no cache."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tercet import EmbeddingFailed, Held, InvalidRequest, MemCube, ScopedMemory, StaleWrite, Tercet, Text, derive
from tercet.cube import Governance
from tercet.testing import BrokenEmbedder, FakeEmbedder, SeededClock, SeededEntropy
from tercet.testing.base import all_clear
from tercet.testing.dump import bytes_of, dump
from tercet.testing.processes import finish, start
from tercet.text.read.message import Message


def canary() -> str:
    """A word that is nowhere else."""
    return f"canary{uuid.uuid4().hex}"


def present(folder: Path, *words: str) -> list[str]:
    """Which of the words stand in some file of the folder, in any of the ways in which a file may hold them."""
    content = bytes_of(folder)
    forms = ("utf-8", "utf-16-le", "utf-16-be")
    return [word for word in words if any(word.encode(form) in content for form in forms)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def t(folder: Path) -> Iterator[Tercet]:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    scope = t.scope(user="alice")
    scope.remember_many([f"Filler number {i}, about boilers and Oslo and soup." for i in range(300)])
    return scope


def test_no_byte_is_left_in_any_file(folder: Path, alice: ScopedMemory, t: Tercet) -> None:
    """Texts, old versions, labels, refs, speakers, products, words and vectors; while open and after closing."""
    words = [canary() for _ in range(9)]
    message = Message(
        f"The code is {words[0]}.", name=words[1], ref=words[2], tags=(words[3],), metadata={words[4]: words[5]}
    )
    cube = alice.remember(message)
    alice.revise(cube.id, f"The code is {words[6]}.")
    cube = alice.rollback(cube.id, version=1)
    cube = alice.revise(cube.id, f"Now it is {words[7]}.")
    alice.remember(derive([cube], Text(f"A code: {words[8]}."), method="m"))
    vectors = [FakeEmbedder().vector(text).astype("<f2").tobytes() for text in (cube.text, f"A code: {words[8]}.")]
    assert present(folder, *words) == words  # the search can find them
    assert all(vector in bytes_of(folder) for vector in vectors)
    alice.recall(f"What of {words[7]}?")
    receipt = alice.forget(cube.id)
    assert receipt.scrubbed_at is not None
    assert receipt.waiting_for is None
    assert present(folder, *words) == []
    assert not any(vector in bytes_of(folder) for vector in vectors)
    assert not [row for rows in dump(t).values() for row in rows for word in words if word in repr(row)]
    for word in words:
        assert word not in repr([hit.cube for hit in alice.recall(f"Where is {word}?", limit=400)])
        assert word not in alice.context(f"Where is {word}?", budget=100_000)
        assert word not in repr(alice.changes(limit=10_000))
    assert alice.list(where={"tags": words[3]}).total == alice.list(where={words[4]: words[5]}).total == 0
    assert words[1] not in repr(t.stats())
    all_clear(t)
    t.close()
    assert present(folder, *words) == []


def test_a_documents_passages_leave_no_byte(folder: Path, tmp_path: Path, alice: ScopedMemory) -> None:
    """Passages of one document are cubes of their own: what is forgotten of them goes, what is not stays."""
    words = [canary() for _ in range(6)]
    path = tmp_path / "plan.md"
    path.write_text("\n\n".join(f"# Part {i}\n\nThis part tells of {word}, at length. " + "So it goes. " * 150
                                for i, word in enumerate(words)))  # fmt: skip
    cubes = alice.remember_document(path)
    assert len(cubes) >= len(words)
    gone = [cube for cube in cubes if any(word in cube.text for word in words[:3])]
    kept = [cube for cube in cubes if cube not in gone]
    lost = [word for word in words if not any(word in cube.text for cube in kept)]
    receipt = alice.forget([cube.id for cube in gone])
    assert receipt.scrubbed_at is not None
    assert lost[:3] == words[:3]
    assert present(folder, *words) == words[3:]
    assert [alice.get(cube.id) for cube in kept] == kept


def test_large_texts_leave_no_byte(folder: Path, alice: ScopedMemory) -> None:
    """Overflow pages are scrubbed too."""
    words = [canary() for _ in range(50)]
    cube = alice.remember(" ".join(f"{word} {'padding ' * 400}" for word in words))
    assert present(folder, *words) == words
    assert alice.forget(cube.id).scrubbed_at is not None
    assert present(folder, *words) == []


def test_pages_that_were_split_leave_no_byte(folder: Path, t: Tercet) -> None:
    """Where a page was divided, a copy of what moved away can stay behind in the gap, beside what stands."""
    scope, entropy = t.scope(user="alice"), SeededEntropy()
    gone, words = [], []
    for _ in range(12):
        word = canary().removeprefix("canary")
        gone.append(scope.remember(f"{word} {word}x {word}y"))
        words.append(word)
        scope.remember_many([" ".join(entropy(16).hex() for _ in range(20)) for _ in range(20)])  # some fall beside it
    assert scope.forget([cube.id for cube in gone]).scrubbed_at is not None
    assert present(folder, *words) == []


def test_a_waiting_vector_job_brings_nothing_back(tmp_path: Path) -> None:
    """A text forgotten before its vector was made: no error text, job or vector of it is left or comes later."""
    word = canary()

    def fails(texts: list[str]) -> list[list[float]]:
        raise ValueError(f"cannot embed {texts[0]}")

    with Tercet.open(tmp_path, embedder=fails) as t:
        alice = t.scope(user="alice")
        cube = alice.remember(f"The code is {word}.")
        t.work(until_idle=True)
        alice.forget(cube.id)
        assert present(tmp_path, word) == []
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["vectors"].get("fake/32", 0) == 0
        all_clear(t)


def test_a_revision_or_vector_on_its_way_does_not_outlive_the_erasure(tmp_path: Path) -> None:
    """A vector made for a text that is revised or erased meanwhile is not written."""
    from tercet.text.embed import fill as filling

    class Meanwhile(FakeEmbedder):
        def embed(self, texts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as FakeEmbedder
            made = super().embed(texts)
            if scope.list().total == 2:
                scope.forget(first.id)
                scope.revise(second.id, "Revised meanwhile.")
            return made

    with Tercet.open(tmp_path, embedder=None) as t:
        scope = t.scope(user="alice")
        first, second = scope.remember_many(["First.", "Second."])
        filling.fill(t.vault.tenant("default"), Meanwhile(), by="test")
        assert t.stats()["tenants"]["default"]["vectors"] == {"fake/32": 1}
        with t.vault.tenant("default").reading() as reader:
            [(blob,)] = reader.connection.execute("SELECT vectors FROM vectors").fetchall()
        assert blob == FakeEmbedder().vector("Revised meanwhile.").astype("<f2").tobytes()
        all_clear(t)


def test_an_old_snapshot_delays_the_scrub_and_says_so(folder: Path, alice: ScopedMemory, t: Tercet) -> None:
    """Another process that still reads from before: the receipt says what it waits for, and `work` finishes it."""
    word = canary()
    cube = alice.remember(f"The code is {word}.")
    reader = start(
        "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN'); "
        "c.execute('SELECT count(*) FROM cubes').get; print('reading', flush=True); "
        "sys.stdin.readline(); c.execute('ROLLBACK')",
        folder / "tenants" / "default.db",
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    receipt = alice.forget(cube.id)
    assert receipt.erased == (cube.id,)
    assert receipt.scrubbed_at is None
    assert "another process" in (receipt.waiting_for or "")
    assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 1
    assert not [hit for hit in alice.recall(word) if word in hit.cube.text]  # nothing serves it meanwhile
    finish(reader)
    assert t.vault.tenant("default").scrub(at_once=True) is None
    assert present(folder, word) == []
    t.work(until_idle=True)
    assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 0


def test_the_scrub_job_tries_again(tmp_path: Path) -> None:
    """A scrub that had to wait is finished by `work` once its time has come, also after reopening."""
    clock, word = SeededClock(), canary()
    with Tercet.open(tmp_path, embedder=None, clock=clock) as t:
        scope = t.scope(user="alice")
        cube = scope.remember(f"The code is {word}.")
        other = Tercet.open(tmp_path, embedder=None)
        with other.vault.tenant("default").reading() as reader:
            assert reader.head(cube.id, scope.scope)[1] == cube
            assert scope.forget(cube.id).waiting_for is not None
            t.work(until_idle=True)
            assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 1
        other.close()
        clock.advance(timedelta(hours=1))
    with Tercet.open(tmp_path, embedder=None, clock=clock) as t:
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 0
        assert t.stats()["tenants"]["default"]["jobs"].get("scrub", 0) == 0
        assert present(tmp_path, word) == []


def test_a_scrub_cut_short_by_a_crash_is_finished_later(tmp_path: Path) -> None:
    """The intent stands in the transaction that erased; whoever opens the vault next and works finishes it."""
    word = canary()
    with Tercet.open(tmp_path, embedder=None) as t:
        scope = t.scope(user="alice")
        scope.remember_many([f"Filler {i}." for i in range(50)])
        cube = scope.remember(f"The code is {word}.")
    killed = start(
        "import os, sys\n"
        "from tercet import Tercet\n"
        "from tercet.vault.sqlite import Tenant\n"
        "Tenant.scrub = lambda self, **options: os.kill(os.getpid(), 9)\n"
        "Tercet.open(sys.argv[1], embedder=None).scope(user='alice').forget(sys.argv[2])",
        tmp_path,
        cube.id,
    )
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope(user="alice").list().total == 50
        assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 1
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 0
        assert present(tmp_path, word) == []


def test_a_held_cube_keeps_every_row(alice: ScopedMemory, t: Tercet) -> None:
    """A refused erasure changes no row of any table."""
    held = alice.remember(MemCube(Text("Held."), governance=Governance(hold="case 7")))
    free = alice.remember("Free.")
    product = alice.remember(derive([held, free], Text("Made of both."), method="m"))
    assert product.governance.hold == "case 7"
    before = dump(t)
    for asked in (held.id, free.id, [free.id, product.id]):
        with pytest.raises(Held):
            alice.forget(asked)
    assert dump(t) == before


def test_erased_ids_never_return(t: Tercet, alice: ScopedMemory, tmp_path: Path) -> None:
    """Not by handing the cube in again, nor in a product, nor by a late revision."""
    cube = alice.remember("The code is 4417.")
    other = alice.remember("Something else.")
    alice.forget(cube.id)
    before = dump(t)
    for draft in (cube, derive([other, cube], Text("Both."), method="m")):
        with pytest.raises((InvalidRequest, LookupError)):
            alice.remember(draft)
    with pytest.raises(LookupError):
        alice.revise(cube.id, "Back.")
    assert dump(t) == before
    t.backup(tmp_path / "copy")
    with Tercet.open(tmp_path / "copy", embedder=None) as copy, pytest.raises(InvalidRequest, match="erased"):
        copy.scope(user="alice").remember(cube)


def test_a_revision_that_races_an_erasure_loses(tmp_path: Path) -> None:
    """Whatever is read before and written after finds nothing to write to."""
    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope(user="alice")
        cube = alice.remember("One.")

        class Forgetting(FakeEmbedder):
            def embed(self, texts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as FakeEmbedder
                if alice.list().total:
                    alice.forget(cube.id)
                return super().embed(texts)

        with Tercet.open(tmp_path, embedder=Forgetting()) as late, pytest.raises((LookupError, StaleWrite)):
            late.scope(user="alice").revise(cube.id, "Two.")
        assert alice.list().total == 0
        all_clear(t)


def test_a_product_of_many_sources_is_withdrawn(folder: Path, alice: ScopedMemory) -> None:
    word = canary()
    sources = alice.remember_many([f"Source {i} {word if i == 7 else ''}." for i in range(20)])
    product = alice.remember(derive(sources, Text(f"Twenty sources, one of which said {word}."), method="m"))
    receipt = alice.forget(sources[7].id)
    assert receipt.derived == (product.id,)
    assert present(folder, word) == []
    assert all(alice.get(source.id) == source for source in sources if source is not sources[7])


def test_caches_of_other_handles_drop_what_was_erased(tmp_path: Path) -> None:
    """A handle that has it in memory neither serves nor keeps it once it looks again."""
    word = canary()
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as one, Tercet.open(tmp_path, embedder=FakeEmbedder()) as two:
        scope, other = one.scope(user="alice"), two.scope(user="alice")
        cube = scope.remember(Message(f"The code is {word}.", name=word))
        scope.remember("Something else.")
        assert other.recall(word)[0].cube.id == cube.id
        scope.forget(cube.id)
        assert word not in repr([hit.cube for hit in other.recall(word)])
        held = list(two.vault.tenant("default")._columns.values())
        assert held
        assert word not in repr([columns.speakers.names for columns in held])


@pytest.mark.skipif(os.name != "posix", reason="file descriptors are listed in /proc")
def test_an_erasure_leaves_no_file_beside_the_vault(folder: Path, alice: ScopedMemory) -> None:
    """No temporary copy of the content: only the database, its log, their index, and the ids that were erased."""
    cube = alice.remember(canary())
    alice.forget(cube.id)
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert set(names) <= {
        "default.db",
        "default.db-wal",
        "default.db-shm",
        "default.mark",
        "default.use",
        "default.log",
    }


def test_an_embedders_complaint_is_not_kept(tmp_path: Path) -> None:
    """The words of an error may quote the text; what a job keeps of it is gone with the text."""
    word = canary()
    with Tercet.open(tmp_path, embedder=BrokenEmbedder(EmbeddingFailed(f"cannot embed {word}"))) as t:
        alice = t.scope(user="alice")
        cube = alice.remember(f"The code is {word}.")
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["jobs"] == {"embed": 1}
        alice.forget(cube.id)
        assert present(tmp_path, word) == []
