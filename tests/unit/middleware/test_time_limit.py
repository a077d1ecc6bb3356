"""The time limit: what is stopped, what is not, and how the failure reads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from dramatiq.middleware import TimeLimitExceeded

from jq_actors.actors.actor import JobActor, actor
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Failed, Outcome, Succeeded, outcome_of
from jq_actors.model.running_job import RunningJob
from jq_actors.process.broker import JobBroker
from jq_middleware.time_limit import TimeLimit

broker = JobBroker({"broker": {"url": "embedded://"}, "middleware": ["time_limit"]})
broker.resolve()  # it reads files: not on a loop
names = (f"actor_{number}" for number in itertools.count())

Actor = Callable[[], Awaitable[object]]
SHORT = "20ms"


async def run_under(layer: TimeLimit, body: Actor, *, options: dict[str, Any] | None = None, **sent: Any) -> Outcome:
    """Run ``body`` as the runtime does: what it raises is its outcome, but a cancellation passes."""
    of = make_actor(options or {})
    command = of.message_with_options(**sent)

    async def innermost(job: RunningJob) -> Outcome:
        try:
            return Succeeded(await body())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - as the runtime does
            return outcome_of(error)

    return await layer.run(RunningJob(JobId(command.message_id), 1, command, of), innermost)


def make_actor(options: dict[str, Any]) -> JobActor[[], None]:
    @actor(broker=broker, actor_name=next(names), **options)
    def work() -> None: ...

    return work


async def for_ever() -> None:
    await asyncio.Event().wait()


def assert_exceeded(outcome: Outcome, limit: str) -> None:
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert isinstance(outcome.failure.exception, TimeLimitExceeded)
    assert outcome.failure.error.endswith(f"The attempt took longer than its limit of {limit}.")


async def test_an_attempt_that_takes_too_long_is_cancelled_and_fails() -> None:
    cleaned = asyncio.Event()

    async def slow() -> None:
        try:
            await for_ever()
        finally:
            cleaned.set()

    outcome = await run_under(TimeLimit(limit=SHORT), slow)

    assert_exceeded(outcome, "20ms")
    assert cleaned.is_set()


async def test_the_traceback_shows_where_the_actor_was() -> None:
    outcome = await run_under(TimeLimit(limit=SHORT), for_ever)

    assert isinstance(outcome, Failed)
    assert "in for_ever" in outcome.failure.traceback


async def test_the_task_goes_on_unharmed() -> None:
    await run_under(TimeLimit(limit=SHORT), for_ever)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # a cancellation that is left over would be raised here


async def test_an_attempt_in_time_is_left_alone() -> None:
    async def quick() -> int:
        return 5

    assert await run_under(TimeLimit(limit="10m"), quick) == Succeeded(5)


async def test_a_timeout_of_the_actors_own_is_not_the_limit() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.001):
            await for_ever()

    outcome = await run_under(TimeLimit(limit="10m"), impatient)

    assert isinstance(outcome, Failed)
    assert type(outcome.failure.exception) is TimeoutError


async def test_a_timeout_that_an_inner_layer_lets_through_is_not_the_limit() -> None:
    of = make_actor({})
    command = of.message()

    async def inner_layer(job: RunningJob) -> Outcome:
        raise TimeoutError("of an inner layer")

    with pytest.raises(TimeoutError, match="of an inner layer"):
        await TimeLimit().run(RunningJob(JobId(command.message_id), 1, command, of), inner_layer)


async def test_an_actor_that_comes_to_its_end_all_the_same_has_its_own_outcome() -> None:
    async def stubborn() -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            return "done"
        return "never"

    assert await run_under(TimeLimit(limit=SHORT), stubborn) == Succeeded("done")


async def test_a_shutdown_is_not_the_limit() -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await for_ever()

    run = asyncio.create_task(run_under(TimeLimit(limit="10m"), slow))
    await begun.wait()
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run


@pytest.mark.parametrize("limit", [20, timedelta(milliseconds=20), "20ms"])
async def test_an_actor_has_its_own_limit(limit: Any) -> None:
    assert_exceeded(await run_under(TimeLimit(), for_ever, options={"time_limit": limit}), "20ms")


async def test_a_sending_has_its_own_limit() -> None:
    outcome = await run_under(TimeLimit(), for_ever, options={"time_limit": "1h"}, time_limit=30)

    assert_exceeded(outcome, "30ms")


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (TimeLimit(limit=None), {}),
        (TimeLimit(limit=1), {"time_limit": float("inf")}),
        (TimeLimit(limit=1), {"time_limit": None}),
    ],
    ids=["of the middleware", "infinity", "none"],
)
async def test_there_may_be_no_limit(layer: TimeLimit, options: dict[str, Any]) -> None:
    async def longer_than_a_millisecond() -> str:
        await asyncio.sleep(0.01)  # the very time that is limited, or here not
        return "done"

    assert await run_under(layer, longer_than_a_millisecond, options=options) == Succeeded("done")


def test_it_declares_the_option_of_actors() -> None:
    assert TimeLimit().actor_options == {"time_limit"}
    assert TimeLimit().limit == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (0, "limit must be at least 1ms, not 0"),
        ("long", "limit: 'long' is not a duration"),
        (1.5, "limit must be a time such as 30s, not 1.5"),
    ],
)
def test_an_impossible_limit_is_refused(limit: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TimeLimit(limit=limit)
