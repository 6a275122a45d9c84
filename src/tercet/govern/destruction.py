"""The receipt of a tenant whose data keys were destroyed: what it tells, and whether it is true."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from tercet.govern.audit import Audited
from tercet.govern.receipt import DESTRUCTION, VERSION, Document, read
from tercet.vault import datakeys
from tercet.vault.codec import from_micros
from tercet.vault.connection import query, scalar
from tercet.vault.journal import head
from tercet.vault.sqlite import SqliteVault

CAUSE = "somebody asked"


def destruction_document(
    connection: apsw.Connection,
    tenant: str,
    keys: Sequence[str],
    *,
    at: datetime,
    cause: str = CAUSE,
    despite_hold: str | None = None,
) -> Document:
    """What a destruction is about to do, read from the file while it can still be read; to be signed.

    `unreachable` names the exports on record: neither they nor backups, which carry the wrapped keys, are reached.
    """
    seq, hash = head(connection)
    exports = query(connection, "SELECT path, sha256, at FROM exports ORDER BY n")
    return {
        "format": DESTRUCTION,
        "version": VERSION,
        "tenant": tenant,
        "keys": list(keys),
        "memories": scalar(connection, "SELECT count(DISTINCT id) FROM cubes"),
        "seq": seq,
        "head": hash.hex(),
        "erased_at": at.isoformat(),
        "cause": cause,
        "despite_hold": despite_hold,
        "unreachable": [
            {"path": path, "sha256": digest.hex(), "at": from_micros(when).isoformat()}
            for path, digest, when in exports
        ],
    }


def check_destruction(vault: SqliteVault, data: bytes, public: str | None) -> Audited:
    """Hold a destruction's receipt against the vault: genuine, what the vault says itself, and no key is there."""
    paper = read(data, public)
    problems, said = [*paper.problems], paper.document
    if said.get("format") != DESTRUCTION:
        return Audited((*problems, "it is no receipt of a destruction"), 0, "", 0)
    path = vault.tenant_path(str(said.get("tenant")))
    found = datakeys.read(datakeys.key_file_of(path))
    if found is None:
        problems.append("the vault has no key file of that tenant: it is another vault, or the tenant was begun anew")
    elif found.destroyed is None:
        problems.append("the tenant's keys are there: they were not destroyed, or were put back from a backup")
    elif found.destroyed != said:
        problems.append("the vault says otherwise of this destruction")
    if path.exists():
        problems.append(f"{path.name} is there again")
    seq = said.get("seq")
    return Audited(tuple(problems), 0, str(said.get("head")), seq if isinstance(seq, int) and not problems else 0)
