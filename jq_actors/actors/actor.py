"""``@actor`` turns a function into a :class:`JobActor`, which is a ``dramatiq.Actor``."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import dramatiq

from .job_actor import AsyncJobActor, JobActor, body_of

__all__ = ["AsyncJobActor", "JobActor", "actor"]

P = ParamSpec("P")
R = TypeVar("R")


class ActorDecorator(Protocol):
    """The type of ``@actor(...)`` with options."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]]) -> AsyncJobActor[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> JobActor[P, R]: ...


@overload
def actor(fn: Callable[P, Coroutine[Any, Any, R]]) -> AsyncJobActor[P, R]: ...
@overload
def actor(fn: Callable[P, R]) -> JobActor[P, R]: ...
@overload
def actor(
    *,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    # Not Callable[P, …] in its own overload: `actor(**common)` would then have no type at all, and a lambda would give
    # an actor with untyped parameters. The function's parameters are checked when the actor is made.
    group: str | Callable[..., str | None] | None = None,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> ActorDecorator: ...
def actor(
    fn: Callable[..., Any] | None = None,
    *,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    group: str | Callable[..., str | None] | None = None,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> Any:
    """Make an actor from a function: ``@actor``, or ``@actor(queue_name="mail", max_retries=5)``.

    Parameters:
      fn: an ``async def``, which runs on the actor loop, or a ``def``, which runs in a worker thread.
      actor_name: 1 to 128 letters, digits and ``_ . : -``. Default: the name of the function.
      queue_name: up to 128 letters, digits and ``. _ -``, beginning with a letter or ``_``.
      priority: 0 to 9, higher first (in Dramatiq, lower is first).
      group: jobs of one group run in order; needs the middleware `group_fifo`, and excludes a priority. A template
        over the parameters, such as ``"account-{account_id}"``, or a function that takes the actor's arguments,
        defaults included, and returns the group's name, or ``None`` for no group. Default: no job has a group.
      broker: Default: Dramatiq's global broker, which ``import jq_actors`` installs.
      options: options of the configured middleware: ``max_retries``, ``min_backoff``, ``max_backoff``,
        ``time_limit``, ``throws``, … Durations are milliseconds or a timedelta.

    Raises:
      ActorOptionError: a name or a value is invalid, or the name is taken. An option that no middleware knows is
        refused here too, or, if the configuration has not been read yet, when it is read.
    """

    def make(fn: Callable[..., Any], frame: types.FrameType) -> JobActor[..., Any]:
        kind: type[JobActor[..., Any]] = AsyncJobActor if inspect.iscoroutinefunction(body_of(fn)) else JobActor
        return kind(
            fn,
            broker=broker or dramatiq.get_broker(),
            actor_name=fn.__name__ if actor_name is None else actor_name,
            queue_name=queue_name,
            priority=priority,
            options=options if group is None else {**options, "group": group},
            local_names=None if frame.f_locals is frame.f_globals else frame.f_locals,
        )

    return make(fn, sys._getframe(1)) if fn is not None else lambda fn: make(fn, sys._getframe(1))
