"""The broker dies, or forgets everything: what was accepted runs all the same, once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jq_actors.errors import NotStoredError, SendUnknownError, StoredNotSentError
from tests.support.waiting import eventually_sync

from .journal import overlaps
from .site import Sending, Site, numbered
from .tally import Tally

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(150)]

CHUNKS, CHUNK = 28, 500
SINGLES, THREADS = 6000, 6
TOTAL = CHUNKS * CHUNK + SINGLES


def check_that_each_ran_once(site: Site, job_ids: Collection[str]) -> None:
    assert site.rows.jobs().keys() == set(job_ids)
    attempts = site.rows.attempts()
    assert {tuple(attempt.outcome for attempt in attempts[job_id]) for job_id in job_ids} == {("succeeded",)}
    runs = site.journal.by_job()
    assert runs.keys() == set(job_ids)
    assert max(len(of_job) for of_job in runs.values()) == 1


def send_in_chunks(tally: Tally, sending: Sending, numbers: Iterator[int], last_quarter: threading.Event) -> None:
    for sent in range(CHUNKS):
        if sent == CHUNKS * 3 // 4:
            last_quarter.wait(60)
        calls = numbered(next(numbers) for _ in range(CHUNK))
        with tally.told() as told:
            told += sending.actors.counts.send_many(calls)


def send_one_by_one(tally: Tally, sending: Sending, numbers: Iterator[int], last_quarter: threading.Event) -> None:
    for sent in range(SINGLES // THREADS):
        if sent == SINGLES // THREADS * 3 // 4:
            last_quarter.wait(60)
        with tally.told() as told:
            told.append(sending.actors.counts.send(next(numbers)))


def test_killed_and_restarted_during_20000_sends(site: Site) -> None:
    tally, numbers, restarted = Tally(), itertools.count(), threading.Event()
    with (
        site.sending() as storing,
        site.sending(on_broker_down="raise") as strict,
        site.workers(2) as supervisor,
        ThreadPoolExecutor(THREADS + 1) as threads,
    ):
        senders = [threads.submit(send_in_chunks, tally, storing, numbers, restarted)]
        senders += [
            threads.submit(send_one_by_one, tally, sending, numbers, restarted)
            for sending in (storing, strict) * (THREADS // 2)
        ]
        eventually_sync(lambda: tally.count > TOTAL // 4, 60, "a quarter of the sendings")
        site.server.kill()
        killed_after = tally.count
        eventually_sync(lambda: tally.count > killed_after + 100, 20, "sendings without a broker")
        site.server.start()
        restarted.set()
        for sender in senders:
            sender.result(90)
        assert killed_after < TOTAL * 3 // 4

        assert len(tally.returned) + len(tally.named_by(StoredNotSentError)) == TOTAL
        assert tally.named_by(StoredNotSentError), "nobody was told that the broker did not take it"
        assert tally.named_by(NotStoredError, SendUnknownError) == []
        assert site.rows.wait_for_end(TOTAL, 90) == {"succeeded": TOTAL}
        check_that_each_ran_once(site, [*tally.returned, *tally.named_by(StoredNotSentError)])
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []


def test_wiped_between_stop_and_start(site: Site) -> None:
    with site.sending() as sending, site.workers(2) as supervisor:
        actors = sending.actors
        # More than two workers hold: of each kind some run, some wait in a worker's hands, the most at the broker.
        sent = actors.sleeps.send_many(numbered(range(600), 2.0))
        sent += [actors.comes_again.send(number, 6000) for number in range(600, 620)]
        sent += [actors.counts.send_with_options(args=(number,), delay=8000) for number in range(620, 640)]
        ids = {command.job_id for command in sent}
        eventually_sync(lambda: site.rows.states()["succeeded"] >= 100, 30, "some to have ended")
        site.server.stop()
        unfinished = site.rows.states()
        site.server.wipe()
        site.server.start()

        assert site.rows.wait_for_end(len(ids), 90) == {"succeeded": len(ids)}
        site.wait_until_queues_are_empty()
        assert supervisor.ended == []

    assert unfinished["queued"] > 200
    assert unfinished["running"] > 0
    runs = site.journal.by_job()
    assert runs.keys() == ids
    again = {command.job_id for command in sent if command.actor_name == "comes_again"}
    assert all(len(of_job) == (2 if job_id in again else 1) for job_id, of_job in runs.items())
    assert overlaps(site.journal.runs()) == []
    assert {job.crashes for job in site.rows.jobs().values()} == {0}
