"""Checks names and options of actors and of sent jobs, as far as the value alone allows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import dramatiq

from jq_actors.config.durations import check_time, parse_duration
from jq_actors.config.settings import BrokerConfig, check_name
from jq_actors.errors import ActorOptionError
from jq_actors.model.group_rules import check_position

MAX_PRIORITY = 9

RESERVED_QUEUES = ("dead", "control")
RESERVED_PREFIXES = ("g.", "n.", "p.", "lobby.")
"""Queue names that jq_actors uses in the namespace: dead letters, and the lanes of groups (DESIGN §10)."""

ACTOR_ONLY = frozenset({"throws", "retry_when"})
"""Options that hold Python objects: they stay with the actor and cannot travel in a command."""

SENDING_ONLY = frozenset({"position"})
"""Options of a single job: an actor cannot have them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_QUEUE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]{0,127}")


def check_identity(actor_name: str, queue_name: str, priority: int) -> None:
    """Check the name, the queue name and the priority of an actor.

    Raises:
      ActorOptionError: one of them is invalid; says what is allowed.
    """
    owner = f"Actor {actor_name!r}"
    _checked(owner, "actor_name", actor_name, _name)
    _checked(owner, "queue_name", queue_name, _queue_name)
    _checked(owner, "priority", priority, check_priority)


def checked_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` in the form that middleware reads: durations as whole milliseconds, actors by their names.

    An option that is not known here belongs to a third-party middleware and is not changed.

    Parameters:
      owner: the subject of an error's sentence, such as ``Actor 'send_mail'``.

    Raises:
      ActorOptionError: a value has the wrong type or is out of range.
    """
    return {
        name: _checked(owner, name, value, _RULES[name]) if name in _RULES and value is not None else value
        for name, value in options.items()
    }


def check_known(owner: str, names: Collection[str], allowed: Collection[str]) -> None:
    """Check that all ``names`` are ``allowed``.

    Raises:
      ActorOptionError: names the unknown one, the nearest allowed one, and all that are allowed.
    """
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ActorOptionError(f"{owner}: unknown option {name!r}{meant} Allowed are {', '.join(sorted(allowed))}.")


def check_priority(value: Any) -> int:
    """Return ``value`` if it is a priority: 0 (default) to 9, higher first.

    Raises:
      ValueError: it is not.
    """
    if type(value) is not int or not 0 <= value <= MAX_PRIORITY:
        raise ValueError(f"must be a whole number from 0 to {MAX_PRIORITY} (higher first), not {value!r}")
    return value


def check_queue_has_priorities(owner: str, queue_name: str, priority: int, broker: BrokerConfig) -> None:
    """Refuse a priority on a queue that has no priorities, instead of ignoring it.

    Raises:
      ActorOptionError: says what to configure.
    """
    if priority and broker.queue_type == "classic" and queue_name not in broker.priority_queues:
        raise ActorOptionError(
            f"{owner}: priority {priority} on queue {queue_name!r}, which has no priorities; "
            "list it in `broker.priority_queues` (RabbitMQ can only give priorities to a new queue)."
        )


def _checked(owner: str, name: str, value: Any, rule: Callable[[Any], Any]) -> Any:
    try:
        return rule(value)
    except ValueError as error:
        raise ActorOptionError(f"{owner}: option {name!r}: {error}.") from error


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a str, not {value!r}")
    return check_name(value)


def _queue_name(value: Any) -> str:
    if not isinstance(value, str) or not _QUEUE_NAME.fullmatch(value):
        raise ValueError(f"must begin with a letter or _ and have 1 to 128 letters, digits and . _ -, not {value!r}")
    if value in RESERVED_QUEUES or value.startswith(RESERVED_PREFIXES):
        raise ValueError(
            f"{value!r} is a name that jq_actors uses itself on the broker; so are {', '.join(RESERVED_QUEUES)}"
            f" and every name that begins with {', '.join(RESERVED_PREFIXES)}"
        )
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"must be a whole number from 0, or None for no limit, not {value!r}")
    return value


def _milliseconds(value: Any) -> int:
    return parse_duration(value) // _MILLISECOND


def _time_limit(value: Any) -> float:
    if value == inf:  # Dramatiq's way to say that there is no limit
        return inf
    limit = _milliseconds(value)
    if limit == 0:
        raise ValueError("must be longer than 0 ms")
    return limit


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {value!r}")
    return value


def _exceptions(value: Any) -> Any:
    classes = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise ValueError(f"must be an exception class or a tuple of them, not {value!r}")
    return value


def _callable(value: Any) -> Any:
    if not callable(value):
        raise ValueError(f"must be a function of (retries, exception), not {value!r}")
    return value


def _actor(value: Any) -> str:
    return value.actor_name if isinstance(value, dramatiq.Actor) else _name(value)


def _tags(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"must be a list of names, not {value!r}")
    return list(dict.fromkeys(_name(tag) for tag in value))


def _eta(value: Any) -> datetime:
    match value:
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"the datetime {value} is naive; give it a time zone, such as datetime.now(UTC)")
            return check_time(value)
        case int() if not isinstance(value, bool):
            try:
                return check_time(_EPOCH + value * _MILLISECOND)
            except OverflowError:
                raise ValueError(f"{value} ms since 1970 is not a datetime") from None
        case _:
            raise ValueError(f"must be an aware datetime, or whole milliseconds since 1970, not {value!r}")


_RULES: dict[str, Callable[[Any], Any]] = {
    "max_retries": _count,
    "min_backoff": _milliseconds,
    "max_backoff": _milliseconds,
    "retry_when": _callable,
    "throws": _exceptions,
    "on_retry_exhausted": _actor,
    "time_limit": _time_limit,
    "max_age": _milliseconds,
    "notify_shutdown": _flag,
    "store_results": _flag,
    "result_ttl": _milliseconds,
    "pipe_ignore": _flag,
    "on_success": _actor,
    "on_failure": _actor,
    "priority": check_priority,
    "tags": _tags,
    "position": check_position,
    "delay": _milliseconds,
    "eta": _eta,
}
"""The options that Dramatiq's middleware and our namesakes of it declare (`actor_options` of dramatiq 2.2). The last
five belong to a sent job."""
