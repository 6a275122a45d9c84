"""T2, T12, T13, T15, T24: no server, any model, no lock in the way, no index that rots, no upgrade that breaks.

tests/vault has more: test_spaces (T12), test_durability (T13, T15), test_damage (T15), test_migration (T24).
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tercet import Tercet
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.narrow import narrow
from tercet.testing.processes import run

FIXTURES = Path(__file__).parents[1] / "fixtures"


class TestNoServer:
    """T2: a vault is files of a format that others read, too; no database runs beside it, and none can go away."""

    def test_it_is_one_file_and_any_sqlite_reads_it(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
            t.scope(user="alice").remember("The boiler code is 4417.")
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
            "default.db",
            "default.mark",
            "default.use",
        ]
        # The interpreter's own SQLite, in a process that has never heard of Tercet.
        code = (
            "import sqlite3, sys\nprint(*sqlite3.connect(sys.argv[1]).execute('SELECT text FROM episodes').fetchone())"
        )
        path = tmp_path / "tenants" / "default.db"
        told = subprocess.run([sys.executable, "-I", "-c", code, path], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "The boiler code is 4417."

    def test_nothing_listens_and_nothing_stays(self, tmp_path: Path) -> None:
        code = (
            "import socket, subprocess, sys\n"
            "def refuse(*_, **__): raise AssertionError('a vault needs no other process')\n"
            "socket.socket.bind = socket.socket.connect = subprocess.Popen.__init__ = refuse\n"
            "from tercet import Tercet\n"
            "from tercet.testing import FakeEmbedder\n"
            "with Tercet.open(sys.argv[1], embedder=FakeEmbedder()) as t:\n"
            "    t.scope(user='alice').remember('The boiler code is 4417.')\n"
            "    t.work(until_idle=True)\n"
            "    print(t.scope(user='alice').recall('boiler')[0].cube.text)\n"
        )
        assert run(code, tmp_path).strip() == "The boiler code is 4417."


class TestAnotherModel:
    """T12: a model with another dimension takes over, and every memory is there under its id."""

    def test_the_model_may_change(self, tmp_path: Path) -> None:
        ids = set[str]()
        for dim in (8, 24, 5):
            with Tercet.open(tmp_path, embedder=FakeEmbedder(dim)) as t:
                ids.add(t.scope(user="alice").remember(f"Written with {dim} dimensions.").id)
                t.work(until_idle=True)
                hits = t.scope(user="alice").recall("written with dimensions", policy="vectors", limit=9)
                assert {hit.cube.id for hit in hits} == ids
                assert {hit.why["by"] for hit in hits} == {"vectors"}
                [spaces] = [one["spaces"] for one in t.stats()["tenants"].values()]
                assert {name: one["vectors"] for name, one in spaces.items()} == {f"fake/{dim}": len(ids)}
                all_clear(t)


class TestLocks:
    """T13: two handles on one folder never see "database is locked"."""

    def test_handles_write_by_turns(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as one, Tercet.open(tmp_path, embedder=None) as other:
            for i in range(10):
                written = (one if i % 2 else other).scope().remember(f"Number {i}.")
                assert (other if i % 2 else one).scope().get(written.id) == written


class TestIndexes:
    """T15: an index is a cache over rows: it may be lost, damaged or old, and does not grow beyond them."""

    @pytest.fixture
    def vault(self, tmp_path: Path) -> Path:
        with narrow(), Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
            t.scope(user="alice").remember_many([f"Note {i} says word{i}." for i in range(60)])
            t.work(until_idle=True)
            t.vault.tenant("default").index()
        return tmp_path

    @pytest.mark.parametrize("how", ["deleted", "garbage", "another's"])
    def test_without_it_the_answers_are_the_same(self, vault: Path, how: str) -> None:
        with narrow(), Tercet.open(vault, embedder=FakeEmbedder()) as t:
            before = [hit.cube.id for hit in t.scope(user="alice").recall("word7", policy="vectors")]
        [path] = vault.glob("segments/*/*.lvq")
        if how == "deleted":
            shutil.rmtree(path.parent)
        else:
            path.write_bytes(b"garbage" * 100 if how == "garbage" else path.read_bytes()[::-1])
        with narrow(), Tercet.open(vault, embedder=FakeEmbedder()) as t:
            assert [hit.cube.id for hit in t.scope(user="alice").recall("word7", policy="vectors")] == before
            t.work(until_idle=True)
            assert len(list(vault.glob("segments/*/*.lvq"))) == 1
            all_clear(t)

    def test_it_does_not_grow_beyond_what_it_indexes(self, vault: Path) -> None:
        """As many memories after a hundred changes take as many bytes, or nearly."""
        with narrow(), Tercet.open(vault, embedder=FakeEmbedder()) as t:
            alice, tenant = t.scope(user="alice"), t.vault.tenant("default")
            ids = [cube.id for cube in alice.list(limit=100)]
            before = sum(path.stat().st_size for path in vault.glob("segments/*/*"))
            for i, id in enumerate(ids[:50]):
                alice.revise(id, f"Note {i} says word{i}.")
                if i % 10 == 9:
                    tenant.index()
            assert sum(path.stat().st_size for path in vault.glob("segments/*/*")) <= 1.1 * before
            with tenant.maintaining() as connection:
                assert connection.execute("SELECT count(*) FROM vectors").get == len(ids)


class TestUpgrades:
    """T24: a file that an older Tercet wrote opens, and is as it was."""

    def test_the_first_schema_opens(self, tmp_path: Path) -> None:
        (tmp_path / "tenants").mkdir()
        packed = (FIXTURES / "schema-1.db.gz").read_bytes()
        (tmp_path / "tenants" / "default.db").write_bytes(gzip.decompress(packed))
        held = json.loads((FIXTURES / "schema-1.json").read_text())["history"]
        with Tercet.open(tmp_path, embedder=None) as t:
            assert {cube.id: cube.text for cube in t.scope().list()} == {id: v[-1]["text"] for id, v in held.items()}
            all_clear(t)
