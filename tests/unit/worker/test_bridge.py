"""The bridge between two real loops: nothing is lost on it, and an interrupt always ends a run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from dramatiq.middleware import Shutdown, TimeLimitExceeded

from jq_actors.concurrency.loops import LoopThread
from jq_actors.errors import Fail, RuntimeStateError
from jq_actors.model.command import JobCommand
from jq_actors.model.outcome import Failed, Failure, Interrupted, Outcome, Retrying, Succeeded, outcome_of
from jq_actors.model.running_job import RunningJob, current_job
from jq_actors.worker.bridge import Bridge, Crossing

WAIT = 60.0
CROSSINGS = 10_000

Run = Callable[[RunningJob], Awaitable[Outcome]]


def job(number: int = 0) -> RunningJob:
    command: JobCommand[Any] = JobCommand("mail", "send_mail", (number,), {}, {})
    return RunningJob(command.job_id, 1, command, None)


class Sides:
    """A bridge with its two loops."""

    def __init__(self, run: Run) -> None:
        self.io, self.actors = LoopThread("io"), LoopThread("actors")

        async def innermost(job: RunningJob) -> Outcome:
            return await run(job)

        self.bridge = Bridge(self.io, self.actors, innermost)

    def outcome(self, act: Callable[[Crossing], Awaitable[None] | None] = lambda _: None) -> Outcome:
        """Run one job, do ``act`` on the I/O loop right after that, and wait for the outcome."""

        async def cross() -> Outcome:
            crossing = self.bridge.run(job())
            acted = act(crossing)
            if acted is not None:
                await acted
            async with asyncio.timeout(WAIT):
                return await crossing.outcome

        return self.io.call(cross())


@contextmanager
def sides(run: Run) -> Iterator[Sides]:
    both = Sides(run)
    both.io.start()
    both.actors.start()
    try:
        yield both
    finally:
        both.actors.stop()
        both.io.stop()


async def for_ever(_: RunningJob) -> Outcome:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


# -- both ways


def test_a_run_is_on_the_actor_loop_with_its_job_and_its_outcome_is_back_on_the_io_loop() -> None:
    seen: dict[str, Any] = {}

    async def run(job: RunningJob) -> Outcome:
        seen.update(run=threading.get_ident(), current=current_job(), job=job)
        return Succeeded(7)

    with sides(run) as both:

        async def cross() -> Outcome:
            outcome = await both.bridge.run(job()).outcome
            seen["back"] = threading.get_ident()
            return outcome

        assert both.io.call(cross(), WAIT) == Succeeded(7)
        assert (seen["run"], seen["back"]) == (both.actors.ident, both.io.ident)
    assert seen["current"] is seen["job"]


def test_none_of_ten_thousand_crossings_is_lost() -> None:
    """In waves of all sizes, while the other side is idle, waking up or busy: each comes back, with its own value."""

    async def run(job: RunningJob) -> Outcome:
        number = job.command.args[0]
        for _ in range(number % 4):
            await asyncio.sleep(0)
        return Succeeded(number)

    with sides(run) as both:

        async def cross_all() -> list[Outcome]:
            crossings: list[Crossing] = []
            while len(crossings) < CROSSINGS:
                wave = 1 + len(crossings) % 37
                crossings += [both.bridge.run(job(len(crossings) + number)) for number in range(wave)]
                if len(crossings) % 3 == 0:
                    await crossings[-1].outcome  # so that both sides come to rest now and then
                else:
                    await asyncio.sleep(0)
            async with asyncio.timeout(WAIT):
                return [await crossing.outcome for crossing in crossings]

        outcomes = both.io.call(cross_all())
    assert outcomes == [Succeeded(number) for number in range(len(outcomes))]
    assert len(outcomes) >= CROSSINGS


def test_interrupts_from_all_sides_lose_no_outcome() -> None:
    """Every second run is interrupted at some moment of its way; all the same each ends, once."""

    async def run(job: RunningJob) -> Outcome:
        number = job.command.args[0]
        for _ in range(number % 5):
            await asyncio.sleep(0)
        return Succeeded(number)

    with sides(run) as both:

        async def cross_all() -> list[Outcome]:
            crossings: list[Crossing] = []
            for number in range(CROSSINGS // 2):
                crossings.append(both.bridge.run(job(number)))
                if number % 2:
                    both.bridge.interrupt(crossings[max(0, number - number % 7)])
                if number % 11 == 0:
                    await asyncio.sleep(0)
            async with asyncio.timeout(WAIT):
                return [await crossing.outcome for crossing in crossings]

        outcomes = both.io.call(cross_all())
    assert all(outcome in (Succeeded(number), Interrupted()) for number, outcome in enumerate(outcomes))
    assert Interrupted() in outcomes
    assert any(isinstance(outcome, Succeeded) for outcome in outcomes)


def test_jobs_do_not_see_the_context_of_who_sent_them_or_of_each_other() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    async def run(_: RunningJob) -> Outcome:
        seen.append(tenant.get())
        tenant.set("a job")
        return Succeeded()

    with sides(run) as both:

        async def cross() -> None:
            tenant.set("the sender")
            await asyncio.gather(*(both.bridge.run(job()).outcome for _ in range(3)))

        both.io.call(cross(), WAIT)
    assert seen == ["nobody"] * 3
    with pytest.raises(RuntimeStateError):
        current_job()


@pytest.mark.parametrize("raised", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_a_middleware_raises_is_the_outcome(raised: BaseException) -> None:
    async def run(_: RunningJob) -> Outcome:
        raise raised

    with sides(run) as both:
        outcome = both.outcome()
        assert isinstance(outcome, Failed)
        assert outcome.failure.exception is raised
        assert isinstance(both.outcome(), Failed), "the loop goes on"


# -- interrupts


def test_an_interrupt_ends_a_run_as_interrupted() -> None:
    begun = threading.Event()

    async def run(job: RunningJob) -> Outcome:
        begun.set()
        return await for_ever(job)

    with sides(run) as both:

        async def interrupt(crossing: Crossing) -> None:
            await asyncio.to_thread(begun.wait, WAIT)
            both.bridge.interrupt(crossing)

        assert both.outcome(interrupt) == Interrupted()


def test_a_run_that_is_interrupted_before_its_first_step_ends_too() -> None:
    begun: list[RunningJob] = []

    async def run(job: RunningJob) -> Outcome:
        begun.append(job)
        return await for_ever(job)

    with sides(run) as both:
        assert both.outcome(both.bridge.interrupt) == Interrupted()
    assert begun == []


def test_an_interrupt_after_the_end_changes_nothing() -> None:
    async def run(_: RunningJob) -> Outcome:
        return Succeeded(1)

    with sides(run) as both:

        async def cross() -> Outcome:
            crossing = both.bridge.run(job())
            outcome = await crossing.outcome
            both.bridge.interrupt(crossing)
            assert await both.bridge.run(job()).outcome == Succeeded(1)
            assert crossing.outcome.result() is outcome
            return outcome

        assert both.io.call(cross(), WAIT) == Succeeded(1)


def test_an_interrupt_tells_the_thread_of_a_sync_job_why() -> None:
    interrupted_with: list[Any] = []

    async def run(job: RunningJob) -> Outcome:
        assert job.thread.interrupt_with is TimeLimitExceeded
        with suppress(asyncio.CancelledError):
            await for_ever(job)
        interrupted_with.append(job.thread.interrupt_with)
        return Succeeded()

    begun: list[Crossing] = []
    with sides(run) as both:

        async def interrupt(crossing: Crossing) -> None:
            both.actors.submit(asyncio.sleep(0))  # a round trip: it has begun
            await asyncio.wrap_future(both.actors.submit(asyncio.sleep(0)))
            begun.append(crossing)
            both.bridge.interrupt(crossing)

        assert both.outcome(interrupt) == Succeeded()
    assert interrupted_with == [Shutdown]


FAILED = Failed(Failure(None, "broken"))


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (Succeeded(1), Succeeded(1)),
        (FAILED, Interrupted()),
        (Retrying(FAILED.failure, timedelta(seconds=5)), Interrupted()),
        (outcome_of(Fail("on purpose")), outcome_of(Fail("on purpose"))),
    ],
    ids=["succeeded", "failed", "to be retried", "failed on purpose"],
)
def test_what_an_actor_makes_of_its_interrupt(returned: Outcome, outcome: Outcome) -> None:
    """A value stands. An error is most likely the interrupt's doing: it costs the job no attempt."""
    begun = threading.Event()

    async def run(job: RunningJob) -> Outcome:
        begun.set()
        with suppress(asyncio.CancelledError):
            await for_ever(job)
        return returned

    with sides(run) as both:

        async def interrupt(crossing: Crossing) -> None:
            await asyncio.to_thread(begun.wait, WAIT)
            both.bridge.interrupt(crossing)

        ended = both.outcome(interrupt)
    if isinstance(outcome, Failed):
        assert isinstance(ended, Failed)
        assert ended.failure.error == outcome.failure.error
    else:
        assert ended == outcome


def test_a_run_whose_task_other_code_cancels_fails_and_says_so() -> None:
    """Actors that cancel "all tasks", as asyncio.run does at its end, also hit those that have not begun."""

    async def run(job: RunningJob) -> Outcome:
        if job.command.args[0] == 1:
            while not (others := asyncio.all_tasks() - {asyncio.current_task()}):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            for task in others:
                task.cancel()
            return Succeeded()
        return await for_ever(job)

    with sides(run) as both:

        async def cross() -> list[Outcome]:
            crossings = [both.bridge.run(job(number)) for number in (1, 2)]
            return [await crossing.outcome for crossing in crossings]

        first, second = both.io.call(cross(), WAIT)
    assert first == Succeeded()
    assert isinstance(second, Failed)
    assert "cancelled the task of the job" in second.failure.error
