"""The innermost step: an actor is called, and whatever comes of it is an outcome; foreign hooks fire around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AsyncIO, CurrentMessage, MiddlewareError, ShutdownNotifications, SkipMessage, TimeLimit

from jq_actors.actors.actor import JobActor, actor
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.errors import Fail, Retry, Snooze
from jq_actors.model.command import JobCommand
from jq_actors.model.outcome import Cancelled, Failed, Outcome, Snoozed, Succeeded, Unhandled
from jq_actors.model.running_job import RunningJob
from jq_actors.worker.actor_caller import FAILED_BY_HOOK, Caller
from jq_actors.worker.handoff import Handoff
from tests.support.sending import RecordingBroker


def job(made: JobActor[..., Any] | None, *args: Any, **kwargs: Any) -> RunningJob:
    name = "nobody" if made is None else made.actor_name
    command: JobCommand[Any] = JobCommand("default", name, args, kwargs, {})
    return RunningJob(command.job_id, 1, command, made)


async def outcome_of_call(body: Callable[[], Any], *hooks: dramatiq.Middleware) -> Outcome:
    """The outcome of an async actor that does ``body``, with foreign middleware around."""
    broker = RecordingBroker([])
    for hook in hooks:
        broker.add_middleware(hook)

    @actor(broker=broker)
    async def act() -> Any:
        result = body()
        return await result if asyncio.iscoroutine(result) else result

    return await Caller(broker, Handoff())(job(act))


def _raise(error: BaseException) -> Callable[[], Any]:
    def body() -> None:
        raise error

    return body


class Notes(dramatiq.Middleware):
    """Notes the hooks, and does what the test says in one of them."""

    def __init__(self, at: str = "", act: Callable[[Any], None] = lambda _: None) -> None:
        self.notes: list[str] = []
        self._at, self._act = at, act

    def _note(self, name: str, message: Any) -> None:
        self.notes.append(name)
        if name == self._at:
            self._act(message)

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self._note("before", message)

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._note(f"after {result!r} {type(exception).__name__}", message)

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self._note("skipped", message)

    def before_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        self._note("ack", message)

    def before_nack(self, broker: dramatiq.Broker, message: Any) -> None:
        self._note("nack", message)


# -- what can be called


async def test_an_actor_that_is_not_known_here_is_unhandled() -> None:
    outcome = await Caller(RecordingBroker([]), Handoff())(job(None))
    assert outcome == Unhandled("no actor called 'nobody' in this worker")


async def test_arguments_that_do_not_fit_are_unhandled_and_nothing_is_called() -> None:
    broker, calls = RecordingBroker([]), list[int]()

    @actor(broker=broker)
    async def act(number: int) -> None:
        calls.append(number)

    caller = Caller(broker, Handoff())
    for outcome in (await caller(job(act)), await caller(job(act, "x")), await caller(job(act, 1, other=2))):
        assert isinstance(outcome, Unhandled)
        assert "act" in outcome.reason
    assert calls == []
    assert await caller(job(act, 7)) == Succeeded(None)
    assert calls == [7]


# -- what comes of it


async def test_a_value_is_stored_as_json() -> None:
    broker = RecordingBroker([])

    @actor(broker=broker)
    async def act() -> tuple[int, int]:
        return 1, 2

    assert await Caller(broker, Handoff())(job(act)) == Succeeded([1, 2])


@pytest.mark.parametrize("hooks", [False, True])
async def test_a_result_that_is_too_large_fails_the_job_for_good(hooks: bool) -> None:
    broker = RecordingBroker([])
    if hooks:  # the other way through the caller
        broker.add_middleware(Notes())

    @actor(broker=broker)
    async def act(length: int) -> str:
        return "x" * length

    caller = Caller(broker, Handoff(), max_result_size=100)
    assert await caller(job(act, 98)) == Succeeded("x" * 98)  # with its quotes it is 100
    outcome = await caller(job(act, 99))
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "The result of 'act' has 101 bytes; the limit is 100 (persistence.max_result_size)" in outcome.failure.error


async def test_a_result_that_nobody_keeps_may_be_of_any_size() -> None:
    outcome = await outcome_of_call(lambda: "x" * 10_000_000)
    assert isinstance(outcome, Succeeded)


@pytest.mark.parametrize(
    "error", [ValueError("x"), TimeoutError("x"), SystemExit(1), KeyboardInterrupt(), Retry("x")], ids=repr
)
async def test_an_error_is_a_failure_that_may_be_retried(error: BaseException) -> None:
    outcome = await outcome_of_call(_raise(error))
    assert isinstance(outcome, Failed)
    assert (outcome.failure.exception, outcome.retryable) == (error, True)


async def test_what_an_actor_says_on_purpose() -> None:
    failed = await outcome_of_call(_raise(Fail("for good")))
    assert isinstance(failed, Failed)
    assert (failed.failure.error, failed.retryable) == ("for good", False)
    assert isinstance(await outcome_of_call(_raise(Snooze(5))), Snoozed)


async def test_a_result_that_has_no_json_form_fails_for_good() -> None:
    """The work is done; another run would only do it twice."""
    outcome = await outcome_of_call(object)
    assert isinstance(outcome, Failed)
    assert "cannot be stored" in outcome.failure.error
    assert not outcome.retryable


@pytest.mark.parametrize("hooks", [(), (Notes(),)], ids=["no hooks", "hooks"])
async def test_a_cancellation_of_its_own_is_a_failure_and_may_be_retried(hooks: tuple[Notes, ...]) -> None:
    async def await_something_cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    outcome = await outcome_of_call(await_something_cancelled, *hooks)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.failure.exception, asyncio.CancelledError)
    assert outcome.retryable


@pytest.mark.parametrize("hooks", [(), (Notes(),)], ids=["no hooks", "hooks"])
async def test_a_cancellation_from_outside_passes(hooks: tuple[Notes, ...]) -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(outcome_of_call(wait, *hooks))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(hook.notes == ["before", "after None CancelledError"] for hook in hooks)


# -- hooks of foreign middleware, around an async actor


async def test_hooks_fire_in_dramatiq_s_order() -> None:
    outer, inner = Notes(), Notes()
    order: list[str] = []
    outer.notes = inner.notes = order
    assert await outcome_of_call(lambda: 7, outer, inner) == Succeeded(7)
    assert order == ["before", "before", "after 7 NoneType", "after 7 NoneType", "ack", "ack"]


async def test_an_error_is_told_to_the_hooks() -> None:
    notes = Notes()
    outcome = await outcome_of_call(_raise(ValueError("x")), notes)
    assert isinstance(outcome, Failed)
    assert notes.notes == ["before", "after None ValueError", "ack"]


async def test_a_hook_may_skip_the_message() -> None:
    def skip(_: Any) -> None:
        raise SkipMessage("not today")

    notes, calls = Notes("before", skip), list[int]()
    assert await outcome_of_call(lambda: calls.append(1), notes) == Cancelled("skipped by a middleware: not today")
    assert (notes.notes, calls) == (["before", "skipped", "ack"], [])


def _fail_and_skip(message: Any) -> None:
    message.fail()
    raise SkipMessage("too old")


@pytest.mark.parametrize(
    ("act", "error"),
    [(lambda message: message.fail(), FAILED_BY_HOOK), (_fail_and_skip, "too old")],
    ids=["fails it", "fails and skips it"],
)
async def test_a_hook_may_fail_the_message_for_good(act: Callable[[Any], None], error: str) -> None:
    notes, calls = Notes("before", act), list[int]()
    outcome = await outcome_of_call(lambda: calls.append(1), notes)
    assert isinstance(outcome, Failed)
    assert error in outcome.failure.error
    assert not outcome.retryable
    assert (notes.notes[-1], calls) == ("nack", [])


async def test_a_hook_that_fails_the_message_after_an_error_forbids_retries() -> None:
    notes = Notes("after None ValueError", lambda message: message.fail())
    outcome = await outcome_of_call(_raise(ValueError("x")), notes)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.failure.exception, ValueError)
    assert not outcome.retryable


async def test_a_broken_hook_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def break_(_: Any) -> None:
        raise RuntimeError("broken hook")

    hooks = (Notes("before", break_), Notes("after 7 NoneType", break_))
    with caplog.at_level(logging.CRITICAL):
        assert await outcome_of_call(lambda: 7, *hooks) == Succeeded(7)
    assert [record.exc_text is not None for record in caplog.records] == [True, True]


async def test_a_middleware_error_is_the_outcome() -> None:
    def refuse(_: Any) -> None:
        raise MiddlewareError("refused")

    outcome = await outcome_of_call(lambda: 7, Notes("before", refuse))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.failure.exception, MiddlewareError)


async def test_what_acts_on_the_current_thread_is_left_out_for_coroutines() -> None:
    """Dramatiq's time limit would raise in the thread of the actor loop: in whatever coroutine runs then."""
    broker = RecordingBroker([])
    for layer in (TimeLimit(), ShutdownNotifications(), CurrentMessage(), AsyncIO(), JobMiddleware()):
        broker.add_middleware(layer)
    assert Caller(broker, Handoff())._hooks == []
