"""Where the master key of a sealed vault is: a file, the environment, or the system's keyring; never in the vault.

A master key is 256 random bits, written as 64 hex digits. It is no passphrase: nothing is stretched, so that opening a
vault is quick, and guessing is out of the question.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from tercet.errors import InvalidRequest, Unsupported, VaultError, VaultSealed
from tercet.vault.datakeys import SIZE, Master
from tercet.vault.files import make_folder, sync

VARIABLE, FILE = "TERCET_MASTER_KEY", "TERCET_MASTER_KEY_FILE"
SERVICE, ENTRY = "tercet", "master key"

Given = Master | bytes | str | os.PathLike[str] | None
"""A master key, or where it is: a file; "keyring" or "keyring:NAME"; "auto": the environment; None: there is none."""


def find_master(given: Given, *, apart_from: Path) -> Master | None:
    """The master key that was given or is named.

    Raises
    ------
    InvalidRequest
        If it is no key, or its file lies in the folder `apart_from`.
    VaultError
        If it cannot be read: there is no such file, others may read it, or the keyring is locked.
    Unsupported
        If the keyring is asked for and `keyring` is not installed.
    """
    if given is None or isinstance(given, Master):
        return given
    if isinstance(given, bytes):
        return Master(given)
    if str(given) == "auto":
        if key := os.environ.get(VARIABLE):
            return Master(_parsed(key, VARIABLE))
        named = os.environ.get(FILE)
        return None if not named else find_master(named, apart_from=apart_from)
    entry = _entry(given)
    if entry is not None:
        return Master(_parsed(_from_keyring(entry), f"The keyring's {entry!r}"))
    return Master(_from_file(Path(given).expanduser(), apart_from))


def make_master(place: str | os.PathLike[str], *, apart_from: Path) -> Master:
    """Make a master key and keep it in a new file, or in the keyring ("keyring", "keyring:NAME"); none is overwritten.

    Raises InvalidRequest if there is one already, or the file would lie in the vault; else as `find_master`.
    """
    key, entry = os.urandom(SIZE), _entry(place)
    if entry is not None:
        keyring = _keyring()
        with _Unlocked():
            if keyring.get_password(SERVICE, entry) is not None:
                raise InvalidRequest(f"The keyring has a key {entry!r} already; give another name: keyring:NAME.")
            keyring.set_password(SERVICE, entry, key.hex())
        return Master(key)
    path = Path(place).expanduser()
    _apart(path, apart_from)
    try:
        make_folder(path.parent)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(key.hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        sync(path.parent)
    except FileExistsError:
        raise InvalidRequest(f"{path} is there already; a master key is never overwritten.") from None
    except OSError as error:
        raise VaultError(f"The master key {path} cannot be written: {error.strerror}.") from error
    return Master(key)


def _from_file(path: Path, apart_from: Path) -> bytes:
    _apart(path, apart_from)
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise VaultError(f"The master key {path} may be read by others: `chmod 600 {path}`.")
        return _parsed(path.read_text(encoding="ascii"), str(path))
    except OSError as error:
        raise VaultError(f"The master key {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} holds no master key: 64 hex digits are wanted.") from None


def _apart(path: Path, folder: Path) -> None:
    if folder.resolve() in path.resolve().parents:
        raise InvalidRequest(f"The master key {path} lies in the vault's folder: whoever has that could open it.")


def _parsed(text: str, where: str) -> bytes:
    digits = text.strip().lower()
    if len(digits) != 2 * SIZE or not set(digits) <= set("0123456789abcdef"):
        raise InvalidRequest(f"{where} holds no master key, 64 hex digits; `tercet seal key FILE` makes one.")
    return bytes.fromhex(digits)


def _entry(given: str | os.PathLike[str]) -> str | None:
    """The name of a keyring's entry, if one is meant."""
    kind, _, name = str(given).partition(":")
    return (name or ENTRY) if kind == "keyring" else None


def _from_keyring(entry: str) -> str:
    keyring = _keyring()
    with _Unlocked():
        found: str | None = keyring.get_password(SERVICE, entry)
    if found is None:
        raise VaultSealed(f"The keyring has no key {entry!r} of {SERVICE}; `tercet seal key keyring:NAME` makes one.")
    return found


def _keyring() -> Any:  # noqa: ANN401  # a module that may not be installed
    try:
        import keyring
    except ModuleNotFoundError as error:
        raise Unsupported("The system's keyring is reached with keyring: pip install 'tercet[keyring]'.") from error
    return keyring


class _Unlocked:
    """The keyring's errors in our words."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from keyring.errors import KeyringError

        if isinstance(error, KeyringError):
            raise VaultError(
                f"The keyring is locked, or there is none ({type(error).__name__}: {error}). Unlock it, or name a "
                f"file with {FILE}."
            ) from error
