"""The onion: what a middleware is, how the chain is composed, and how YAML names become classes.

A :class:`JobMiddleware` wraps the sending of a command (``enqueue``) and the run of a job (``run``). The first
in the list is the outermost. The runtime fixes both ends: the innermost ``enqueue`` stores and publishes, the innermost
``run`` calls the actor. Claim, settle and ack lie outside the chain, so that no middleware can lose a job.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

import dramatiq

from jq_actors.clock import Clock
from jq_actors.config.settings import Config
from jq_actors.events import Events
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.outcome import Outcome, outcome_of
from jq_actors.model.running_job import RunningJob
from jq_actors.store.port import JobStore

ENTRY_POINT_GROUP = "jq_actors.middleware"

EnqueueNext = Callable[[Sequence[JobCommand[Any]]], Coroutine[Any, Any, None]]
RunNext = Callable[[RunningJob], Coroutine[Any, Any, Outcome]]


class Process(Protocol):
    """The part of the process that a middleware may use."""

    @property
    def config(self) -> Config:
        """The checked configuration."""
        ...

    @property
    def clock(self) -> Clock:
        """The source of time and randomness."""
        ...

    @property
    def events(self) -> Events:
        """Where to report what happened, and to subscribe to it."""
        ...

    @property
    def store(self) -> JobStore | None:
        """The rows; ``None`` without persistence."""
        ...


class JobMiddleware(dramatiq.Middleware):
    """Base class of jq_actors middleware; override what you need.

    The constructor takes keyword options (from YAML) and checks them, raising ``ValueError`` with a sentence that
    says what is allowed. After construction, an instance keeps no state that depends on a single job.
    """

    requires: frozenset[str] | Mapping[str, str] = frozenset()
    """Short names of middleware that must come earlier in the list. An instance whose options
    need more sets its own; a mapping gives the reasons: ``{"persistence": "max_size counts rows"}``."""

    brings_store: ClassVar[bool] = False
    """Whether this middleware brings the store: only `persistence` does; it has `leases`, `relay_interval` and
    `on_broker_down`."""

    group_rules: GroupRules | None = None
    """The rules for groups, if this middleware provides groups: only `group_fifo` does."""

    async def enqueue(self, commands: Sequence[JobCommand[Any]], call_next: EnqueueNext) -> None:
        """Around the sending of ``commands`` (a batch of ``send_many``, or one). Runs on the I/O loop: never block."""
        await call_next(commands)

    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        """Around the run of one attempt; on the actor loop, in the job's own context.

        Return the outcome, changed or not. An exception raised here is treated like one from the actor.
        """
        return await call_next(job)

    def open_store(self, process: Process) -> JobStore | None:
        """The store that this middleware brings, not yet opened; only `persistence` has one. Not called on a loop."""
        return None

    async def on_start(self, process: Process) -> None:
        """The process has started, as producer or worker. Called on the I/O loop."""

    async def on_stop(self, process: Process) -> None:
        """The process is stopping. Called on the I/O loop."""


def compose_run(chain: Sequence[dramatiq.Middleware], innermost: RunNext) -> RunNext:
    """The run chain, outermost first. Those that do not override ``run`` cost nothing."""
    composed = innermost
    for layer in reversed(chain):
        if isinstance(layer, JobMiddleware) and type(layer).run is not JobMiddleware.run:
            composed = _around_run(layer, composed)
    return composed


def compose_enqueue(chain: Sequence[dramatiq.Middleware], innermost: EnqueueNext) -> EnqueueNext:
    """The enqueue chain, outermost first."""
    composed = innermost
    for layer in reversed(chain):
        if isinstance(layer, JobMiddleware) and type(layer).enqueue is not JobMiddleware.enqueue:
            composed = _around_enqueue(layer, composed)
    return composed


def _around_run(layer: JobMiddleware, call_next: RunNext) -> RunNext:
    async def guarded(job: RunningJob) -> Outcome:
        # An exception of an inner layer is an outcome for the outer ones: `retry` sees it like the actor's own.
        try:
            return await layer.run(job, call_next)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - see above
            return outcome_of(error)

    return guarded


def _around_enqueue(layer: JobMiddleware, call_next: EnqueueNext) -> EnqueueNext:
    return lambda commands: layer.enqueue(commands, call_next)


def known_names() -> list[str]:
    """The short names that installed packages register."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def load_class(name: str) -> type[dramatiq.Middleware]:
    """The class for a YAML name: a short name (entry point) or ``package.module:Class``.

    Raises:
      ValueError: no such name or class, or not a ``dramatiq.Middleware``; the message lists what is known.
    """
    loaded: Any
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import {name!r}: {error}") from error
    else:
        points = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
        if not points:
            raise ValueError(
                f"unknown middleware {name!r}; known are {', '.join(known_names())}, or write `package.module:Class`"
            )
        loaded = points[0].load()
    if not (isinstance(loaded, type) and issubclass(loaded, dramatiq.Middleware)):
        raise ValueError(f"{name!r} is not a dramatiq.Middleware class")
    return loaded
