"""The innermost step of the run chain: call the actor, async here, sync in a worker thread, and make an outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import dramatiq
from dramatiq.middleware import AsyncIO, CurrentMessage, MiddlewareError, ShutdownNotifications, SkipMessage, TimeLimit

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.errors import ArgumentError, ResultTooLargeError
from jq_actors.model.outcome import Failed, Failure, Outcome, Succeeded, Unhandled, failure_of, outcome_of
from jq_actors.model.running_job import RunnableActor, RunningJob

from .handoff import Handoff, JobProxy

ACTS_ON_THE_THREAD = (TimeLimit, ShutdownNotifications, CurrentMessage, AsyncIO)
"""Dramatiq's own middleware that works on the current thread: right for sync actors, meaningless on a loop."""

FAILED_BY_HOOK = "a middleware has failed the message (message.fail())"

_RUN_HOOKS = (
    "before_process_message",
    "after_process_message",
    "after_skip_message",
    "before_ack",
    "after_ack",
    "before_nack",
    "after_nack",
)


NO_ACTOR = "no actor called"
"""How the reason of a job with an unknown actor begins. Such jobs are offered again: another worker may know it."""


class Caller:
    """Calls actors. ``hooks`` are the plain Dramatiq middleware whose hooks have to fire around async actors too.

    Parameters:
      max_result_size: the most bytes that a result may have; ``None``: results are not kept.
    """

    def __init__(self, broker: dramatiq.Broker, handoff: Handoff, max_result_size: int | None = None) -> None:
        self._broker, self._handoff = broker, handoff
        self._max_result_size = max_result_size
        self._hooks = [layer for layer in broker.middleware if _hooks_into_runs(layer)]

    async def __call__(self, job: RunningJob) -> Outcome:
        """Run the attempt and say how it ended; only a cancellation comes out as an exception."""
        actor = job.actor
        if actor is None:
            return Unhandled(f"{NO_ACTOR} {job.command.actor_name!r} in this worker")
        try:
            args, kwargs = actor.bind(job.command)
        except ArgumentError as error:
            return Unhandled(str(error))
        try:
            if actor.is_async and not self._hooks:
                return self._succeeded(actor, await actor.fn(*args, **kwargs))
            return await self._call_with_hooks(job, actor, JobProxy(job, args, kwargs))
        except asyncio.CancelledError as error:
            if _is_asked_to_stop():
                raise
            return outcome_of(error)  # the actor's own: it awaited something that was cancelled
        except BaseException as error:  # noqa: BLE001 - whatever the actor raises is its outcome
            return outcome_of(error)

    async def _call_with_hooks(self, job: RunningJob, actor: RunnableActor, proxy: JobProxy) -> Outcome:
        if actor.is_async:
            await self._run_async(actor, proxy)
        else:
            await self._handoff.run(proxy)
        if proxy.failed:  # a middleware has called message.fail(): no more tries, as in Dramatiq
            failure = Failure(None, FAILED_BY_HOOK) if proxy.raised is None else failure_of(proxy.raised)
            return Failed(failure, retryable=False)
        return self._succeeded(actor, proxy.result) if proxy.raised is None else outcome_of(proxy.raised)

    def _succeeded(self, actor: RunnableActor, value: Any) -> Outcome:
        try:
            succeeded = Succeeded(actor.result_to_json(value))
            if value is not None and self._max_result_size is not None:
                size = len(succeeded.encoded() or "")
                if size > self._max_result_size:
                    raise ResultTooLargeError(actor.actor_name, size, self._max_result_size)
        except (ArgumentError, ResultTooLargeError) as error:
            # Its work is done: another run would do it twice, and return a similar value.
            return Failed(failure_of(error), retryable=False)
        return succeeded

    async def _run_async(self, actor: RunnableActor, proxy: JobProxy) -> None:
        try:
            self._before("process_message", proxy)
            if not proxy.failed:
                proxy.result = await actor.fn(*proxy.args, **proxy.kwargs)
            self._after("process_message", proxy, result=proxy.result)
        except SkipMessage as skip:
            proxy.stuff_exception(skip)
            self._after("skip_message", proxy)
        except asyncio.CancelledError as cancelled:
            self._after("process_message", proxy, exception=cancelled)
            raise
        except BaseException as error:  # noqa: BLE001 - reported to the hooks, then an outcome
            proxy.stuff_exception(error)
            self._after("process_message", proxy, exception=error)
        signal = "nack" if proxy.failed else "ack"
        self._before(signal, proxy)
        self._after(signal, proxy)

    def _before(self, signal: str, proxy: JobProxy) -> None:
        for hook in self._hooks:
            try:
                getattr(hook, f"before_{signal}")(self._broker, proxy)
            except MiddlewareError:
                raise
            except Exception:
                self._broker.logger.critical("before_%s of %r failed.", signal, hook, exc_info=True)

    def _after(self, signal: str, proxy: JobProxy, **values: Any) -> None:
        for hook in reversed(self._hooks):
            try:
                getattr(hook, f"after_{signal}")(self._broker, proxy, **values)
            except Exception:
                self._broker.logger.critical("after_%s of %r failed.", signal, hook, exc_info=True)


def _is_asked_to_stop() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _hooks_into_runs(layer: dramatiq.Middleware) -> bool:
    if isinstance(layer, (JobMiddleware, *ACTS_ON_THE_THREAD)):
        return False
    return any(getattr(type(layer), name) is not getattr(dramatiq.Middleware, name) for name in _RUN_HOOKS)
