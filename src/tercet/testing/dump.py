"""Everything a vault holds, to compare before and after."""

from __future__ import annotations

from pathlib import Path

from tercet import Tercet
from tercet.vault.connection import query


def dump(t: Tercet) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of every tenant, and the counters behind the row numbers."""
    rows: dict[str, list[tuple[object, ...]]] = {}
    for name in t.admin().tenants():
        with t.vault.tenant(name).reading() as reader:
            tables = query(reader.connection, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            for (table,) in tables:
                rows[f"{name}.{table}"] = sorted(query(reader.connection, f'SELECT * FROM "{table}"'), key=repr)  # noqa: S608  # our own names
    return rows


def bytes_of(folder: Path) -> bytes:
    """Every byte of every file of a folder."""
    return b"\0\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
