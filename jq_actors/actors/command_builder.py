"""Makes commands: the only place that puts ids, arguments and options into an envelope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import dramatiq

from jq_actors.config.durations import check_time
from jq_actors.errors import ActorOptionError, ArgumentError, CommandTooLargeError, RequiresPersistenceError
from jq_actors.model.command import SCHEMA_VERSION, JobCommand, due_text, timestamp_millis
from jq_actors.model.job import new_job_ids

from .arguments import Arguments
from .group_naming import GroupNaming, check_no_priority, checked_group
from .options import ACTOR_ONLY, check_known, check_queue_has_priorities, checked_options
from .plain_json import ConversionError, check_json
from .sending_broker import SendingBroker

R = TypeVar("R")
Call = tuple[Sequence[Any], Mapping[str, Any]]
"""Positional and keyword arguments of one job."""

_OWN = frozenset({"delay", "eta", "priority", "tags"})


class Addressee(Protocol):
    """What a command needs of the actor that it is for."""

    actor_name: str
    queue_name: str
    priority: int
    arguments: Arguments
    group_of: GroupNaming
    broker: SendingBroker


def build_commands(
    actor: Addressee, calls: Iterable[Call], given: Mapping[str, Any], *, to_send: bool
) -> list[JobCommand[Any]]:
    """Commands for ``calls``, in order, all with the options ``given``.

    Parameters:
      to_send: whether the commands are sent at once: arguments must then be complete, and a delay counts from now.
        Otherwise they are parts of a composition: a pipeline adds an argument, and reads ``options["delay"]``.

    Raises:
      ArgumentError: arguments do not bind, or have no JSON form.
      ActorOptionError: an option is unknown, or its value is invalid.
      RequiresPersistenceError: a position without persistence.
    """
    clock = actor.broker.clock
    owner = f"A command for {actor.actor_name!r}"
    options, meta = _options(owner, actor, given, to_send=to_send)
    converted = [actor.arguments.to_json(args, kwargs, partial=not to_send) for args, kwargs in calls]
    if "position" in meta and len(converted) > 1:
        raise ActorOptionError(f"{owner}: a position is the number of one job, but {len(converted)} are sent.")
    ids, timestamp = new_job_ids(clock, len(converted)), timestamp_millis(clock)
    delay = _delay(given.get("delay")) if to_send and given else None
    return [
        JobCommand(
            queue_name=actor.queue_name,
            actor_name=actor.actor_name,
            args=tuple(args),
            kwargs=kwargs,
            # Each command has its own dict: compositions and hooks write into it.
            options={**options, "jq": _placed(owner, actor, meta, args, kwargs) if to_send else {**meta}},
            message_id=job_id,
            message_timestamp=timestamp,
            delay=delay,
        )
        for job_id, (args, kwargs) in zip(ids, converted, strict=True)
    ]


def as_command(message: dramatiq.Message[R], delay: int | None, broker: SendingBroker) -> JobCommand[R]:
    """The command for a message that comes through Dramatiq's API: from a composition or from a third party.

    Parameters:
      delay: milliseconds from now.

    Raises:
      ArgumentError: the actor is known here, and the arguments do not bind or have no JSON form.
      ActorOptionError: its group, its position or its delay is invalid.
      RequiresPersistenceError: a position without persistence.
    """
    owner = f"A command for {message.actor_name!r}"
    args: Sequence[Any] = message.args
    kwargs, meta = message.kwargs, _new_meta(broker, to_send=True) | message.options.get("jq", {})
    actor: Any = broker.actors.get(message.actor_name)
    if hasattr(actor, "arguments"):  # a plain dramatiq.Actor has none
        args, kwargs = actor.arguments.adopt(args, kwargs)
        meta = _placed(owner, actor, _actor_meta(actor) | meta, args, kwargs)
    if due := _due(owner, delay, None, broker):
        meta["due"] = due_text(due)
    return JobCommand(
        queue_name=message.queue_name,
        actor_name=message.actor_name,
        args=tuple(args),
        kwargs=kwargs,
        options={**message.options, "jq": meta},
        message_id=message.message_id,
        message_timestamp=message.message_timestamp,
        delay=_delay(delay),
    )


def check_sizes(commands: Iterable[JobCommand[Any]], limit: int) -> None:
    """Check that no command is longer than ``limit`` bytes when encoded.

    Raises:
      CommandTooLargeError: a command is longer.
      ArgumentError: a command cannot be encoded; this can only happen to a message from a third party.
    """
    for command in commands:
        try:
            size = len(command.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"A command for {command.actor_name!r} is not JSON: {error}.") from error
        if size > limit:
            raise CommandTooLargeError(command.actor_name, size, limit)


def _options(
    owner: str, actor: Addressee, given: Mapping[str, Any], *, to_send: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The command's options, and the metadata that goes into ``options["jq"]``."""
    broker, meta = actor.broker, _new_meta(actor.broker, to_send=to_send) | _actor_meta(actor)
    if not given:
        return {}, meta
    config = broker.resolve()  # the options of its middleware are not known before
    check_known(owner, given, (broker.actor_options | _OWN) - ACTOR_ONLY)
    options = {name: value for name, value in checked_options(owner, given).items() if value is not None}
    delay, eta = options.pop("delay", None), options.pop("eta", None)
    if delay is not None and eta is not None:
        raise ActorOptionError(f"{owner}: give delay or eta, not both.")
    if delay is not None and not to_send:
        options["delay"] = delay
    elif due := _due(owner, delay, eta, broker):
        meta["due"] = due_text(due)
    meta |= {name: options.pop(name) for name in ("priority", "tags", "position") if name in options}
    if "group" in given:  # None counts as given: the job then has no group, whatever its actor says
        meta["group"] = checked_group(owner, options.pop("group", None))
    check_queue_has_priorities(owner, actor.queue_name, meta.get("priority", 0), config.broker)
    for name, value in options.items():
        _check_travels(owner, name, value)
    return options, meta


def _new_meta(broker: SendingBroker, *, to_send: bool) -> dict[str, Any]:
    # "row" promises the worker that sending makes a row, so that a missing row means that the job has ended.
    return {"v": SCHEMA_VERSION, "row": True} if to_send and broker.stores_rows else {"v": SCHEMA_VERSION}


def _actor_meta(actor: Addressee) -> dict[str, Any]:
    return {"priority": actor.priority} if actor.priority else {}


def _placed(
    owner: str, actor: Addressee, meta: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """``meta`` with the group of a job that is sent now."""
    placed = {**meta}
    if "group" not in meta and actor.group_of.names_groups:
        placed["group"] = actor.group_of(args, kwargs)
    group, position = placed.get("group"), placed.get("position")
    if group is not None:
        check_no_priority(owner, placed.get("priority", 0))
    if position is not None and group is None:
        raise ActorOptionError(f"{owner}: position {position} needs a group: it is the job's number in its group.")
    if position is not None and not actor.broker.stores_rows:
        raise RequiresPersistenceError("A position in a group")
    return placed


def _delay(delay: int | timedelta | None) -> timedelta | None:
    return None if not delay else delay if isinstance(delay, timedelta) else timedelta(milliseconds=delay)


def _due(owner: str, delay: int | None, eta: datetime | None, broker: SendingBroker) -> datetime | None:
    """When the job may run; ``None`` for now. Uses this machine's clock; with rows, `JobCommand.count_from` decides."""
    if not delay and eta is None:
        return None
    now = broker.clock.wall()
    if eta is None:
        try:
            due = check_time(now + timedelta(milliseconds=delay or 0))
        except (OverflowError, ValueError):
            raise ActorOptionError(f"{owner}: a delay of {delay} ms ends beyond the year {now.max.year}.") from None
    else:
        due = eta.astimezone(UTC)
    return due if due > now or (eta is not None and broker.stores_rows) else None


def _check_travels(owner: str, name: str, value: Any) -> None:
    try:
        check_json(value)
    except ConversionError as error:
        raise ActorOptionError(f"{owner}: option {name!r}{error.description}.") from error
