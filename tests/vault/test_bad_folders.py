"""Folders that a vault cannot work in: it says so, and never makes things worse."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tercet import Tercet, VaultDamaged, VaultError, VaultTooNew
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear

NOBODY = 65534


@contextmanager
def without_rights() -> Iterator[None]:
    """Run the body as nobody, if the tests run as root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def write_protect(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def remembered(folder: Path) -> str:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        cube = t.scope(user="alice").remember("The boiler code is 4417.", tags=["home"])
        assert cube in [hit.cube for hit in t.scope(user="alice").recall("boiler")]
        assert t.scope(user="alice").context("boiler")
        return cube.id


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
class TestReadOnly:
    """What was written can be read; writing says that it cannot be done."""

    @pytest.fixture
    def folder(self, open_folder: Path) -> Path:
        remembered(open_folder)
        write_protect(open_folder)
        return open_folder

    def test_reads(self, folder: Path, tmp_path: Path) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with without_rights(), Tercet.open(folder, embedder=FakeEmbedder()) as t:
            alice = t.scope(user="alice")
            [cube] = alice.list()
            assert alice.get(cube.id) == cube == alice.recall("the boiler", limit=1)[0].cube
            assert alice.history(cube.id) == [cube]
            assert [change.id for change in alice.changes()] == [cube.id, cube.id]
            assert t.stats()["tenants"]["default"]["cubes"] == 1
            assert t.scope(tenant="other").list() == []
            all_clear(t)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize("call", ["remember", "revise", "forget", "other tenant"])
    def test_does_not_write(self, folder: Path, call: str) -> None:
        with without_rights(), Tercet.open(folder, embedder=FakeEmbedder()) as t:
            alice = t.scope(user="alice")
            [cube] = alice.list()
            calls: dict[str, Callable[[], object]] = {
                "remember": lambda: alice.remember("More."),
                "revise": lambda: alice.revise(cube.id, "Other."),
                "forget": lambda: alice.forget(cube.id),
                "other tenant": lambda: t.scope(tenant="other").remember("More."),
            }
            with pytest.raises(VaultError, match="cannot be"):
                calls[call]()
            assert alice.get(cube.id) == cube

    def test_sees_what_another_writes_meanwhile(self, open_folder: Path) -> None:
        """The folder is protected from this user only."""
        remembered(open_folder)
        if os.geteuid() != 0:
            pytest.skip("needs two users")
        with without_rights():
            reader = Tercet.open(open_folder, embedder=None)
            assert reader.scope(user="alice").list().total == 1
        remembered(open_folder)
        with without_rights(), reader:
            assert reader.scope(user="alice").list().total == 2

    def test_a_log_that_was_left_behind_is_not_passed_over(self, open_folder: Path) -> None:
        with Tercet.open(open_folder, embedder=None) as t:
            t.scope(user="alice").remember("In the log.")
            copy = Path(shutil.copytree(open_folder, open_folder / "copy"))
        (copy / "tenants" / "default.db-shm").unlink()
        write_protect(copy)
        with without_rights(), Tercet.open(copy, embedder=None) as t, pytest.raises(VaultError, match="not closed"):
            t.scope(user="alice").list()

    def test_a_folder_that_cannot_be_made_says_so(self, folder: Path) -> None:
        with without_rights(), pytest.raises(VaultError, match="cannot be made"):
            Tercet.open(folder / "below")


class TestGone:
    """A vault whose files go away under it."""

    def test_a_deleted_folder_is_not_made_anew(self, tmp_path: Path) -> None:
        id = remembered(tmp_path / "vault")
        with Tercet.open(tmp_path / "vault", embedder=None) as t:
            alice = t.scope(user="alice")
            assert alice.get(id).id == id
            shutil.rmtree(tmp_path / "vault")
            for call in (lambda: alice.get(id), alice.list, lambda: alice.remember("More."), lambda: alice.forget(id)):
                with pytest.raises(VaultError, match="gone"):
                    call()
        assert not (tmp_path / "vault").exists()

    def test_a_deleted_file_is_not_made_anew_by_a_later_process_either(self, tmp_path: Path) -> None:
        remembered(tmp_path)
        (tmp_path / "tenants" / "default.db").unlink()
        for _ in range(2):
            with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultError, match=r"default\.mark"):
                t.scope(user="alice").remember("More.")
        (tmp_path / "tenants" / "default.mark").unlink()
        remembered(tmp_path)

    def test_a_file_that_was_put_in_its_place_is_read_from_then_on(self, tmp_path: Path) -> None:
        remembered(tmp_path / "one")
        with Tercet.open(tmp_path / "other", embedder=None) as t:
            t.scope(user="alice").remember_many(["One.", "Two."])
        with Tercet.open(tmp_path / "one", embedder=None) as t:
            alice = t.scope(user="alice")
            assert len(alice.recall("boiler code one two")) == 1
            for name in ("default.db", "default.mark"):
                (tmp_path / "other" / "tenants" / name).replace(tmp_path / "one" / "tenants" / name)
            assert [cube.text for cube in alice.list()] == ["One.", "Two."]
            assert {hit.cube.text for hit in alice.recall("boiler code one two")} == {"One.", "Two."}
            alice.remember("Three.")
            all_clear(t)

    def test_an_older_copy_put_in_its_place_is_noticed(self, tmp_path: Path) -> None:
        remembered(tmp_path)
        path = tmp_path / "tenants" / "default.db"
        shutil.copy(path, tmp_path / "older")
        remembered(tmp_path)
        shutil.copy(tmp_path / "older", path)
        with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultDamaged, match="older file"):
            t.scope(user="alice").list()


class TestGarbage:
    """Something else is where a vault's files should be."""

    @pytest.mark.parametrize("content", [b"garbage" * 1000, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_file_replaced_by_garbage(self, tmp_path: Path, content: bytes) -> None:
        id = remembered(tmp_path)
        path = tmp_path / "tenants" / "default.db"
        path.write_bytes(content)
        with Tercet.open(tmp_path, embedder=None) as t:
            alice = t.scope(user="alice")
            calls = (lambda: alice.get(id), alice.list, lambda: alice.remember("More."), lambda: alice.recall("boiler"))
            for call in (*calls, t.stats, t.work, lambda: t.backup(tmp_path / "copy")):
                with pytest.raises(VaultDamaged):
                    call()
            assert [one.what for one in t.doctor()["default"]] == ["file"]
        assert path.read_bytes() == content

    def test_a_file_emptied_is_not_an_empty_vault(self, tmp_path: Path) -> None:
        remembered(tmp_path)
        (tmp_path / "tenants" / "default.db").write_bytes(b"")
        with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultDamaged, match="lost writes"):
            t.scope(user="alice").list()

    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "tenants" / "default.db").mkdir(parents=True)
        with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultError, match="cannot be opened"):
            t.scope().list()

    def test_a_file_in_the_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "vault").write_text("mine")
        with pytest.raises(VaultError, match="cannot be made"):
            Tercet.open(tmp_path / "vault")


def test_a_newer_vault_is_refused_by_every_call(tmp_path: Path) -> None:
    id = remembered(tmp_path)
    with Tercet.open(tmp_path, embedder=None) as t, t.vault.tenant("default").maintaining() as connection:
        connection.execute("INSERT INTO migrations VALUES (1000000)")
    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope(user="alice")
        calls = (lambda: alice.get(id), alice.list, lambda: alice.remember("More."), lambda: alice.forget(id))
        for call in (*calls, t.stats, t.doctor, t.work, lambda: t.backup(tmp_path / "copy")):
            with pytest.raises(VaultTooNew, match="upgrade"):
                call()
