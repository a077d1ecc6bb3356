"""Dramatiq's face: a :class:`JobBroker` is a ``dramatiq.Broker``, so that Dramatiq's CLI, actors and middleware work.

It reads no configuration until first need: the first sending, the boot of a worker, or `runtime`.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.middleware import SkipMessage

from jq_actors.actors.actor import JobActor
from jq_actors.actors.command_builder import as_command, check_sizes
from jq_actors.actors.config_check import apply_config
from jq_actors.actors.sending_broker import SendingBroker
from jq_actors.chain.loading import build_middleware, find_problems
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.clock import Clock, SystemClock
from jq_actors.concurrency.in_thread import in_thread
from jq_actors.config.loading import Config, Source, load_config
from jq_actors.errors import ActorOptionError, ConfigError, JobQueueError, RuntimeStateError
from jq_actors.events import Events
from jq_actors.model.command import JobCommand
from jq_actors.worker.handoff import HandoffConsumer, JobProxy

from .enqueue_hooks import enqueue_hooks
from .lifetime import close_with_child, leave_uncollected, watch
from .runtime import Runtime


class JobBroker(SendingBroker):
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
        self._is_worker_process = False
        self._lock = threading.RLock()
        watch(self)

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
                config = load_config(self._source, find_problems)
                self._build_chain(config)
                problems = [
                    problem
                    for actor in self.actors.values()
                    if isinstance(actor, JobActor)
                    for problem in apply_config(actor, config, self.actor_options)
                ]
                if problems:
                    raise ConfigError(problems)
                self._config = config
            return self._config

    def _build_chain(self, config: Config) -> None:
        by_hand = [layer for layer in self.middleware if layer not in self._from_config]
        self.middleware, self.actor_options = [], set()
        self._from_config = build_middleware(config)
        for layer in [*self._from_config, *by_hand]:  # what the application added by hand is innermost
            self.add_middleware(layer)

    # -- the runtime

    @property
    def runtime(self) -> Runtime:
        """The running runtime of this process; started at the first call.

        Raises:
          ConfigError: the configuration has problems.
          JobQueueError: it cannot start, such as `NotMigratedError`; the next call tries again.
        """
        while True:
            with self._lock:
                config = self.resolve()
                if self._runtime is None:
                    self._runtime = Runtime(config, self, clock=self.clock, events=self.events)
                    close_with_child()
                runtime = self._runtime
            try:
                # Without the lock: a middleware that is started, on the I/O loop, may come here to send.
                if runtime.start():
                    return runtime
            except BaseException:
                with self._lock:
                    if self._runtime is runtime:
                        self._runtime = None
                raise

    async def runtime_async(self) -> Runtime:
        """Twin of `runtime`: a start, which may wait for a database, does not block the loop of the caller."""
        runtime = self._runtime
        if runtime is not None and (runtime.is_up or runtime.is_own_thread):
            return runtime
        return await in_thread(lambda: self.runtime)

    @property
    def stores_rows(self) -> bool:
        """Whether a sending makes a row here, which the envelope then promises to the worker."""
        self.resolve()
        return any(isinstance(layer, JobMiddleware) and layer.brings_store for layer in self.middleware)

    @property
    def max_command_size(self) -> int:
        """The most bytes that an encoded command may have."""
        return self.resolve().broker.max_command_size

    def close(self) -> None:
        """Finish pending sends and writes, then stop. The next send starts a new runtime.

        Raises:
          RuntimeStateError: called on a loop of ours, by a middleware or an async actor.
        """
        with self._lock:
            if self._runtime is not None and self._runtime.is_own_thread:
                raise RuntimeStateError("A loop of jq_actors cannot close what it runs in; close from another thread.")
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    def forget(self) -> None:
        """Drop the runtime in a forked child; the next use starts a new one.

        It has none of the parent's threads, and must not touch its sockets: the parent's objects are kept from being
        collected, which would close them.
        """
        if self._runtime is not None:
            leave_uncollected(self._runtime)
        self._lock = threading.RLock()
        self._runtime = None

    # -- sending

    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands``; returns when they are safe.

        Raises:
          SendError: its kind says what is known of the jobs.
          RuntimeStateError: called on the I/O loop.
        """
        with enqueue_hooks(self, commands):
            check_sizes(commands, self.max_command_size)  # hooks write into the options
            self.runtime.send(commands)

    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands`` from a coroutine of any loop; cancelling the caller does not interrupt the send.

        Raises:
          SendError: its kind says what is known of the jobs.
        """
        with enqueue_hooks(self, commands):
            check_sizes(commands, self.max_command_size)
            await (await self.runtime_async()).send_async(commands)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Dramatiq's way in: for its compositions, and for third parties. ``delay`` in milliseconds."""
        command = as_command(message, delay, self)
        self.send([command])
        return command

    # -- Dramatiq's contract

    def declare_actor(self, actor: dramatiq.Actor[Any, Any]) -> None:
        """Register an actor. Options that no middleware knows are refused here, or when the configuration is resolved.

        Raises:
          ActorOptionError: names the option and what is allowed.
        """
        if self._config is not None and isinstance(actor, JobActor):
            for problem in apply_config(actor, self._config, self.actor_options):
                raise ActorOptionError(str(problem))
        super().declare_actor(actor)

    def declare_queue(self, queue_name: str) -> None:
        """Register a queue; it is created on the broker at its first use."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)
        runtime = self._runtime
        if runtime is not None and runtime.serving is not None and self._serves(queue_name):
            runtime.add_queue(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> HandoffConsumer:
        """Dramatiq's worker takes the sync jobs of ``queue_name`` here; ``timeout`` in milliseconds."""
        serving = None if self._runtime is None else self._runtime.serving
        if serving is None:
            raise RuntimeStateError("consume() is for Dramatiq's worker: start one with `dramatiq jq_actors`.")
        return serving.handoff.consumer(queue_name, timeout)

    def flush(self, queue_name: str) -> None:
        """Throw away the messages that wait in ``queue_name``; with persistence the relay sends their rows again."""
        self.runtime.purge(queue_name)

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
            case "worker_shutdown", _ if self._runtime is not None:
                self._runtime.drain()
        super().emit_before(signal, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Dramatiq's hooks, as above."""
        match signal, args:
            case "process_boot", _:
                self._is_worker_process = True
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
        with self._ending_the_process():
            config = self.resolve()
        for module in config.imports:
            importlib.import_module(module)

    def _boot(self, worker: dramatiq.Worker) -> None:
        self._whitelist = worker.consumer_whitelist or None
        with self._ending_the_process():
            runtime = self.runtime
            runtime.serve([queue for queue in self.queues if self._serves(queue)], worker.worker_threads)
        for queue in tuple(self.queues):  # once more: another thread may have declared one since
            if self._serves(queue):
                runtime.add_queue(queue)

    @contextmanager
    def _ending_the_process(self) -> Iterator[None]:
        """End a worker process with the message of an error that no restart repairs, such as a wrong configuration."""
        try:
            yield
        except JobQueueError as error:
            if not self._is_worker_process:
                raise
            self.logger.critical("%s", error)
            raise SystemExit(EXIT_CONFIG) from error

    def _serves(self, queue_name: str) -> bool:
        return self._whitelist is None or queue_name in self._whitelist


EXIT_CONFIG = 2
"""Exit code of a worker whose configuration, imports or tables are wrong, as Dramatiq's RET_IMPORT."""
