"""T24: an older file opens, whole, under every later schema; a newer one is left alone."""

from __future__ import annotations

import gzip
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from tercet import Tercet, VaultDamaged, VaultError, VaultTooNew
from tercet.exchange.rows import cube_json
from tercet.scope import Scope
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.faults import DiskFull, FaultyDisk
from tercet.testing.processes import start
from tercet.vault import schema
from tercet.vault.codec import to_micros
from tercet.vault.ids import RandomIds, system_clock
from tercet.vault.sqlite import SqliteVault

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLDER = range(1, schema.NEWEST)
COPY = "default.db.schema-1"


def unpack(folder: Path, version: int) -> dict[str, Any]:
    """The fixture's file as a vault, and what it holds."""
    (folder / "tenants").mkdir(parents=True)
    packed = (FIXTURES / f"schema-{version}.db.gz").read_bytes()
    (folder / "tenants" / "default.db").write_bytes(gzip.decompress(packed))
    found: dict[str, Any] = json.loads((FIXTURES / f"schema-{version}.json").read_text())
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "tenants").iterdir())


@pytest.mark.parametrize("version", OLDER)
class TestAnOlderFile:
    """One written by the last Tercet of each schema before this one."""

    def test_everything_is_there(self, version: int, tmp_path: Path) -> None:
        held = unpack(tmp_path, version)
        with Tercet.open(tmp_path, embedder=FakeEmbedder(8)) as t:
            whole = t.scope()
            for id, versions in held["history"].items():
                for found, wanted in zip(map(cube_json, whole.history(id)), versions, strict=True):
                    assert {key: found[key] for key in wanted} == wanted
            assert {cube.id for cube in whole.list()} == held["history"].keys()
            assert [hit.cube.id for hit in whole.recall("where does Ada live?", limit=3)] == held["hits"]
            [tenant] = t.stats()["tenants"].values()
            assert tenant["journal_head"] == held["head"]
            assert tenant["jobs"] == held["jobs"]
            assert tenant["schema"] == schema.NEWEST
            all_clear(t)
            t.work(until_idle=True)
            all_clear(t)
        assert not [name for name in names(tmp_path) if "schema" in name]

    def test_it_goes_on(self, version: int, tmp_path: Path) -> None:
        held = unpack(tmp_path, version)
        with Tercet.open(tmp_path, embedder=FakeEmbedder(8)) as t:
            alice = t.scope(user="alice")
            [code] = alice.list(where={"ref": "r1"})
            assert alice.remember("The boiler code is 4417.", ref="r1") == code
            assert alice.revise(code.id, "It has no code.").version == 3
            assert alice.remember("One more.").id not in held["history"]
            alice.forget(code.id)
            all_clear(t)

    def test_a_number_that_was_erased_is_not_given_again(self, version: int, tmp_path: Path) -> None:
        held = unpack(tmp_path, version)
        with Tercet.open(tmp_path, embedder=None) as t:
            t.scope(user="alice").remember("One more.")
            with t.vault.tenant("default").maintaining() as connection:
                # The last cube was erased: its number is higher than any that is there.
                assert connection.execute("SELECT max(n) FROM cubes").get == len(held["history"]) + 2

    def test_the_last_tercet_refuses_it_afterwards(
        self, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unpack(tmp_path, version)
        with Tercet.open(tmp_path, embedder=None) as t:
            t.scope().list()
        before = (tmp_path / "tenants" / "default.db").read_bytes()
        older = {step: sql for step, sql in schema.STEPS.items() if step <= version}
        monkeypatch.setattr(schema, "STEPS", older)
        with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultTooNew, match="upgrade"):
            t.scope().list()
        assert (tmp_path / "tenants" / "default.db").read_bytes() == before


def test_columns_are_filled_from_headers(tmp_path: Path) -> None:
    held = unpack(tmp_path, 1)
    [id] = [id for id, versions in held["history"].items() if versions[-1]["hold"]]
    with Tercet.open(tmp_path, embedder=None) as t, t.vault.tenant("default").maintaining() as connection:
        columns = (
            "expires, half_life, held, sensitivity, trust, subject, attribute, valid_from, valid_to, branch, hidden"
        )
        statement = f"SELECT {columns} FROM cubes WHERE id = ?"  # noqa: S608  # the names above
        cube = t.scope().get(id)
        assert cube.descriptive.slot is not None
        assert connection.execute(statement, (bytes.fromhex(id.replace("-", "")),)).fetchall() == [
            (
                to_micros(datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)),
                30.5,
                1,
                int(cube.governance.sensitivity),
                int(cube.governance.trust),
                "Ada",
                "home",
                to_micros(datetime(2024, 5, 1, tzinfo=UTC)),
                to_micros(datetime(2025, 5, 1, tzinfo=UTC)),
                0,
                0,
            )
        ]
        others = f"SELECT DISTINCT {columns} FROM cubes WHERE NOT held"  # noqa: S608
        assert connection.execute(others).fetchall() == [(None, None, 0, 2, 2, None, None, None, None, 0, 0)]


def test_a_copy_stands_beside_it_until_the_new_file_has_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong while the steps run: the file is as it was, and so is the copy."""
    held = unpack(tmp_path, 1)
    path = tmp_path / "tenants" / "default.db"
    original = apsw.Connection(str(path)).execute("SELECT count(*) FROM cubes").get
    seen: list[int] = []

    def counts(connection: apsw.Connection) -> dict[str, int]:
        copy = apsw.Connection(str(path.with_name(COPY)))
        seen.append(copy.execute("SELECT count(*) FROM cubes").get)
        found = {"cubes": 10 - len(seen)}  # as if rows went
        copy.close()
        assert connection.in_transaction
        return found

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_counts", counts)
        with Tercet.open(tmp_path, embedder=None) as t, pytest.raises(VaultDamaged, match="cubes"):
            t.scope().list()
    assert seen == [original, original]
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope().list().total == len(held["history"])
    assert COPY not in names(tmp_path)


DIES = """
import os, sys
from pathlib import Path
from tercet.vault import schema
from tercet.vault.connection import connect
schema.STEPS = {**schema.STEPS, 2: schema.STEPS[2] + "SELECT die();"}
connection = connect(Path(sys.argv[1]))
connection.create_scalar_function("die", lambda *_: os.kill(os.getpid(), 9), 0)
schema.migrate(connection)
"""


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    held = unpack(tmp_path, 1)
    process = start(DIES, tmp_path / "tenants" / "default.db")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert COPY in names(tmp_path)
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope().list().total == len(held["history"])
        all_clear(t)
    assert COPY not in names(tmp_path)


def test_a_full_disk_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    held = unpack(tmp_path, 1)
    failed = 0
    for nth in range(1, 400, 7):
        with FaultyDisk(tmp_path) as disk:
            vault = SqliteVault(tmp_path, ids=RandomIds(), clock=system_clock, vfs=disk.name)
            disk.fail(nth, DiskFull, times=10**9)
            try:
                with vault.tenant("default").reading() as reader:
                    reader.numbers(Scope())
            except VaultError:
                failed += 1
                disk.heal()
                connection = apsw.Connection(str(tmp_path / "tenants" / "default.db"))
                whole = connection.execute("SELECT max(step) FROM migrations").get != 1
                connection.close()
                if whole:  # it failed in tidying up, after the commit
                    break
            else:
                break
            finally:
                disk.heal()
                vault.close()
    assert failed > 1
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope().list().total == len(held["history"])
        all_clear(t)
    assert not [name for name in names(tmp_path) if "schema" in name]


def test_an_older_file_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    unpack(tmp_path, 1)
    connection = apsw.Connection(str(tmp_path / "tenants" / "default.db"), flags=apsw.SQLITE_OPEN_READONLY)
    with pytest.raises(VaultError, match="schema 1 and has to be brought to"):
        schema.migrate(connection)
    connection.close()


def test_a_file_of_this_schema_is_not_copied(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        t.scope().remember("One.")
    with Tercet.open(tmp_path, embedder=None) as t:
        t.scope().list()
    assert names(tmp_path) == ["default.db", "default.mark", "default.use"]
