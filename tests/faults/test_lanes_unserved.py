"""Lanes with work that nobody serves, for once: they are served again, and few channels are enough for many."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.waiting import eventually_sync

from .breaker import SETTINGS, WORKERS
from .conftest import MakeSite
from .order import by_group, place_of
from .site import Sending, Site
from .steps import FULL, PATIENCE
from .supervisor import Supervisor
from .test_producer_killed import check_that_each_ran_once, produce

GROUPS = 20
LANES = int(os.environ.get("JQ_TEST_LANES", "500"))
CHANNELS = 20
"""The most that a connection may have, however many lanes it serves."""

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120 + LANES // 20)]

QUIET: dict[str, Any] = {**SETTINGS, "persistence": {"publish_lease": "3s"}}


def lanes(site: Site) -> dict[str, int]:
    """The consumers of each lane."""
    return site.server.queue_consumers(site.name("g."))


def test_a_producer_that_dies_between_publish_and_look(make_site: MakeSite) -> None:
    """Its messages are in their lanes, and no token says so."""
    site = make_site(**QUIET)
    with site.sending():
        pass  # makes the tables
    producer = produce(site, "publishes", GROUPS)
    assert producer.wait(30) == 9, producer.text
    assert site.rows.states() == {"queued": GROUPS}
    assert lanes(site).keys() == {site.name(f"g.work.tenant-{group}") for group in range(GROUPS)}
    assert site.ready("lobby.work") == 0
    with site.workers(1):
        check_that_each_ran_once(site, GROUPS)


def test_lost_tokens_and_a_worker_that_comes_later(make_site: MakeSite) -> None:
    """It looks at once for groups that do not move."""
    site = make_site(**QUIET)
    with site.sending() as sending:
        send_and_lose_tokens(site, sending)
        with site.workers(1):
            check_that_each_ran_once(site, GROUPS)


@pytest.mark.skipif(not FULL, reason="takes 40 s; JQ_TEST_GROUPS=full runs it")
def test_lost_tokens_and_a_worker_that_is_there(make_site: MakeSite) -> None:
    """It finds the groups that have not moved for half a minute."""
    site = make_site(**QUIET, queues={"work": {"concurrency": 1}})
    with site.sending() as sending, site.workers(1):
        sending.actors.step_behind_gate.send(GROUPS, 0)
        eventually_sync(lambda: site.journal.running() == 1, PATIENCE, "the worker to have no hand free")
        send_and_lose_tokens(site, sending)
        site.open_gate()
        check_that_each_ran_once(site, GROUPS + 1)


def send_and_lose_tokens(site: Site, sending: Sending) -> None:
    sent = sending.actors.step.send_many([((group, 0), {}) for group in range(GROUPS)])
    eventually_sync(
        lambda: all(site.rows.jobs()[command.job_id].published for command in sent), PATIENCE, "the rows to be marked"
    )
    assert site.ready("lobby.work") > GROUPS // 2
    site.server.delete_queue(site.name("lobby.work"))


def test_a_restart_of_the_broker_with_many_lanes(make_site: MakeSite) -> None:
    """All are served again by few channels, while a job of each goes on."""
    site = make_site(**SETTINGS, broker={"confirm_timeout": "10s"}, queues={"work": {"concurrency": LANES}})
    with site.sending() as sending, Supervisor([site.start] * WORKERS) as supervisor:
        sending.actors.step_behind_gate.send_many([((group, 0), {}) for group in range(LANES)])
        for place in (1, 2):
            sending.actors.step.send_many([((group, place), {}) for group in range(LANES)])
        eventually_sync(lambda: site.journal.running() == LANES, PATIENCE, f"{LANES} jobs to run at once")
        site.server.restart()
        eventually_sync(lambda: list(lanes(site).values()) == [1] * LANES, PATIENCE, "all lanes to be served again")
        channels = [int(count) for count in site.server.ctl("list_connections", "--silent", "channels").split()]
        print(f"{LANES} lanes; channels of each connection: {sorted(channels)}")
        assert max(channels) <= CHANNELS
        site.open_gate()
        assert site.rows.wait_for_end(3 * LANES, PATIENCE) == {"succeeded": 3 * LANES}
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []
    runs = by_group(site.journal.runs())
    assert {tuple(place_of(run) for run in of_group) for of_group in runs.values()} == {(0, 1, 2)}
    assert len(runs) == LANES
