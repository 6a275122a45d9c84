"""Sealing from the front door: where the master key is, what no file shows, what a destruction leaves."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from tercet import Caller, Tercet
from tercet.errors import (
    Held,
    InvalidRequest,
    Refused,
    Unsupported,
    VaultDamaged,
    VaultDestroyed,
    VaultError,
    VaultSealed,
)
from tercet.exchange.export import export_file
from tercet.govern.master import FILE, VARIABLE, find_master, make_master
from tercet.govern.receipt import to_bytes
from tercet.parametric import runs
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.narrow import narrow
from tercet.testing.rotating import MARK, add_blobs
from tercet.vault import probe, sqlite
from tercet.vault.datakeys import Master

MASTER = bytes(range(32))
CANARIES = 1000


def opened(folder: Path, sealing: object = MASTER, **options: object) -> Tercet:
    return Tercet.open(folder, **{"embedder": FakeEmbedder(), "sealing": sealing, **options})  # type: ignore[arg-type]


class Ring(KeyringBackend):  # type: ignore[misc]  # its types are left aside
    """A keyring in memory, which can be locked."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("the collection is locked")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise KeyringLocked("the collection is locked")
        self.held[service, username] = password


@pytest.fixture
def ring() -> Iterator[Ring]:
    """The system's keyring, for as long as a test runs."""
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_a_master_key_comes_from_a_file_the_environment_or_the_keyring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: Ring
) -> None:
    vault, file = tmp_path / "vault", tmp_path / "keys" / "master.key"
    made = make_master(file, apart_from=vault)
    with opened(vault, file) as t:
        cube = t.scope().remember("Soup on Friday.")
    key = file.read_text()
    ring.held["tercet", "mine"] = key
    monkeypatch.setenv(VARIABLE, key)
    for place in (file, str(file), "auto", "keyring:mine", made, bytes.fromhex(key)):
        with opened(vault, place) as t:
            assert t.scope().get(cube.id) == cube
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(FILE, str(file))
    with Tercet.open(vault, embedder=None) as t:  # nothing said: the environment
        assert t.scope().get(cube.id) == cube
    assert file.stat().st_mode & 0o077 == 0
    assert key.strip().encode() not in b"".join(f.read_bytes() for f in vault.rglob("*") if f.is_file())


def test_making_a_master_key_overwrites_none(tmp_path: Path, ring: Ring) -> None:
    for place in (str(tmp_path / "key"), "keyring", "keyring:mine"):
        made = make_master(place, apart_from=tmp_path / "vault")
        found = find_master(place, apart_from=tmp_path / "vault")
        assert found is not None
        assert found.id == made.id
        with pytest.raises(InvalidRequest, match=r"already|never overwritten"):
            make_master(place, apart_from=tmp_path / "vault")
    assert len(ring.held) == 2


def test_places_that_hold_no_master_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: Ring) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()

    def refused(error: type[Exception], match: str, place: object) -> None:
        with pytest.raises(error, match=match):
            find_master(place, apart_from=vault)  # type: ignore[arg-type]

    refused(VaultError, "cannot be read", tmp_path / "none")
    for number, content in enumerate(("", "00" * 31, "00" * 33, "zz" * 32, "passphrase")):
        file = tmp_path / f"key{number}"
        file.write_text(content)
        file.chmod(0o600)
        refused(InvalidRequest, "holds no master key", file)
    (tmp_path / "key0").write_bytes(b"\xff" * 64)
    refused(InvalidRequest, "holds no master key", tmp_path / "key0")
    (tmp_path / "key1").write_text("00" * 32)
    (tmp_path / "key1").chmod(0o644)
    refused(VaultError, "chmod 600", tmp_path / "key1")
    (vault / "key").write_text("00" * 32)
    (vault / "key").chmod(0o600)
    refused(InvalidRequest, "lies in the vault", vault / "key")
    refused(InvalidRequest, "32 bytes", b"short")
    refused(VaultSealed, "no key 'mine'", "keyring:mine")
    ring.locked = True
    refused(VaultError, "keyring is locked", "keyring:mine")
    with pytest.raises(VaultError, match="keyring is locked"):
        make_master("keyring:mine", apart_from=vault)
    monkeypatch.setenv(VARIABLE, "not a key")
    refused(InvalidRequest, VARIABLE, "auto")
    assert find_master(None, apart_from=vault) is None


def test_without_the_key_there_is_one_answer_and_nothing_changes(tmp_path: Path) -> None:
    with opened(tmp_path) as t:
        t.scope().remember("Soup on Friday.")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(VaultSealed, match="TERCET_MASTER_KEY_FILE"):
        opened(tmp_path, None)
    with pytest.raises(VaultSealed, match="another master key"):
        opened(tmp_path, bytes(32))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


class Sampler:
    """Reads every byte of a folder over and over, as somebody with the files would at any moment."""

    def __init__(self, folder: Path, words: list[bytes]) -> None:
        self.folder, self.words = folder, words
        self.seen: set[str] = set()
        self.rounds, self.bytes, self.kinds = 0, 0, set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.rounds += 1
            self.look()
            time.sleep(0.02)

    def look(self) -> None:
        for file in sorted(self.folder.rglob("*")):
            # The handle of a database that this process uses is not closed: that would drop the locks it has.
            try:
                raw = _bytes_of(file)
            except OSError:
                continue
            self.bytes += len(raw)
            self.kinds.add(file.suffix)
            self.seen |= {f"{word!r} in {file.name}" for word in self.words if word in raw}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()


def _bytes_of(file: Path) -> bytes:
    if not file.is_file():
        return b""
    handle = HANDLES.get(file)
    if handle is None or os.fstat(handle).st_ino != file.stat().st_ino:
        HANDLES[file] = handle = os.open(file, os.O_RDONLY)  # never closed while a test runs: see above
    return os.pread(handle, os.fstat(handle).st_size, 0)


HANDLES: dict[Path, int] = {}


@pytest.mark.slow
def test_no_word_of_a_thousand_is_in_any_byte_at_any_moment(tmp_path: Path) -> None:
    """While writing, indexing, revising, erasing, scrubbing, placing blobs, backing up and rotating."""
    vault = tmp_path / "vault"
    words = [f"canary{n}bird" for n in range(CANARIES)]
    looked = [b"canary", b"Canary", MARK, b"SQLite format", b"TERCETSG", b"tercet secret subject"]
    with narrow(), Sampler(tmp_path, looked) as sampler, opened(vault) as t:
        alice = t.scope(user="alice")
        for start in range(0, CANARIES, 100):
            alice.remember_many([f"The code word is {word}." for word in words[start : start + 100]])
            t.work()
        cubes = alice.list(limit=CANARIES)
        alice.remember("Marked.", tags=["canary-tag"], metadata={"canary": "tercet secret subject"})
        assert alice.recall("canary512bird", limit=1)[0].cube.text == "The code word is canary512bird."
        alice.revise(cubes[0].id, "Revised: canary0bird.")
        alice.forget([cube.id for cube in cubes[1:40]])
        add_blobs(t, 3, 2 << 20)
        t.branch("canary-branch")
        t.work(until_idle=True)
        t.backup(tmp_path / "copy")
        t.rotate()
        t.rotate_master(Master(bytes(32)))
        assert alice.recall("canary512bird", limit=1)[0].cube.text == "The code word is canary512bird."
        all_clear(t)
    assert sampler.seen == set()
    assert sampler.rounds > 5
    assert {".db", ".db-wal", ".json", ".lvq", ".part"} & sampler.kinds >= {".db", ".db-wal", ".json", ".lvq"}
    for handle in HANDLES.values():
        os.close(handle)
    HANDLES.clear()


def test_the_sampler_sees_a_clear_vault(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    with Sampler(tmp_path, [b"canary"]) as sampler, opened(tmp_path, None) as t:
        t.scope().remember("The code word is canary1bird.")
        sampler.look()
    assert any("-wal" in one for one in sampler.seen) or any(".db" in one for one in sampler.seen)
    for handle in HANDLES.values():
        os.close(handle)
    HANDLES.clear()


def harmed(file: Path, at: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 16
    file.write_bytes(raw)


def told(folder: Path) -> bool:
    """Whether opening it, or doctor, says that something is wrong."""
    try:
        with opened(folder) as t:
            return any(t.doctor().values())
    except (VaultError, VaultDamaged):
        return True


def test_a_flipped_byte_of_any_file_is_detected(tmp_path: Path) -> None:
    """In the database also where SQLite does not look: free pages, the ends of pages, the first bytes."""
    with narrow(), opened(tmp_path) as t:
        t.scope(user="alice").remember_many([f"Note {n}." for n in range(40)])
        add_blobs(t, 1, 500)
        t.work(until_idle=True)
        t.scope(user="alice").forget(t.scope(user="alice").list(limit=1)[0].id)
        t.work(until_idle=True)
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file() and file.stat().st_size]
    assert {file.suffix for file in files} == {".db", ".mark", ".json", ".lvq", ".log", ""}  # the last is the blob
    assert not told(tmp_path)
    missed = []
    for file in files:
        whole, size = file.read_bytes(), file.stat().st_size
        places = sorted({*range(min(size, 26)), *range(0, size, max(1, size // 12)), size - 1})
        for at in places if file.suffix in {".db", ".json"} else places[::4]:
            harmed(file, at)
            mended = file.suffix == ".log"  # the ledger of erasures is written anew from the rows
            if not told(tmp_path) and not (mended and file.read_bytes() == whole):
                missed.append((file.name, at))
            for left in (tmp_path / "tenants").glob("*-*"):
                left.unlink()
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(whole)
    assert missed == []


def test_destroying_a_tenants_keys_is_an_erasure_with_a_receipt(tmp_path: Path) -> None:
    vault, key = tmp_path / "vault", tmp_path / "signing.key"
    with opened(vault, signing_key=key) as t:
        t.scope(tenant="a").remember_many(["Soup on Friday.", "Bread on Monday."])
        add = t.scope(tenant="b").remember("Stays.")
        held = t.scope(tenant="a").hold(t.scope(tenant="a").list(limit=1)[0].id, "case 7")
        with pytest.raises(Held, match="1 memories"):
            t.destroy(tenant="a")
        assert t.scope(tenant="a").get(held.id) == held
        other = opened(vault, signing_key=key)
        assert other.scope(tenant="a").recall("soup")
        paper = t.destroy(tenant="a", cause="the contract ended", despite_hold="the court agreed")
        assert (paper["memories"], paper["despite_hold"]) == (2, "the court agreed")
        for handle in (t, other):
            with pytest.raises(VaultDestroyed, match="nobody can read"):
                handle.scope(tenant="a").recall("soup")
            with pytest.raises(VaultDestroyed, match="nobody can read"):
                handle.scope(tenant="a").remember("More.")
            with pytest.raises(VaultDestroyed, match="nobody can read"):
                handle.audit(tenant="a")
            assert handle.scope(tenant="b").get(add.id) == add
        other.close()
        assert t.vault.tenants() == ["b"]
        assert t.verify(to_bytes(paper)).passed
        all_clear(t)
        for field, value in (("memories", 3), ("cause", "another"), ("tenant", "b")):
            wrong = t.verify(to_bytes({**paper, field: value}))
            assert not wrong.passed, field
        with pytest.raises(VaultDestroyed):
            t.destroy(tenant="a")
    assert [file.suffix for file in sorted((vault / "tenants").glob("a.*"))] == [".use"]
    with opened(vault, signing_key=key) as t:
        assert t.verify(to_bytes(paper)).passed
        (vault / "keys" / "a.json").unlink()
        assert "no key file" in t.verify(to_bytes(paper)).problems[0]
        t.scope(tenant="a").remember("Begun anew.")
        assert not t.verify(to_bytes(paper)).passed


def test_what_is_clear_has_no_key_to_destroy(tmp_path: Path) -> None:
    with opened(tmp_path, None) as t:
        t.scope(tenant="a").remember("Soup.")
        with pytest.raises(VaultError, match="no key to destroy"):
            t.destroy(tenant="a")
        for call in (t.seal, t.rotate):
            with pytest.raises(VaultSealed, match="no master key"):
                call()


def test_only_administrators_seal_rotate_and_destroy(tmp_path: Path) -> None:
    from tercet.govern.rules import Rule

    with opened(tmp_path) as t:
        t.scope().remember("Soup.")
        boss = t.admin(by=Caller("boss"))
        boss.add_rule(Rule("allow", "boss", {"administer"}))
        bob = Caller("bob")
        calls: list[Callable[[], object]] = [
            lambda: t.seal(by=bob),
            lambda: t.rotate(by=bob),
            lambda: t.rotate_master(bytes(32), by=bob),
            lambda: t.destroy(tenant="default", by=bob),
            lambda: t.sealing(by=bob),
        ]
        before = (tmp_path / "keys" / "default.json").read_bytes()
        for call in calls:
            with pytest.raises(Refused):
                call()
        assert (tmp_path / "keys" / "default.json").read_bytes() == before
        assert t.rotate(by=Caller("boss"))


def test_new_tenants_are_as_the_vault_is(tmp_path: Path) -> None:
    with opened(tmp_path) as t:
        t.scope(tenant="a").remember("Soup.")
        t.scope(tenant="b").remember("Bread.")
        assert {name: one["sealed"] for name, one in t.sealing()["tenants"].items()} == {"a": True, "b": True}
        assert t.scope(tenant="never written").recall("soup") == []
    assert sorted(file.name for file in (tmp_path / "keys").iterdir()) == ["a.json", "b.json"]


def test_an_export_is_clear_and_says_what_it_is(tmp_path: Path) -> None:
    """It is made to be read elsewhere; only what lies in the vault is sealed."""
    with opened(tmp_path / "vault") as t:
        t.scope(user="alice").remember("Soup on Friday.")
        export_file(t.scope(user="alice"), tmp_path / "out.jsonl")
    assert b"Soup on Friday." in (tmp_path / "out.jsonl").read_bytes()


def test_a_key_file_tells_no_name_but_its_own(tmp_path: Path) -> None:
    with opened(tmp_path) as t:
        t.scope(tenant="Ann & Bob GmbH", user="Carla").remember("Soup.")
    [file] = (tmp_path / "keys").glob("*.json")
    said = json.loads(file.read_text())
    assert said["tenant"] == file.stem
    assert b"Ann & Bob" not in b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


def test_trainings_of_a_sealed_tenant_lie_in_memory_and_are_destroyed_with_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MEMORY", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    with opened(tmp_path / "vault") as t:
        kept, gone = t.scope().remember_many(["Stays.", "Goes."])
        path = t.vault.tenant("default").path
        folder = runs.training_folder(path, sealed=True)
        assert tmp_path / "vault" not in folder.parents
        assert folder.parent.stat().st_mode & 0o077 == 0
        for name, cube in (("one", kept), ("two", gone)):
            (folder / name).mkdir(parents=True)
            (folder / name / "sources.json").write_text(json.dumps([cube.id]))
        t.scope().forget(gone.id)
        assert [run.name for run in runs.runs_of(path)] == ["one"]
        t.destroy(tenant="default")
        assert runs.runs_of(path) == []
    monkeypatch.setattr(runs, "MEMORY", tmp_path / "none")
    with pytest.raises(Unsupported, match="in memory"):
        runs.training_folder(path, sealed=True)


def test_a_probe_looks_at_what_the_sealed_pages_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the sealed bytes, in which nobody could find anything."""
    with opened(tmp_path) as t:
        cube = t.scope().remember("The code word is xylophonist.")
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "scrub", lambda *_, **__: None)  # as if it were done
            patch.setattr(probe, "_kept", lambda *_: False)
            with t.vault.tenant("default").maintaining() as connection:
                connection.execute("CREATE TABLE left_behind (x)")
                connection.execute("INSERT INTO left_behind VALUES ('The code word is xylophonist.')")
            receipt = t.scope().forget(cube.id)
        assert receipt.probe is not None
        assert any("default.db" in one for one in receipt.probe.found)
