"""Sealing a vault that was clear, and rotating keys: whole at every moment, and nothing clear is left."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import Tercet
from tercet.cube import Activation, BlobRef, derive
from tercet.errors import VaultBusy, VaultDamaged, VaultError, VaultSealed
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.faults import FaultyDisk
from tercet.testing.narrow import narrow
from tercet.testing.processes import finish, start
from tercet.testing.rotating import MARK, MODEL, add_blobs, kill_rotations
from tercet.vault import blobs, datakeys, reseal, sealed
from tercet.vault.backup import restore
from tercet.vault.datakeys import Master, key_file_of
from tercet.vault.ids import RandomIds, system_clock
from tercet.vault.sqlite import SqliteVault, segments_of
from tercet.vault.writer import Entry

MASTER = bytes(range(32))
TEXTS = [f"Note number {n}: the code word is canary{n}bird." for n in range(25)]


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Some twenty memories are a large vault, with segments."""
    with narrow():
        yield


def opened(folder: Path, sealing: object = MASTER, **options: Any) -> Tercet:  # noqa: ANN401  # as Tercet.open
    return Tercet.open(folder, embedder=FakeEmbedder(), sealing=sealing, **options)  # type: ignore[arg-type]


def filled(folder: Path, sealing: object = MASTER) -> list[BlobRef]:
    """A vault with memories, segments and blobs."""
    with opened(folder, sealing) as t:
        t.scope(user="alice").remember_many(TEXTS)
        refs = add_blobs(t, 2, 3000)
        t.work(until_idle=True)
        assert [*segments_of(t.vault.tenant("default").path).glob("*.lvq")]
    return refs


def check(folder: Path, refs: list[BlobRef], sealing: object = MASTER, *, doctor: bool = True) -> None:
    """All is there and can be read."""
    with opened(folder, sealing) as t:
        alice, tenant = t.scope(user="alice"), t.vault.tenant("default")
        assert {cube.text for cube in alice.list(limit=1000)} == set(TEXTS)
        assert alice.recall("canary7bird", limit=3)[0].cube.text == TEXTS[7]
        for ref in refs:
            content = blobs.read(tenant.blobs, ref)
            assert (blobs.find(tenant.blobs, ref).read_bytes() if content is None else content).startswith(MARK)
        if doctor:
            all_clear(t)


def clear_files(folder: Path) -> list[str]:
    """Files that hold something which is to be sealed."""
    found = []
    for file in sorted(folder.rglob("*")):
        raw = file.read_bytes() if file.is_file() else b""
        if any(word in raw for word in (b"canary", MARK, b"SQLite format", b"TERCETSG")):
            found.append(file.relative_to(folder).as_posix())
    return found


def test_a_clear_vault_is_sealed(tmp_path: Path) -> None:
    refs = filled(tmp_path, None)
    assert len(clear_files(tmp_path)) > 3
    old = tmp_path / "tenants" / "default.db"
    held = old.open("rb")  # the bytes that were there, whatever name they have
    with opened(tmp_path) as t:
        [moved] = t.seal()
        assert (moved.database, moved.blobs, moved.segments) == (True, 2, 1)
        assert t.seal() == []
    assert clear_files(tmp_path) == []
    assert b"canary" not in held.read()
    held.close()
    with pytest.raises(VaultSealed, match="is sealed"):
        opened(tmp_path, None)
    with opened(tmp_path) as t:
        t.work(until_idle=True)  # the segment is made again
        assert [sealed.is_sealed(file) for file in segments_of(t.vault.tenant("default").path).glob("*.lvq")] == [True]
    assert clear_files(tmp_path) == []
    check(tmp_path, refs)


def test_a_clear_vault_is_sealed_only_by_who_has_it_alone(tmp_path: Path) -> None:
    refs = filled(tmp_path, None)
    with opened(tmp_path, None) as other:
        other.scope(user="alice").recall("canary7bird")
        with opened(tmp_path) as t, pytest.raises(VaultBusy, match="close every process"):
            t.seal()
    assert not (tmp_path / "keys").exists()
    check(tmp_path, refs, None)


def test_keys_are_rotated_while_others_use_the_vault(tmp_path: Path) -> None:
    refs = filled(tmp_path)
    names = {file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()}
    with opened(tmp_path) as t, opened(tmp_path) as other:
        before = t.sealing()["tenants"]["default"]["keys"]
        assert other.scope(user="alice").recall("canary7bird")
        [moved] = t.rotate()
        assert (moved.database, moved.blobs, moved.segments) == (True, 2, 1)
        assert t.sealing()["tenants"]["default"]["keys"] != before
        kept = other.scope(user="alice").remember("Written by another, after it.")
        assert t.scope(user="alice").get(kept.id) == kept
        t.scope(user="alice").forget(kept.id)
        assert "reseal" in [line.action for line in other.audit()]
    after = {file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()}
    assert len(after) == len(names) == 2
    assert not after & names  # they follow from the key
    check(tmp_path, refs)


def test_the_old_key_opens_nothing_any_more(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as t:
        tenant = t.vault.tenant("default")
        old = tenant.keys.seal()
        t.rotate()
        assert old is not None
        for file in (*(tmp_path / "blobs").rglob("*"), *(tmp_path / "segments").rglob("*.lvq")):
            if file.is_file():
                with pytest.raises(VaultDamaged, match="rotated away"):
                    sealed.read(file, old, b"")
        from tercet.vault.connection import connect_sealed

        with pytest.raises(VaultDamaged):
            connect_sealed(tenant.path, old.pages)


STRIDE = int(os.environ.get("TERCET_TEST_STRIDE", "4"))
"""Every fourth step; 1 takes two minutes and tries all."""


class Killed(BaseException):
    """As if the process ended here."""


def steps(run_once: Callable[[], None], monkeypatch: pytest.MonkeyPatch, at: int | None) -> int:
    """Run, ended before the step of that number; returns how many steps there were."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            return original(*args, **options)

        return step

    with monkeypatch.context() as patch:
        for owner, name in (
            (datakeys, "write"), (sealed, "write"), (reseal, "_copy"), (reseal, "sync"), (os, "link"),
            (blobs, "destroy"), (Path, "replace"), (Path, "unlink"),
        ):  # fmt: skip
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            run_once()
        except Killed:
            assert at is not None
    return count


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["seal", "rotate"])
def test_an_end_at_any_step_leaves_all_readable_and_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    """Half-rotated folders: a step is the last one; work finishes it, and nothing clear is left."""

    def once(folder: Path) -> Callable[[], None]:
        def go() -> None:
            with opened(folder) as t:
                getattr(t, deed)()

        return go

    refs = filled(tmp_path / "whole", MASTER if deed == "rotate" else None)
    shutil.copytree(tmp_path / "whole", tmp_path / "count")
    total = steps(once(tmp_path / "count"), monkeypatch, None)
    assert total > 12, total
    for at in range(1, total + 1, STRIDE):
        folder = tmp_path / f"at-{at}"
        shutil.copytree(tmp_path / "whole", folder)
        steps(once(folder), monkeypatch, at)
        begun = key_file_of(folder / "tenants" / "default.db").exists()
        check(folder, refs, MASTER if begun else None, doctor=False)
        with opened(folder) as t:
            t.work(until_idle=True)
            assert not t.sealing()["tenants"]["default"]["unfinished"]
            if not begun:
                t.seal()
        assert clear_files(folder) == [], f"step {at}"
        check(folder, refs)
        assert not [*(folder / "tenants").glob("*.sealing*"), *(folder / "tenants").glob("*.clear")]
        shutil.rmtree(folder)


def test_a_master_key_is_exchanged_and_one_of_the_two_always_opens_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Master(bytes(range(1, 33)))
    for at in (None, *range(2, 30, STRIDE)):
        folder = tmp_path / f"at-{at}"
        with opened(folder) as t:
            for name in ("a", "b", "c"):
                t.scope(tenant=name).remember(f"Of tenant {name}.")

        def exchange(folder: Path = folder) -> None:
            with opened(folder) as t:
                assert t.rotate_master(new) == 3
                assert t.scope(tenant="a").recall("tenant")

        total = steps(exchange, monkeypatch, at)

        def opens(key: object, folder: Path = folder) -> bool:
            try:
                with opened(folder, key) as t:
                    return all(t.scope(tenant=name).recall("tenant") for name in ("a", "b", "c"))
            except VaultSealed:
                return False

        assert opens(new) or opens(MASTER), f"step {at}"
        if at is None:
            assert not opens(MASTER)
        else:
            with opened(folder, MASTER if opens(MASTER) else new) as t:
                t.rotate_master(new)
            assert opens(new)
            assert not opens(MASTER)
            if at > total:
                break


def test_a_tenant_is_not_begun_under_a_key_that_was_rotated_away(tmp_path: Path) -> None:
    with opened(tmp_path) as late:
        late.scope(tenant="a").remember("Of tenant a.")
        with opened(tmp_path) as t:
            t.rotate_master(Master(bytes(32)))
        assert late.scope(tenant="a").recall("tenant")  # what it had opened, it goes on reading
        with pytest.raises(VaultSealed, match="another master key"):
            late.scope(tenant="b").remember("Of tenant b.")


def test_a_backup_is_sealed_and_comes_back_over_a_rotated_vault(tmp_path: Path) -> None:
    refs = filled(tmp_path / "vault")
    with opened(tmp_path / "vault") as t:
        t.backup(tmp_path / "copy")
        gone = t.scope(user="alice").list(limit=1)[0]
        t.scope(user="alice").forget(gone.id)
        t.rotate()
        add_blobs(t, 1, 5)
    assert clear_files(tmp_path / "copy") == []
    shutil.copytree(tmp_path / "copy", tmp_path / "look")  # who opens a backup counts uses in it
    check(tmp_path / "look", refs)
    for wrong in (None, Master(bytes(32))):
        with pytest.raises(VaultSealed):
            restore(tmp_path / "copy", tmp_path / "vault", master=wrong)
    done = restore(tmp_path / "copy", tmp_path / "vault", master=Master(MASTER))
    assert done.erased == (gone.id,)
    assert clear_files(tmp_path) == []
    with opened(tmp_path / "vault") as t:
        assert {cube.text for cube in t.scope(user="alice").list(limit=1000)} == set(TEXTS) - {gone.text}
        all_clear(t)
    assert len([file for file in (tmp_path / "vault" / "blobs").rglob("*") if file.is_file()]) == 2
    restore(tmp_path / "copy", tmp_path / "new", master=Master(MASTER))
    check(tmp_path / "new", refs)


def test_clear_and_sealed_backups_do_not_take_each_others_place(tmp_path: Path) -> None:
    for name, key in (("clear", None), ("sealed", MASTER)):
        with opened(tmp_path / name, key) as t:
            t.scope().remember("Soup.")
            t.backup(tmp_path / f"{name} copy")
    for backup, target in (("clear copy", "sealed"), ("sealed copy", "clear")):
        with pytest.raises(VaultError, match="into a new folder"):
            restore(tmp_path / backup, tmp_path / target, master=Master(MASTER))


def test_a_copy_that_fails_names_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own message has the address of the new file, and in it its key."""
    filled(tmp_path)
    with opened(tmp_path) as t:
        monkeypatch.setattr(reseal, "quote", lambda path: f"{path}/no/such/folder")
        with pytest.raises(VaultError, match="CantOpenError") as caught:
            t.rotate()
        seal = t.vault.tenant("default").keys.seal()
        assert seal is not None
        told = repr(caught.value) + str(caught.value.__context__ if not caught.value.__suppress_context__ else "")
        assert not any(key.pages[:16] in told for key in seal.keys)
    monkeypatch.undo()
    with opened(tmp_path) as t:
        t.work(until_idle=True)
        assert not t.sealing()["tenants"]["default"]["unfinished"]


def test_plain_apsw_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes over the key and would write the file in clear."""
    from tercet.errors import Unsupported

    monkeypatch.delattr(apsw, "mc_version")
    with opened(tmp_path) as t, pytest.raises(Unsupported, match="uninstall apsw"):
        t.scope().remember("Soup.")
    assert clear_files(tmp_path) == []


def test_threads_and_processes_go_on_during_rotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_MASTER_KEY", MASTER.hex())
    filled(tmp_path)
    code = (
        "import sys, time\nfrom tercet import Tercet\nfrom tercet.testing import FakeEmbedder\n"
        "with Tercet.open(sys.argv[1], embedder=FakeEmbedder()) as t:\n"
        "    scope, until = t.scope(user='bob'), time.monotonic() + 3\n"
        "    n = 0\n"
        "    while time.monotonic() < until:\n"
        "        cube = scope.remember(f'bob {n}'); n += 1\n"
        "        assert scope.get(cube.id) == cube and scope.recall(cube.text)\n"
        "    print(n)\n"
    )
    errors: list[BaseException] = []
    with opened(tmp_path) as t, start(code, tmp_path) as process:

        def read() -> None:
            try:
                for n in range(25):
                    assert t.scope(user="alice").recall(f"canary{n}bird")[0].cube.text == TEXTS[n]
            except BaseException as error:  # noqa: BLE001  # it is raised below
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for one in threads:
            one.start()
        for _ in range(4):
            assert t.rotate()
        for one in threads:
            one.join()
        wrote = int(finish(process))
        assert errors == []
        assert wrote == t.scope(user="bob").list(limit=10_000).total
        all_clear(t)


@pytest.mark.slow
def test_kills_within_rotations_under_load_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few; the benchmark kills 50."""
    monkeypatch.setenv("TERCET_MASTER_KEY", os.urandom(32).hex())
    told = kill_rotations(tmp_path, kills=4)
    assert told["kills"] >= 3
    assert key_file_of(tmp_path / "vault" / "tenants" / "default.db").exists()


def test_a_power_cut_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    """The pages' cipher lies over a disk that loses power as over any other."""
    live = tmp_path / "live"
    live.mkdir()
    with FaultyDisk(live) as disk:
        vault = SqliteVault(live, ids=RandomIds(), clock=system_clock, vfs=disk.name, master=Master(MASTER))
        moments: list[tuple[int, int]] = []
        with Tercet(vault, embedder=None) as t:
            for n in range(12):
                t.scope().remember(f"Note number {n}.")
                moments.append((disk.now, n + 1))
        for seed, (at, count) in enumerate(moments):
            image = disk.image(tmp_path / f"at-{at}", at=at, seed=seed)
            shutil.copytree(live / "keys", image / "keys")
            assert clear_files(image) == []
            with opened(image) as t:
                assert t.scope().list(limit=100).total == count
                all_clear(t)


@pytest.mark.parametrize("deed", ["seal", "rotate"])
def test_a_blob_that_was_begun_before_is_placed_under_the_new_key(tmp_path: Path, deed: str) -> None:
    """Prefilling a model takes long; keys may change meanwhile."""
    with opened(tmp_path, None if deed == "seal" else MASTER) as t:
        [source] = t.scope().remember_many(["Soup."])
        shelf = t.vault.tenant("default").blobs
        with blobs.drafting(shelf) as draft:
            draft.write(MARK + bytes(5000))
            ref = draft.seal("data")
            t.vault.take_master(Master(MASTER))
            getattr(t, deed)()
            with t.vault.tenant("default").writing(by="test") as writer:
                draft.place()
                payload = Activation((ref,), MODEL, 1)
                writer.put([Entry(derive([source], payload, method="test"), {})], None, action="promote")
        content = blobs.read(shelf, ref)
        assert content is not None
        assert bytes(content) == MARK + bytes(5000)
        all_clear(t)
    assert clear_files(tmp_path) == []
