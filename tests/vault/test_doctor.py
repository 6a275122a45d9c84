"""Doctor finds whatever differs from what the rows say, and rebuilds what can be rebuilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tercet import Tercet, VaultDamaged, VaultError, VaultTooNew
from tercet.cube import Text, derive
from tercet.testing import FakeEmbedder
from tercet.vault import writer
from tercet.vault.backup import restore
from tercet.vault.search import columns, wide

# SQLite offers no way to take a row out of an index alone, but to declare another index in the place of its pages.
LOSE_AN_INDEX_ROW = """
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = 'CREATE INDEX cubes_by_scope ON cubes (scope, branch, hidden, n) WHERE n > 1'
    WHERE name = 'cubes_by_scope';
PRAGMA writable_schema = RESET;
REINDEX cubes_by_scope;
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = 'CREATE INDEX cubes_by_scope ON cubes (scope, branch, hidden, n)'
    WHERE name = 'cubes_by_scope';
PRAGMA writable_schema = RESET;
"""
# Blocks of postings are keyed by their first cube: x'0000000001000000' is that cube, which has the term once.
DAMAGES = {
    "a posting is missing": ("DELETE FROM postings WHERE term = 'boiler'", "words", True),
    "a posting of an old text is left": (
        "INSERT INTO postings VALUES (1, 'zebra', 1, x'0000000001000000')", "words", True,
    ),
    "a posting counts wrongly": (
        "UPDATE postings SET cubes = x'0000000007000000' WHERE term = 'boiler'", "words", True,
    ),
    "a posting has no cube": (
        "INSERT INTO postings VALUES (1, 'zebra', 99, x'0000000001000000')", "words", True,
    ),
    "a block of postings is cut": ("UPDATE postings SET cubes = x'00' WHERE term = 'boiler'", "words", True),
    "a posting is another owner's": ("UPDATE postings SET owner = 7 WHERE term = 'boiler'", "words", True),
    "a length is wrong": ("UPDATE cubes SET words = 99 WHERE n = 1", "words", True),
    "a label is missing": ("DELETE FROM attributes WHERE key = 'tags'", "attributes", True),
    "a label is too many": ("INSERT INTO attributes VALUES (1, 'tags', 'x', 1)", "attributes", True),
    "a vector is short": ("UPDATE vectors SET vectors = x'0000' WHERE cube = 1", "vectors", True),
    "a vector is not finite": ("UPDATE vectors SET vectors = zeroblob(length(vectors))", "vectors", True),
    "a vector has no cube": ("UPDATE vectors SET cube = 99 WHERE cube = 1", "vectors", True),
    "a text was changed": ("UPDATE episodes SET text = 'The boiler code is 0000.' WHERE n = 1", "content", False),
    "a header changed": ("UPDATE versions SET header = replace(header, 'home', 'x') WHERE seq = 2", "content", False),
    "a vector waits for no job": ("DELETE FROM vectors WHERE cube = 2", "vectors", True),
    "a head says another time": ("UPDATE cubes SET observed = 0 WHERE n = 1", "heads", True),
    "a head says another type": ("UPDATE cubes SET type = 'x' WHERE n = 1", "heads", True),
    "a head points at an old version": ("UPDATE cubes SET version = 1 WHERE n = 1", "heads", True),
    "an old vector is short": (
        "INSERT OR REPLACE INTO old_vectors SELECT cube, 1, space, x'00', NULL FROM vectors WHERE cube = 1",
        "old_vectors",
        True,
    ),
    "an old vector has no version": (
        "INSERT INTO old_vectors SELECT cube, 9, space, vectors, NULL FROM vectors", "old_vectors", True
    ),
    "a blob has no memory": ("INSERT INTO blobs VALUES (zeroblob(32), 99, 1, 'kv', 7)", "blobs", True),
    "an export is unknown": ("INSERT INTO exported VALUES (1, 9)", "exported", True),
    "a snapshot has no branch": ("INSERT INTO snapshots VALUES ('a', 7, 1, 1)", "snapshots", True),
    "a branch has no parent": ("INSERT INTO branches VALUES (3, 'b', 2, 1, 1)", "branches", False),
    "a memory has no branch": ("UPDATE cubes SET branch = 7 WHERE n = 2", "branches", False),
    "a state is none": ("UPDATE cubes SET state = 'asleep' WHERE n = 1", "content", False),
    "an id is another": ("UPDATE cubes SET id = zeroblob(16) WHERE n = 1", "content", False),
    "a user is another": ("UPDATE owners SET user = 'bob'", "content", False),
    "a piece is missing": ("DELETE FROM episodes WHERE n = 1", "content", False),
    "an index lost a row": (LOSE_AN_INDEX_ROW, "file", True),
    "a source is forgotten": ("DELETE FROM derivations", "derivations", True),
    "an erasure is forgotten": ("DELETE FROM erased", "erased", True),
    "a scrub waits for no job": ("INSERT INTO scrubs (at) VALUES (1)", "scrubs", True),
    "a version is missing": ("DELETE FROM versions WHERE cube = 1 AND version = 2", "content", False),
    "a journal line was changed": ("UPDATE journal SET by = 'nobody' WHERE seq = 2", "journal", False),
    "a journal line is missing": ("DELETE FROM journal WHERE seq = 2", "journal", False),
    "the journal's end is cut": ("DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)", "journal", False),
}  # fmt: skip


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        cube = alice.remember("The boiler code is 4417.", tags=["home"])
        alice.remember("I moved to Oslo.", metadata={"n": 1})
        alice.revise(cube.id, "The boiler code is 9921.")
        alice.remember(derive([alice.get(cube.id)], Text("There is a boiler."), method="by hand"))
        alice.forget(alice.remember("A secret.").id)
        yield t


@pytest.mark.parametrize("damage", DAMAGES)
def test_finds_and_repairs(t: Tercet, damage: str) -> None:
    statement, what, repairable = DAMAGES[damage]
    assert t.doctor() == {"default": []}
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute(statement)
    assert what in {finding.what for finding in t.doctor()["default"]}
    repaired = t.doctor(repair=True)["default"]
    assert {finding.repaired for finding in repaired if finding.what == what} == {repairable}
    still = {finding.what for finding in t.doctor()["default"]}
    assert (what in still) is not repairable


def test_damaged_content_is_not_served(t: Tercet) -> None:
    alice = t.scope(user="alice")
    cube = alice.list()[0]
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("UPDATE versions SET text = 'The boiler code is 0000.' WHERE version = 2")
    with pytest.raises(VaultDamaged, match=cube.id):
        alice.get(cube.id)


def test_a_file_that_is_no_vault_says_so(tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "default.db").write_bytes(b"not a database, and long enough to be read as one" * 100)
    with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultDamaged, match="damaged"):
        t.scope().list()


def test_a_renamed_file_is_not_taken_for_another_tenant(t: Tercet, tmp_path: Path) -> None:
    t.backup(tmp_path / "copy")
    (tmp_path / "copy/tenants/default.db").rename(tmp_path / "copy/tenants/other.db")
    with Tercet.open(tmp_path / "copy", embedder=None) as copy, pytest.raises(VaultDamaged, match="another tenant"):
        copy.scope(tenant="other").list()


def test_a_newer_vault_is_left_alone(t: Tercet, tmp_path: Path) -> None:
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("INSERT INTO migrations VALUES (1000000)")
    t.close()
    before = (tmp_path / "tenants" / "default.db").read_bytes()
    with Tercet.open(tmp_path, embedder=None) as newer, pytest.raises(VaultTooNew, match="upgrade"):
        newer.scope().remember("One.")
    assert (tmp_path / "tenants" / "default.db").read_bytes() == before


@pytest.fixture
def wide_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tercet]:
    """Large enough for a coded segment, by a limit made small."""
    for module in (columns, wide, writer):
        monkeypatch.setattr(module, "WIDE", 20)
    monkeypatch.setattr(writer, "INDEX_EVERY", 20)
    with Tercet.open(tmp_path / "wide", embedder=FakeEmbedder()) as t:
        t.scope(user="alice").remember_many([f"Note number {i}" for i in range(60)])
        t.work(until_idle=True)
        yield t


SEGMENTS: dict[str, Callable[[Path], object]] = {
    "a byte of its head is flipped": lambda path: flip(path, 100),
    "a byte of its middle is flipped": lambda path: flip(path, path.stat().st_size // 2),
    "its last byte is flipped": lambda path: flip(path, path.stat().st_size - 1),
    "it is cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "nobody knows it": lambda path: shutil.copy(path, path.with_name("vectors-9-9.lvq")),
}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", SEGMENTS)
def test_a_damaged_segment_is_named_and_made_anew(wide_vault: Tercet, damage: str) -> None:
    t = wide_vault
    assert t.doctor() == {"default": []}
    [path] = (t.vault.folder / "segments").rglob("*.lvq")
    SEGMENTS[damage](path)
    assert [one.what for one in t.doctor()["default"]] == ["segments"]
    assert [one.repaired for one in t.doctor(repair=True)["default"]] == [True]
    t.work(until_idle=True)
    assert len(list((t.vault.folder / "segments").rglob("*.lvq"))) == 1
    assert t.doctor() == {"default": []}


def test_a_segment_of_other_rows_is_named(wide_vault: Tercet) -> None:
    t = wide_vault
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("DELETE FROM vectors WHERE cube = 5")
    assert "segments" in {one.what for one in t.doctor()["default"]}


def test_a_restore_takes_no_segments_along(wide_vault: Tercet, tmp_path: Path) -> None:
    t = wide_vault
    t.backup(tmp_path / "copy")
    t.close()
    restore(tmp_path / "copy", tmp_path / "wide")
    assert not list((tmp_path / "wide" / "segments").rglob("*.lvq"))
    with Tercet.open(tmp_path / "wide", embedder=FakeEmbedder()) as again:
        again.vault.tenant("default").index()
        assert again.doctor() == {"default": []}
        assert again.scope(user="alice").recall("Note number 7", limit=1)[0].cube.text == "Note number 7"


def test_a_segment_that_cannot_be_written_loses_no_erasure(wide_vault: Tercet) -> None:
    t = wide_vault
    alice = t.scope(user="alice")
    cube = alice.list(limit=1)[0]
    folder = t.vault.folder / "segments"
    shutil.rmtree(folder)
    folder.write_text("something else is here")
    receipt = alice.forget(cube.id)
    assert receipt.scrubbed_at is None
    assert "cannot be read or written" in (receipt.waiting_for or "")
    with pytest.raises(VaultError, match="cannot be read or written"):
        t.vault.tenant("default").index()
    folder.unlink()
    assert t.vault.tenant("default").scrub() is None
    assert t.doctor() == {"default": []}
