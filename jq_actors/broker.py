"""Dramatiq's face: a :class:`JobBroker` is a ``dramatiq.Broker``, so that Dramatiq's CLI, actors and middleware work.

It reads no configuration until first need: the first sending, the boot of a worker, or `runtime`.
"""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.middleware import SkipMessage

from .actor import JobActor
from .actor_options import checked_options
from .building import as_command, check_sizes
from .clock import Clock, SystemClock
from .command import JobCommand
from .config import Config, did_you_mean, load_config
from .errors import ActorOptionError, ConfigError, Problem, RuntimeStateError
from .events import Events
from .handoff import HandoffConsumer, JobProxy
from .middleware import JobMiddleware
from .middleware_loading import build_middleware
from .runtime import Runtime

Source = str | Path | Mapping[str, Any] | Config | None


class JobBroker(dramatiq.Broker):
    """The broker that ``import jq_actors`` installs.

    Parameters:
      source: where the configuration comes from, see `config.load_config`.
    """

    def __init__(self, source: Source = None, *, clock: Clock | None = None) -> None:
        super().__init__(middleware=[])
        self.queues: dict[str, None] = {}
        self.clock = clock or SystemClock()
        self.events = Events()
        self._source = source
        self._config: Config | None = None
        self._runtime: Runtime | None = None
        self._from_config: list[dramatiq.Middleware] = []
        self._whitelist: set[str] | None = None
        self._lock = threading.RLock()
        _BROKERS.add(self)

    # -- configuration

    def configure(self, source: Source) -> None:
        """Use this configuration, from now on; before anything has started.

        Raises:
          RuntimeStateError: the runtime has started already.
          ConfigError: all problems of ``source``.
        """
        with self._lock:
            if self._runtime is not None:
                raise RuntimeStateError(
                    "jq_actors is already running; configure it before the first send, or close it."
                )
            self._source, self._config = source, None
            self.resolve()

    def resolve(self) -> Config:
        """The configuration; read, checked and built into the middleware chain at the first call.

        Raises:
          ConfigError: all problems, of the actors' options too.
        """
        with self._lock:
            if self._config is None:
                config = load_config(self._source)
                self._build_chain(config)
                problems = self._configure_actors(config)
                if problems:
                    raise ConfigError(problems)
                self._config = config
            return self._config

    def check_options(self, actor: JobActor[..., Any]) -> None:
        """Refuse options that no middleware knows; before the configuration is resolved, that is put off until then.

        Raises:
          ActorOptionError: names the option and what is allowed.
        """
        if self._config is not None:
            self._override_options(actor, self._config)
            for problem in self._option_problems(actor):
                raise ActorOptionError(str(problem))

    def _build_chain(self, config: Config) -> None:
        by_hand = [layer for layer in self.middleware if layer not in self._from_config]
        self.middleware, self.actor_options = [], set()
        self._from_config = build_middleware(config)
        for layer in [*self._from_config, *by_hand]:  # what the application added by hand is innermost
            self.add_middleware(layer)

    def _configure_actors(self, config: Config) -> list[Problem]:
        problems: list[Problem] = []
        for actor in self._job_actors():
            try:
                self._override_options(actor, config)
            except ActorOptionError as error:
                problems.append(Problem(f"actors.{actor.actor_name}", str(error)))
            problems.extend(self._option_problems(actor))
        return problems

    def _override_options(self, actor: JobActor[..., Any], config: Config) -> None:
        owner = f"Actor {actor.actor_name!r} in the configuration"
        actor.options.update(checked_options(owner, config.actors.get(actor.actor_name, {})))

    def _option_problems(self, actor: JobActor[..., Any]) -> list[Problem]:
        return [
            Problem(
                f"actor {actor.actor_name}",
                f"unknown option {name!r}; {did_you_mean(name, self.actor_options)}. "
                "An option belongs to a middleware: is it in `middleware:`?",
            )
            for name in sorted(set(actor.options) - self.actor_options)
        ]

    def _job_actors(self) -> list[JobActor[..., Any]]:
        return [actor for actor in self.actors.values() if isinstance(actor, JobActor)]

    # -- the runtime

    @property
    def runtime(self) -> Runtime:
        """The running runtime of this process; started at the first call.

        Raises:
          ConfigError: the configuration has problems.
        """
        with self._lock:
            if self._runtime is None:
                self.resolve()
                runtime = Runtime(self.resolve(), self, clock=self.clock, events=self.events)
                runtime.start()
                self._runtime = runtime
            return self._runtime

    @property
    def stores_rows(self) -> bool:
        """Whether a sending makes a row here, which the envelope then promises to the worker."""
        self.resolve()
        return any(isinstance(layer, JobMiddleware) and layer.brings_store for layer in self.middleware)

    @property
    def max_command_size(self) -> int:
        """Bytes that an encoded command may have."""
        return self.resolve().broker.max_command_size

    def close(self) -> None:
        """Send and write what is due, then stop. The next sending starts anew."""
        with self._lock:
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    def forget(self) -> None:
        """Start anew at first need; for a forked child.

        It has none of the parent's threads, and must not touch its sockets: the parent's objects are kept from being
        collected, which would close them.
        """
        _LEFT_BY_FORK.append(self._runtime)
        self._lock = threading.RLock()
        self._runtime = None

    # -- sending

    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands``; returns when they are safe.

        Raises:
          SendError: what is known of them then.
          RuntimeStateError: called on the I/O loop.
        """
        with self._hooked(commands):
            self.runtime.send(commands)

    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands`` from a coroutine of any loop; a cancelled caller does not tear the sending.

        Raises:
          SendError: what is known of them then.
        """
        with self._hooked(commands):
            await self.runtime.send_async(commands)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Dramatiq's way in: for its compositions, and for third parties. ``delay`` in milliseconds."""
        command = as_command(message, delay, self)
        self.send([command])
        return command

    @contextmanager
    def _hooked(self, commands: Sequence[JobCommand[Any]]) -> Iterator[None]:
        """Dramatiq's enqueue hooks of foreign middleware, on the sender's own thread."""
        for command in commands if self._has_enqueue_hooks() else ():
            self.emit_before("enqueue", command, _delay(command))
        check_sizes(commands, self.max_command_size)  # hooks write into the options
        yield
        for command in commands if self._has_enqueue_hooks() else ():
            self.emit_after("enqueue", command, _delay(command))

    def _has_enqueue_hooks(self) -> bool:
        plain = dramatiq.Middleware
        return any(
            type(layer).before_enqueue is not plain.before_enqueue
            or type(layer).after_enqueue is not plain.after_enqueue
            for layer in self.middleware
        )

    # -- Dramatiq's contract

    def declare_queue(self, queue_name: str) -> None:
        """Know a queue; it is made on the broker when it is first used."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)
        runtime = self._runtime
        if runtime is not None and runtime.serving is not None and self._serves(queue_name):
            runtime.io.loop.call_soon_threadsafe(runtime.serving.add_queue, queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> HandoffConsumer:
        """Dramatiq's worker takes the sync jobs of ``queue_name`` here; ``timeout`` in milliseconds."""
        serving = self.runtime.serving
        if serving is None:
            raise RuntimeStateError("consume() is for Dramatiq's worker: start one with `dramatiq jq_actors`.")
        return serving.handoff.consumer(queue_name, timeout)

    def flush(self, queue_name: str) -> None:
        """Dramatiq's hooks. What must not fail silently is done here: Dramatiq swallows the errors of hooks."""
        self.runtime.io.call(self.runtime.transport.purge(queue_name))

    def flush_all(self) -> None:
        """`flush` every declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Dramatiq's hooks. What must not fail silently happens here: Dramatiq swallows the errors of hooks."""
        match signal, args:
            case "worker_boot", (dramatiq.Worker() as worker,):
                self._boot(worker)
            case "process_message", (JobProxy() as proxy,):
                proxy.enter_context()
            case "worker_shutdown", _:
                self.runtime.drain()
        super().emit_before(signal, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Dramatiq's hooks, as above."""
        match signal, args:
            case "process_boot", _:
                self._import_actors()
            case "process_message", (JobProxy() as proxy,):
                proxy.result = kwargs.get("result")
            case "skip_message", (JobProxy() as proxy,):
                proxy.raised = proxy.raised or SkipMessage()
        try:
            super().emit_after(signal, *args, **kwargs)
        finally:
            match signal, args:
                case "process_message" | "skip_message", (JobProxy() as proxy,):
                    proxy.leave_context()

    def _import_actors(self) -> None:
        """The ``imports`` of the configuration; in a worker process, before the modules of the command line."""
        try:
            config = self.resolve()
        except ConfigError as error:
            self.logger.critical("%s", error)
            raise SystemExit(EXIT_CONFIG) from error
        for module in config.imports:
            importlib.import_module(module)

    def _boot(self, worker: dramatiq.Worker) -> None:
        self._whitelist = worker.consumer_whitelist or None
        self.runtime.serve([queue for queue in self.queues if self._serves(queue)], worker.worker_threads)

    def _serves(self, queue_name: str) -> bool:
        return self._whitelist is None or queue_name in self._whitelist


_BROKERS: weakref.WeakSet[JobBroker] = weakref.WeakSet()
_LEFT_BY_FORK: list[Runtime | None] = []

EXIT_CONFIG = 2
"""Exit code of a worker whose configuration or imports are wrong, as Dramatiq's RET_IMPORT."""


def _delay(command: JobCommand[Any]) -> int | None:
    due = command.due_at
    return None if due is None else max(int(due.timestamp() * 1000) - command.message_timestamp, 0)


def _forget_all() -> None:
    for broker in tuple(_BROKERS):
        broker.forget()


def _close_all() -> None:
    for broker in tuple(_BROKERS):
        broker.close()


os.register_at_fork(after_in_child=_forget_all)
# Registered when this module is imported: what an application registers later runs before it, and can still send.
atexit.register(_close_all)
