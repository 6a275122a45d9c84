"""What a vault promises when the power goes, the disk is full, or a call to it fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import VaultDamaged, VaultError
from tercet.testing.faults import CHANGES, SECTOR, DiskFailed, DiskFull, FaultyDisk
from tercet.testing.histories import Fault, History, check, endure, read, survive

SEEDS = range(40)
MAIN = apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vault").mkdir()
    return tmp_path / "vault"


class TestTheDisk:
    """The layer itself: what it keeps, loses and raises."""

    def test_synced_bytes_stay_and_others_may_go(self, folder: Path, tmp_path: Path) -> None:
        (folder / "a.db").write_bytes(b"there already")
        with FaultyDisk(folder) as disk:
            file = disk.xOpen(str(folder / "a.db"), [MAIN, 0])
            file.xWrite(b"a" * 4096, 0)
            file.xSync(apsw.SQLITE_SYNC_NORMAL)
            file.xWrite(b"b" * 4096, 4096)
            file.xWrite(b"c" * 100, 0)
            found = {(disk.image(tmp_path / str(seed), seed=seed) / "a.db").read_bytes() for seed in SEEDS}
            file.xClose()
        assert {4096, 8192} < {len(data) for data in found}
        assert {len(data) % SECTOR for data in found} == {0}
        assert {data[100:4096] for data in found} == {b"a" * 3996}
        assert {data[:100] for data in found} == {b"a" * 100, b"c" * 100}
        tails = {data[4096:] for data in found}
        assert {b"", b"b" * 4096} < tails
        torn = [tail for tail in tails if tail.count(b"b" * SECTOR) not in (0, 8)]
        assert torn

    def test_a_file_may_be_missing_until_its_folder_is_synced(self, folder: Path, tmp_path: Path) -> None:
        with FaultyDisk(folder) as disk:
            file = disk.xOpen(str(folder / "a.db"), [MAIN, 0])
            file.xSync(apsw.SQLITE_SYNC_NORMAL)
            made = {(disk.image(tmp_path / f"made{seed}", seed=seed) / "a.db").exists() for seed in SEEDS}
            file.xClose()
            disk.xDelete(str(folder / "a.db"), True)
            gone = {(disk.image(tmp_path / f"gone{seed}", seed=seed) / "a.db").exists() for seed in SEEDS}
        assert made == {True, False}
        assert gone == {False}

    def test_the_same_seed_makes_the_same_image(self, folder: Path, tmp_path: Path) -> None:
        with FaultyDisk(folder) as disk:
            history = History(folder, 1, disk=disk)
            *_, last = history.run(4)
            history.close()
            images = [disk.image(tmp_path / name, at=last.at - 3, seed=7) for name in "xy"]
        first, second = ({p.name: p.read_bytes() for p in image.rglob("*.*")} for image in images)
        assert first == second != {}

    def test_it_finds_out_who_does_not_sync(self, folder: Path, tmp_path: Path) -> None:
        """The same checks fail for commits that do not wait for the disk."""
        with FaultyDisk(folder) as disk:
            connection = apsw.Connection(str(folder / "a.db"), vfs=disk.name)
            connection.pragma("journal_mode", "wal")
            connection.execute("CREATE TABLE t (x)")
            connection.pragma("synchronous", "NORMAL")
            connection.execute("INSERT INTO t VALUES (1)")
            kept = [_rows(disk.image(tmp_path / str(seed), seed=seed) / "a.db") for seed in SEEDS]
            connection.close()
        assert [] in kept
        assert [(1,)] in kept

    def test_the_nth_call_fails_and_the_next_does_not(self, folder: Path) -> None:
        with FaultyDisk(folder) as disk:
            connection = apsw.Connection(str(folder / "a.db"), vfs=disk.name)
            connection.execute("CREATE TABLE t (x)")
            disk.fail(2, DiskFull)
            with pytest.raises(apsw.FullError):
                connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("INSERT INTO t VALUES (2)")
            assert connection.execute("SELECT x FROM t").fetchall() == [(2,)]
            assert disk.failed == 1
            connection.close()


def _rows(path: Path) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute("SELECT x FROM t").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("seed", range(100))
def test_a_power_cut_loses_nothing_acknowledged(seed: int, folder: Path) -> None:
    survive(folder, seed, 10, vectors=seed % 2 == 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_in_a_sweep_leaves_the_old_or_the_new(seed: int, folder: Path) -> None:
    survive(folder, seed, 10, ends=True)


@pytest.mark.parametrize("seed", range(16))
def test_a_power_cut_while_travelling_leaves_the_old_or_the_new(seed: int, folder: Path) -> None:
    survive(folder, seed, 14, travels=True, vectors=seed % 3 == 2)


def test_the_checks_see_a_lost_write(folder: Path, tmp_path: Path) -> None:
    with FaultyDisk(folder) as disk:
        history = History(folder, 3, disk=disk)
        history._remember()
        before = history.moment()
        history._remember()
        after = history.moment()
        history.close()
        with pytest.raises(AssertionError, match="1 missing, 0 too many, 0 differ"):
            check(disk.image(tmp_path / "image", at=before.at), replace(after, marks={}))
        with pytest.raises(VaultDamaged, match="lost writes"):
            check(disk.image(tmp_path / "marked", at=before.at), after)


FAULTS = {
    "full": Fault(0, DiskFull),
    "stays full": Fault(0, DiskFull, times=10**9),
    "fails": Fault(0, DiskFailed, calls=CHANGES | {"read"}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(4))
def test_a_failing_disk_changes_nothing(seed: int, fault: str, tmp_path: Path) -> None:
    steps, stride = 6, 29
    kind = FAULTS[fault]

    def run(nth: int) -> int:
        folder = tmp_path / str(nth)
        folder.mkdir()
        one = Fault(nth, kind.error, kind.times, kind.calls)
        return endure(folder, seed, steps, one, vectors=seed % 2 == 1)

    for nth in range(1 + seed, run(10**9), stride):
        run(nth)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_disk_in_a_sweep_changes_nothing(fault: str, tmp_path: Path) -> None:
    kind = FAULTS[fault]

    def run(nth: int) -> int:
        folder = tmp_path / str(nth)
        folder.mkdir()
        return endure(folder, 7, 6, Fault(nth, kind.error, kind.times, kind.calls), ends=True)

    for nth in range(1, run(10**9), 41):
        run(nth)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_disk_while_travelling_changes_nothing(fault: str, tmp_path: Path) -> None:
    kind = FAULTS[fault]

    def run(nth: int) -> int:
        folder = tmp_path / str(nth)
        folder.mkdir()
        return endure(folder, 4, 12, Fault(nth, kind.error, kind.times, kind.calls), travels=True)

    for nth in range(1, run(10**9), 97):
        run(nth)


def test_a_full_disk_is_told_of(folder: Path) -> None:
    with FaultyDisk(folder) as disk:
        history = History(folder, 0, disk=disk)
        alice = history.t.scope(user="alice")
        cube = alice.remember("The boiler code is 4417.")
        disk.fail(1, DiskFull, times=10**9)
        with pytest.raises(VaultError, match="disk is full"):
            alice.remember("I moved to Oslo.")
        assert alice.get(cube.id) == cube
        assert [hit.cube for hit in alice.recall("boiler")] == [cube]
        disk.heal()
        assert alice.remember("I moved to Bergen.").version == 1
        history.close()


def test_erasing_on_a_full_disk_says_what_the_scrub_waits_for(folder: Path) -> None:
    with FaultyDisk(folder) as disk:
        history = History(folder, 0, disk=disk)
        t, alice = history.t, history.t.scope(user="alice")
        cube = alice.remember("The boiler code is 4417.")
        for nth in range(1, 100):  # until the erasure goes through, and what is left to do does not
            disk.fail(nth, DiskFull, times=10**9)
            try:
                receipt = alice.forget(cube.id)
            except VaultError:
                assert alice.get(cube.id) == cube
            else:
                break
        assert receipt.scrubbed_at is None
        assert "full" in (receipt.waiting_for or "")
        assert cube.id not in read(t)
        disk.heal()
        history.clock.advance(timedelta(hours=1))
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["scrubs_waiting"] == 0
        history.close()
