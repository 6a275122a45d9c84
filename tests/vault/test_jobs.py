"""Jobs are leased, retried, and never lost."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tercet import EmbeddingFailed, Tercet
from tercet.schedule import worker
from tercet.schedule.worker import run_due
from tercet.testing import BrokenEmbedder, FakeEmbedder, SeededClock
from tercet.vault import jobs
from tercet.vault.codec import to_micros
from tercet.vault.connection import query
from tercet.vault.sqlite import Tenant


@pytest.fixture
def clock() -> SeededClock:
    return SeededClock(step=timedelta(0))


@pytest.fixture
def t(tmp_path: Path, clock: SeededClock) -> Iterator[Tercet]:
    with Tercet.open(tmp_path, embedder=None, clock=clock) as t:
        yield t


def test_the_same_job_twice_is_one(t: Tercet) -> None:
    t.scope().remember("One.")
    t.scope().remember("Two.")
    assert t.stats()["tenants"]["default"]["jobs"] == {"embed": 1}


def test_a_leased_job_is_not_taken_twice_until_its_lease_ends(t: Tercet, clock: SeededClock) -> None:
    t.scope().remember("One.")
    with t.vault.tenant("default").maintaining() as connection:
        job = jobs.take(connection, ["embed"], worker="a", at=clock())
        assert job is not None
        assert jobs.take(connection, ["embed"], worker="b", at=clock()) is None
        clock.advance(jobs.LEASE)
        again = jobs.take(connection, ["embed"], worker="b", at=clock())
        assert again is not None
        assert (again.n, again.attempts) == (job.n, 2)
        jobs.finish(connection, job)  # the first worker comes too late: the second is at it
        assert query(connection, "SELECT worker FROM jobs") == [("b",)]


def test_a_job_wanted_while_it_runs_is_run_again(t: Tercet, clock: SeededClock) -> None:
    """What is written after the worker's last look, and before it says that it is done, keeps its job."""
    t.scope().remember("One.")
    with t.vault.tenant("default").maintaining() as connection:
        job = jobs.take(connection, ["embed"], worker="a", at=clock())
        assert job is not None
    t.scope().remember("Two.")
    with t.vault.tenant("default").maintaining() as connection:
        jobs.finish(connection, job)
        assert jobs.counts(connection) == {"embed": 1}
        again = jobs.take(connection, ["embed"], worker="a", at=clock())
        assert again is not None
        jobs.finish(connection, again)
        assert jobs.counts(connection) == {}


def test_a_failing_job_pauses_longer_and_then_is_dead_but_kept(tmp_path: Path, clock: SeededClock) -> None:
    embedder = BrokenEmbedder(EmbeddingFailed("no power"))
    with Tercet.open(tmp_path, embedder=embedder, clock=clock) as t:
        t.scope().remember("One.")
        pauses = []
        for _ in range(jobs.MAX_ATTEMPTS):
            assert t.work(until_idle=True) == 0
            with t.vault.tenant("default").maintaining() as connection:
                [(due, error)] = query(connection, "SELECT due, error FROM jobs")
            assert "no power" in error
            pauses.append(due - to_micros(clock()))
            clock.advance(jobs.MAX_PAUSE)
        assert pauses == sorted(set(pauses))
        assert t.stats()["tenants"]["default"]["jobs"] == {"dead": 1}
        embedder.error = None
        t.scope().remember("Two.")  # a success needs no job, and the dead one is not forgotten
        assert t.stats()["tenants"]["default"]["jobs"] == {"dead": 1}
        assert t.stats()["tenants"]["default"]["without_vector"] == 1


def test_work_that_dies_again_and_again_leaves_one_dead_job(tmp_path: Path, clock: SeededClock) -> None:
    """Each worker puts the job down anew where vectors are missing; the rows must not pile up."""
    with Tercet.open(tmp_path, embedder=BrokenEmbedder(EmbeddingFailed("no power")), clock=clock) as t:
        t.scope().remember("One.")
        for _ in range(3 * jobs.MAX_ATTEMPTS):
            t.work(until_idle=True)
            clock.advance(jobs.MAX_PAUSE)
        assert t.stats()["tenants"]["default"]["jobs"] == {"dead": 1}


def test_a_killed_workers_job_is_done_by_the_next(tmp_path: Path, clock: SeededClock) -> None:
    with Tercet.open(tmp_path, embedder=None, clock=clock) as t:
        t.scope().remember("One.")
        with t.vault.tenant("default").maintaining() as connection:
            assert jobs.take(connection, ["embed"], worker="killed", at=clock()) is not None
    clock.advance(jobs.LEASE)
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=clock) as t:
        assert t.work(until_idle=True) == 1
        assert t.stats()["tenants"]["default"]["without_vector"] == 0


def test_a_lease_is_renewed_while_its_job_runs(t: Tercet, clock: SeededClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that takes many leases' time is not taken by another worker, and is done once."""
    monkeypatch.setattr(worker, "RENEW", timedelta(milliseconds=1))
    tenant, others = t.vault.tenant("default"), list[jobs.Job | None]()

    def long_job(tenant: Tenant) -> None:
        for _ in range(5):
            clock.advance(jobs.LEASE * 0.8)
            wanted, deadline = to_micros(clock() + jobs.LEASE), time.monotonic() + 30
            while True:
                with tenant.maintaining() as connection:
                    if query(connection, "SELECT lease FROM jobs") == [(wanted,)]:
                        break
                assert time.monotonic() < deadline, "nobody renewed the lease"
            with tenant.maintaining() as connection:
                others.append(jobs.take(connection, ["index"], worker="other", at=clock()))

    with tenant.maintaining() as connection:
        jobs.enqueue(connection, "index", {}, at=clock())
    assert run_due(tenant, {"index": long_job}, clock) == 1
    assert others == [None] * 5
    with tenant.maintaining() as connection:
        assert jobs.counts(connection) == {}


def test_a_job_put_down_anew_is_not_held_by_a_renewal(t: Tercet, clock: SeededClock) -> None:
    with t.vault.tenant("default").maintaining() as connection:
        jobs.enqueue(connection, "index", {}, at=clock())
        job = jobs.take(connection, ["index"], worker="a", at=clock())
        assert job is not None
        jobs.enqueue(connection, "index", {}, at=clock())
        assert jobs.renew(connection, job, at=clock()) is None
        assert jobs.take(connection, ["index"], worker="b", at=clock()) is not None


def test_a_dead_workers_lease_ends_with_it(tmp_path: Path, clock: SeededClock) -> None:
    """Its machine need not wait for the lease to run out; of a worker elsewhere nobody knows, and of one that lives."""
    child = subprocess.Popen(["true"])
    child.wait()
    here = socket.gethostname()
    with Tercet.open(tmp_path, embedder=FakeEmbedder(), clock=clock) as t:
        for holder, done in ((f"{here}:{os.getppid()}", 0), (f"far-{here}:{child.pid}", 0), (f"{here}:{child.pid}", 1)):
            with t.vault.tenant("default").maintaining() as connection:
                connection.execute("DELETE FROM jobs")
                jobs.enqueue(connection, "index", {}, at=clock())
                assert jobs.take(connection, ["index"], worker=holder, at=clock()) is not None
            assert run_due(t.vault.tenant("default"), {"index": lambda _: None}, clock) == done, holder


def test_a_job_without_weights_waits_at_no_cost(t: Tercet, clock: SeededClock) -> None:
    t.scope().remember("One.")
    for _ in range(20):
        assert t.work(until_idle=True) == 0
        clock.advance(timedelta(hours=1))
    with t.vault.tenant("default").maintaining() as connection:
        assert query(connection, "SELECT attempts, dead FROM jobs") == [(0, 0)]
