"""Sealed files open whole, in their place and with their key, or not at all; the key file likewise."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import VaultBusy, VaultDamaged, VaultDestroyed, VaultError, VaultSealed, VaultTooNew
from tercet.vault import datakeys, sealed
from tercet.vault.datakeys import DataKey, Keyring, Master, Seal, key_file_of
from tercet.vault.sealed import CHUNK, HEADER, TAG
from tercet.vault.turnstile import Turnstile

KEY = DataKey("01" * 16, bytes(range(32)))
SEAL = Seal((KEY,))


def write(path: Path, content: bytes, identity: bytes = b"it", key: DataKey = KEY) -> bytes:
    sealed.write(path, key, [content], identity)
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 7])
def test_what_was_sealed_comes_back(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    raw = write(tmp_path / "f", content)
    assert sealed.read(tmp_path / "f", SEAL, b"it") == content
    assert len(raw) == sealed.size_of(size)
    assert content[:64] not in raw or size < 16
    assert sealed.key_of(tmp_path / "f") == KEY.id
    assert not list(tmp_path.glob("*.part"))


def test_written_by_drops_it_is_the_same(tmp_path: Path) -> None:
    content = os.urandom(CHUNK + 17)
    sealed.write(tmp_path / "f", KEY, [content[i : i + 1001] for i in range(0, len(content), 1001)], b"it")
    assert sealed.read(tmp_path / "f", SEAL, b"it") == content


def test_the_same_content_twice_is_not_the_same_bytes(tmp_path: Path) -> None:
    """Each file has a key of its own, so that a nonce is never used twice with one."""
    a, b = write(tmp_path / "a", bytes(1000)), write(tmp_path / "b", bytes(1000))
    assert a[HEADER.size :] != b[HEADER.size :]


def parts(raw: bytes) -> tuple[bytes, list[bytes]]:
    body, step = raw[HEADER.size :], CHUNK + TAG
    return raw[: HEADER.size], [body[i : i + step] for i in range(0, len(body), step)]


HARMS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "two chunks change places": lambda c: [c[1], c[0], *c[2:]],
    "the first is left out": lambda c: c[1:],
    "one in the middle is left out": lambda c: [c[0], *c[2:]],
    "the last is left out": lambda c: c[:-1],
    "one comes twice": lambda c: [c[0], *c],
    "the last comes twice": lambda c: [*c, c[-1]],
    "something is added": lambda c: [*c[:-1], c[-1] + b"x"],
    "it is cut short": lambda c: [*c[:-1], c[-1][:-1]],
    "nothing is left": lambda _: [],
}


@pytest.mark.parametrize("harm", HARMS)
def test_chunks_stay_where_they_are(tmp_path: Path, harm: str) -> None:
    header, chunks = parts(write(tmp_path / "f", os.urandom(3 * CHUNK + 5)))
    (tmp_path / "f").write_bytes(header + b"".join(HARMS[harm](chunks)))
    with pytest.raises(VaultDamaged, match="cannot be unsealed"):
        sealed.read(tmp_path / "f", SEAL, b"it")


def test_a_chunk_of_another_file_does_not_open(tmp_path: Path) -> None:
    (header, mine), (_, others) = (parts(write(tmp_path / name, os.urandom(2 * CHUNK))) for name in "ab")
    (tmp_path / "a").write_bytes(header + mine[0] + others[1] + mine[2])
    with pytest.raises(VaultDamaged, match="chunk 1 does not open"):
        sealed.read(tmp_path / "a", SEAL, b"it")


def test_a_file_does_not_pass_for_another(tmp_path: Path) -> None:
    write(tmp_path / "f", b"words", b"this one")
    with pytest.raises(VaultDamaged):
        sealed.read(tmp_path / "f", SEAL, b"that one")


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    raw = write(tmp_path / "f", os.urandom(300))
    for at in range(len(raw)):
        (tmp_path / "f").write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        with pytest.raises((VaultDamaged, VaultTooNew)):
            sealed.read(tmp_path / "f", SEAL, b"it")


def test_a_rotated_away_key_is_told_of(tmp_path: Path) -> None:
    write(tmp_path / "f", b"words", key=DataKey.new())
    with pytest.raises(VaultDamaged, match="rotated away"):
        sealed.read(tmp_path / "f", SEAL, b"it")


def test_a_clear_file_passes_only_while_a_vault_is_being_sealed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"clear")
    with pytest.raises(VaultDamaged, match="not sealed"):
        sealed.read(tmp_path / "f", SEAL, b"it")
    assert sealed.read(tmp_path / "f", Seal((KEY,), clear=True), b"it") == b"clear"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a tenant's file would be."""
    (tmp_path / "tenants").mkdir()
    return tmp_path / "tenants" / "alice.db"


def test_a_key_file_opens_with_its_master_key_only(path: Path) -> None:
    master = Master(os.urandom(32))
    made = Keyring(path, master).begin()
    assert made is not None
    before = key_file_of(path).read_bytes()
    assert Keyring(path, master).seal() == made  # and again, by somebody else
    assert Keyring(path, master).begin() == made
    for wrong in (None, Master(os.urandom(32))):
        with pytest.raises(VaultSealed, match="TERCET_MASTER_KEY_FILE"):
            Keyring(path, wrong).seal()
    assert key_file_of(path).read_bytes() == before
    assert made.keys[0].key not in before
    assert made.keys[0].key.hex().encode() not in before


def test_two_who_begin_at_once_have_the_same_key(path: Path) -> None:
    master, start, made = Master(os.urandom(32)), threading.Barrier(8), list[Seal | None]()

    def begin() -> None:
        start.wait()
        made.append(Keyring(path, master).begin())

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({seal.keys[0].key for seal in made if seal is not None}) == 1
    assert len(made) == 8


def test_keys_do_not_pass_from_tenant_to_tenant(path: Path) -> None:
    master, other = Master(os.urandom(32)), path.with_name("bob.db")
    Keyring(path, master).begin()
    said = datakeys.read(key_file_of(path))
    assert said is not None
    key_file_of(other).write_bytes(key_file_of(path).read_bytes())
    with pytest.raises(VaultDamaged, match="it is of alice"):
        Keyring(other, master).seal()
    datakeys.write(key_file_of(other), datakeys.KeyFile("bob", said.keys))  # with a checksum that fits
    with pytest.raises(VaultDamaged, match="another's place"):
        Keyring(other, master).seal()


def test_every_flipped_byte_of_a_key_file_is_seen(path: Path) -> None:
    master = Master(os.urandom(32))
    Keyring(path, master).begin()
    file = key_file_of(path)
    raw = file.read_bytes()
    for at in range(len(raw)):
        for bit in (1, 32):
            file.write_bytes(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
            with pytest.raises((VaultDamaged, VaultTooNew)):
                Keyring(path, master).seal()


def test_what_cannot_be_a_key_file(path: Path) -> None:
    file = key_file_of(path)
    file.parent.mkdir()
    for content in (b"", b"{}", b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(VaultDamaged, match="not what was written"):
            Keyring(path, Master(bytes(32))).seal()
    file.unlink()
    file.mkdir()
    with pytest.raises(VaultError):
        Keyring(path, Master(bytes(32))).seal()


def test_a_destroyed_key_file_says_so_to_everybody(path: Path) -> None:
    datakeys.write(key_file_of(path), datakeys.KeyFile("alice", (), destroyed={"erased_at": "2026-11-26"}))
    for master in (None, Master(bytes(32))):
        with pytest.raises(VaultDestroyed, match="2026-11-26"):
            Keyring(path, master).begin()


def test_nobody_is_in_the_middle_while_one_is_alone(path: Path) -> None:
    turnstile, inside, seen = Turnstile(path), [0], list[int]()
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with turnstile.using(), turnstile.using():  # a thread that is in may enter again
                inside[0] += 1
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for one in threads:
        one.start()
    for _ in range(20):  # however busy it is
        with Turnstile(path).alone(wait=20):
            seen.append(inside[0])
            time.sleep(0.002)
            seen.append(inside[0])
    stop.set()
    for one in threads:
        one.join()
    assert set(seen) == {0}


def test_who_waits_too_long_is_told(path: Path) -> None:
    turnstile = Turnstile(path)
    with turnstile.using(), pytest.raises(VaultBusy, match="itself"), turnstile.alone(wait=0):
        pass
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with turnstile.using():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait()
    with pytest.raises(VaultBusy, match="in use for"), turnstile.alone(wait=0.05):
        pass
    leave.set()
    thread.join()
    with turnstile.alone(wait=1):
        pass
