"""SIGSTOP to a worker for longer than its lease, then SIGCONT: it comes back too late, and does no harm."""

from __future__ import annotations

import pytest

from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .rows import AttemptRow, Rows, WorkerRow
from .site import Sending, Site

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(90)]

LONG, SHORT = 6.0, 0.5
"""Seconds: one still runs in its second attempt when the first worker comes back, one has ended by then."""


def only_worker(rows: Rows) -> WorkerRow:
    [worker] = rows.workers()
    return worker


def test_the_late_outcomes_are_discarded_and_the_second_attempts_stand(make_site: MakeSite) -> None:
    site = make_site(broker={"heartbeat": "1s"}, worker={"lease": "2s"})
    with site.sending() as sending:
        frozen = site.start()
        site.wait_for_consumers(1)
        long = sending.actors.sleeps.send(1, LONG).job_id
        short = sending.actors.sleeps.send(2, SHORT).job_id
        eventually_sync(lambda: site.journal.running() == 2, 10, "both to run")
        first = only_worker(site.rows)
        frozen.stop_signal()
        other = site.start()

        def taken_over() -> bool:
            runs = site.journal.by_job()
            return site.rows.jobs()[short].state == "succeeded" and len(runs[long]) == 2

        eventually_sync(taken_over, 30, "the second attempts: one over, one running")
        assert all(worker.id != first.id or not worker.alive for worker in site.rows.workers())
        assert site.rows.jobs()[long].state == "running"
        frozen.cont()
        eventually_sync(lambda: late_runs(site, first.pid) == 2, 20, "both late runs to have ended")
        # Rows that do not change by what comes late: for this it has to have come.
        for job_id in (long, short):
            frozen.wait_for_line(f"{job_id}: late outcome succeeded of sleeps discarded", 20)
        site.rows.wait_for_end(2, 30)

        second = next(worker for worker in site.rows.workers() if worker.pid != first.pid)
        jobs, attempts = site.rows.jobs(), site.rows.attempts()
        for job_id in (long, short):
            job = jobs[job_id]
            assert (job.state, job.result, job.worker_id) == ("succeeded", second.pid, second.id)
            assert (job.attempt, job.crashes, job.dispatch) == (2, 1, 1)
            assert attempts[job_id] == [AttemptRow(1, first.id, "lost"), AttemptRow(2, second.id, "succeeded")]
        site.wait_until_queues_are_empty()

        other.terminate()
        assert other.wait(20) == 0
        check_that_it_works_again(site, sending, first.pid)


def late_runs(site: Site, pid: int) -> int:
    return sum(run.pid == pid and run.ended is not None for run in site.journal.runs())


def check_that_it_works_again(site: Site, sending: Sending, pid: int) -> None:
    """The worker that came back takes jobs, and holds a lease again."""
    job_id = sending.actors.sleeps.send(3, 0.0).job_id
    site.rows.wait_for_state([job_id], "succeeded", 20)
    assert site.rows.jobs()[job_id].result == pid
    assert [worker.alive for worker in site.rows.workers() if worker.pid == pid] == [True]
