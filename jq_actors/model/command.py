"""The envelope: what travels. A :class:`JobCommand` is a ``dramatiq.Message``, and stays one on the wire.

Body: exactly the JSON of a Dramatiq message, so that a plain Dramatiq worker can read ours and we can read its.
What is ours sits in ``options["jq"]``. The dispatch number is not in the body (the relay publishes the same body
again with another one): it travels in the AMQP properties, see `transport`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Generic, TypeVar

import dramatiq

from jq_actors.clock import Clock
from jq_actors.config.durations import check_time
from jq_actors.config.settings import check_name
from jq_actors.errors import DecodeError

from .group_rules import check_group, check_position
from .job import JobId, adopted_job_id, is_job_id

SCHEMA_VERSION = 1
"""Version of what is in ``options["jq"]``. A reader accepts one more and one less (DESIGN §12)."""

MAX_TIMESTAMP = 2**53
"""Milliseconds since 1970: the largest number that every reader of JSON keeps."""

R = TypeVar("R", covariant=True)


@dataclass(frozen=True)
class JobCommand(dramatiq.Message[R], Generic[R]):
    """A command to run an actor; what ``send`` returns. ``message_id`` is the job id."""

    body: bytes | None = field(default=None, compare=False, repr=False, kw_only=True)
    """The encoded form, once made."""
    delay: timedelta | None = field(default=None, compare=False, repr=False, kw_only=True)
    """How long it may not run from when it is sent; ``None``: at once, or at a given time. It does not travel."""

    @cached_property
    def job_id(self) -> JobId:
        """The id of the job that this command is for."""
        return adopted_job_id(self.message_id)

    @property
    def promised(self) -> bool:
        """Whether the producer stored a row for it."""
        return bool(self.meta.get("row"))

    @property
    def attempt(self) -> int:
        """Attempts that were counted before this dispatch; only known without persistence."""
        return int(self.meta.get("attempt", 0))

    @property
    def priority(self) -> int:
        """0 (default) … 9, higher first."""
        priority = self.meta.get("priority", 0)
        return min(max(priority, 0), 9) if type(priority) is int else 0  # a boolean is an int, and no number

    @property
    def tags(self) -> tuple[str, ...]:
        """What the sender tagged it with."""
        tags = self.meta.get("tags", ())
        return tuple(str(tag) for tag in tags) if isinstance(tags, list | tuple) else ()

    @property
    def group(self) -> str | None:
        """The group that it runs in; ``None``: in none."""
        group = self.meta.get("group")
        return group if isinstance(group, str) else None

    @property
    def position(self) -> int | None:
        """Its number in its group; ``None``: it was not given one."""
        position = self.meta.get("position")
        return position if isinstance(position, int) else None

    @property
    def meta(self) -> dict[str, Any]:
        """The part of the options that belongs to jq_actors."""
        meta = self.options.get("jq")
        return meta if isinstance(meta, dict) else {}

    @property
    def due_at(self) -> datetime | None:
        """When it may run, if that is later than when it was sent."""
        due = self.meta.get("due")
        return None if due is None else datetime.fromisoformat(due)

    def asdict(self) -> dict[str, Any]:
        """The fields of a Dramatiq message, nothing else; plain JSON, so that it may itself be an argument."""
        return {name: getattr(self, name) for name in _FIELDS} | {"args": list(self.args)}

    def encode(self) -> bytes:
        """The body; encoded once."""
        if self.body is not None:
            return self.body
        encoded = json.dumps(self.asdict(), separators=(",", ":")).encode()
        object.__setattr__(self, "body", encoded)
        return encoded

    def count_from(self, now: datetime) -> None:
        """Let its delay count from ``now``, and drop a due time that is past, whatever the sender's clock said."""
        due = self.due_at
        if due is None or (self.delay is None and due > now):
            return
        if self.delay is None:
            del self.meta["due"]
        else:
            self.meta["due"] = due_text(now + self.delay)
        object.__setattr__(self, "body", None)

    def copy(self, **attributes: Any) -> JobCommand[R]:
        """A changed copy; it is encoded anew."""
        return super().copy(**attributes, body=None)  # type: ignore[return-value]  # replace() keeps the class

    def __str__(self) -> str:
        # Dramatiq logs messages with their arguments; arguments may be secret.
        return f"{self.actor_name}[{self.message_id}]"


_FIELDS = ("queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp")


def decode_command(body: bytes) -> JobCommand[Any]:
    """The command in ``body``.

    Raises:
      DecodeError: says what is wrong: not JSON, a missing field, a schema version that this release cannot read.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DecodeError(f"expected a JSON object, got {type(fields).__name__}")
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        raise DecodeError(f"fields missing: {', '.join(missing)}")
    for name, kind in _KINDS.items():
        if not isinstance(fields[name], kind) or isinstance(fields[name], bool):
            raise DecodeError(f"field {name!r} is a {type(fields[name]).__name__}, expected {kind.__name__}")
    command: JobCommand[Any] = JobCommand(**{name: fields[name] for name in _FIELDS}, body=body)
    # Check here, once: later, where the fields are read, a delivery can no longer be buried.
    _check_fields(command)
    _check_meta(command.meta)
    return command


def job_id_in(body: bytes) -> JobId | None:
    """The job that a message is about that `decode_command` cannot read; ``None``: it does not say."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    message_id = fields.get("message_id") if isinstance(fields, dict) else None
    return JobId(message_id) if isinstance(message_id, str) and is_job_id(message_id) else None


def _check_fields(command: JobCommand[Any]) -> None:
    try:
        check_name(command.actor_name)
        for tag in command.tags:
            check_name(tag)
        command.message_id.encode()
    except ValueError as error:  # half of a surrogate pair is one, too
        raise DecodeError(f"a name that no job can have: {error}") from error
    if not 0 <= command.message_timestamp <= MAX_TIMESTAMP:
        raise DecodeError(f"message_timestamp is not a time in milliseconds from 0 to {MAX_TIMESTAMP}")


def _check_meta(meta: dict[str, Any]) -> None:
    version = meta.get("v", SCHEMA_VERSION)
    if type(version) is not int or version > SCHEMA_VERSION + 1:  # a boolean is an int, and none of these numbers
        raise DecodeError(f"schema version {version!r}; this release reads up to {SCHEMA_VERSION + 1}")
    attempt, priority = meta.get("attempt", 0), meta.get("priority", 0)
    if type(attempt) is not int or attempt < 0:
        raise DecodeError(f"attempt {attempt!r} is not a count")
    if type(priority) is not int:
        raise DecodeError(f"priority {priority!r} is not a whole number")
    _check_due(meta.get("due"))
    _check_place(meta.get("group"), meta.get("position"))


def _check_due(due: object) -> None:
    if due is None:
        return
    try:
        moment = datetime.fromisoformat(due)  # type: ignore[arg-type]  # else it raises
        if moment.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise DecodeError(f"due {due!r} is not an ISO time with an offset") from None
    try:
        check_time(moment)
    except ValueError as error:
        raise DecodeError(f"due: {error}") from None


def _check_place(group: object, position: object) -> None:
    if position is not None and group is None:
        raise DecodeError(f"position {position!r} without a group")
    for name, value, check in (("group", group, check_group), ("position", position, check_position)):
        try:
            if value is not None:
                check(value)
        except ValueError as error:
            raise DecodeError(f"{name} {error}") from error


_KINDS: dict[str, type] = {
    "queue_name": str,
    "actor_name": str,
    "args": list,
    "kwargs": dict,
    "options": dict,
    "message_id": str,
    "message_timestamp": int,
}


def due_text(due: datetime) -> str:
    """``due`` as a message carries it; of fixed width, because it may have to be changed."""
    return due.isoformat(timespec="microseconds")


def timestamp_millis(clock: Clock) -> int:
    """Now, as Dramatiq stamps its messages."""
    return int(clock.wall().timestamp() * 1000)
