"""Groups that somebody left in the middle: a producer, a worker in a chain, the broker. They go on, in order."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.waiting import eventually_sync

from .breaker import SETTINGS, TAKES_JOBS, WORKERS
from .conftest import MakeSite
from .order import by_group, place_of
from .steps import PATIENCE
from .supervisor import Supervisor
from .test_producer_killed import produce

GROUPS = int(os.environ.get("JQ_TEST_LANES", "500"))
CHANNELS = 20
"""The most that a connection may have, however many groups there are."""

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120 + GROUPS // 20)]

QUICK: dict[str, Any] = {**SETTINGS, "persistence": {"publish_lease": "3s"}}


def test_a_producer_that_dies_after_its_commit(make_site: MakeSite) -> None:
    """Its jobs are stored, and nobody has published the first one of any group."""
    groups = 20
    site = make_site(**QUICK)
    with site.sending():
        pass  # makes the tables
    producer = produce(site, "dies-in-groups", groups)
    assert producer.wait(30) == 9, producer.text
    assert site.rows.states() == {"queued": groups, "waiting": groups}
    assert not any(job.published for job in site.rows.jobs().values())
    with site.workers(1):
        assert site.rows.wait_for_end(2 * groups, PATIENCE) == {"succeeded": 2 * groups}
    runs = by_group(site.journal.runs())
    assert {tuple(place_of(run) for run in of_group) for of_group in runs.values()} == {(0, 1)}


def test_a_worker_that_dies_in_a_chain(make_site: MakeSite) -> None:
    """Its lease lasts for an hour: what tells of its end is the delivery with which the chain began."""
    site = make_site(**{**SETTINGS, "worker": {"lease": "1h"}})
    with site.sending() as sending:
        sending.actors.step.send_many([((0, place), {}) for place in range(3)])
        sending.actors.step_behind_gate.send(0, 3)
        sending.actors.step.send_many([((0, place), {}) for place in range(4, 8)])
        first = site.start()
        eventually_sync(lambda: site.journal.running() == 1 and site.journal.ended() == 3, PATIENCE, "the fourth job")
        second = site.start()
        second.wait_for_line(TAKES_JOBS)
        first.kill()
        site.open_gate()
        assert site.rows.wait_for_end(8, PATIENCE) == {"succeeded": 8}
        site.wait_until_queues_are_empty()
        second.terminate()
        assert second.wait(PATIENCE) == 0
    ended = [run for run in site.journal.runs() if run.ended is not None]
    assert [place_of(run) for run in ended] == list(range(8))
    assert site.rows.states() == {"succeeded": 8}


def test_a_restart_of_the_broker_with_many_groups(make_site: MakeSite) -> None:
    """They need no queues and no channels of their own, and go on while a job of each runs."""
    site = make_site(**SETTINGS, broker={"confirm_timeout": "10s"}, queues={"work": {"concurrency": GROUPS}})
    with site.sending() as sending, Supervisor([site.start] * WORKERS) as supervisor:
        sending.actors.step_behind_gate.send_many([((group, 0), {}) for group in range(GROUPS)])
        for place in (1, 2):
            sending.actors.step.send_many([((group, place), {}) for group in range(GROUPS)])
        eventually_sync(lambda: site.journal.running() == GROUPS, PATIENCE, f"{GROUPS} jobs to run at once")
        site.server.restart()
        site.wait_for_consumers(WORKERS)
        channels = [int(count) for count in site.server.ctl("list_connections", "--silent", "channels").split()]
        print(f"{GROUPS} groups; channels of each connection: {sorted(channels)}")
        assert max(channels) <= CHANNELS
        assert set(site.server.queue_depths(site.name(""))) <= {site.name(queue) for queue in ("work", "dead")}
        site.open_gate()
        assert site.rows.wait_for_end(3 * GROUPS, PATIENCE) == {"succeeded": 3 * GROUPS}
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []
    runs = by_group(site.journal.runs())
    assert {tuple(place_of(run) for run in of_group) for of_group in runs.values()} == {(0, 1, 2)}
    assert len(runs) == GROUPS
