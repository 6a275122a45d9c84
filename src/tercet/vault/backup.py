"""A copy of the vault, made while it is in use."""

from __future__ import annotations

from pathlib import Path

import apsw

from tercet.errors import VaultError
from tercet.vault.connection import translated
from tercet.vault.files import sync
from tercet.vault.sqlite import SqliteVault, file_name

PAGES_AT_ONCE = 1024


def back_up(vault: SqliteVault, folder: Path) -> list[Path]:
    """Copy each tenant's file, as of one moment each, into a folder that opens as a vault; returns the files made.

    A file appears under its name only when it is whole and on the disk.

    Raises
    ------
    VaultError
        If the folder holds something already or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VaultError(f"{folder} is there already and is not an empty folder; give a new one.")
    made = []
    try:
        (folder / "tenants").mkdir(parents=True, exist_ok=True)
        for name in vault.tenants():
            target = folder / "tenants" / f"{file_name(name)}.db"
            part = target.with_suffix(".part")
            with vault.tenant(name).reading() as reader, translated(part):
                _copy(reader.connection, part)
            part.replace(target)
            made.append(target)
        sync(folder / "tenants")
    except OSError as error:
        raise VaultError(f"The backup to {folder} failed: {error.strerror}.") from error
    return made


def _copy(source: apsw.Connection, target: Path) -> None:
    copy = apsw.Connection(str(target))
    try:
        copy.pragma("synchronous", "FULL")
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(PAGES_AT_ONCE)
    finally:
        copy.close()
