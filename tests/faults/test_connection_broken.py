"""Connections cut, and frozen half-open, in mid-job: the job goes on, runs once, and its redelivered copy is kept
aside unrun until the job has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .site import QUEUE, Site
from .supervisor import Supervisor

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(150)]

WORKERS, JOBS = 4, 8
PATIENCE = 45.0


def break_it(proxy: TcpProxy, ways: Sequence[Callable[[TcpProxy], None]]) -> None:
    """Break the connections of one worker in these ways, one after another."""
    for way in ways:
        before = proxy.accepted
        way(proxy)
        eventually_sync(partial(back, proxy, before), PATIENCE, "both connections to be there again")
        # Nothing tells from outside when a handshake is over. One that is frozen costs the worker's whole connect
        # timeout: this only saves time.
        time.sleep(0.5)


def back(proxy: TcpProxy, before: int) -> bool:
    """Whether both connections are new since there had been ``before``."""
    return proxy.accepted >= before + 2 and proxy.connections == 2


def cut(proxy: TcpProxy) -> None:
    proxy.cut()


def freeze(proxy: TcpProxy) -> None:
    """Half-open, until the worker has given both connections up: then bytes may pass again."""
    before = proxy.accepted
    proxy.freeze()
    eventually_sync(lambda: proxy.accepted >= before + 2, PATIENCE, "the worker to give its mute connections up")
    proxy.thaw()


WAYS = [(cut, freeze, cut, freeze, cut), (freeze, cut, freeze, cut, freeze)] * (WORKERS // 2)
"""What is done to each worker: ten cuts and ten freezes altogether."""


def held(site: Site) -> int:
    """How many deliveries the workers say they hold."""
    return sum(worker.held.get(QUEUE, 0) for worker in site.rows.workers())


def test_20_times_in_mid_job(make_site: MakeSite, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    site = make_site(broker={"heartbeat": "1s"}, worker={"lease": "3s"})
    proxies = [tcp_proxy(site.server.url) for _ in range(WORKERS)]
    starts = [partial(site.start, url=proxy.url(site.server.url)) for proxy in proxies]
    with site.sending() as sending, Supervisor(starts) as supervisor:
        site.wait_for_consumers(WORKERS)
        sent = {sending.actors.waits.send(number).job_id for number in range(JOBS)}
        eventually_sync(lambda: site.journal.running() == JOBS, 20, "all jobs to run")

        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(break_it, proxies, WAYS))

        # The broker took each delivery back at least once, and somebody has it again, and does not run it.
        site.wait_for_consumers(WORKERS)
        eventually_sync(lambda: held(site) == JOBS, 20, f"{JOBS} redelivered copies to be held")
        assert site.rows.states() == {"running": JOBS}
        site.open_gate()
        assert site.rows.wait_for_end(JOBS, 30) == {"succeeded": JOBS}
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []

    runs, jobs, attempts = site.journal.runs(), site.rows.jobs(), site.rows.attempts()
    assert sorted(run.job_id for run in runs) == sorted(sent)
    assert {run.how for run in runs} == {"returned"}
    assert {(job.attempt, job.crashes, job.dispatch) for job in jobs.values()} == {(1, 0, 1)}
    assert [attempt.outcome for of_job in attempts.values() for attempt in of_job] == ["succeeded"] * JOBS
