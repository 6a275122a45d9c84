"""Which memories are worth a KV cache, by measured cost. A policy proposes; the worker, or a person, carries it out."""

from __future__ import annotations

from typing import Any

from tercet.vault.connection import query, scalar
from tercet.vault.sqlite import Tenant


def kv_numbers(tenant: Tenant) -> dict[str, Any]:
    """How many KV caches a tenant keeps, their bytes on disk, and uses."""
    with tenant.reading() as reader:
        connection = reader.connection
        return {
            "caches": scalar(connection, "SELECT count(*) FROM cubes WHERE kind = 'activation'"),
            "bytes": scalar(connection, "SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT sha256, size FROM blobs)"),
            "uses": dict(
                query(
                    connection,
                    "SELECT c.kind, sum(u.count) FROM uses u JOIN cubes c ON c.n = u.cube GROUP BY 1",
                )
            ).get("activation", 0),
        }
