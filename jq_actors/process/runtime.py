"""The composition root: one process's loops, transport, store, chain and executor, started and stopped in order.

A producer has the I/O loop alone; a worker (`serve`) adds the actor loop, the intake and the relay.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack
from contextvars import Context
from functools import partial
from typing import Any

import dramatiq

from jq_actors.chain.middleware import JobMiddleware, compose_enqueue
from jq_actors.clock import Clock, SystemClock
from jq_actors.concurrency.loops import LoopThread
from jq_actors.config.loading import Config
from jq_actors.errors import RequiresPersistenceError
from jq_actors.events import CloseFailed, Events
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.outcome import failure_of
from jq_actors.model.running_job import RunnableActor
from jq_actors.model.worker_identity import identify
from jq_actors.relay.dispatcher import Dispatcher
from jq_actors.store.port import JobStore
from jq_actors.transport.adapters import MakeTransport, adapter_for
from jq_actors.worker.serving import Serving

from .garbage import collect_less_often
from .job_ends import Ends
from .sender import Sender

WORKER_ID_VARIABLE = "JQ_WORKER_ID"
"""Environment variable with what the operator calls this worker (``jq-actors worker --id``)."""
CLOSE_TIMEOUT = 20.0
"""Seconds that closing may take: pending acks, outcomes and marks are written; the rest is abandoned."""
SENDINGS_TIMEOUT = 5.0
"""Seconds of them for the sendings that are under way; then the broker is closed, and they get their errors."""
PUBLISHING_TIMEOUT = 1.0
"""Seconds of them for the publishing of what is stored; relays publish the rest."""


class Runtime:
    """What one process needs to send and to run jobs. Thread-safe where it says so.

    Parameters:
      config: the checked configuration.
      broker: Dramatiq's face; its middleware is the chain, its actors are what can run here.
    """

    def __init__(
        self, config: Config, broker: dramatiq.Broker, *, clock: Clock | None = None, events: Events | None = None
    ) -> None:
        self.config, self.broker = config, broker
        self.clock = clock or SystemClock()
        self.events = events or Events()
        self.ends = Ends(self.clock, self.events)
        self.io = LoopThread("jq-io")
        self.chain: tuple[dramatiq.Middleware, ...] = tuple(broker.middleware)
        self.store: JobStore | None = None
        self.dispatcher: Dispatcher | None = None
        """Publishes what was stored; ``None`` without persistence."""
        self.serving: Serving | None = None
        self._lock = threading.Lock()
        self._started: Future[bool] | None = None
        self.is_up = False
        """Whether it was started; `start` has nothing to wait for any more."""
        self._closing = AsyncExitStack()
        self._sendings = 0
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    @property
    def actors(self) -> Mapping[str, RunnableActor]:
        """What can run here."""
        return self.broker.actors  # type: ignore[return-value]  # JobBroker declares nothing else

    @property
    def persistence(self) -> Any | None:
        """The middleware that brought the store; ``None`` without one."""
        return next((m for m in self.chain if isinstance(m, JobMiddleware) and m.brings_store), None)

    @property
    def has_groups(self) -> bool:
        """Whether a middleware provides the rules of groups; without one, none are served here."""
        return self._group_rules is not None

    @property
    def groups(self) -> GroupRules:
        """The rules of groups."""
        return self._group_rules or GroupRules()

    @property
    def _group_rules(self) -> GroupRules | None:
        return next((layer.group_rules for layer in self._layers() if layer.group_rules is not None), None)

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs on one of its loops."""
        return self.io.is_current or (self.serving is not None and self.serving.actor_loop.is_current)

    def start(self) -> bool:
        """Start the I/O loop, and what needs no broker. Any thread; the first call does it, the others wait for that.

        ``False``: it was closed before. When it raises, nothing of this runtime is left running.
        """
        if self.is_up or self.io.is_current:
            return True  # on the loop: a middleware's `on_start`, which may send; what that needs is there already
        with self._lock:
            is_first = self._started is None
            started = self._started = self._started or Future()
        if is_first:
            try:
                self._start_all()
            except BaseException as error:  # noqa: BLE001 - raised below, here and wherever somebody waits
                started.set_exception(error)
                self.close()
            else:
                self.is_up = True
                started.set_result(True)
        return started.result()

    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send through the enqueue chain, and wait. Any thread but the I/O loop's."""
        self.io.call(self._send(commands))

    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send through the enqueue chain, from any loop. Cancelling the caller does not interrupt the send."""
        await self.io.run(self._send(commands))

    def require_store(self, what: str) -> JobStore:
        """The store.

        Raises:
          RequiresPersistenceError: there is none, and ``what`` needs it.
        """
        if self.store is None:
            raise RequiresPersistenceError(what)
        return self.store

    def serve(self, queues: Sequence[str], threads: int) -> Serving:
        """Become a worker: run jobs of ``queues``, sync ones in ``threads`` threads. Any thread.

        A second call ends the worker of the first, which should be drained, and makes another one.
        """
        self._end_serving()
        self.serving = Serving(self, identify(self.clock, os.environ.get(WORKER_ID_VARIABLE)), threads)
        self.serving.actor_loop.start()
        collect_less_often()
        Context().run(self.io.call, self._serve(self.serving, queues))
        return self.serving

    def add_queue(self, queue: str) -> None:
        """Serve one more queue; a worker only. Any thread."""
        if self.serving is not None:
            self.io.loop.call_soon_threadsafe(self.serving.add_queue, queue)

    def purge(self, queue: str) -> int:
        """Throw away the messages that wait in ``queue``; returns how many. Any thread.

        Raises:
          TransportError: the broker cannot be reached.
        """
        return self.io.call(self._purge(queue))

    def drain(self) -> int:
        """Let running jobs finish, up to ``worker.shutdown_timeout``; returns how many were interrupted. Any thread."""
        if self.serving is None:
            return 0
        return self.io.call(self.serving.drain(self.config.worker.shutdown_timeout.total_seconds()))

    def close(self) -> None:
        """Write and send what is due, then stop the loops. Any thread but these; a second call does nothing."""
        self._end_starting()
        try:
            if self.io.is_alive:
                self.io.call(self._closing.aclose(), CLOSE_TIMEOUT)
        except TimeoutError:
            self.events.emit(CloseFailed("the runtime", f"not done within {CLOSE_TIMEOUT:g} s"))
        finally:
            if self.serving is not None:
                self.serving.actor_loop.stop()
            self.io.stop()

    def _end_starting(self) -> None:
        with self._lock:
            if self._started is None:
                self._started = Future()
                self._started.set_result(False)
            started = self._started
        wait([started], CLOSE_TIMEOUT)  # starting in another thread: a half-started runtime cannot be closed

    def _start_all(self) -> None:
        # Adapters are imported here: that reads files, which must not happen on a loop.
        make_transport = adapter_for(self.config.broker.url)
        for layer in self._layers():
            self.store = self.store or layer.open_store(self)
        self.io.start()
        # In an empty context: a task that runs for ever must not keep the context variables of the first sender.
        starting = Context().run(self.io.submit, self._start(make_transport))
        try:
            starting.result()
        except BaseException:
            starting.cancel()
            raise

    async def _start(self, make_transport: MakeTransport) -> None:
        self.transport = make_transport(self.config.broker, self.clock, self.events, has_store=self.store is not None)
        persistence = self.persistence
        if self.store is not None:
            parts = self.transport, self.store, self.clock, self.events
            self.dispatcher = Dispatcher(*parts, config=self.config.broker)
            self.store.on_released = self.dispatcher.dispatch
        self.sender = Sender(
            self.transport,
            self.dispatcher,
            self.clock,
            self.events,
            deadline=self.config.broker.confirm_timeout,
            publish_lease=persistence.leases.publish if persistence else self.config.broker.confirm_timeout,
            rules=self.groups,
            on_broker_down=persistence.on_broker_down if persistence else "raise",
        )
        self._enqueue = compose_enqueue(self.chain, self.sender.send)
        # What is started first is closed last.
        if self.store is not None:
            self.store.rules = self.groups
            self._at_close("the store", self.store.close)
            await self.store.open()
        if self.dispatcher is not None:
            self._at_close("the dispatcher", partial(self.dispatcher.written, PUBLISHING_TIMEOUT))
        self._at_close("the transport", self.transport.close)
        self._at_close("the worker", self._leave)
        self._at_close("the sender", self._finish_sendings)
        for layer in self._layers():
            await layer.on_start(self)
            self._at_close(f"middleware {type(layer).__name__}", partial(layer.on_stop, self))

    async def _serve(self, serving: Serving, queues: Sequence[str]) -> None:
        self.sender.on_stored = serving.wake_relay
        await self.sender.connect()
        await serving.start(queues)

    async def _purge(self, queue: str) -> int:
        await self.sender.connect()
        await self.transport.wait_connected(self.config.broker.confirm_timeout.total_seconds())
        return await self.transport.purge(queue)

    def _at_close(self, what: str, close: Callable[[], Awaitable[None]]) -> None:
        self._closing.push_async_callback(self._close_part, what, close)

    async def _close_part(self, what: str, close: Callable[[], Awaitable[None]]) -> None:
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are closed, too
            failure = failure_of(error)
            self.events.emit(CloseFailed(what, failure.error, failure.traceback))

    async def _send(self, commands: Sequence[JobCommand[Any]]) -> None:
        self._sendings += 1
        self._all_sent.clear()
        try:
            await self._enqueue(commands)
        finally:
            self._sendings -= 1
            if not self._sendings:
                self._all_sent.set()

    async def _finish_sendings(self) -> None:
        try:
            async with asyncio.timeout(SENDINGS_TIMEOUT):
                await self._all_sent.wait()
        except TimeoutError:
            self.events.emit(CloseFailed("the sender", f"{self._sendings} sending(s) still wait for an answer"))
        if self.dispatcher is not None:
            # Before the worker leaves: by then the jobs in its memory have to be marked as its own.
            await self.dispatcher.close(PUBLISHING_TIMEOUT)

    async def _leave(self) -> None:
        if self.serving is not None:
            await self.serving.leave()

    def _end_serving(self) -> None:
        if self.serving is not None:
            self.io.call(self._close_part("the worker before", self.serving.leave))
            self.serving.actor_loop.stop()
            self.serving = None

    def _layers(self) -> list[JobMiddleware]:
        return [layer for layer in self.chain if isinstance(layer, JobMiddleware)]
