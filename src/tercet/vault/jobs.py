"""Work to be done after a write, kept in the vault: taken under a lease, retried with a growing pause, never lost.

This room knows names and bodies of jobs; what they mean is the kernel's table of handlers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import apsw

from tercet.vault.codec import dump, to_micros
from tercet.vault.connection import atomic, marks, query

LEASE = timedelta(minutes=5)
MAX_ATTEMPTS = 8
MAX_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that this worker has leased."""

    n: int
    name: str
    body: dict[str, Any]
    attempts: int
    lease: int


def enqueue(
    connection: apsw.Connection, name: str, body: dict[str, Any], *, at: datetime, sooner: bool = False
) -> None:
    """Put a job down, inside the transaction that makes it necessary. The same job twice is one.

    A job that a worker is at is put down anew: what it is wanted for now the worker may have missed. With `sooner`, a
    job that waits for a later time is moved forward to this one; else it keeps its time, and its pause after a failure.
    """
    connection.execute(
        "INSERT INTO jobs (name, body, due) VALUES (?, ?, ?) ON CONFLICT (name, body) WHERE dead = 0 "
        "DO UPDATE SET lease = NULL, due = iif(?, min(due, excluded.due), due)",
        (name, dump(body), to_micros(at), sooner),
    )


def take(connection: apsw.Connection, names: Sequence[str], *, worker: str, at: datetime) -> Job | None:
    """Lease the job that has been due longest, among those this worker has handlers for."""
    now = to_micros(at)
    with atomic(connection):
        # A lease that ends much later than any that is given now is from before the clock was set back.
        free = "coalesce(lease, 0) NOT BETWEEN ? + 1 AND ?"
        ready = f"dead = 0 AND due <= ? AND {free} AND name IN ({marks(names)})"
        statement = f"SELECT n, name, body, attempts FROM jobs WHERE {ready} ORDER BY due, n LIMIT 1"  # noqa: S608
        rows = query(connection, statement, (now, now, to_micros(at + 2 * LEASE), *names))
        if not rows:
            return None
        n, name, body, attempts = rows[0]
        lease = to_micros(at + LEASE)
        connection.execute(
            "UPDATE jobs SET lease = ?, worker = ?, attempts = attempts + 1 WHERE n = ?", (lease, worker, n)
        )
        return Job(n, name, json.loads(body), attempts + 1, lease)


def renew(connection: apsw.Connection, job: Job, *, at: datetime) -> Job | None:
    """Let the lease of a job that is still worked on begin anew; None if the job was put down again or taken since."""
    lease = to_micros(at + LEASE)
    held = query(
        connection, "UPDATE jobs SET lease = ? WHERE n = ? AND lease = ? RETURNING n", (lease, job.n, job.lease)
    )
    return replace(job, lease=lease) if held else None


def holders(connection: apsw.Connection) -> list[str]:
    """The workers that have leased a job."""
    return [worker for (worker,) in query(connection, "SELECT DISTINCT worker FROM jobs WHERE lease IS NOT NULL")]


def end_leases(connection: apsw.Connection, workers: Sequence[str]) -> None:
    """Let what these workers had leased be taken by others now: they are no more."""
    connection.execute(f"UPDATE jobs SET lease = NULL, worker = NULL WHERE worker IN ({marks(workers)})", workers)  # noqa: S608


def finish(connection: apsw.Connection, job: Job) -> None:
    """The job is done; it stays if it was put down again, or taken by another, since this worker took it."""
    connection.execute("DELETE FROM jobs WHERE n = ? AND lease = ?", (job.n, job.lease))
    connection.execute("UPDATE jobs SET attempts = 0 WHERE n = ? AND lease IS NULL", (job.n,))


def postpone(connection: apsw.Connection, job: Job, *, until: datetime) -> None:
    """The job cannot run yet (weights that are not here, a reader that is); it costs no attempt.

    One that was put down again since this worker took it is due when that said.
    """
    connection.execute("UPDATE jobs SET attempts = 0 WHERE n = ? AND lease IS NULL", (job.n,))
    connection.execute(
        "UPDATE jobs SET due = ?, lease = NULL, worker = NULL, attempts = attempts - 1 WHERE n = ? AND lease = ?",
        (to_micros(until), job.n, job.lease),
    )


def fail(connection: apsw.Connection, job: Job, error: str, *, at: datetime) -> bool:
    """Record a failure; after `MAX_ATTEMPTS` the job is dead but kept. Returns whether it will be tried again."""
    dead = job.attempts >= MAX_ATTEMPTS
    pause = min(timedelta(seconds=2**job.attempts), MAX_PAUSE)
    connection.execute(
        "UPDATE jobs SET due = ?, lease = NULL, worker = NULL, error = ?, dead = ? WHERE n = ?",
        (to_micros(at + pause), error[:500], int(dead), job.n),
    )
    if dead:  # work that is put down again, and fails again, leaves one dead job and not a row of them
        same = "SELECT name, body FROM jobs WHERE n = ?1"
        connection.execute(f"DELETE FROM jobs WHERE dead AND n <> ?1 AND (name, body) IN ({same})", (job.n,))  # noqa: S608
    return not dead


def counts(connection: apsw.Connection) -> dict[str, int]:
    """Waiting jobs by name; dead ones under "dead"."""
    return dict(query(connection, "SELECT iif(dead, 'dead', name), count(*) FROM jobs GROUP BY 1 ORDER BY 1"))
