"""Running jobs that are due. It knows their names; what a name means is the table of handlers it is given."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime

from tercet.errors import TercetError
from tercet.vault import jobs
from tercet.vault.ids import Clock
from tercet.vault.sqlite import Tenant

Handler = Callable[..., datetime | None]
"""Does a job of a tenant and returns None, or says when to try again because it cannot be done yet.

It is called with the tenant and, as keyword arguments, with what the job's body holds.
"""

log = logging.getLogger(__name__)


def run_due(tenant: Tenant, handlers: Mapping[str, Handler], clock: Clock) -> int:
    """Run every job of a tenant that is due, one after the other; returns how many were done.

    A job that raises is tried again later, with a growing pause; after the last attempt it is dead, kept and shown by
    `stats`. A job killed with its process becomes due again when its lease ends.
    """
    if not tenant.path.exists():
        return 0
    worker, done = f"{socket.gethostname()}:{os.getpid()}", 0
    while True:
        with tenant.maintaining() as connection:
            job = jobs.take(connection, tuple(handlers), worker=worker, at=clock())
        if job is None:
            return done
        try:
            again = handlers[job.name](tenant, **job.body)
        except TercetError as error:
            log.warning("job %s failed (attempt %d): %s", job.name, job.attempts, error)
            with tenant.maintaining() as connection:
                jobs.fail(connection, job, str(error), at=clock())
            continue
        with tenant.maintaining() as connection:
            if again is None:
                jobs.finish(connection, job)
                done += 1
            else:
                jobs.postpone(connection, job, until=again)
