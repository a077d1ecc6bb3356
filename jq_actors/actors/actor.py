"""``@actor``: it makes a :class:`JobActor`, which is a ``dramatiq.Actor``, of a function."""

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
    """What ``@actor(...)`` with options is."""

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
    # Not Callable[P, …] in an overload of its own: to who unpacks options, `actor(**common)`, it would give no type at
    # all, and to who writes a lambda an actor of untyped parameters. What it takes is checked when the actor is made.
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
    """Make an actor of a function: ``@actor``, or ``@actor(queue_name="mail", max_retries=5)``.

    Parameters:
      fn: an ``async def``, which runs on the actor loop, or a ``def``, which runs in a worker thread.
      actor_name: 1 to 128 letters, digits and ``_ . : -``. Default: the name of the function.
      queue_name: begins with a letter or ``_``; then letters, digits and ``. _ -``, up to 128.
      priority: 0 to 9, higher first (not as in Dramatiq, where lower is first).
      group: jobs of one group run in order; needs the middleware `group_fifo`, and no priority. A template over the
        parameters, such as ``"account-{account_id}"``, or a function that takes the actor's arguments, defaults
        included, and returns the group's name, or ``None`` for none. Default: no job has a group.
      broker: default: Dramatiq's global broker, which ``import jq_actors`` installs.
      options: what the configured middleware knows: ``max_retries``, ``min_backoff``, ``max_backoff``,
        ``time_limit``, ``throws``, … Durations are milliseconds or a timedelta.

    Raises:
      ActorOptionError: a name or a value is impossible, or the name is taken. An option that no middleware
        knows is refused here too, or, before the configuration is read, when it is.
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
