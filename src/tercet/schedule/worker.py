"""Running jobs that are due. It knows their names; what a name means is the table of handlers it is given."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from tercet.errors import TercetError
from tercet.vault import jobs
from tercet.vault.ids import Clock
from tercet.vault.jobs import Job
from tercet.vault.sqlite import Tenant

Handler = Callable[..., datetime | None]
"""Does a job of a tenant and returns None, or says when to try again because it cannot be done yet.

It is called with the tenant and, as keyword arguments, with what the job's body holds.
"""

RENEW = jobs.LEASE / 5
"""How long a job is worked on before its lease is renewed, and then again."""

log = logging.getLogger(__name__)


def run_due(tenant: Tenant, handlers: Mapping[str, Handler], clock: Clock) -> int:
    """Run every job of a tenant that is due, one after the other; returns how many were done.

    A job that raises is tried again later, with a growing pause; after the last attempt it is dead, kept and shown by
    `stats`. However long a job takes, its lease is renewed meanwhile. A job killed with its process is done by the next
    worker of the same machine, or of another one when its lease ends.
    """
    if not tenant.path.exists():
        return 0
    worker, done = f"{socket.gethostname()}:{os.getpid()}", 0
    _end_leases_of_the_dead(tenant)
    while True:
        with tenant.maintaining() as connection:
            job = jobs.take(connection, tuple(handlers), worker=worker, at=clock())
        if job is None:
            return done
        try:
            with _leased(tenant, job, clock) as leases:
                again = handlers[job.name](tenant, **job.body)
        except TercetError as error:
            log.warning("job %s failed (attempt %d): %s", job.name, job.attempts, error)
            with tenant.maintaining() as connection:
                jobs.fail(connection, job, str(error), at=clock())
            continue
        job = leases[-1]
        with tenant.maintaining() as connection:
            if again is None:
                jobs.finish(connection, job)
                done += 1
            else:
                jobs.postpone(connection, job, until=again)


@contextmanager
def _leased(tenant: Tenant, job: Job, clock: Clock) -> Iterator[list[Job]]:
    """Renew a job's lease from a thread, so that no other worker takes it; gives the job as it was leased, and is now.

    A process that is killed takes the thread with it, and the lease ends.
    """
    leases, over = [job], threading.Event()

    def renew() -> None:
        while not over.wait(RENEW.total_seconds()):
            try:
                with tenant.maintaining() as connection:
                    renewed = jobs.renew(connection, leases[-1], at=clock())
            except TercetError as error:  # a full disk, say: the lease has time for another try
                log.warning("the lease of job %s was not renewed: %s", job.name, error)
                continue
            if renewed is None:
                return
            leases.append(renewed)

    thread = threading.Thread(target=renew, name=f"tercet lease of {job.name}", daemon=True)
    thread.start()
    try:
        yield leases
    finally:
        over.set()
        thread.join()


def _end_leases_of_the_dead(tenant: Tenant) -> None:
    with tenant.reading() as reader:
        gone = [worker for worker in jobs.holders(reader.connection) if _gone(worker)]
    if gone:
        with tenant.maintaining() as connection:
            jobs.end_leases(connection, gone)


def _gone(worker: str) -> bool:
    """Whether a worker was a process of this machine that is no more; False where that cannot be known."""
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or os.name != "posix":  # elsewhere, signal 0 may end a process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, and is someone else's
        return False
    return False
