"""What was erased stays erased, whichever file is put in place of the tenant's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tercet import InvalidRequest, MissingMemory, Tercet
from tercet.testing.base import all_clear
from tercet.testing.dump import bytes_of
from tercet.vault import ledger
from tercet.vault.backup import restore
from tercet.vault.ledger import SIZE, ledger_of

WORD = "zyxwvutsrq"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A vault that forgot something since `old` was copied, by hand and while it was closed."""
    with Tercet.open(tmp_path / "vault", embedder=None) as t:
        alice = t.scope(user="alice")
        alice.remember_many([f"Filler number {i}." for i in range(30)])
        alice.forget(alice.remember("Forgotten before the copy.").id)
        alice.remember(f"The code is {WORD}.", ref="secret")
    shutil.copytree(tmp_path / "vault", tmp_path / "old")
    with Tercet.open(tmp_path / "vault", embedder=None) as t:
        t.scope(user="alice").forget(where={"ref": "secret"})
        t.scope(user="alice").remember("Something new.")
    return tmp_path


def path_of(folder: Path) -> Path:
    return folder / "tenants" / "default.db"


def put_back(folder: Path) -> None:
    """What somebody does by hand who wants the old days back: the file and its mark."""
    for name in ("default.db", "default.mark"):
        shutil.copy(folder / "old" / "tenants" / name, folder / "vault" / "tenants" / name)


def test_an_older_file_is_erased_from_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_back(folder)
    with Tercet.open(folder / "vault", embedder=None) as t:
        alice = t.scope(user="alice")
        assert alice.recall(WORD).total == 30
        assert WORD not in repr([hit.cube for hit in alice.recall(WORD, limit=50)])
        assert "older file" in caplog.text
        assert alice.list(where={"ref": "secret"}).total == 0
        t.work(until_idle=True)
        assert WORD.encode() not in bytes_of(folder / "vault")
        all_clear(t)
    caplog.clear()
    with Tercet.open(folder / "vault", embedder=None) as t:
        assert t.scope(user="alice").list().total == 30
        assert caplog.text == ""


def test_a_hold_in_the_older_file_does_not_bring_it_back(folder: Path) -> None:
    with Tercet.open(folder / "old", embedder=None) as t:
        [cube] = t.scope(user="alice").list(where={"ref": "secret"})
        t.scope(user="alice").hold(cube.id, "case 7")
    put_back(folder)
    with Tercet.open(folder / "vault", embedder=None) as t, pytest.raises(MissingMemory):
        t.scope(user="alice").get(cube.id)


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
def test_a_damaged_ledger_is_made_again(folder: Path, damage: str) -> None:
    """From the file's own rows, whatever it was; doctor sees it where it can."""
    path = ledger_of(path_of(folder / "vault"))
    whole = path.read_bytes()
    assert len(whole) == 2 * SIZE
    if damage == "torn":
        path.write_bytes(whole[:-5])
    elif damage == "flipped":
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    else:
        path.unlink()
    with Tercet.open(folder / "vault", embedder=None) as t:
        found = t.doctor()["default"]
        # Who asks must be let in first, and that makes a ledger whole that has only lost its end.
        assert [one.what for one in found] == (["ledger"] if damage == "flipped" else [])
        t.doctor(repair=True)
        all_clear(t)
    assert ledger.read(path_of(folder / "vault"))[1]
    assert {one.id for one in ledger.read(path_of(folder / "vault"))[0]} == _ids(whole)


def test_after_a_restore_the_ledger_goes_on(folder: Path) -> None:
    """The journal begins anew where the backup ended; what is erased then is in the ledger, too."""
    with Tercet.open(folder / "vault", embedder=None) as t:
        t.backup(folder / "copy")
        alice = t.scope(user="alice")
        first = [alice.forget(cube.id).erased[0] for cube in alice.list(limit=3)]
    restore(folder / "copy", folder / "vault")
    with Tercet.open(folder / "vault", embedder=None) as t:
        alice = t.scope(user="alice")
        assert not set(first) & {cube.id for cube in alice.list()}
        later = alice.forget(alice.list(limit=1)[0].id).erased[0]
    known = {str(_text(one.id)) for one in ledger.read(path_of(folder / "vault"))[0]}
    assert {*first, later} <= known
    for name in ("default.db",):
        shutil.copy(folder / "copy" / "tenants" / name, folder / "vault" / "tenants" / name)
    (folder / "vault" / "tenants" / "default.mark").unlink()
    with Tercet.open(folder / "vault", embedder=None) as t:
        assert not {*first, later} & {cube.id for cube in t.scope().list()}
        all_clear(t)


def test_an_import_and_a_rollback_bring_nothing_back(folder: Path) -> None:
    """The ledger file refuses what the table of an older file does not know."""
    with Tercet.open(folder / "old", embedder=None) as t:
        [cube] = t.scope(user="alice").list(where={"ref": "secret"})
    put_back(folder)
    with Tercet.open(folder / "vault", embedder=None) as t:
        alice = t.scope(user="alice")
        with pytest.raises(InvalidRequest, match="erased"):
            alice.remember(cube)
        with pytest.raises(MissingMemory):
            alice.rollback(cube.id, version=1)


def _text(id: bytes) -> str:
    from tercet.vault.ids import format_id

    return format_id(id)


def _ids(data: bytes) -> set[bytes]:
    return {data[at + 16 : at + 32] for at in range(0, len(data), SIZE)}
