"""Producers whose clocks are wrong: a delay counts from the database's time, and a given time is what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import dramatiq
import pytest

from jq_actors import JobBroker, actor, jobs
from jq_actors.clock import SystemClock
from tests.support.application import Place

SLOW, FAST = timedelta(minutes=-10), timedelta(minutes=10)
IN_FIVE_MINUTES = timedelta(minutes=5)


class WrongClock(SystemClock):
    """The machine's, and so much off."""

    def __init__(self, off: timedelta) -> None:
        self._off = off

    def wall(self) -> datetime:
        return super().wall() + self._off


@contextmanager
def producer(place: Place, off: timedelta) -> Iterator[JobBroker]:
    """The broker of an application whose clock is wrong; the database's is right."""
    broker = JobBroker(place.configuration, clock=WrongClock(off))
    dramatiq.set_broker(broker)
    try:
        yield broker
    finally:
        broker.close()


@pytest.mark.parametrize("off", [SLOW, FAST], ids=["slow", "fast"])
def test_a_delay_counts_from_the_databases_time(rabbit_rows: Place, off: timedelta) -> None:
    with producer(rabbit_rows, off):

        @actor
        async def note() -> None: ...

        before = SystemClock().wall()
        sent = note.send_with_options(delay=IN_FIVE_MINUTES)
        after = SystemClock().wall()
        job = jobs.get(sent.job_id)
    assert job is not None
    assert job.state == "scheduled"
    # Of the clocks only what the way to the server and back takes is not known.
    some = timedelta(seconds=1) + (after - before)
    assert before + IN_FIVE_MINUTES - some < job.due_at < after + IN_FIVE_MINUTES + some


@pytest.mark.parametrize("off", [SLOW, FAST], ids=["slow", "fast"])
def test_a_given_time_stays_what_it_is(rabbit_rows: Place, off: timedelta) -> None:
    eta = SystemClock().wall() + IN_FIVE_MINUTES
    with producer(rabbit_rows, off):

        @actor
        async def note() -> None: ...

        sent = note.send_with_options(eta=eta)
        job = jobs.get(sent.job_id)
    assert job is not None
    assert (job.state, job.due_at) == ("scheduled", eta)


@pytest.mark.parametrize("off", [SLOW, FAST], ids=["slow", "fast"])
def test_on_one_machine_its_clock_is_the_databases(embedded_rows: Place, off: timedelta) -> None:
    with producer(embedded_rows, off) as broker:

        @actor
        async def note() -> None: ...

        before = broker.clock.wall()
        later, now = note.send_with_options(delay=IN_FIVE_MINUTES), note.send_with_options(delay=0)
        after = broker.clock.wall()
        scheduled, queued = jobs.get(later.job_id), jobs.get(now.job_id)
    assert scheduled is not None
    assert queued is not None
    assert (scheduled.state, queued.state) == ("scheduled", "queued")
    assert before + IN_FIVE_MINUTES <= scheduled.due_at <= after + IN_FIVE_MINUTES
