"""Numbers about a tenant's file."""

from __future__ import annotations

from typing import Any

import apsw

from tercet.vault import jobs, spaces
from tercet.vault.branches import branches
from tercet.vault.connection import query, scalar
from tercet.vault.journal import head
from tercet.vault.schema import NEWEST

_SEEN = "FROM cubes WHERE branch = 0 AND hidden = 0"


def collect(connection: apsw.Connection) -> dict[str, Any]:
    """How much there is of everything, in one snapshot. Bytes are those of the file, without its log."""
    pages, page = scalar(connection, "PRAGMA page_count"), scalar(connection, "PRAGMA page_size")
    seq, chain = head(connection)
    return {
        "cubes": scalar(connection, f"SELECT count(*) {_SEEN}"),
        "by_kind": dict(query(connection, f"SELECT kind, count(*) {_SEEN} GROUP BY 1")),
        "by_state": dict(query(connection, f"SELECT state, count(*) {_SEEN} GROUP BY 1")),
        "hidden": scalar(connection, "SELECT count(*) FROM cubes WHERE hidden != 0"),
        "branches": {branch.name: branch.memories for branch in branches(connection)},
        "snapshots": scalar(connection, "SELECT count(*) FROM snapshots"),
        "old_vectors": scalar(connection, "SELECT count(*) FROM old_vectors"),
        "users": scalar(connection, "SELECT count(*) FROM owners WHERE user != ''"),
        "versions": scalar(connection, "SELECT count(*) FROM versions"),
        "postings": scalar(connection, "SELECT coalesce(sum(length(cubes)), 0) / 8 FROM postings"),
        "vectors": dict(
            query(connection, "SELECT p.name, count(v.n) FROM spaces p LEFT JOIN vectors v ON v.space = p.n GROUP BY 1")
        ),
        "spaces": spaces.collect(connection),
        "schema": NEWEST,
        "jobs": jobs.counts(connection),
        "erased": scalar(connection, "SELECT count(*) FROM erased"),
        "scrubs_waiting": scalar(connection, "SELECT count(*) FROM scrubs"),
        "seq": seq,
        "journal_head": chain.hex(),
        "bytes": pages * page,
    }
