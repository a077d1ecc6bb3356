"""Queues deleted under their consumers, and one that is not as it should be."""

from __future__ import annotations

import pytest

from jq_actors.relay.relay import STALE_AFTER
from tests.support.amqp import Probe
from tests.support.waiting import eventually_sync

from . import many_queues
from .conftest import MakeSite
from .site import Site, numbered

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120)]

WRONG = 42


def test_a_deleted_queue_is_consumed_again_and_what_was_in_it_runs(make_site: MakeSite) -> None:
    site = make_site(queues={"work": {"concurrency": 10}})
    with site.sending() as sending, site.workers(2) as supervisor:
        actors = sending.actors
        # Ten run and five wait in the hands of each worker; the others are only at the broker, and go with it.
        sent = actors.sleeps.send_many(numbered(range(50), 1.0))
        eventually_sync(lambda: site.journal.running() == 20, 20, "ten jobs to run in each worker")
        lost = site.ready()
        site.server.delete_queue(site.name())
        site.wait_for_consumers(2)
        sent += actors.counts.send_many(numbered(range(50, 60)))
        site.rows.wait_for_state([command.job_id for command in sent[50:]], "succeeded", 20)
        eventually_sync(
            lambda: site.rows.states()["succeeded"] >= 60 - lost, 20, "what was in the workers' hands to end"
        )
        site.rows.grow_older(STALE_AFTER)

        assert site.rows.wait_for_end(60, 90) == {"succeeded": 60}
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []

    assert lost > 0
    runs = site.journal.by_job()
    assert runs.keys() == {command.job_id for command in sent}
    assert {len(of_job) for of_job in runs.values()} == {1}


def test_a_queue_deleted_while_nobody_sends_is_there_again_for_the_next_sending(site: Site) -> None:
    with site.sending() as sending:
        sending.actors.counts.send(0)
        eventually_sync(lambda: site.ready() == 1, 20, "the first job to be in its queue")
        site.server.delete_queue(site.name())
        command = sending.actors.counts.send(1)

        eventually_sync(lambda: site.rows.jobs()[command.job_id].published, 20, "the second job to be published")
        assert site.server.depth(site.name()) == (1, 0)


def test_one_queue_of_100_with_wrong_arguments(make_site: MakeSite) -> None:
    site = make_site(actors=many_queues.__name__)
    wrong = f"q{WRONG}"
    with Probe(site.server.url) as probe:
        probe.declare(site.name(wrong), {"x-max-priority": 3, "x-max-length": 5})
    with site.sending() as sending, site.workers(1, queue="q0") as supervisor:
        sent = [actor.send(number).job_id for number, actor in enumerate(sending.actors.actors)]
        good = [job_id for job_id in sent if job_id != sent[WRONG]]
        site.rows.wait_for_state(good, "succeeded", 30)
        assert site.rows.jobs()[sent[WRONG]].state == "queued"
        assert site.consumers(wrong) == 0
        [worker] = supervisor.workers
        worker.wait_for_line(rf"queue {wrong} is broken and left out: .*x-max-", 10)

        check = site.run("jq-actors", "check", many_queues.__name__)
        assert check.wait(30) == 1, check.text
        assert site.name(wrong) in check.text.replace("\n", "")
        assert "1 problem(s)" in check.text

        # Somebody mends it: no restart is needed.
        site.server.delete_queue(site.name(wrong))
        site.wait_for_consumers(1, wrong, 20)
        mended = sending.actors.actors[WRONG].send(WRONG).job_id
        site.rows.wait_for_state([mended], "succeeded", 20)
        check = site.run("jq-actors", "check", many_queues.__name__)
        assert check.wait(30) == 0, check.text
        site.wait_until_queues_are_empty()
