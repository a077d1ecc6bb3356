"""Times that cannot be: each disturbs nothing but its own job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import dramatiq.errors
import pytest

from jq_actors import Retry, Snooze, actor, jobs
from jq_actors.errors import ActorOptionError
from jq_actors.events import JobFailed, JobRetryScheduled
from tests.support.application import Application

EASTMOST, WESTMOST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


def test_an_absurd_pause_fails_its_job_with_a_sentence(app: Application) -> None:
    app.record(JobFailed, JobRetryScheduled)
    ends: dict[str, Callable[[], BaseException]] = {
        "snooze": lambda: Snooze(10**15),
        "retry": lambda: Retry(delay=timedelta.max),
        "dramatiq": lambda: dramatiq.errors.Retry("again", delay=10**30),
    }
    ran: list[str] = []

    @actor
    async def asynchronous(how: str) -> None:
        raise ends[how]()

    @actor
    def synchronous(how: str) -> None:
        raise ends[how]()

    @actor
    async def fine() -> None:
        ran.append("fine")

    with app.worker():
        for how in ends:
            asynchronous.send(how)
            synchronous.send(how)
        app.wait(lambda: len(app.of(JobFailed)) == 6, "six failures")
        fine.send()
        app.wait(lambda: ran, "a job after them")

    assert not app.of(JobRetryScheduled)
    for event in app.of(JobFailed):
        assert event.error.startswith("The actor asked to run again after ")


@pytest.mark.parametrize(
    "when",
    [
        {"delay": 10**15},
        {"delay": timedelta.max},
        {"eta": datetime.max.replace(tzinfo=UTC)},
        {"eta": datetime.max.replace(tzinfo=WESTMOST)},
        {"eta": datetime.min.replace(tzinfo=EASTMOST)},
        {"eta": 10**15},
    ],
    ids=str,
)
def test_an_absurd_time_is_refused_where_it_is_sent(embedded_app: Application, when: dict[str, Any]) -> None:
    @actor
    async def note() -> int:
        return 1

    with embedded_app.worker():
        with pytest.raises(ActorOptionError):
            note.send_with_options(**when)
        assert jobs.result(note.send().job_id, timeout=20) == 1


def test_the_last_days_of_the_calendar_can_be_waited_for(app_with_rows: Application) -> None:
    @actor
    async def note() -> int:
        return 1

    eta = datetime(9999, 12, 1, tzinfo=UTC)
    with app_with_rows.worker():
        far = note.send_with_options(eta=eta)
        assert jobs.result(note.send().job_id, timeout=20) == 1
        job = jobs.get(far.job_id)

    assert job is not None
    assert (job.state, job.due_at) == ("scheduled", eta)
