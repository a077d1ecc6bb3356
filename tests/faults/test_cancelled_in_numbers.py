"""Jobs and senders that are cancelled by the hundred, at any moment: no connection stays checked out or dirty (A60)."""

from __future__ import annotations

import asyncio

import pytest

from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .site import Sending, Site

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(90)]

COUNT = 300


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """Its worker runs in this process, where the pool can be seen."""
    return make_site(queues={"work": {"concurrency": COUNT}}, worker={"shutdown_timeout": "0s"})


def check_that_no_connection_is_in_use(site: Site, sending: Sending) -> None:
    store = sending.application.broker.runtime.store
    assert isinstance(store, SqlStore)
    eventually_sync(lambda: store.connections_in_use == 0, 10, f"no connection in use, now {store.connections_in_use}")
    assert site.rows.dirty_connections() == []


def test_jobs_that_their_time_limit_cancels(site: Site) -> None:
    with site.sending() as sending, sending.application.worker():
        for number in range(COUNT):
            # From before the actor has begun to after it has ended.
            limit = 1 + number * 7 % 200
            sending.actors.naps.send_with_options(args=(0.15,), time_limit=limit, max_retries=0)
        states = site.rows.wait_for_end(COUNT, 60)

        check_that_no_connection_is_in_use(site, sending)
    assert min(states["failed"], states["succeeded"]) > COUNT // 20
    assert {len(of_job) for of_job in site.rows.attempts().values()} == {1}


def test_jobs_that_a_shutdown_interrupts(site: Site) -> None:
    with site.sending() as sending:
        with sending.application.worker():
            sending.actors.naps.send_many([((60.0,), {})] * COUNT)
            eventually_sync(lambda: site.rows.states() == {"running": COUNT}, 30, "all to run")

        check_that_no_connection_is_in_use(site, sending)
    assert site.rows.states() == {"queued": COUNT}
    assert {(job.attempt, job.crashes) for job in site.rows.jobs().values()} == {(0, 0)}
    assert {tuple(a.outcome for a in of_job) for of_job in site.rows.attempts().values()} == {("interrupted",)}


def test_senders_that_are_cancelled(site: Site) -> None:
    async def send(sending: Sending, patience: float) -> str | None:
        try:
            async with asyncio.timeout(patience):
                command = await sending.actors.naps.send_async(0.0)
                return str(command.job_id)
        except TimeoutError:
            return None

    async def send_all(sending: Sending) -> set[str]:
        sent = await asyncio.gather(*(send(sending, number / COUNT) for number in range(COUNT)))
        return {job_id for job_id in sent if job_id is not None}

    with site.sending() as sending:
        sending.actors.naps.send(0.0)  # connects
        accepted = asyncio.run(send_all(sending))
        check_that_no_connection_is_in_use(site, sending)
        stored = site.rows.jobs().keys()
        assert 0 < len(accepted) < COUNT
        assert accepted <= stored
        with sending.application.worker():
            assert site.rows.wait_for_end(len(stored), 30) == {"succeeded": len(stored)}
        site.wait_until_queues_are_empty()
