"""Everything at once, in an order that a seed draws. Not in the gate: each step takes some seconds.

JQ_TEST_CHAOS_STEPS=14 JQ_TEST_CHAOS_SEED=1 .venv/bin/pytest tests/faults/test_chaos.py -s
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from random import Random  # noqa: TID251 - seeded: the same faults again

import pytest

from jq_actors.errors import NotStoredError, SendUnknownError
from tests.support.postgres import PrivatePostgres
from tests.support.proxy import TcpProxy

from .conftest import MakeSite
from .flow import flowing
from .journal import overlaps
from .site import Site, numbered
from .supervisor import Supervisor
from .tally import Tally
from .test_worker_killed import kill_9

STEPS = int(os.environ.get("JQ_TEST_CHAOS_STEPS", "0"))
SEED = int(os.environ.get("JQ_TEST_CHAOS_SEED", "1"))
WORKERS = 3

pytestmark = [
    pytest.mark.broker,
    pytest.mark.database,
    pytest.mark.timeout(200 + 15 * STEPS),
    pytest.mark.skipif(STEPS == 0, reason="a long run: JQ_TEST_CHAOS_STEPS says how long"),
]


class Chaos:
    """Faults on a site of `WORKERS` workers, each behind a proxy of its own. Pauses are part of the faults."""

    def __init__(self, site: Site, postgres: PrivatePostgres, proxies: list[TcpProxy], chance: Random) -> None:
        self.site, self.postgres, self.proxies, self.chance = site, postgres, proxies, chance
        self.deaths: dict[int, datetime] = {}
        """When processes were killed."""

    def steps(self, count: int, supervisor: Supervisor) -> Iterator[str]:
        """Break ``count`` things, one after another; gives the name of each."""
        faults: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_worker,
            partial(self.stop_worker, supervisor),
            self.cut,
            self.freeze,
            self.kill_broker,
            self.wipe_broker,
            self.close_connections,
            self.delete_queue,
            self.crash_database,
            self.drop_sessions,
        ]
        for _ in range(count):
            fault = self.chance.choice(faults)
            fault()
            yield str(getattr(fault, "__name__", "stop_worker"))
            self.pause(3.0)

    def pause(self, longest: float) -> None:
        time.sleep(self.chance.random() * longest)

    def kill_worker(self) -> None:
        alive = [worker.pid for worker in self.site.rows.workers() if worker.alive and worker.pid not in self.deaths]
        if not alive:
            return
        pid = self.chance.choice(alive)
        os.kill(pid, signal.SIGSTOP)  # from here on it writes nothing: the time of its death is exact
        self.deaths[pid] = self.site.journal.now()
        kill_9(pid)

    def stop_worker(self, supervisor: Supervisor) -> None:
        """For less than its lease: longer, and its jobs may overlap."""
        worker = self.chance.choice(supervisor.workers)
        if worker.running:
            worker.stop_signal()
            self.pause(1.5)
            worker.cont()

    def cut(self) -> None:
        self.chance.choice(self.proxies).cut()

    def freeze(self) -> None:
        proxy = self.chance.choice(self.proxies)
        proxy.freeze()
        self.pause(5.0)
        proxy.thaw()

    def kill_broker(self) -> None:
        self.site.server.kill()
        self.pause(2.0)
        self.site.server.start()

    def wipe_broker(self) -> None:
        self.site.server.kill()
        self.site.server.wipe()
        self.site.server.start()

    def close_connections(self) -> None:
        self.site.server.close_connections()

    def delete_queue(self) -> None:
        self.site.server.delete_queue(self.site.name())

    def crash_database(self) -> None:
        self.postgres.stop("immediate")
        self.pause(6.0)
        self.postgres.start()

    def drop_sessions(self) -> None:
        self.postgres.drop_connections()


def test_everything_at_once(
    make_site: MakeSite, private_postgres: PrivatePostgres, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    site = make_site(
        store_url=private_postgres.create_database(),
        broker={"heartbeat": "1s"},
        worker={"lease": "3s"},
        persistence={"max_crashes": 1000},
    )
    proxies, tally = [tcp_proxy(site.server.url) for _ in range(WORKERS)], Tally()
    chaos = Chaos(site, private_postgres, proxies, Random(SEED))
    starts = [partial(site.start, url=proxy.url(site.server.url)) for proxy in proxies]
    with site.sending() as sending, Supervisor(starts) as supervisor:
        site.wait_for_consumers(WORKERS)
        with flowing(tally, sending):
            with tally.told() as told:
                told += sending.actors.sleeps.send_many(numbered(range(100_000, 101_000), 1.0))
            for fault in chaos.steps(STEPS, supervisor):
                print(fault, flush=True)
        stored = {*tally.returned, *(site.rows.jobs().keys() & set(tally.named_by(SendUnknownError)))}
        assert site.rows.wait_for_end(len(stored), 180) == {"succeeded": len(stored)}
        site.wait_until_queues_are_empty()
    check(site, tally, stored, chaos.deaths)


def check(site: Site, tally: Tally, stored: set[str], deaths: dict[int, datetime]) -> None:
    jobs, attempts, runs = site.rows.jobs(), site.rows.attempts(), site.journal.by_job()
    assert jobs.keys() == runs.keys() == stored
    assert stored.isdisjoint(tally.named_by(NotStoredError))
    assert overlaps(site.journal.runs(), deaths) == []
    for job_id, job in jobs.items():
        assert [attempt.outcome for attempt in attempts[job_id]] == ["lost"] * job.crashes + ["succeeded"]
        # Only what the death of its process took with it runs again.
        assert {run.pid for run in runs[job_id][:-1]} <= deaths.keys()
