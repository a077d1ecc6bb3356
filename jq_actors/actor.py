"""Actors: functions that run as jobs. ``@actor`` makes a :class:`JobActor`, which is a ``dramatiq.Actor``."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

import dramatiq
from dramatiq.logging import get_logger

from .actor_options import check_identity, checked_options
from .arguments import Arguments
from .building import Call, as_command, build_commands
from .command import JobCommand
from .errors import ActorOptionError
from .handoff import call_actor

if TYPE_CHECKING:
    from .broker import JobBroker

__all__ = ["AsyncJobActor", "JobActor", "actor", "as_command"]

P = ParamSpec("P")
R = TypeVar("R")


class JobActor(dramatiq.Actor[P, R]):
    """A function and how it runs as a job. Made by ``@actor``; calling it calls the function, here and now.

    Parameters:
      local_names: names of the function that defines ``fn``, if one does, to evaluate its annotations.

    Raises:
      ActorOptionError: a name or an option is impossible, or the name is taken.
    """

    fn: Callable[P, Any]
    """The function as it was written: a coroutine function stays one."""
    is_async: bool
    """Whether ``fn`` is a coroutine function: it runs on the actor loop, else in a worker thread."""
    arguments: Arguments
    """What it takes and returns, and how that becomes JSON."""
    broker: JobBroker

    # Dramatiq's own constructor would hide a coroutine function behind `async_to_sync`. Its few assignments
    # are made here instead; a test compares them.
    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        broker: dramatiq.Broker,
        actor_name: str,
        queue_name: str,
        priority: int,
        options: dict[str, Any],
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        check_identity(actor_name, queue_name, priority)
        self.logger = get_logger(fn.__module__ or "_", actor_name)  # type: ignore[no-untyped-call]  # Dramatiq's is untyped
        self.fn = fn
        self.broker = _job_broker(broker, actor_name)
        self.actor_name = actor_name
        self.queue_name = queue_name
        self.priority = priority
        self.options = checked_options(f"Actor {actor_name!r}", options)
        body = _body(fn)
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise ActorOptionError(f"Actor {actor_name!r} is a generator; nobody would take what it yields.")
        self.is_async = inspect.iscoroutinefunction(body)
        self.arguments = Arguments(actor_name, body, local_names)
        self.broker.check_options(self)
        self.broker.declare_actor(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, in this thread, with these very arguments. No job is made."""
        return cast("R", call_actor(self.actor_name, self.fn, args, kwargs))

    def message(self, *args: P.args, **kwargs: P.kwargs) -> JobCommand[R]:
        """A command that is not sent, for Dramatiq's compositions (``|``, ``pipeline``, ``group``).

        Arguments may be missing: a pipeline adds what the actor before returned.

        Raises:
          ArgumentError: arguments do not fit the signature, or one has no JSON form.
        """
        return self._build([(args, kwargs)], {}, to_send=False)[0]

    def message_with_options(
        self, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> JobCommand[R]:
        """Like `message`, with the options of `send_with_options`.

        Raises:
          ArgumentError: as `message`.
          ActorOptionError: an option is unknown, or its value impossible.
        """
        return self._build([(args, kwargs or {})], options, to_send=False)[0]

    def send(self, *args: P.args, **kwargs: P.kwargs) -> JobCommand[R]:
        """Send a job with these arguments; returns when it is stored.

        Raises:
          ArgumentError: arguments do not fit the signature, or one has no JSON form. Nothing was sent.
          CommandTooLargeError: they are too large together. Nothing was sent.
          SendError: its class says what is known of the job.
          RuntimeStateError: called where it would block the sending itself.
        """
        return self._send([(args, kwargs)], {})[0]

    async def send_async(self, *args: P.args, **kwargs: P.kwargs) -> JobCommand[R]:
        """`send` for coroutines."""
        return (await self._send_async([(args, kwargs)], {}))[0]

    def send_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | int | None = None,
        eta: datetime | int | None = None,
        priority: int | None = None,
        tags: Iterable[str] | None = None,
        **options: Any,
    ) -> JobCommand[R]:
        """Send a job with options.

        Parameters:
          args, kwargs: its arguments.
          delay: how long it may not run; a timedelta, or milliseconds.
          eta: when it may run; an aware datetime, or milliseconds since 1970. Not together with ``delay``.
          priority: 0 to 9, higher first. Default: the actor's.
          tags: names to find it by; letters, digits and ``_ . : -``, up to 128 each.
          options: what the configured middleware knows, such as ``max_retries`` or ``time_limit``; they win
            over the actor's.

        Raises:
          ActorOptionError: an option is unknown, or its value impossible. Nothing was sent.
          ArgumentError, CommandTooLargeError, SendError, RuntimeStateError: as `send`.
        """
        given = _given(options, delay=delay, eta=eta, priority=priority, tags=tags)
        return self._send([(args, kwargs or {})], given)[0]

    async def send_with_options_async(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | int | None = None,
        eta: datetime | int | None = None,
        priority: int | None = None,
        tags: Iterable[str] | None = None,
        **options: Any,
    ) -> JobCommand[R]:
        """`send_with_options` for coroutines."""
        given = _given(options, delay=delay, eta=eta, priority=priority, tags=tags)
        return (await self._send_async([(args, kwargs or {})], given))[0]

    def send_many(self, calls: Iterable[Call], **options: Any) -> list[JobCommand[R]]:
        """Send many jobs at once: one insert, and confirms in one go.

        Parameters:
          calls: pairs of positional and keyword arguments, such as ``((7, "a"), {})``.
          options: those of `send_with_options`, for all of them.

        Raises:
          ArgumentError, ActorOptionError, CommandTooLargeError: for any of them. Nothing was sent.
          SendError: names the jobs that it is about; the others were sent.
        """
        return self._send(calls, options)

    async def send_many_async(self, calls: Iterable[Call], **options: Any) -> list[JobCommand[R]]:
        """`send_many` for coroutines."""
        return await self._send_async(calls, options)

    def _send(self, calls: Iterable[Call], options: Mapping[str, Any]) -> list[JobCommand[R]]:
        commands = self._build(calls, options, to_send=True)
        self.broker.send(commands)
        return commands

    async def _send_async(self, calls: Iterable[Call], options: Mapping[str, Any]) -> list[JobCommand[R]]:
        commands = self._build(calls, options, to_send=True)
        await self.broker.send_async(commands)
        return commands

    def _build(self, calls: Iterable[Call], options: Mapping[str, Any], *, to_send: bool) -> list[JobCommand[R]]:
        return build_commands(self, calls, options, to_send=to_send)


class AsyncJobActor(JobActor[P, R]):
    """A :class:`JobActor` of a coroutine function: calling it gives a coroutine, which returns ``R``."""

    # Dramatiq's type says R, for it waits for the coroutine; who calls an actor in a coroutine awaits it.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Call the function: a coroutine to be awaited. No job is made."""
        return cast("Coroutine[Any, Any, R]", self.fn(*args, **kwargs))


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
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> ActorDecorator: ...
def actor(
    fn: Callable[..., Any] | None = None,
    *,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> Any:
    """Make an actor of a function: ``@actor``, or ``@actor(queue_name="mail", max_retries=5)``.

    Parameters:
      fn: an ``async def``, which runs on the actor loop, or a ``def``, which runs in a worker thread.
      actor_name: 1 to 128 letters, digits and ``_ . : -``. Default: the name of the function.
      queue_name: begins with a letter or ``_``; then letters, digits and ``. _ -``, up to 128.
      priority: 0 to 9, higher first (not as in Dramatiq, where lower is first).
      broker: default: Dramatiq's global broker, which ``import jq_actors`` installs.
      options: what the configured middleware knows: ``max_retries``, ``min_backoff``, ``max_backoff``,
        ``time_limit``, ``throws``, … Durations are milliseconds or a timedelta.

    Raises:
      ActorOptionError: a name or a value is impossible, or the name is taken. An option that no middleware
        knows is refused here too, or, before the configuration is read, when it is.
    """

    def make(fn: Callable[..., Any], frame: types.FrameType) -> JobActor[..., Any]:
        kind: type[JobActor[..., Any]] = AsyncJobActor if inspect.iscoroutinefunction(_body(fn)) else JobActor
        return kind(
            fn,
            broker=broker or dramatiq.get_broker(),
            actor_name=fn.__name__ if actor_name is None else actor_name,
            queue_name=queue_name,
            priority=priority,
            options=options,
            local_names=None if frame.f_locals is frame.f_globals else frame.f_locals,
        )

    return make(fn, sys._getframe(1)) if fn is not None else lambda fn: make(fn, sys._getframe(1))


def _job_broker(broker: dramatiq.Broker, actor_name: str) -> JobBroker:
    from .broker import JobBroker  # here: that module imports this one

    if not isinstance(broker, JobBroker):
        raise ActorOptionError(
            f"Actor {actor_name!r} needs the JobBroker of jq_actors, not a {type(broker).__name__}; "
            "`import jq_actors` installs one."
        )
    if actor_name in broker.actors:
        taken = broker.actors[actor_name].fn
        raise ActorOptionError(
            f"Actor {actor_name!r} exists already, made of {taken!r}; give one of them an actor_name."
        )
    return broker


def _body(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose signature counts. A class-based actor's own takes anything and calls ``perform``."""
    if isinstance(fn, dramatiq.GenericActor):
        return fn.perform
    if inspect.isroutine(fn) or isinstance(fn, functools.partial):
        return fn
    return types.MethodType(type(fn).__call__, fn)


def _given(options: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    return {**options, **{name: value for name, value in own.items() if value is not None}}
