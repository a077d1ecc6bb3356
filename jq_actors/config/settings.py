"""Every setting of the core: its meaning, unit, default and limits, as frozen objects.

A duration is written ``250ms``, ``30s``, ``5m``, ``1h``, ``1d``; a bare number is milliseconds, as in
Dramatiq. Options of a middleware are documented in its class. `config` reads these from YAML and reports all
problems at once.
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
    """``name``, if it may name an actor, a queue, a worker or a tag (A81).

    Raises:
      ValueError: it has other characters than letters, digits and ``_ . : -``, or not 1 to 128 of them.
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
        raise ValueError(f"{name!r} is no module name such as myapp.jobs")
    return name


def _check_broker_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{mask_url(url)!r} is no URL: {error}") from None
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
"""A field that takes what `parse_duration` takes."""
Name = Annotated[str, AfterValidator(check_name)]
"""A field that takes what `check_name` takes."""
_Size = Annotated[int, BeforeValidator(parse_size)]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, value: Any) -> Any:
        # YAML reads a section whose lines are all commented out as null.
        return {} if value is None else value


class BrokerConfig(Settings):
    """Where jobs travel."""

    url: Annotated[str, AfterValidator(_check_broker_url)] = "embedded://"
    """``embedded://`` (queues in this process, fed from the jobs table: one machine, no server), or RabbitMQ
    as ``amqp://user:password@host:5672/vhost`` or ``amqps://``. Default ``embedded://``."""
    namespace: Annotated[str, AfterValidator(_check_namespace)] = "jq"
    """First part of the name of each queue of ours on the broker (``jq.mail``), so that several applications
    share one vhost. 1 to 64 of ``A-Z a-z 0-9 _ . : -``. Dramatiq's own broker has none: its queues are
    others. Default ``jq``."""
    queue_type: Literal["classic", "quorum"] = "classic"
    """How RabbitMQ stores the queues: ``classic`` on one node, faster; ``quorum`` replicated over the
    cluster, survives the loss of a node. A queue that exists keeps its type: changing this needs new queues.
    Default ``classic``."""
    confirm_timeout: Annotated[Duration, _within(timedelta(milliseconds=100))] = timedelta(seconds=10)
    """How long a sending waits for the broker to confirm it. After it: with persistence the relay sends
    later, without it `SendUnknownError`. At least ``100ms``; default ``10s``."""
    heartbeat: Annotated[
        Duration,
        _within(timedelta(seconds=1), timedelta(seconds=65535)),
        AfterValidator(_check_whole_seconds),
    ] = timedelta(seconds=60)
    """A silent connection is given up after two of these. Whole seconds, ``1s`` to ``65535s``; RabbitMQ
    proposes 60 s too, and the smaller of both counts. A ``heartbeat`` in the URL is ignored. Default
    ``60s``."""
    publish_window: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1000
    """How many messages may be on their way to the broker without its confirm. With persistence `send` returns when
    its row is committed, and the publishing goes on behind it; while so many are on their way, the next `send`
    waits, for ``confirm_timeout`` at most. 1 to 100,000; default 1000."""
    max_command_size: Annotated[_Size, Field(ge=1024, le=128 << 20)] = 1 << 20
    """Largest encoded job, in bytes (``512K``, ``4MiB``); a larger one is refused at sending. RabbitMQ's own
    ``max_message_size`` must not be smaller. ``1K`` to ``128M``; default ``1MiB``."""
    delivery_timeout: Annotated[Duration, _within(timedelta(seconds=1))] = timedelta(minutes=30)
    """How long RabbitMQ lets a delivery stay unacked before it closes the channel: its ``consumer_timeout``,
    which the client cannot ask for. Must not be larger than there. Jobs longer than a third of it are acked
    early when there is persistence, and must be shorter than it when there is none. At least ``1s``; default
    ``30m``, as RabbitMQ's."""
    reconcile_interval: Annotated[Duration, _within(timedelta(milliseconds=100))] = timedelta(seconds=30)
    """How often wanted and confirmed consumers are compared, against queues that stopped silently. At least
    ``100ms``; default ``30s``."""
    delivery_limit: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 20
    """Quorum queues only: a message that came back so many times goes to the dead queue. 1 to 1,000,000;
    default 20, as RabbitMQ 4's."""

    priority_queues: tuple[Name, ...] = ()
    """The queues whose jobs may have a priority (1 to 9; higher first). RabbitMQ pays for it with each message: a
    priority queue costs it about twice the processor time, so only those that need it are made so. A queue that exists
    cannot become one: let it drain and delete it, or use another name. Quorum queues know priorities without it.
    Default: none."""

    @model_validator(mode="after")
    def _combination_is_possible(self) -> BrokerConfig:
        if self.url == "embedded://" and self.queue_type == "quorum":
            raise ValueError("queue_type: quorum needs RabbitMQ; embedded:// has no queue types")
        if "delivery_limit" in self.model_fields_set and self.queue_type != "quorum":
            raise ValueError("delivery_limit works on queue_type: quorum only; remove one of both")
        return self


class QueueConfig(Settings):
    """One queue, in each worker process."""

    concurrency: Annotated[int, Field(ge=1, le=65535, strict=True)] = 100
    """Most jobs of this queue in the hands of one process: the prefetch, and the most coroutines at once.
    Sync actors are also bound by the worker's ``--threads``. 1 to 65,535 (AMQP's prefetch has 16 bits);
    default 100. Dramatiq's ``dramatiq_queue_prefetch`` is not read."""


class MiddlewareSpec(Settings):
    """One entry of ``middleware:``, outermost first: a name, or a mapping of one name to its options."""

    name: str
    """Short name (entry-point group ``jq_actors.middleware``) or ``package.module:Class``, any
    `dramatiq.Middleware`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of its class."""

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
    """A worker process."""

    lease: Annotated[Duration, _within(timedelta(seconds=1), timedelta(hours=1))] = timedelta(seconds=30)
    """A worker that has not renewed its lease in the database for so long counts as lost, and its jobs run
    elsewhere. It renews three times as often. ``1s`` to ``1h``; default ``30s``. Longer: jobs of a dead
    machine wait longer; shorter: a stalled worker loses jobs that it still runs (their outcomes are then
    discarded)."""
    shutdown_timeout: Annotated[Duration, _within(timedelta())] = timedelta(minutes=10)
    """How long a worker that was told to stop lets jobs finish. After it, async jobs are interrupted and
    queued again without counting the attempt. ``0s``: at once; default ``10m``. Disagrees with: Dramatiq's
    ``--worker-shutdown-timeout`` (sync actors; `jq-actors worker` sets both), and the service manager's own
    limit, which must be larger."""
    block_warning: Annotated[Duration, _within(timedelta(milliseconds=10))] = timedelta(seconds=1)
    """An async actor that blocks its loop for so long is reported with its stack. At least ``10ms``; default
    ``1s``."""


def default_middleware() -> tuple[MiddlewareSpec, ...]:
    """The chain that applies where the configuration has no ``middleware``."""
    return (
        MiddlewareSpec(name="persistence", options={"url": _DEFAULT_DATABASE}),
        MiddlewareSpec(name="group_fifo"),
        MiddlewareSpec(name="retry"),
        MiddlewareSpec(name="time_limit"),
    )


class Config(Settings):
    """The whole configuration."""

    broker: BrokerConfig = BrokerConfig()
    """Where jobs travel."""
    imports: tuple[Annotated[str, AfterValidator(_check_module)], ...] = ()
    """Modules with actors, imported when a worker starts, before those of its command line."""
    queues: dict[Name, QueueConfig] = Field(default_factory=dict)
    """Settings of queues by name. A queue that is not listed works with the defaults; queues exist by their
    actors."""
    middleware: tuple[MiddlewareSpec, ...] = Field(default_factory=default_middleware)
    """The chain, outermost first; the order is checked. Default: ``persistence`` in a SQLite file of the
    working directory, ``retry``, ``time_limit``. An empty list: none, so no persistence either."""
    actors: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Options by actor name; they override those of its decorator."""
    worker: WorkerConfig = WorkerConfig()
    """A worker process."""

    def queue(self, name: str) -> QueueConfig:
        """The settings of the queue ``name``, the defaults where it is not listed."""
        return self.queues.get(name, QueueConfig())
