"""The life of a job from `send` to its result: in every place, async and sync."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from jq_actors import Fail, Retry, Snooze, actor, current_job, jobs
from jq_actors.errors import (
    JobFailedError,
    JobNotFoundError,
    JobUnhandledError,
    RequiresPersistenceError,
    ResultTimeoutError,
)
from jq_actors.events import BrokerConnected, DeliveryBuried, JobFailed, JobFinished, JobRetryScheduled, JobStarted
from tests.support.application import Application, Place, running


def test_async_and_sync_actors_run_with_their_arguments(app: Application) -> None:
    seen: list[tuple[Any, ...]] = []

    @actor
    async def asynchronous(number: int, when: datetime, *, price: Decimal) -> None:
        seen.append(("async", number, when, price))

    @actor
    def synchronous(number: int, when: datetime, *, price: Decimal) -> None:
        seen.append(("sync", number, when, price))

    when = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with app.worker():
        asynchronous.send(1, when, price=Decimal("1.10"))
        synchronous.send(2, when, price=Decimal("2.20"))
        app.wait(lambda: len(seen) == 2, "both jobs")

    assert sorted(seen) == [("async", 1, when, Decimal("1.10")), ("sync", 2, when, Decimal("2.20"))]


def test_every_job_of_a_batch_runs_once(app: Application) -> None:
    runs: list[int] = []

    @actor
    async def count(number: int) -> None:
        runs.append(number)

    with app.worker():
        commands = count.send_many([((number,), {}) for number in range(500)])
        app.wait(lambda: len(runs) >= 500, "all 500 jobs")

    assert sorted(runs) == list(range(500))
    assert len({command.job_id for command in commands}) == 500


def test_a_failing_job_is_tried_again_and_then_fails(app: Application) -> None:
    app.record(JobRetryScheduled, JobFailed, JobStarted)
    attempts: list[int] = []

    @actor(max_retries=2)
    async def breaks() -> None:
        attempts.append(current_job().attempt)
        raise ValueError("broken on purpose")

    with app.worker():
        breaks.send()
        app.wait(lambda: app.of(JobFailed), "the final failure")

    assert attempts == [1, 2, 3]
    assert len(app.of(JobRetryScheduled)) == 2
    assert "ValueError: broken on purpose" in app.of(JobFailed)[0].error


def test_a_failing_sync_job_is_tried_again_and_then_fails(app: Application) -> None:
    app.record(JobFailed)
    attempts: list[int] = []

    @actor(max_retries=1)
    def breaks() -> None:
        attempts.append(current_job().attempt)
        raise ValueError("broken on purpose")

    with app.worker():
        breaks.send()
        app.wait(lambda: app.of(JobFailed), "the final failure")

    assert attempts == [1, 2]


def test_what_an_actor_raises_on_purpose_decides(app: Application) -> None:
    app.record(JobFailed, JobFinished)
    attempts: list[tuple[str, int]] = []

    @actor
    async def gives_up() -> None:
        attempts.append(("fail", current_job().attempt))
        raise Fail("no use")

    @actor(max_retries=5)
    async def again() -> None:
        attempts.append(("retry", current_job().attempt))
        if current_job().attempt == 1:
            raise Retry(delay=50)

    @actor
    async def sleepy() -> None:
        attempts.append(("snooze", current_job().attempt))
        if attempts.count(("snooze", 1)) == 1:
            raise Snooze(timedelta(milliseconds=50))

    with app.worker():
        for each in (gives_up, again, sleepy):
            each.send()
        app.wait(lambda: len(attempts) == 5, "five attempts")
        app.wait(lambda: len(app.of(JobFinished)) == 5, "five ends")

    assert sorted(attempts) == [("fail", 1), ("retry", 1), ("retry", 2), ("snooze", 1), ("snooze", 1)]
    assert [event.error for event in app.of(JobFailed)] == ["no use"]


def test_a_delayed_job_runs_when_it_is_due_and_not_before_others(app: Application) -> None:
    order: list[str] = []

    @actor
    async def note(name: str) -> None:
        order.append(name)

    with app.worker():
        note.send_with_options(args=("far",), delay=timedelta(hours=1))
        note.send_with_options(args=("later",), delay=1000)
        note.send("now")
        app.wait(lambda: len(order) == 2, "the two that are due")

    assert order == ["now", "later"]


def test_current_job_is_known_in_tasks_and_threads(app: Application) -> None:
    seen: dict[str, str] = {}

    @actor
    async def asynchronous() -> None:
        async def inner() -> str:
            return current_job().id

        seen["task"] = await asyncio.create_task(inner())
        seen["thread"] = await asyncio.to_thread(lambda: current_job().id)
        seen["own"] = current_job().id

    @actor
    def synchronous() -> None:
        seen["sync"] = current_job().id
        seen["on"] = threading.current_thread().name

    with app.worker():
        first, second = asynchronous.send(), synchronous.send()
        app.wait(lambda: len(seen) == 5, "both")

    assert seen["task"] == seen["thread"] == seen["own"] == first.job_id
    assert seen["sync"] == second.job_id


def test_results_and_rows(app_with_rows: Application) -> None:
    app = app_with_rows

    @actor(max_retries=1, min_backoff=10, max_backoff=20)
    async def add(a: int, b: int) -> int:
        if current_job().attempt == 1:
            raise ValueError("the first time")
        return a + b

    with app.worker():
        command = add.send_with_options(args=(2, 3), tags=["sum"])
        assert jobs.result(command.job_id, timeout=20) == 5
        job = jobs.get(command.job_id)

    assert job is not None
    assert (job.state, job.attempt, job.args, job.result) == ("succeeded", 2, (2, 3), 5)
    assert [attempt.outcome for attempt in job.attempts] == ["retrying", "succeeded"]
    assert job.attempts[0].error is not None
    assert "the first time" in job.attempts[0].error
    assert [found.id for found in jobs.find(actor="add", tags=["sum"], state="succeeded").jobs] == [job.id]


def test_every_end_ends_the_wait_for_a_result(app_with_rows: Application) -> None:
    app = app_with_rows

    @actor(max_retries=0)
    async def breaks() -> None:
        raise ValueError("on purpose")

    @actor
    async def waits() -> None:
        await asyncio.sleep(3600)

    @actor
    async def gone() -> None: ...

    never_started = waits.send_with_options(delay=3_600_000)
    with app.worker():
        with pytest.raises(JobFailedError, match="on purpose") as failed:
            jobs.result(breaks.send().job_id, timeout=20)
        assert failed.value.traceback is not None
        with pytest.raises(ResultTimeoutError, match="scheduled"):
            jobs.result(never_started.job_id, timeout=0.05)
        with pytest.raises(JobNotFoundError):
            jobs.result("00000000-0000-7000-8000-000000000000")
        command = gone.message()
        del app.broker.actors["gone"]
        app.broker.enqueue(command)
        with pytest.raises(JobUnhandledError, match="gone"):
            jobs.result(command.job_id, timeout=20)


def test_a_job_whose_arguments_no_longer_bind_is_kept(app_with_rows: Application) -> None:
    app = app_with_rows

    @actor
    async def changed(a: int) -> None: ...

    command = changed.send(1)
    del app.broker.actors["changed"]

    @actor(actor_name="changed")
    async def changed_since(a: int, b: int) -> None: ...

    with app.worker():
        job = app.ended(command.job_id)

    assert (job.state, job.attempt) == ("unhandled", 0)
    assert job.reason is not None
    assert "b" in job.reason


def test_without_rows_what_needs_them_refuses(embedded_memory: Any) -> None:
    with running(embedded_memory.configuration), pytest.raises(RequiresPersistenceError, match="persistence"):
        jobs.get("00000000-0000-7000-8000-000000000000")


def test_what_is_no_command_is_buried_with_a_reason(rabbit_alone: Any, rabbitmq: Any, amqp_namespace: str) -> None:
    from tests.support.amqp import Probe

    with running(rabbit_alone.configuration) as app:
        app.record(DeliveryBuried)

        @actor
        async def fine() -> None: ...

        with app.worker():
            app.wait(lambda: rabbitmq.depth(f"{amqp_namespace}.default"), "the queue")
            with Probe(rabbitmq.url) as probe:
                probe.publish(f"{amqp_namespace}.default", b"\x80\x04 this is a pickle")
            app.wait(lambda: app.of(DeliveryBuried), "the burial")
            app.wait(lambda: rabbitmq.depth(f"{amqp_namespace}.dead") == (1, 0), "the dead letter")
        assert "not JSON" in app.of(DeliveryBuried)[0].reason


def test_who_only_looks_at_jobs_does_not_connect_to_the_broker(rabbit_rows: Place) -> None:
    with running(rabbit_rows.configuration) as app:
        app.record(BrokerConnected)
        assert jobs.find().jobs == ()
        looked = app.of(BrokerConnected)

        @actor
        async def note() -> None: ...

        note.send()

    assert (looked, [event.role for event in app.of(BrokerConnected)]) == ([], ["publisher"])


def test_flush_throws_away_what_waits(rabbit_alone: Place) -> None:
    runs: list[str] = []
    with running(rabbit_alone.configuration) as app:

        @actor
        async def note(name: str) -> None:
            runs.append(name)

        note.send("thrown away")
        app.broker.flush("default")
        with app.worker():
            note.send("kept")
            app.wait(lambda: runs, "the job")

    assert runs == ["kept"]
