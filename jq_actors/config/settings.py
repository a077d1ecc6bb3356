"""Every setting of the core, as frozen objects: its meaning, unit, default and limits.

A duration is written ``250ms``, ``30s``, ``5m``, ``1h``, ``1d``; a bare number is milliseconds, as in Dramatiq. The
class of a middleware documents its options. `loading` reads the settings from YAML and reports all problems at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .durations import format_duration, parse_duration, parse_size
from .urls import mask_url

BROKER_SCHEMES = ("embedded", "amqp", "amqps")

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_DOTTED_CLASS = re.compile(rf"{_MODULE.pattern}:[^\W\d]\w*")
_MAX_NAMESPACE = 64  # of the 255 bytes that AMQP gives to a queue's name
_DEFAULT_DATABASE = "sqlite+aiosqlite:///jq_actors.db"


def check_name(name: str) -> str:
    """Return ``name`` if it may name an actor, a queue, a worker or a tag (A81).

    Raises:
      ValueError: it is not 1 to 128 ASCII letters, digits and ``_ . : -``.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} must be 1 to 128 of the characters A-Z a-z 0-9 _ . : -")
    return name


def _check_namespace(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAMESPACE:
        allowed = f"1 to {_MAX_NAMESPACE} of the characters A-Z a-z 0-9 _ . : -"
        raise ValueError(f"{name!r} must be {allowed}")
    return name


def _check_module(name: str) -> str:
    if not _MODULE.fullmatch(name):
        raise ValueError(f"{name!r} is not a module name such as myapp.jobs")
    return name


def _check_broker_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{mask_url(url)!r} is not a URL: {error}") from None
    if parts.scheme not in BROKER_SCHEMES:
        allowed = ", ".join(f"{scheme}://" for scheme in BROKER_SCHEMES)
        raise ValueError(f"{mask_url(url)!r} must begin with one of {allowed}")
    if parts.scheme == "embedded" and url != "embedded://":
        raise ValueError(f"{mask_url(url)!r} has no address to name; write embedded://")
    if parts.scheme != "embedded" and (not parts.hostname or port == 0):
        raise ValueError(f"{mask_url(url)!r} names no host; write amqp://user:password@host:5672/vhost")
    return url


def _within(low: timedelta, high: timedelta = timedelta.max) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < low:
            raise ValueError(f"must be at least {format_duration(low)}, not {format_duration(value)}")
        if value > high:
            raise ValueError(f"must be at most {format_duration(high)}, not {format_duration(value)}")
        return value

    return AfterValidator(check)


def _check_whole_seconds(value: timedelta) -> timedelta:
    if value.microseconds:
        raise ValueError("must be whole seconds: AMQP counts heartbeats in seconds")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""The type of a setting that `parse_duration` reads."""
Name = Annotated[str, AfterValidator(check_name)]
"""The type of a setting that `check_name` checks."""
_Size = Annotated[int, BeforeValidator(parse_size)]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, value: Any) -> Any:
        # YAML reads a section as null if all its lines are commented out.
        return {} if value is None else value


class BrokerConfig(Settings):
    """Where jobs travel."""

    url: Annotated[str, AfterValidator(_check_broker_url)] = "embedded://"
    """``embedded://`` (queues in this process, fed from the jobs table: one machine, no server), or RabbitMQ
    as ``amqp://user:password@host:5672/vhost`` or ``amqps://``. Default ``embedded://``."""
    namespace: Annotated[str, AfterValidator(_check_namespace)] = "jq"
    """First part of the name of each of our queues on the broker (``jq.mail``), so that several applications can
    share a vhost. 1 to 64 of ``A-Z a-z 0-9 _ . : -``. Dramatiq's own broker has no namespace, so it uses other
    queues. Default ``jq``."""
    queue_type: Literal["classic", "quorum"] = "classic"
    """How RabbitMQ stores the queues: ``classic``: on one node, faster; ``quorum``: replicated over the cluster, so
    they survive the loss of a node. An existing queue keeps its type, so a change needs new queues. Default
    ``classic``."""
    confirm_timeout: Annotated[Duration, _within(timedelta(milliseconds=100))] = timedelta(seconds=10)
    """How long to wait for the broker's confirm of a message. After that, with persistence the relay sends the job
    later; without it ``send`` raises `SendUnknownError`. At least ``100ms``; default ``10s``."""
    heartbeat: Annotated[
        Duration,
        _within(timedelta(seconds=1), timedelta(seconds=65535)),
        AfterValidator(_check_whole_seconds),
    ] = timedelta(seconds=60)
    """A connection that is silent for two heartbeats is closed. Whole seconds, ``1s`` to ``65535s``. RabbitMQ
    proposes a value as well (60 s by default), and the smaller one applies. A ``heartbeat`` in the URL is ignored.
    Default ``60s``."""
    publish_window: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1000
    """How many messages may be on their way to the broker, not yet confirmed. With persistence ``send`` returns when
    its row is committed, and the job is published in the background. While the window is full, the next ``send``
    waits, at most ``confirm_timeout``. 1 to 100,000; default 1000."""
    max_command_size: Annotated[_Size, Field(ge=1024, le=128 << 20)] = 1 << 20
    """Largest encoded job, in bytes (``512K``, ``4MiB``); ``send`` refuses a larger one. RabbitMQ's own
    ``max_message_size`` must not be smaller. ``1K`` to ``128M``; default ``1MiB``."""
    delivery_timeout: Annotated[Duration, _within(timedelta(seconds=1))] = timedelta(minutes=30)
    """How long RabbitMQ lets a delivery stay unacked before it closes the channel: its ``consumer_timeout``, which a
    client cannot query. Must not be larger than RabbitMQ's. With persistence, the delivery of a job that runs longer
    than a third of this is acked early; without, a job must not run for as long as this. At least ``1s``; default
    ``30m``, RabbitMQ's own."""
    reconcile_interval: Annotated[Duration, _within(timedelta(milliseconds=100))] = timedelta(seconds=30)
    """How often the consumers that this process wants are compared with those that the broker has confirmed, to find
    queues that silently stopped being consumed. At least ``100ms``; default ``30s``."""
    delivery_limit: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 20
    """Quorum queues only: how often a message may come back before it goes to the dead queue. 1 to 1,000,000;
    default 20, as in RabbitMQ 4."""

    priority_queues: tuple[Name, ...] = ()
    """The queues whose jobs may have a priority (1 to 9; higher first). A priority queue costs RabbitMQ about twice
    the processor time for each message, so list only those that need it. An existing queue cannot become a priority
    queue: let it drain and delete it, or use another name. Quorum queues have priorities anyway. Default: none."""

    @model_validator(mode="after")
    def _combination_is_possible(self) -> BrokerConfig:
        if self.url == "embedded://" and self.queue_type == "quorum":
            raise ValueError("queue_type: quorum needs RabbitMQ; embedded:// has no queue types")
        if "delivery_limit" in self.model_fields_set and self.queue_type != "quorum":
            raise ValueError("delivery_limit works with queue_type: quorum only; remove one of the two")
        return self


class QueueConfig(Settings):
    """The settings of one queue, in each worker process."""

    concurrency: Annotated[int, Field(ge=1, le=65535, strict=True)] = 100
    """How many jobs of this queue one process may hold: the prefetch, and the limit of coroutines at once. Sync actors
    are also limited by the worker's ``--threads``. 1 to 65,535 (AMQP's prefetch has 16 bits); default 100. Dramatiq's
    ``dramatiq_queue_prefetch`` is not read."""


class MiddlewareSpec(Settings):
    """One entry of ``middleware:``, outermost first: a name, or a mapping of one name to its options."""

    name: str
    """A short name (of the entry-point group ``jq_actors.middleware``), or ``package.module:Class`` for any
    `dramatiq.Middleware`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the class."""

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        match value:
            case str():
                return {"name": value}
            case {"name": _, **rest} if set(rest) <= {"options"}:
                return value
            case Mapping() if len(value) == 1:
                [(name, options)] = value.items()
                if not (options is None or isinstance(options, Mapping)):
                    raise ValueError(f"the options of {name} must be a mapping, not {type(options).__name__}")
                return {"name": name, "options": dict(options or {})}
            case MiddlewareSpec():
                return value
        raise ValueError("must be a name, or one name with its options such as `- retry: {max_retries: 3}`")

    @model_validator(mode="after")
    def _name_is_possible(self) -> MiddlewareSpec:
        if not (_DOTTED_CLASS.fullmatch(self.name) if ":" in self.name else _NAME.fullmatch(self.name)):
            raise ValueError(f"{self.name!r} is neither a short name nor package.module:Class")
        return self


class WorkerConfig(Settings):
    """The settings of a worker process."""

    lease: Annotated[Duration, _within(timedelta(seconds=1), timedelta(hours=1))] = timedelta(seconds=30)
    """A worker that has not renewed its lease in the database for this long is considered lost, and its jobs run
    elsewhere. Workers renew three times as often. ``1s`` to ``1h``; default ``30s``. With a longer lease, the jobs of a
    dead machine wait longer; with a shorter one, a stalled worker loses jobs that it is still running (their outcomes
    are then discarded)."""
    shutdown_timeout: Annotated[Duration, _within(timedelta())] = timedelta(minutes=10)
    """How long a worker that was asked to stop lets jobs finish. After that, async jobs are interrupted and queued
    again without counting the attempt. ``0s``: at once; default ``10m``. Two other limits must fit: Dramatiq's
    ``--worker-shutdown-timeout``, for sync actors (`jq-actors worker` sets both), and the service manager's, which
    must be larger."""
    block_warning: Annotated[Duration, _within(timedelta(milliseconds=10))] = timedelta(seconds=1)
    """An async actor that blocks its loop for this long is reported with its stack. At least ``10ms``; default
    ``1s``."""


def default_middleware() -> tuple[MiddlewareSpec, ...]:
    """The chain of a configuration that has no ``middleware``."""
    return (
        MiddlewareSpec(name="persistence", options={"url": _DEFAULT_DATABASE}),
        MiddlewareSpec(name="group_fifo"),
        MiddlewareSpec(name="retry"),
        MiddlewareSpec(name="time_limit"),
    )


class Config(Settings):
    """The whole configuration."""

    broker: BrokerConfig = BrokerConfig()
    """The broker, and the queues on it."""
    imports: tuple[Annotated[str, AfterValidator(_check_module)], ...] = ()
    """Modules with actors. A worker imports them at its start, before the modules of its command line."""
    queues: dict[Name, QueueConfig] = Field(default_factory=dict)
    """Settings of queues, by name. A queue that is not listed has the defaults: queues exist because actors name
    them."""
    middleware: tuple[MiddlewareSpec, ...] = Field(default_factory=default_middleware)
    """The chain, outermost first; the order is checked. Default: ``persistence`` in a SQLite file of the working
    directory, ``group_fifo``, ``retry``, ``time_limit``. An empty list means no middleware, so no persistence
    either."""
    actors: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Options by actor name; they override the options of the actor's decorator."""
    worker: WorkerConfig = WorkerConfig()
    """The worker processes."""

    def queue(self, name: str) -> QueueConfig:
        """The settings of the queue ``name``; the defaults if it is not listed."""
        return self.queues.get(name, QueueConfig())
