"""An actor: a function that runs as a job, and the methods that send one."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, cast

import dramatiq
from dramatiq.logging import get_logger

from jq_actors.errors import ActorOptionError
from jq_actors.model.command import JobCommand
from jq_actors.worker.handoff import call_actor

from .arguments import Arguments
from .command_builder import Call, build_commands
from .group_naming import OF_ACTOR, GroupNaming, OfActor, check_no_priority
from .options import check_identity, checked_options
from .sending_broker import SendingBroker

P = ParamSpec("P")
R = TypeVar("R")


class JobActor(dramatiq.Actor[P, R]):
    """A function that runs as a job. Made by ``@actor``; calling it calls the function directly.

    Parameters:
      local_names: names of the function that encloses ``fn``, if any, to evaluate its annotations.

    Raises:
      ActorOptionError: a name or an option is invalid, or the name is taken.
    """

    fn: Callable[P, Any]
    """The function as it was written: a coroutine function stays one."""
    is_async: bool
    """Whether ``fn`` is a coroutine function, which runs on the actor loop; others run in a worker thread."""
    arguments: Arguments
    """What the function takes and returns, and how that becomes JSON."""
    group_of: GroupNaming
    """Names the group of a job from its arguments."""
    broker: SendingBroker

    # Dramatiq's own constructor would hide a coroutine function behind `async_to_sync`. Its few assignments
    # are repeated here instead; a test compares them.
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
        self.broker = _sending_broker(broker, actor_name)
        self.actor_name = actor_name
        self.queue_name = queue_name
        self.priority = priority
        body = body_of(fn)
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise ActorOptionError(f"Actor {actor_name!r} is a generator; nothing would consume what it yields.")
        self.is_async = inspect.iscoroutinefunction(body)
        self.arguments = Arguments(actor_name, body, local_names)
        self.options = {}
        self.set_options(f"Actor {actor_name!r}", options)
        self.broker.declare_actor(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in this thread, with the arguments unconverted. No job is made."""
        return cast("R", call_actor(self.actor_name, self.fn, args, kwargs))

    def set_options(self, owner: str, options: Mapping[str, Any]) -> None:
        """Add ``options``, replacing those that were set before.

        Parameters:
          owner: the subject of an error's sentence, such as ``Actor 'send_mail'``.

        Raises:
          ActorOptionError: a value is invalid, for this actor or for any. Nothing was changed.
        """
        checked = {**self.options, **checked_options(owner, options)}
        group_of = GroupNaming(owner, checked.get("group"), self.arguments)
        if group_of.names_groups:
            check_no_priority(owner, self.priority)
        self.options, self.group_of = checked, group_of

    def bind(self, command: JobCommand[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of ``command``, converted to what the function declares.

        Raises:
          ArgumentError: the arguments do not fit the signature.
        """
        return self.arguments.from_json(command.args, command.kwargs)

    def result_to_json(self, value: Any) -> Any:
        """The function's return value in plain JSON types.

        Raises:
          ArgumentError: the value has no JSON form.
        """
        return self.arguments.result_to_json(value)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> JobCommand[R]:
        """A command that is not sent, for Dramatiq's compositions (``|``, ``pipeline``, ``group``).

        Arguments may be missing: a pipeline adds what the previous actor returned.

        Raises:
          ArgumentError: arguments do not fit the signature, or one has no JSON form.
        """
        return build_commands(self, [(args, kwargs)], {}, to_send=False)[0]

    def message_with_options(
        self, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> JobCommand[R]:
        """Like `message`, with the options of `send_with_options`.

        Raises:
          ArgumentError: as `message`.
          ActorOptionError: an option is unknown, or its value is invalid.
        """
        return build_commands(self, [(args, kwargs or {})], options, to_send=False)[0]

    def send(self, *args: P.args, **kwargs: P.kwargs) -> JobCommand[R]:
        """Send a job with these arguments; returns when it is stored.

        Raises:
          ArgumentError: arguments do not fit the signature, or one has no JSON form. Nothing was sent.
          CommandTooLargeError: the arguments are too large together. Nothing was sent.
          SendError: its class says what is known about the job.
          RuntimeStateError: called on a loop that sending itself needs.
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
        group: str | OfActor | None = OF_ACTOR,
        position: int | None = None,
        **options: Any,
    ) -> JobCommand[R]:
        """Send a job with options.

        Parameters:
          args, kwargs: its arguments.
          delay: how long to wait before the job may run; a timedelta, or milliseconds.
          eta: when the job may run; an aware datetime, or milliseconds since 1970. Not together with ``delay``.
          priority: 0 to 9, higher first. Default: the actor's.
          tags: names to find the job by; letters, digits and ``_ . : -``, up to 128 each.
          group: jobs of one group run in order: its name, up to 512 characters, or ``None`` for no group. Default:
            the actor's option ``group``.
          position: the job's number in the group, from 1; jobs run in the order of their numbers. Needs persistence.
          options: options of the configured middleware, such as ``max_retries`` or ``time_limit``; they override
            the actor's.

        Raises:
          ActorOptionError: an option is unknown, or its value is invalid. Nothing was sent.
          RequiresPersistenceError: a position without persistence. Nothing was sent.
          ArgumentError, CommandTooLargeError, SendError, RuntimeStateError: as `send`.
        """
        given = _given_options(options, group, delay=delay, eta=eta, priority=priority, tags=tags, position=position)
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
        group: str | OfActor | None = OF_ACTOR,
        position: int | None = None,
        **options: Any,
    ) -> JobCommand[R]:
        """`send_with_options` for coroutines."""
        given = _given_options(options, group, delay=delay, eta=eta, priority=priority, tags=tags, position=position)
        return (await self._send_async([(args, kwargs or {})], given))[0]

    def send_many(self, calls: Iterable[Call], **options: Any) -> list[JobCommand[R]]:
        """Send many jobs at once, with one insert and one wait for the broker's confirms.

        Parameters:
          calls: pairs of positional and keyword arguments, such as ``((7, "a"), {})``.
          options: those of `send_with_options`, applied to all jobs; ``position`` is allowed for a single job only.

        Raises:
          ArgumentError, ActorOptionError, CommandTooLargeError: one of the calls is invalid. Nothing was sent.
          SendError: names the jobs that it concerns; the others were sent.
        """
        return self._send(calls, options)

    async def send_many_async(self, calls: Iterable[Call], **options: Any) -> list[JobCommand[R]]:
        """`send_many` for coroutines."""
        return await self._send_async(calls, options)

    def _send(self, calls: Iterable[Call], options: Mapping[str, Any]) -> list[JobCommand[R]]:
        commands = build_commands(self, calls, options, to_send=True)
        self.broker.send(commands)
        return commands

    async def _send_async(self, calls: Iterable[Call], options: Mapping[str, Any]) -> list[JobCommand[R]]:
        commands = build_commands(self, calls, options, to_send=True)
        await self.broker.send_async(commands)
        return commands


class AsyncJobActor(JobActor[P, R]):
    """A :class:`JobActor` of a coroutine function: calling it gives a coroutine, which returns ``R``."""

    # Dramatiq's type says R because it waits for the coroutine; here the caller awaits it.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Call the function: a coroutine to be awaited. No job is made."""
        return cast("Coroutine[Any, Any, R]", self.fn(*args, **kwargs))


def body_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose signature counts: ``perform`` for a class-based actor, whose ``__call__`` takes anything."""
    if isinstance(fn, dramatiq.GenericActor):
        return fn.perform
    if inspect.isroutine(fn) or isinstance(fn, functools.partial):
        return fn
    return types.MethodType(type(fn).__call__, fn)


def _sending_broker(broker: dramatiq.Broker, actor_name: str) -> SendingBroker:
    if not isinstance(broker, SendingBroker):
        raise ActorOptionError(
            f"Actor {actor_name!r} needs the JobBroker of jq_actors, not a {type(broker).__name__}; "
            "`import jq_actors` installs one."
        )
    if actor_name in broker.actors:
        taken = broker.actors[actor_name].fn
        raise ActorOptionError(
            f"Actor {actor_name!r} already exists, made from {taken!r}; give one of them an actor_name."
        )
    return broker


def _given_options(options: Mapping[str, Any], group: str | OfActor | None, **own: Any) -> dict[str, Any]:
    given = {**options, **{name: value for name, value in own.items() if value is not None}}
    return given if group is OF_ACTOR else {**given, "group": group}
