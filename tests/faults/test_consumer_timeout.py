"""A job that is longer than RabbitMQ's ``consumer_timeout``: it ends once, and its channel is not taken away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .site import Site

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(90)]

TIMEOUT = 3.0
"""Seconds, not the server's 30 minutes; what would be acked early after 10 minutes is so after one second."""


@pytest.fixture
def impatient_rabbitmq(private_rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    private_rabbitmq.consumer_timeout(int(TIMEOUT * 1000))
    yield private_rabbitmq
    private_rabbitmq.consumer_timeout(None)


def channel(site: Site) -> str:
    """The broker's process of the channel on which the queue is consumed: another one after each closing."""
    listed = site.server.ctl("list_consumers", "--silent", "queue_name", "channel_pid").splitlines()
    [found] = [line.split()[1] for line in listed if line.startswith(f"{site.name()}\t")]
    return found


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.usefixtures("impatient_rabbitmq")
def test_a_long_job_ends_once_and_its_neighbours_keep_their_channel(make_site: MakeSite, queue_type: str) -> None:
    site = make_site(
        broker={"queue_type": queue_type, "delivery_timeout": f"{TIMEOUT:g}s"},
        queues={"work": {"concurrency": 10}},
    )
    with site.sending() as sending, site.workers(1, threads=1) as supervisor:
        actors, before = sending.actors, channel(site)
        long = [actors.sleeps.send(0, 2 * TIMEOUT).job_id, actors.sleeps_in_thread.send(1, 3 * TIMEOUT).job_id]
        eventually_sync(lambda: site.journal.running() == 2, 10, "both long jobs to run")
        # Neighbours: some wait behind the only thread for longer than the broker allows, some come and go.
        waiting = [actors.sleeps_in_thread.send(number, 0.0).job_id for number in range(2, 6)]
        passing = []
        for number in range(6, 30):
            passing.append(actors.sleeps.send(number, 0.2).job_id)
            site.rows.wait_for_state([passing[-1]], "succeeded", 10)
        assert site.rows.wait_for_end(30, 40) == {"succeeded": 30}

        assert channel(site) == before
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []

    runs, jobs, attempts = site.journal.by_job(), site.rows.jobs(), site.rows.attempts()
    assert jobs.keys() == runs.keys() == {*long, *waiting, *passing}
    assert {len(of_job) for of_job in runs.values()} == {1}
    assert {(job.attempt, job.crashes, job.dispatch) for job in jobs.values()} == {(1, 0, 1)}
    assert {tuple(a.outcome for a in of_job) for of_job in attempts.values()} == {("succeeded",)}


@pytest.mark.usefixtures("impatient_rabbitmq")
def test_even_when_the_channel_is_taken_away_the_long_job_ends_once(make_site: MakeSite) -> None:
    """The configuration does not know how impatient the server is: the rows save what the early ack did not.

    On a quorum queue, of which newer servers say that only these are looked at: RabbitMQ 3.10 looks at them, too.
    """
    site = make_site(broker={"queue_type": "quorum"}, queues={"work": {"concurrency": 10}})
    with site.sending() as sending, site.workers(1):
        before = channel(site)
        sent = {sending.actors.sleeps.send(number, 2 * TIMEOUT).job_id for number in range(3)}

        assert site.rows.wait_for_end(3, 40) == {"succeeded": 3}
        site.wait_until_queues_are_empty()
        assert channel(site) != before, "no consumer_timeout here: the tests above show nothing"

    runs = site.journal.by_job()
    assert runs.keys() == sent
    assert {len(of_job) for of_job in runs.values()} == {1}
    assert {job.crashes for job in site.rows.jobs().values()} == {0}


@pytest.mark.usefixtures("impatient_rabbitmq")
def test_a_job_that_was_acked_early_is_given_back_when_its_worker_dies(make_site: MakeSite) -> None:
    """The broker has no copy any more: the row is the only one."""
    site = make_site(broker={"delivery_timeout": f"{TIMEOUT:g}s"}, worker={"lease": "2s"})
    with site.sending() as sending, site.workers(1) as supervisor:
        [job_id] = {sending.actors.waits.send(0).job_id}
        eventually_sync(lambda: site.journal.running() == 1, 10, "the job to run")
        site.wait_until_queues_are_empty(15)
        supervisor.workers[0].kill()
        eventually_sync(lambda: len(site.journal.runs()) == 2, 30, "the second attempt")
        site.open_gate()

        assert site.rows.wait_for_end(1, 20) == {"succeeded": 1}
        job = site.rows.jobs()[job_id]
        assert (job.attempt, job.crashes) == (2, 1)
        assert [attempt.outcome for attempt in site.rows.attempts()[job_id]] == ["lost", "succeeded"]
        site.wait_until_queues_are_empty()
