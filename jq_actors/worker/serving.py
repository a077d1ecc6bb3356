"""The worker half of a process: intake, relay, lease and watch, started in order and drained in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import dramatiq

from jq_actors.chain.middleware import Process, compose_run
from jq_actors.concurrency.background import RESTART_DELAY, Background
from jq_actors.concurrency.loops import LoopThread
from jq_actors.config.loading import QueueConfig
from jq_actors.errors import StoreUnavailableError
from jq_actors.events import DrainFinished, DrainStarted, JobsReleased, RuntimeStarted
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.running_job import RunnableActor
from jq_actors.model.worker_identity import WorkerIdentity
from jq_actors.relay.dispatcher import Dispatcher
from jq_actors.relay.relay import Relay
from jq_actors.store.port import JobStore
from jq_actors.transport.port import Transport

from .actor_caller import NO_ACTOR, Caller
from .bridge import Bridge
from .broker_ledger import BrokerLedger
from .executor import Executor
from .handoff import Handoff
from .intake import THREADS, Intake, coroutines_of
from .ledger import Ledger, RowLedger
from .limits import BOARD_VARIABLE, LimitReporter
from .renewal import Renewal
from .watchdog import Watchdog

INTERRUPT_GRACE = 10.0
"""Seconds that interrupted jobs have for their ``finally`` blocks at the end of a drain."""
LEAVE_GRACE = 1.0
"""The same, when the process ends without a drain, or before its end: the second SIGTERM."""
LEAVE_TIMEOUT = 3.0
"""Seconds for removing the registration; otherwise other workers find it dead by its lease or pid."""
MAX_PREFETCH = 65535
"""AMQP counts it in 16 bits."""
OFFER_EVERY = 60.0
"""Seconds between two checks for jobs whose actor another worker did not know, and this one does."""


class WorkerProcess(Process, Protocol):
    """What a worker needs from its process, beyond what a middleware needs."""

    broker: dramatiq.Broker
    chain: tuple[dramatiq.Middleware, ...]
    io: LoopThread
    transport: Transport
    dispatcher: Dispatcher | None
    """Publishes rows; ``None`` without persistence."""

    @property
    def actors(self) -> Mapping[str, RunnableActor]:
        """The actors of this process, by name."""
        ...

    @property
    def persistence(self) -> Any | None:
        """The middleware that brought the store, with its options."""
        ...

    @property
    def has_groups(self) -> bool:
        """Whether a middleware provides the rules of groups; without one, this worker serves no lanes."""
        ...

    @property
    def groups(self) -> GroupRules:
        """The rules of groups."""
        ...


class Serving:
    """A worker. All methods but the constructor run on the I/O loop."""

    def __init__(self, process: WorkerProcess, identity: WorkerIdentity, threads: int) -> None:
        self.identity = identity
        self._process, self._threads = process, threads
        self._config, self._clock, self._events = process.config, process.clock, process.events
        self._store, self._transport = process.store, process.transport
        self.actor_loop = LoopThread("jq-actors")
        self.handoff = Handoff()
        max_result_size = None if process.persistence is None else process.persistence.max_result_size
        caller = Caller(process.broker, self.handoff, max_result_size)
        bridge = Bridge(process.io, self.actor_loop, compose_run(process.chain, caller))
        self._ledger = self._make_ledger()
        self.executor = Executor(self._ledger, bridge, process.actors, process.groups, self._clock, self._events)
        self.intake = Intake(self.executor, process.actors, threads, self._clock, self._events)
        self.watchdog = Watchdog(
            self.actor_loop, self._config.worker.block_warning.total_seconds(), self._clock, self._events
        )
        self._unsubscribe: Callable[[], None] = lambda: None
        self._reporter: LimitReporter | None = None
        self._queues: list[str] = []
        self._taken: set[str] = set()
        self._background = Background(self._events, self._clock)
        self._relay: Relay | None = None
        self._registered = self._is_ending = False

    async def start(self, queues: Sequence[str]) -> None:
        """Start everything; jobs of ``queues`` come as soon as broker and database are there. Never waits for them."""
        for queue in queues:
            self.add_queue(queue)
        self._background.keep("watchdog", self.watchdog.run)
        self._background.keep("sweeper", self._sweep)
        board = os.environ.get(BOARD_VARIABLE)
        if board is not None:
            self._report_limits(LimitReporter(self._events, Path(board), self._clock))
        self._background.keep("registration", self._begin)

    def add_queue(self, queue: str) -> None:
        """Serve one more queue. Does nothing if it is served already."""
        if queue not in self._queues:
            self._queues.append(queue)
            if self._registered:
                self._take(queue)

    def wake_relay(self) -> None:
        """Have the relay, if one runs yet, look at the rows now."""
        if self._relay is not None:
            self._relay.wake()

    async def drain(self, timeout: float) -> int:
        """Stop taking jobs, let running jobs finish, interrupt what still runs after ``timeout`` seconds.

        The lease is renewed all the while (A48). Returns how many jobs were interrupted.
        """
        await self._stop_intake()
        self._events.emit(DrainStarted(self.intake.busy))
        interrupted = 0
        if not await self.intake.idle(timeout):
            interrupted = await self._interrupt_all(INTERRUPT_GRACE)
        self._events.emit(DrainFinished(interrupted))
        return interrupted

    async def leave(self) -> None:
        """Interrupt what was not drained, end the background tasks, and the registration if nothing runs any more.

        If a job could not be stopped, this worker's row stays: through it others notice that the process is gone.
        """
        await self._stop_intake()
        if self.intake.busy:
            await self._interrupt_all(LEAVE_GRACE)
        self._unsubscribe()
        await self._background.stop()
        if self._reporter is not None:
            self._reporter.close()
        if self._store is not None and self._registered and self.intake.busy == 0:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._store.leave()

    async def _stop_intake(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            await self._transport.stop_intake()
        self.intake.close()

    async def _interrupt_all(self, grace: float) -> int:
        interrupted = self.executor.interrupt_all()
        await self.intake.idle(grace)
        return interrupted

    def _make_ledger(self) -> Ledger:
        if self._store is not None:
            return RowLedger(self._store, self._events)
        return BrokerLedger(self._transport.publish, self._process.groups, self._clock, self._events)

    async def _begin(self) -> None:
        # Claims point to this worker's row: it has to be there before the first delivery.
        if self._store is not None and not self._registered:
            await self._register(self._store)
        self._registered = True
        for queue in self._queues:
            self._take(queue)
        self._events.emit(RuntimeStarted(self.identity.id, ", ".join(self._queues)))

    async def _register(self, store: JobStore) -> None:
        while True:
            try:
                await store.register(self.identity, self._queues, self._config.worker.lease)
                await store.offer_unhandled(list(self._process.actors))
                break
            except StoreUnavailableError:
                await self._clock.sleep(RESTART_DELAY)
        self._background.keep("heartbeat", partial(self._heartbeat, store))
        dispatcher = self._process.dispatcher
        assert dispatcher is not None, "where rows are, they are dispatched"
        self._relay = relay = self._make_relay(store, dispatcher)
        dispatcher.notes.on_released = relay.wake
        self._transport.on_room = relay.wake
        store.on_due = relay.expect
        self._unsubscribe = self._events.subscribe(JobsReleased, lambda _: relay.wake())
        self._background.keep("relay", relay.run)

    def _make_relay(self, store: JobStore, dispatcher: Dispatcher) -> Relay:
        persistence = self._process.persistence
        assert persistence is not None
        return Relay(
            store,
            self._transport,
            dispatcher,
            self._clock,
            self._events,
            queues=self._queues,
            interval=persistence.relay_interval,
            publish_lease=persistence.leases.publish,
            retention=persistence.leases.retention,
            held=self.intake.waiting,
        )

    def _report_limits(self, reporter: LimitReporter) -> None:
        self._reporter = reporter
        if reporter.watches_empty:
            self._background.keep(
                "empty watch",
                lambda: reporter.watch_empty(
                    self._queues, store=self._store, transport=self._transport, in_hand=lambda: self.intake.in_hand
                ),
            )

    def _take(self, queue: str) -> None:
        if queue in self._taken or self._is_ending:
            return
        limits = self._config.queues.get(queue, QueueConfig())
        self.intake.serve(queue, limits.concurrency)
        at_once = self._at_once(queue, limits)
        # Half as much again, so that a slot that gets free is not empty for a round trip.
        self._transport.want(queue, min(at_once + max(1, at_once // 2), MAX_PREFETCH), self.intake.deliver)
        if self._store is not None:
            self._store.fits = {**self._store.fits, **self._fits(queue)}
        elif self._process.has_groups:
            slots = min(at_once, MAX_PREFETCH)
            self._transport.serve_lanes(queue, slots, self._process.groups.fairness, self.intake.deliver)
        self._taken.add(queue)

    def _fits(self, queue: str) -> dict[str, frozenset[tuple[str, str]]]:
        """What of ``queue`` can follow another job of its group, in the slots of this process."""
        actors = [actor for actor in self._process.actors.values() if actor.queue_name == queue]
        threads = frozenset((queue, actor.actor_name) for actor in actors if not actor.is_async)
        assert self._store is not None
        return {
            coroutines_of(queue): frozenset((queue, actor.actor_name) for actor in actors if actor.is_async),
            THREADS: self._store.fits.get(THREADS, frozenset()) | threads,
        }

    def _at_once(self, queue: str, limits: QueueConfig) -> int:
        """How many jobs of a queue can run at once."""
        kinds = {actor.is_async for actor in self._process.actors.values() if actor.queue_name == queue}
        return (limits.concurrency if True in kinds or not kinds else 0) + (self._threads if False in kinds else 0)

    async def _heartbeat(self, store: JobStore) -> None:
        interval = self._config.worker.lease.total_seconds() / 3
        offer_at = self._clock.monotonic() + OFFER_EVERY
        while True:
            try:
                await store.heartbeat(self.intake.waiting())
                await self._ledger.requeue_forgotten()
                if self._clock.monotonic() >= offer_at:
                    # What a worker of an older release did not know while this one was here already.
                    await store.offer_unhandled(list(self._process.actors), NO_ACTOR)
                    offer_at = self._clock.monotonic() + OFFER_EVERY
                await self._clock.sleep(interval)
            except StoreUnavailableError:  # the store reports it itself (`StoreLost`)
                await self._clock.sleep(min(interval, RESTART_DELAY))

    async def _sweep(self) -> None:
        timeout = self._transport.delivery_timeout
        if timeout is None:
            return
        third, renewal = timeout / 3, Renewal(self._transport, self._events)
        while True:
            await self._clock.sleep(min(max(third.total_seconds() / 4, 0.25), 60.0))
            if self._store is not None:
                self.executor.ack_early(third)
            self.intake.return_waiting(third.total_seconds(), renewal.give_back)
