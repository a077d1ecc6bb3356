"""PostgreSQL goes away while jobs flow on RabbitMQ, and comes back.

The outage lasts 8 seconds, and leases 3, so that they run out meanwhile as those of 30 seconds do in half a minute.
``JQ_TEST_OUTAGE_SECONDS=30`` makes it last longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import psycopg
import pytest

from jq_actors.errors import NotStoredError, SendError, SendUnknownError
from tests.support.postgres import PrivatePostgres
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_sync

from .conftest import MakeSite
from .database import plain
from .flow import flowing
from .journal import overlaps
from .site import Site, numbered
from .tally import Tally

OUTAGE = float(os.environ.get("JQ_TEST_OUTAGE_SECONDS", "8"))

MakeProxy = Callable[[str], TcpProxy]

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120 + OUTAGE)]


class Away:
    """Takes the database away for ``OUTAGE`` seconds. Waiting is the fault itself here: nothing tells of its end."""

    def __init__(self, postgres: PrivatePostgres, proxy: TcpProxy) -> None:
        self.postgres, self.proxy = postgres, proxy

    def crashed(self) -> None:
        """Its connections are cut, new ones refused; then it recovers."""
        self.postgres.stop("immediate")
        time.sleep(OUTAGE)
        self.postgres.start()

    def mute(self) -> None:
        """Its connections stay, and nothing comes by them: a frozen host, a firewall that forgot them."""
        self.proxy.freeze()
        time.sleep(OUTAGE)
        self.proxy.thaw()


@pytest.mark.parametrize("how", [Away.crashed, Away.mute])
def test_nothing_is_lost_or_run_twice(
    make_site: MakeSite, private_postgres: PrivatePostgres, tcp_proxy: MakeProxy, how: Callable[[Away], None]
) -> None:
    url = private_postgres.create_database()
    away, tally = Away(private_postgres, tcp_proxy(url)), Tally()
    site = make_site(store_url=url, store_url_of_processes=away.proxy.url(url), worker={"lease": "3s"})
    with site.sending() as sending, site.workers(2) as supervisor:
        pids = {worker.pid for worker in site.rows.workers()}
        with flowing(tally, sending):
            # More than the workers hold: it goes on flowing on RabbitMQ when nothing can be sent.
            with tally.told() as told:
                told += sending.actors.sleeps.send_many(numbered(range(100_000, 100_600), 1.0))
            eventually_sync(lambda: site.rows.states()["succeeded"] > 100, 30, "jobs to flow")
            since = site.journal.now()
            how(away)
            before = len(tally.returned)
            eventually_sync(lambda: len(tally.returned) > before + 20, 30, "sendings to go through again")

        stored = [*tally.returned, *(site.rows.jobs().keys() & set(tally.named_by(SendUnknownError)))]
        assert site.rows.wait_for_end(len(stored), 60) == {"succeeded": len(stored)}
        site.wait_until_queues_are_empty()
        assert {worker.pid for worker in site.rows.workers()} == pids
        assert supervisor.ended == []
        eventually_sync(lambda: site.rows.dirty_connections() == [], 20, "no connection within a transaction")

    check_that_each_ran_once(site, stored)
    check_what_senders_were_told(site, tally)
    check_that_running_jobs_finished(site, since)


def test_a_sender_whose_commit_got_no_answer_is_not_told_that_nothing_is_stored(
    make_site: MakeSite, database_url: str, tcp_proxy: MakeProxy
) -> None:
    proxy = tcp_proxy(database_url)
    site = make_site()
    with site.sending(url=proxy.url(database_url)) as sending, ThreadPoolExecutor(1) as thread:
        first = sending.actors.counts.send(0).job_id
        slow_commits(database_url)
        sender = thread.submit(sending.actors.counts.send, 1)
        eventually_sync(lambda: site.rows.committing() == 1, 10, "the commit to be under way")
        proxy.refuse()  # else it would look, and find its row
        proxy.cut()
        with pytest.raises(SendUnknownError) as told:
            sender.result(10)

        eventually_sync(lambda: site.rows.jobs().keys() == {first, *told.value.job_ids}, 10, "both rows")
    with site.workers(1):
        assert site.rows.wait_for_end(2, 30) == {"succeeded": 2}


def slow_commits(url: str) -> None:
    """Let each commit of new jobs take a second."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON orm_jobs DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION dawdle()"
        )


def check_that_each_ran_once(site: Site, job_ids: list[str]) -> None:
    jobs, attempts, runs = site.rows.jobs(), site.rows.attempts(), site.journal.by_job()
    assert jobs.keys() == runs.keys() == set(job_ids)
    assert overlaps(site.journal.runs()) == []
    twice = {job_id: (jobs[job_id], runs[job_id], attempts[job_id]) for job_id in job_ids if len(runs[job_id]) > 1}
    assert twice == {}
    assert {tuple(attempt.outcome for attempt in of_job) for of_job in attempts.values()} == {("succeeded",)}
    assert {(job.attempt, job.crashes) for job in jobs.values()} == {(1, 0)}


def check_that_running_jobs_finished(site: Site, since: datetime) -> None:
    """Those that ran when the database went away had ended before it was there again."""
    until = since + timedelta(seconds=OUTAGE)
    caught = [run for run in site.journal.runs() if run.started < since and run.ended is not None and run.ended > since]
    assert caught, "no job ran when the database went away"
    assert [run for run in caught if run.ended is None or run.ended > until] == []


def check_what_senders_were_told(site: Site, tally: Tally) -> None:
    assert {type(error) for error in tally.raised} <= {NotStoredError, SendUnknownError}
    assert tally.named_by(SendError), "nobody was told that the database is away"
    assert site.rows.jobs().keys().isdisjoint(tally.named_by(NotStoredError))
