"""Flipped and cut bytes: an error or the truth, and doctor says which."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from tercet import Tercet, VaultDamaged
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.damage import Judge, Sound, damage, prepare
from tercet.testing.histories import read
from tercet.testing.narrow import narrow
from tercet.vault.connection import rising


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return prepare(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def killed(sound: Sound, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound.killed, tmp_path / "vault"))


@pytest.mark.parametrize("seed", [*range(200), 941])  # the last puts another table's rows into an empty partial index
def test_a_damaged_vault_tells_the_truth_or_raises(seed: int, sound: Sound, tmp_path: Path) -> None:
    folder = shutil.copytree(sound.killed if seed % 2 else sound.closed, tmp_path / "vault")
    done = damage(folder, seed)
    verdict = Judge(folder, sound.held).judge()
    assert verdict.faults == [], done


@pytest.mark.parametrize("where", ["head", "first level", "second level", "cut", "empty"])
def test_a_damaged_index_is_noticed_and_made_anew(where: str, sound: Sound, tmp_path: Path) -> None:
    """By its checksum, when it is searched: the table answers then, and the next worker writes a sound one."""
    folder = shutil.copytree(sound.closed, tmp_path / "vault")
    [path] = folder.glob("segments/*/*.lvq")
    data = bytearray(path.read_bytes())
    places = {"head": 70, "first level": len(data) // 2, "second level": len(data) - 3}
    if where in places:
        data[places[where]] ^= 4
    path.write_bytes(data[: {"cut": len(data) - 9, "empty": 0}.get(where, len(data))])
    questions = ("the boiler code", "two cats and a piano")

    def answers(t: Tercet) -> list[list[str]]:
        found = [t.scope().recall(question, policy="vectors", limit=30) for question in questions]
        return [[hit.cube.id for hit in hits] for hits in found]

    with narrow(), Tercet.open(shutil.copytree(sound.closed, tmp_path / "own"), embedder=FakeEmbedder(16)) as t:
        wanted = answers(t)
    with narrow(), Tercet.open(folder, embedder=FakeEmbedder(16)) as t:
        assert answers(t) == wanted
        t.work(until_idle=True)
        [fresh] = folder.glob("segments/*/*.lvq")
        assert fresh.read_bytes() != data
        assert answers(t) == wanted
        all_clear(t)


@pytest.fixture
def circle(sound: Sound, tmp_path: Path) -> Iterator[Tercet]:
    """A vault whose table of cubes has a page in the place of the one after it, so that rows come round again."""
    folder = shutil.copytree(sound.closed, tmp_path / "vault")
    with Tercet.open(folder, embedder=None) as t:
        t.scope(user="alice").remember_many([f"Note {i}. " + "word " * 20 for i in range(300)])
    path = folder / "tenants" / "default.db"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    pages = [page for (page,) in connection.execute("SELECT pageno FROM dbstat WHERE name = 'cubes' AND ncell > 9")]
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'cubes'").get
    connection.close()
    first, last = pages[1], pages[-1]
    data = bytearray(path.read_bytes())
    begin = (root - 1) * 4096
    page = bytes(data[begin : begin + 4096]).replace(last.to_bytes(4, "big"), first.to_bytes(4, "big"))
    assert page != data[begin : begin + 4096]
    data[begin : begin + 4096] = page
    path.write_bytes(data)
    with Tercet.open(folder, embedder=FakeEmbedder(16)) as t:
        yield t


def test_a_circle_in_the_table_ends_every_loop(circle: Tercet) -> None:
    """Listing, following changes, embedding and doctor's walk come to an end, which is damage or the last row."""
    t = circle

    def turn_pages() -> int:
        cursor, pages = None, 0
        while True:
            page = t.scope().list(limit=10, cursor=cursor)
            cursor, pages = page.cursor, pages + 1
            if cursor is None:
                return pages

    for call in (turn_pages, lambda: t.work(until_idle=True), t.doctor, t.stats):
        with suppress(VaultDamaged):
            call()
    found = {one.what for one in t.doctor()["default"]}
    assert found & {"file", "content"}


def test_rows_that_do_not_grow_are_damage() -> None:
    assert rising([3, 4, 9], 2) == [3, 4, 9]
    assert rising([], 2) == []
    for numbers in ([2], [3, 3], [4, 3], [3, None]):
        with pytest.raises(VaultDamaged, match="a table is damaged"):
            rising(numbers, 2)  # type: ignore[arg-type]  # what a damaged table gives


def test_without_damage_there_is_nothing_to_notice(sound: Sound, tmp_path: Path) -> None:
    for name, source in (("closed", sound.closed), ("killed", sound.killed)):
        judge = Judge(shutil.copytree(source, tmp_path / name), sound.held)
        with Tercet.open(judge.folder, embedder=FakeEmbedder(16)) as t:
            assert judge.read(t) == []
            all_clear(t)
        assert judge.verdict.errors == judge.verdict.faults == []


def test_a_wrong_answer_would_be_seen(sound: Sound, tmp_path: Path) -> None:
    """The judge of a vault whose text was changed together with its hash."""
    folder = shutil.copytree(sound.closed, tmp_path / "vault")
    with Tercet.open(folder, embedder=None) as t:
        t.scope().revise(min(sound.held), "another text")
    faults = Judge(folder, sound.held).judge().faults
    assert any("get gave a wrong" in fault for fault in faults)
    assert any("list gave a wrong" in fault for fault in faults)


@pytest.mark.parametrize("how", ["removed", "cut", "flipped"])
def test_a_lost_log_is_noticed(killed: Path, sound: Sound, how: str) -> None:
    """SQLite itself takes it for a log that ends early, and would serve what was there before."""
    log = killed / "tenants" / "default.db-wal"
    if how == "removed":
        log.unlink()
    else:
        data = bytearray(log.read_bytes())
        data[len(data) - 100] ^= 1
        log.write_bytes(data[: len(data) - 50 if how == "cut" else None])
    with Tercet.open(killed, embedder=None) as t:
        for call in (t.scope().list, lambda: t.scope().remember("more"), t.stats):
            with pytest.raises(VaultDamaged, match="lost writes"):
                call()
        # The segment may be of rows that are lost.
        assert {one.what for one in t.doctor()["default"]} - {"segments"} == {"lost writes"}
        assert {one.repaired for one in t.doctor(repair=True)["default"]} == {True}
        all_clear(t)
        found = read(t)  # whole as far as it goes
        assert found != sound.held
        assert found
        for id in found.keys() & sound.held.keys():
            texts = [cube.text for cube in found[id]]
            assert texts == [cube.text for cube in sound.held[id]][: len(texts)]
        t.scope().remember("on it goes")
        all_clear(t)


def test_damaged_indexes_are_made_anew_from_rows(sound: Sound, tmp_path: Path) -> None:
    """Whole pages of everything that can be made from rows are overwritten."""
    folder = shutil.copytree(sound.closed, tmp_path / "vault")
    made = ("postings", "attributes", "vectors", "cubes_by_scope", "cubes_by_ref", "derivations", "uses")
    path = folder / "tenants" / "default.db"
    with Tercet.open(folder, embedder=None) as t, t.vault.tenant("default").maintaining() as connection:
        statement = f"SELECT pageno FROM dbstat WHERE name IN ({','.join('?' * len(made))})"  # noqa: S608
        pages = [page for (page,) in connection.execute(statement, made)]
    data = bytearray(path.read_bytes())
    assert len(pages) >= len(made)
    for page in pages:
        data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with Tercet.open(folder, embedder=FakeEmbedder(16)) as t:
        with pytest.raises(VaultDamaged):
            t.scope().list()
        found = t.doctor()["default"]
        assert "file" in {one.what for one in found}
        repaired = t.doctor(repair=True)["default"]
        assert all(one.repaired for one in repaired), repaired
        all_clear(t)
        assert read(t) == sound.held
        t.work(until_idle=True)
        assert t.stats()["tenants"]["default"]["without_vector"] == 0
        assert t.scope().recall("piano", limit=1)[0].why
    assert sorted(path.name for path in (folder / "tenants").iterdir()) == ["default.db", "default.mark", "default.use"]


def test_one_damaged_tenant_does_not_hide_the_others(sound: Sound, tmp_path: Path) -> None:
    folder = shutil.copytree(sound.closed, tmp_path / "vault")
    (folder / "tenants" / "garbage.db").write_bytes(b"no database" * 1000)
    with Tercet.open(folder, embedder=None) as t:
        found = t.doctor()
        assert found["default"] == []
        assert [one.what for one in found["garbage"]] == ["file"]
        assert t.scope().list().total == len(sound.held)
