"""A backup is whole while others write; a restore brings back everything but what was erased since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tercet import InvalidRequest, MissingMemory, Tercet, VaultBusy, VaultDamaged, VaultError
from tercet.cube import Text, derive
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.histories import read
from tercet.testing.processes import finish, start
from tercet.vault.backup import MANIFEST, restore, verify

WRITER = """
import sys
from tercet import Tercet
with Tercet.open(sys.argv[1], embedder=None) as t:
    alice = t.scope(user="alice")
    for i in range(int(sys.argv[2])):
        cube = alice.remember(f"memory {i} of many, and some words to fill the pages " * 20)
        if i % 4 == 3:
            alice.revise(cube.id, f"memory {i} revised")
        if i % 4 == 1:
            alice.forget(cube.id)
        print(cube.id, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A vault with a backup beside it, in `copy`: two users, two tenants, a derived memory and an erased one."""
    with Tercet.open(tmp_path / "vault", embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        boiler = alice.remember("The boiler code is 4417.", tags=["home"])
        alice.remember(derive([boiler], Text("There is a boiler called zebra."), method="by hand"))
        alice.remember("I moved to Oslo.")
        alice.forget(alice.remember("A secret.").id)
        t.scope(user="bob").remember("I like soup.")
        t.scope(tenant="Other Co").remember("Another tenant.")
        t.backup(tmp_path / "copy")
    return tmp_path


def held(folder: Path) -> list[str]:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        all_clear(t)
        return sorted(versions[-1].text for versions in read(t).values())


def test_a_backup_opens_as_a_vault_and_tells_its_hashes(folder: Path) -> None:
    manifest = verify(folder / "copy")
    assert {facts["tenant"] for facts in manifest["files"].values()} == {"default", "Other Co"}
    assert held(folder / "copy") == held(folder / "vault")


def test_restores_into_an_empty_folder(folder: Path) -> None:
    done = restore(folder / "copy", folder / "new")
    assert done.erased == ()
    assert len(done.files) == 2
    assert held(folder / "new") == held(folder / "vault")
    with Tercet.open(folder / "new", embedder=None) as t:
        assert [cube.text for cube in t.scope(tenant="Other Co").list()] == ["Another tenant."]
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["ledger", "tenants"]


def test_what_was_erased_since_does_not_come_back(folder: Path) -> None:
    with Tercet.open(folder / "vault", embedder=FakeEmbedder()) as t:
        alice = t.scope(user="alice")
        boiler, zebra, _ = alice.list()
        newer = alice.remember("Written after the backup.")
        alice.forget([boiler.id, newer.id])
    done = restore(folder / "copy", folder / "vault")
    assert set(done.erased) == {boiler.id, zebra.id}
    assert held(folder / "vault") == ["I like soup.", "I moved to Oslo."]
    raw = b"".join(path.read_bytes() for path in (folder / "vault").rglob("*") if path.is_file())
    assert b"boiler code" not in raw
    assert b"zebra" not in raw
    with Tercet.open(folder / "vault", embedder=None) as t:
        for cube in (boiler, zebra, newer):
            with pytest.raises(MissingMemory):
                t.scope(user="alice").get(cube.id)
        for cube in (boiler, newer):
            with pytest.raises(InvalidRequest, match="erased here"):
                t.scope(user="alice").remember(cube)


def test_a_hold_in_the_backup_does_not_keep_what_was_erased_since(folder: Path) -> None:
    with Tercet.open(folder / "held", embedder=None) as t:
        alice = t.scope(user="alice")
        draft = alice.remember("Under a hold.")
        cube = alice.remember(replace(
            draft,
            descriptive=replace(draft.descriptive, id="", origin=replace(draft.descriptive.origin, span=None)),
            governance=replace(draft.governance, hold="a lawsuit"),
        ))  # fmt: skip
        assert cube.governance.hold == "a lawsuit"
        t.backup(folder / "held-copy")
    live = folder / "live"
    with Tercet.open(live, embedder=None) as t:
        released = replace(cube, governance=replace(cube.governance, hold=None))
        t.scope(user="alice").remember(released)
        t.scope(user="alice").forget(cube.id)
    assert restore(folder / "held-copy", live).erased == (cube.id,)


def test_tenants_that_the_backup_does_not_have_stay(folder: Path) -> None:
    with Tercet.open(folder / "vault", embedder=None) as t:
        t.scope(tenant="younger").remember("Made after the backup.")
    restore(folder / "copy", folder / "vault")
    with Tercet.open(folder / "vault", embedder=None) as t:
        assert t.scope(tenant="younger").list().total == 1


def test_restoring_twice_is_restoring_once(folder: Path) -> None:
    restore(folder / "copy", folder / "vault")
    first = held(folder / "vault")
    restore(folder / "copy", folder / "vault")
    assert held(folder / "vault") == first


def test_goes_on_after_a_restore(folder: Path) -> None:
    with Tercet.open(folder / "vault", embedder=FakeEmbedder()) as t:
        t.scope(user="alice").remember("Lost by the restore.")
    restore(folder / "copy", folder / "vault")
    with Tercet.open(folder / "vault", embedder=FakeEmbedder()) as t:
        t.scope(user="alice").remember("Written after the restore.")
    assert "Written after the restore." in held(folder / "vault")
    assert "Lost by the restore." not in held(folder / "vault")


def test_a_vault_in_use_is_not_replaced(folder: Path) -> None:
    with Tercet.open(folder / "vault", embedder=None) as t:
        before = read(t)
        with pytest.raises(VaultBusy, match="in use"):
            restore(folder / "copy", folder / "vault")
        assert read(t) == before
        t.scope(user="alice").remember("Still writable.")
    assert not (folder / "vault" / "restoring").exists()
    restore(folder / "copy", folder / "vault")


@pytest.mark.parametrize("place", ["file", "manifest", "missing", "log"])
def test_a_damaged_backup_is_refused_and_nothing_changes(folder: Path, place: str) -> None:
    before = held(folder / "vault")
    path = folder / "copy" / "tenants" / "default.db"
    if place == "file":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif place == "manifest":
        (folder / "copy" / MANIFEST).write_text(json.dumps({"files": {"tenants/default.db": {}}}))
    elif place == "missing":
        path.unlink()
    else:
        path.with_name("default.db-wal").write_bytes(b"something")
    with pytest.raises(VaultDamaged):
        restore(folder / "copy", folder / "vault")
    assert held(folder / "vault") == before


def test_a_copy_without_a_manifest_is_no_backup(folder: Path) -> None:
    (folder / "copy" / MANIFEST).unlink()
    with pytest.raises(VaultError, match="no whole backup"):
        restore(folder / "copy", folder / "new")


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 500])
def test_a_ledger_that_cannot_be_read_is_not_passed_over(folder: Path, damage: bytes) -> None:
    live = folder / "vault" / "tenants" / "default.db"
    live.write_bytes(damage)
    with pytest.raises(VaultDamaged, match="come back"):
        restore(folder / "copy", folder / "vault")
    restore(folder / "copy", folder / "vault", ledger=False)
    assert len(held(folder / "vault")) == 4


def test_the_ledger_beside_the_file_is_kept_to_all_the_same(folder: Path) -> None:
    """It can be read though the file cannot: what was forgotten since the backup stays forgotten."""
    with Tercet.open(folder / "vault", embedder=None) as t:
        gone = t.scope().forget(t.scope().list()[0].id).erased
    (folder / "vault" / "tenants" / "default.db").write_bytes(b"not a database at all" * 500)
    restore(folder / "copy", folder / "vault", ledger=False)
    assert len(held(folder / "vault")) == 4 - len(gone)
    with Tercet.open(folder / "vault", embedder=None) as t:
        assert not set(gone) & {cube.id for cube in t.scope().list()}
        all_clear(t)


def test_backs_up_only_into_an_empty_folder(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "a").write_text("mine")
    with Tercet.open(folder / "vault", embedder=None) as t:
        with pytest.raises(VaultError, match="not an empty folder"):
            t.backup(folder / "full")
        with pytest.raises(VaultError, match="failed"):
            t.backup(folder / "full" / "a" / "below")


@pytest.mark.slow
def test_backups_while_another_process_writes_hold_what_was_acknowledged_before(tmp_path: Path) -> None:
    writer = start(WRITER, tmp_path / "vault", 120)
    assert writer.stdout is not None
    acknowledged: list[str] = []
    counts = []
    with Tercet.open(tmp_path / "vault", embedder=None) as t:
        for number in range(5):
            acknowledged += [writer.stdout.readline().strip() for _ in range(15)]
            t.backup(tmp_path / str(number))
            verify(tmp_path / str(number))
            with Tercet.open(tmp_path / str(number), embedder=None) as copy:
                all_clear(copy)
                found = read(copy)
                # Every second of four was forgotten.
                assert {id for i, id in enumerate(acknowledged) if i % 4 != 1} <= found.keys()
                assert not {id for i, id in enumerate(acknowledged) if i % 4 == 1} & found.keys()
                counts.append(len(found))
    finish(writer)
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
