"""The job that is running here: :func:`current_job`, by context variable, in async and sync actors alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from jq_actors.errors import RuntimeStateError
from jq_actors.model.printable import escape

from .command import JobCommand
from .job import JobId
from .worker_thread_call import WorkerThreadCall

_log = logging.getLogger("jq_actors.job")


class RunnableActor(Protocol):
    """What a worker needs from an actor to run its jobs; ``JobActor`` is one."""

    @property
    def actor_name(self) -> str:
        """Its name."""
        ...

    @property
    def queue_name(self) -> str:
        """The queue of its jobs."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether ``fn`` is a coroutine function."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of its jobs, from the decorator and the configuration."""
        ...

    @property
    def fn(self) -> Callable[..., Any]:
        """The user's function."""
        ...

    def bind(self, command: JobCommand[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of ``command``, converted to what the function declares.

        Raises:
          ArgumentError: they do not fit the function.
        """
        ...

    def result_to_json(self, value: Any) -> Any:
        """The function's return value in plain JSON types.

        Raises:
          ArgumentError: it has no JSON form.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunningJob:
    """One attempt in progress. Middleware and the actor see the same object."""

    id: JobId
    attempt: int
    """The number of this attempt, from 1."""
    command: JobCommand[Any]
    actor: RunnableActor | None
    """``None``: this process knows no such actor; the innermost step answers with `Unhandled`."""
    group: str | None = None
    position: int | None = None
    thread: WorkerThreadCall = field(default_factory=WorkerThreadCall)
    """The call of a sync actor in its worker thread; unused for an async one."""

    def log(self, message: str, *args: object) -> None:
        """Write a line to the logger ``jq_actors.job``, with the job's id in front."""
        text = message % args if args else message
        _log.info("job %s: %s", self.id, escape(text), extra={"job_id": self.id})

    def option(self, name: str, default: Any = None) -> Any:
        """An option of this job: given at sending, else by the actor, else ``default``."""
        if name in self.command.options:
            return self.command.options[name]
        return default if self.actor is None else self.actor.options.get(name, default)


_current: ContextVar[RunningJob | None] = ContextVar("jq_actors.current_job", default=None)


def current_job() -> RunningJob:
    """The job that this code runs in: in async and sync actors, and in tasks that they start.

    Raises:
      RuntimeStateError: no job is running here.
    """
    job = _current.get()
    if job is None:
        raise RuntimeStateError("current_job() was called outside of a job.")
    return job


@contextmanager
def running(job: RunningJob) -> Iterator[None]:
    """Make ``job`` the current one for what runs inside."""
    token = _current.set(job)
    try:
        yield
    finally:
        _current.reset(token)
