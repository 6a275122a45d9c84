"""What doctor, a rebuilt file, a backup and an archive know of branches, hidden cubes and old vectors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tercet import InvalidRequest, Tercet
from tercet.exchange.archive import export_scope
from tercet.exchange.restore import import_archive
from tercet.testing import FakeEmbedder, SeededClock, SeededEntropy
from tercet.testing.base import all_clear
from tercet.testing.dump import bytes_of
from tercet.vault.backup import restore
from tercet.vault.connection import query
from tercet.vault.rebuild import rebuild


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    """A main line with a revised cube and a hidden one, and a branch with rows of its own."""
    with Tercet.open(tmp_path / "v", embedder=FakeEmbedder(), clock=SeededClock(), entropy=SeededEntropy()) as t:
        alice = t.scope(user="alice")
        one = alice.remember("The boiler code is 4417.")
        t.snapshot("s")
        alice.revise(one.id, "The heating is off.")
        alice.remember("Made up.")
        t.restore("s")
        t.branch("b")
        b = t.scope(user="alice", branch="b")
        b.revise(one.id, "The boiler code on b is 9921.")
        b.remember("Only on b.")
        yield t


DAMAGES = {
    "a hidden cube is shown": ("UPDATE cubes SET hidden = 0", "hidden", True),
    "a cube is hidden": ("UPDATE cubes SET hidden = 1 WHERE n = 1", "hidden", True),
    "a row is on another branch": ("UPDATE cubes SET branch = 0 WHERE branch > 0 AND version = 1", "branches", False),
    "a branch is gone": ("DELETE FROM branches", "branches", False),
    "an old vector is short": ("UPDATE old_vectors SET vectors = x'0000' WHERE version = 1", "old_vectors", True),
    "an old vector has no version": ("UPDATE old_vectors SET version = 77 WHERE version = 1", "old_vectors", True),
    "a posting of a branch is missing": ("DELETE FROM postings WHERE term = '9921'", "words", True),
    "a vector of a branch is missing": (
        "DELETE FROM vectors WHERE cube IN (SELECT n FROM cubes WHERE branch > 0)", "vectors", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_doctor_sees_damage_and_repairs_what_rows_can_tell(damage: str, t: Tercet) -> None:
    statement, what, repaired = DAMAGES[damage]
    all_clear(t)
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute(statement)
    assert what in {finding.what for finding in t.doctor()["default"]}
    assert any(f.repaired for f in t.doctor(repair=True)["default"]) is repaired
    assert (t.doctor()["default"] == []) is repaired


def test_a_file_written_anew_keeps_branches_and_the_past(t: Tercet) -> None:
    with t.vault.tenant("default").maintaining() as connection:
        assert rebuild(connection) is None
    t.vault.tenant("default").forget_cache()
    t.doctor(repair=True)
    all_clear(t)
    assert {c.text for c in t.scope(user="alice", branch="b").list()} == {"The boiler code on b is 9921.", "Only on b."}
    assert [c.text for c in t.scope(user="alice").as_of(known=2).list()] == ["The boiler code is 4417."]


def test_what_was_erased_on_a_branch_stays_erased_after_a_backup_comes_back(t: Tercet, tmp_path: Path) -> None:
    b = t.scope(user="alice", branch="b")
    folder = t.vault.folder
    t.backup(tmp_path / "copy")
    gone = [cube.id for cube in b.list()]
    b.forget(gone)
    t.close()
    assert b"code on b" not in bytes_of(folder)
    restore(tmp_path / "copy", folder)
    assert b"code on b" not in bytes_of(folder)
    with Tercet.open(folder, embedder=None) as again:
        assert (again.scope().list().total, again.scope(branch="b").list().total) == (0, 0)
        assert [branch.name for branch in again.branches()] == ["b"]
        all_clear(again)


def test_canaries_are_in_no_byte_after_a_drop(t: Tercet) -> None:
    t.drop("b")
    folder = t.vault.folder
    t.close()
    data = bytes_of(folder)
    assert b"code on b" not in data
    assert b"Only on b" not in data
    assert b"boiler code is 4417" in data


def test_an_archive_of_a_branch_is_what_it_shows(t: Tercet, tmp_path: Path) -> None:
    stream = io.BytesIO()
    b = t.scope(user="alice", branch="b")
    assert export_scope(b, stream) == 2
    with Tercet.open(tmp_path / "other", embedder=None) as other:
        done = import_archive(other.scope(user="alice"), io.BytesIO(stream.getvalue()))
        assert len(done.added) == 2
        for cube in b.list():
            assert [c.text for c in other.scope(user="alice").history(cube.id)] == [c.text for c in b.history(cube.id)]
    back = import_archive(b, io.BytesIO(stream.getvalue()))
    assert (len(back.unchanged), back.added) == (2, ())
    with pytest.raises(InvalidRequest, match="past"):
        import_archive(b.as_of(known=3), io.BytesIO(stream.getvalue()))


def test_a_hidden_cube_is_not_taken_in_again(t: Tercet) -> None:
    """An import of it is skipped with the reason, and hides nothing that is there."""
    alice = t.scope(user="alice")
    stream = io.BytesIO()
    undo = t.snapshots()[-1].name
    t.branch("before", from_=undo)
    export_scope(t.scope(user="alice", branch="before"), stream)
    done = import_archive(alice, io.BytesIO(stream.getvalue()))
    assert [skipped.reason for skipped in done.skipped if "hidden" in skipped.reason]
    assert "Made up." not in {cube.text for cube in alice.list()}


def test_vectors_that_a_job_makes_for_a_branch_are_the_branchs_own(tmp_path: Path) -> None:
    """Rows of a branch wait for vectors like others, and the main line's changes do not tell of them."""
    with Tercet.open(tmp_path, embedder=None) as t:
        cube = t.scope(user="alice").remember("One.")
        t.branch("b")
        t.scope(user="alice", branch="b").revise(cube.id, "One on b.")
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        t.work(until_idle=True)
        assert [c.action for c in t.scope(user="alice").changes()] == ["remember", "embed"]
        assert [c.action for c in t.scope(user="alice", branch="b").changes()] == ["remember", "revise", "embed"]
        assert t.scope(user="alice", branch="b").recall("one")[0].why["by"] == "words and vectors"
        with t.vault.tenant("default").reading() as reader:
            assert query(reader.connection, "SELECT count(*) FROM vectors")[0][0] == 2
        all_clear(t)
