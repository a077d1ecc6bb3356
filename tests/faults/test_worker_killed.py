"""SIGKILL to worker processes: nothing is lost, nothing overlaps, and a crash is counted for what ran, no more."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import datetime

import psutil
import pytest

from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .journal import overlaps
from .site import Site, numbered

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(90)]

IN_FLIGHT = 200
PREFETCHED = 100


def kill_9(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(10)


def freeze_and_look(site: Site, pid: int) -> set[str]:
    """Stop ``pid`` where it is; returns the jobs that it has claimed by then."""
    os.kill(pid, signal.SIGSTOP)
    seen: list[set[str]] = []

    def settled() -> bool:
        # What the process had asked of the database before it stopped may still be under way there.
        seen.append(site.rows.running_on(pid))
        return len(seen) > 10 and all(claimed == seen[-1] for claimed in seen[-10:])

    eventually_sync(settled, 10, "the database to have done what it was asked")
    return seen[-1]


def test_200_jobs_in_flight_all_end_and_only_those_that_ran_in_the_killed_process_crash(site: Site) -> None:
    with site.sending() as sending, site.workers(2) as supervisor:
        calls = numbered(range(IN_FLIGHT + PREFETCHED), 3.0)
        sent = {command.job_id for command in sending.actors.sleeps.send_many(calls)}
        eventually_sync(lambda: site.journal.running() == IN_FLIGHT, 20, f"{IN_FLIGHT} jobs in flight")
        victim = site.rows.workers()[0]
        ran_there = freeze_and_look(site, victim.pid)
        killed_at = site.journal.now()
        kill_9(victim.pid)

        assert site.rows.wait_for_end(len(sent), 60) == {"succeeded": len(sent)}

        assert len(ran_there) == IN_FLIGHT // 2
        check_rows_and_journal(site, sent, ran_there, victim.id, {victim.pid: killed_at})
        site.wait_until_queues_are_empty()
        assert len(supervisor.ended) == 1


def check_rows_and_journal(
    site: Site, sent: set[str], crashed: set[str], victim: str, deaths: dict[int, datetime]
) -> None:
    jobs, attempts, runs = site.rows.jobs(), site.rows.attempts(), site.journal.by_job()
    assert jobs.keys() == sent
    assert {job.id for job in jobs.values() if job.crashes == 1} == crashed
    assert {job.crashes for job in jobs.values()} == {0, 1}
    assert overlaps(site.journal.runs(), deaths) == []
    for job_id, job in jobs.items():
        outcomes = [attempt.outcome for attempt in attempts[job_id]]
        last = runs[job_id][-1]
        assert (last.how, last.pid) == ("returned", job.result)
        if job_id in crashed:
            assert outcomes == ["lost", "succeeded"]
            assert attempts[job_id][0].worker_id == victim != job.worker_id
            assert job.attempt == 2
        else:
            assert outcomes == ["succeeded"]
            assert len(runs[job_id]) == job.attempt == 1


def test_a_job_that_kills_its_process_fails_and_its_neighbours_are_not_charged(site: Site) -> None:
    with site.sending() as sending:
        actors = sending.actors
        poison = actors.kills_its_process.send(0).job_id
        eventually_sync(lambda: site.ready() == 1, 20, "it to be first in its queue, which its sending makes")
        # One thread: these wait behind it in the process's hands, and are never claimed while it lives.
        neighbours = {command.job_id for command in actors.sleeps_in_thread.send_many(numbered(range(1, 41), 0.0))}
        with site.workers(1, threads=1) as supervisor:
            site.rows.wait_for_end(41, 60)
            deaths = len(supervisor.ended)
        jobs, attempts, runs = site.rows.jobs(), site.rows.attempts(), site.journal.by_job()

    assert (jobs[poison].state, jobs[poison].crashes, deaths) == ("failed", 3, 3)
    assert "worker lost" in str(jobs[poison].reason)
    assert "3 times" in str(jobs[poison].reason)
    assert [attempt.outcome for attempt in attempts[poison]] == ["lost"] * 3
    assert len({run.pid for run in runs[poison]}) == 3
    for job_id in neighbours:
        job = jobs[job_id]
        assert (job.state, job.crashes, job.attempt, len(runs[job_id])) == ("succeeded", 0, 1, 1)
    site.wait_until_queues_are_empty()


def test_without_persistence_none_is_lost(make_site: MakeSite) -> None:
    """At least once: what ran in the killed process runs again, and may do so from its beginning."""
    site = make_site(store_url=None)
    with site.sending() as sending, site.workers(2):
        calls = numbered(range(IN_FLIGHT + PREFETCHED), 2.0)
        sent = {command.job_id for command in sending.actors.sleeps.send_many(calls)}
        eventually_sync(lambda: site.journal.running() == IN_FLIGHT, 20, f"{IN_FLIGHT} jobs in flight")
        victim = site.journal.runs()[0].pid
        kill_9(victim)

        def ended() -> set[str]:
            return {run.job_id for run in site.journal.runs() if run.ended is not None}

        eventually_sync(lambda: ended() == sent, 60, "all jobs to have ended")
        site.wait_until_queues_are_empty()

    runs = site.journal.by_job()
    torn = {job_id for job_id, of_job in runs.items() if any(run.ended is None for run in of_job)}
    assert len(torn) == IN_FLIGHT // 2
    assert {run.pid for job_id in torn for run in runs[job_id] if run.ended is None} == {victim}
    assert all(len(runs[job_id]) == 2 for job_id in torn)
    assert all(len(runs[job_id]) == 1 for job_id in sent - torn)
