"""The data keys of a tenant, wrapped by a master key: `<vault>/keys/<tenant's file>.json`. The master is never there.

A data key is 256 random bits. What is sealed with it takes keys that are derived from it (HKDF-SHA256): one for the
pages of the SQLite file, one for other files, one for their names. The newest key stands first and seals whatever is
written; while a rotation runs, older ones stand behind it and open what it has not reached yet.

The file is written beside its name, synced and renamed: it is the old or the new one. Each wrap is AES-256-GCM, bound
to the tenant's file name and the key's id; a checksum over the whole tells damage from a wrong key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from tercet.errors import InvalidRequest, VaultDamaged, VaultDestroyed, VaultError, VaultSealed, VaultTooNew
from tercet.vault.codec import dump
from tercet.vault.files import make_folder, sync

FORMAT, VERSION = "tercet data keys", 1
SIZE, NONCE = 32, 12

Entropy = Callable[[int], bytes]


class Master:
    """A master key: 32 bytes, and an id by which a key file says who wrapped it."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != SIZE:
            raise InvalidRequest(f"A master key has {SIZE} bytes, not {len(key)}.")
        self._cipher = AESGCM(key)
        self.id = hashlib.sha256(b"tercet master key\0" + key).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Master({self.id})"

    def wrap(self, key: DataKey, tenant: str) -> str:
        """A data key, to be kept in the key file."""
        nonce = os.urandom(NONCE)
        return (nonce + self._cipher.encrypt(nonce, key.key, _bound(tenant, key.id))).hex()

    def unwrap(self, wrapped: str, id: str, tenant: str) -> DataKey:
        """The data key of that id. Raises VaultDamaged if it is not what this key wrapped."""
        from cryptography.exceptions import InvalidTag

        try:
            raw = bytes.fromhex(wrapped)
            return DataKey(id, self._cipher.decrypt(raw[:NONCE], raw[NONCE:], _bound(tenant, id)))
        except (InvalidTag, ValueError) as error:
            raise VaultDamaged(
                f"Data key {id[:8]} of {tenant} is not what the master key wrapped: its file was changed or put in "
                "another's place. Restore the key file from a backup."
            ) from error


@dataclass(frozen=True, repr=False)
class DataKey:
    """One data key, and what is derived from it."""

    id: str
    key: bytes

    @classmethod
    def new(cls, entropy: Entropy = os.urandom) -> DataKey:
        """A key that nobody had before."""
        return cls(entropy(16).hex(), entropy(SIZE))

    @cached_property
    def pages(self) -> str:
        """Opens the SQLite file: 64 hex digits of the key, and the 32 with which such a file begins."""
        return self._derived(b"pages").hex() + self._derived(b"beginning")[:16].hex()

    @cached_property
    def files(self) -> bytes:
        """What the keys of other files are derived from."""
        return self._derived(b"files")

    def name(self, plain: str) -> str:
        """The name of a sealed file, as 64 hex digits: who has no key cannot tell of which content it is."""
        return hashlib.blake2b(plain.encode(), digest_size=32, key=self._names).hexdigest()

    @cached_property
    def _names(self) -> bytes:
        return self._derived(b"names")

    def _derived(self, what: bytes) -> bytes:
        return derived(self.key, None, b"tercet " + what)


@dataclass(frozen=True)
class Seal:
    """What opens a tenant's files: its keys, newest first, and whether some files may still be clear."""

    keys: tuple[DataKey, ...]
    clear: bool = False

    @property
    def pages(self) -> list[str | None]:
        """What may open the SQLite file, most likely first; None stands for a clear one."""
        return [*(one.pages for one in self.keys), *([None] if self.clear else [])]

    def key(self, id: str) -> DataKey:
        """The key of an id. Raises VaultDamaged if it is not here (any more)."""
        for one in self.keys:
            if one.id == id:
                return one
        raise VaultDamaged(
            f"It was sealed with data key {id[:8]}, which this vault has rotated away or never had: it is another "
            "vault's, or from before."
        )


@dataclass(frozen=True)
class KeyFile:
    """What a key file says: each key's id and how a master wrapped it, newest first; or the receipt of its end."""

    tenant: str
    keys: tuple[tuple[str, Mapping[str, str]], ...]
    clear: bool = False
    destroyed: Mapping[str, Any] | None = field(default=None)

    def bytes(self) -> bytes:
        """As it stands on the disk."""
        said = {
            "format": FORMAT,
            "version": VERSION,
            "tenant": self.tenant,
            "keys": [{"id": id, "wraps": dict(wraps)} for id, wraps in self.keys],
            "clear": self.clear,
            "destroyed": self.destroyed,
        }
        return dump({**said, "sum": hashlib.sha256(dump(said).encode()).hexdigest()}).encode() + b"\n"

    def adding(self, key: DataKey, masters: Sequence[Master]) -> KeyFile:
        """With a newer key."""
        wraps = {one.id: one.wrap(key, self.tenant) for one in masters}
        return replace(self, keys=((key.id, wraps), *self.keys))


def key_file_of(path: Path) -> Path:
    """Where the data keys of a tenant's file are."""
    return path.parent.parent / "keys" / f"{path.stem}.json"


def read(file: Path) -> KeyFile | None:
    """What a key file says; None if it is not there. Raises VaultDamaged, VaultTooNew, VaultError."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VaultError(f"The key file {file} cannot be read: {error.strerror}.") from error
    try:
        said = json.loads(data)
        if said["format"] == FORMAT and said["version"] > VERSION:
            raise VaultTooNew(f"{file} is of version {said['version']}; this Tercet reads {VERSION}.")
        keys = tuple((str(one["id"]), dict(one["wraps"])) for one in said["keys"])
        found = KeyFile(str(said["tenant"]), keys, bool(said["clear"]), said["destroyed"])
        if found.bytes() != data:
            raise ValueError("its checksum does not fit")
        if found.tenant != file.stem:
            raise ValueError(f"it is of {found.tenant}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise VaultDamaged(
            f"The key file {file} is not what was written ({error}). Without it the tenant cannot be read: put back "
            "the one from a backup."
        ) from error
    return found


def write(file: Path, said: KeyFile, *, new: bool = False) -> bool:
    """Put a key file in place, on the disk on return; False if it is to be `new` and there is one. VaultError."""
    part = file.with_name(f"{file.name}.{uuid4().hex}.part")
    try:
        make_folder(file.parent)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb", closefd=False) as stream:
                stream.write(said.bytes())
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            if new:
                os.link(part, file)
            else:
                part.replace(file)
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
        sync(file.parent)
    except OSError as error:
        raise VaultError(f"The key file {file} cannot be written: {error.strerror}.") from error
    return True


class Keyring:
    """The keys of one tenant's file, as this process knows them; read anew whenever the key file has changed."""

    def __init__(self, path: Path, master: Master | None, entropy: Entropy = os.urandom) -> None:
        self.path, self.file, self.master, self.entropy = path, key_file_of(path), master, entropy
        self._known: dict[str, DataKey] = {}
        self._seal: tuple[object, Seal | None] = (object(), None)

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the key file does; None where there is none."""
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def seal(self) -> Seal | None:
        """The tenant's keys; None if it is clear.

        Raises VaultSealed without the master key or with another one, VaultDestroyed, VaultDamaged, VaultTooNew.
        """
        stamp = self.stamp()
        if stamp != self._seal[0]:
            said = read(self.file) if stamp is not None else None
            self._seal = (stamp, None if said is None else self.opened(said))
        return self._seal[1]

    def opened(self, said: KeyFile) -> Seal:
        """The keys of a key file. Those that this process has opened already need no master key."""
        if said.destroyed is not None:
            raise VaultDestroyed(
                f"The keys of {said.tenant} were destroyed at {said.destroyed.get('erased_at')}: nobody can read its "
                f"content any more. To begin anew under this name, delete {self.file}."
            )
        for id, wraps in said.keys:
            if id not in self._known:
                self._known[id] = self._unwrapped(said.tenant, id, wraps)
        return Seal(tuple(self._known[id] for id, _ in said.keys), said.clear)

    def begin(self) -> Seal | None:
        """The keys of a tenant that has no file yet: made now if there is a master key. Raises as `seal` does."""
        if self.master is not None and self.stamp() is None:
            check_master(self.path.parent.parent, self.master)  # it may have been rotated away meanwhile
            write(self.file, self.blank.adding(DataKey.new(self.entropy), [self.master]), new=True)
        elif self.master is None and self.stamp() is None and next(self.file.parent.glob("*.json"), None) is not None:
            raise VaultSealed(f"This vault is sealed, so a new tenant needs its master key. {HOW}")
        return self.seal()

    def forget(self) -> None:
        """Drop the keys that this process knows."""
        self._known.clear()
        self._seal = (object(), None)

    @property
    def blank(self) -> KeyFile:
        """A key file without a key."""
        return KeyFile(self.path.stem, ())

    def _unwrapped(self, tenant: str, id: str, wraps: Mapping[str, str]) -> DataKey:
        if self.master is None:
            raise VaultSealed(f"{self.path} is sealed. {HOW}")
        if self.master.id not in wraps:
            raise VaultSealed(
                f"{self.path} was sealed for master key {' or '.join(sorted(wraps))}, and the one given is "
                f"{self.master.id}; nothing was changed. {HOW}"
            )
        return self.master.unwrap(wraps[self.master.id], id, tenant)


def check_master(folder: Path, master: Master | None) -> None:
    """Raises VaultSealed if a folder has sealed tenants and there is no master key, or one that opens none of them."""
    found = sorted((folder / "keys").glob("*.json"))
    if found and master is None:
        raise VaultSealed(f"The vault {folder} is sealed. {HOW}")
    wrapped = False
    for file in found if master is not None else ():
        try:
            said = read(file)
        except VaultDamaged:
            continue  # its tenant says so
        for _, wraps in said.keys if said is not None else ():
            if master is not None and master.id in wraps:
                return
            wrapped = True
    if master is not None and wrapped:
        raise VaultSealed(
            f"The vault {folder} was sealed for another master key than {master.id}, the one given; nothing was "
            f"changed. {HOW}"
        )


HOW = "Say where the master key is: `sealing=` on opening, TERCET_MASTER_KEY_FILE or TERCET_MASTER_KEY."


def derived(key: bytes, salt: bytes | None, what: bytes) -> bytes:
    """32 bytes that follow from a key and from nothing else (HKDF-SHA256, RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), SIZE, salt, what).derive(key)


def _bound(tenant: str, id: str) -> bytes:
    return dump({"for": "tercet data key", "tenant": tenant, "id": id}).encode()
