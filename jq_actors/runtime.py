"""The composition root: one process's loops, transport, store, chain and executor, started and stopped in order.

A producer has the I/O loop alone; a worker (`serve`) adds the actor loop, the intake and the relay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dramatiq

from .clock import Clock, SystemClock
from .command import JobCommand
from .config import Config
from .errors import RequiresPersistenceError
from .events import Events
from .loops import LoopThread
from .middleware import JobMiddleware, compose_enqueue
from .sending import Sender
from .serving import Serving
from .store.port import JobStore
from .transport import MakeTransport, adapter_for
from .worker import identify

if TYPE_CHECKING:
    from .actor import JobActor

WORKER_ID_VARIABLE = "JQ_WORKER_ID"
"""Environment variable with what the operator calls this worker (``jq-actors worker --id``)."""
CLOSE_TIMEOUT = 10.0
"""Seconds that closing may take: due acks, outcomes and marks are written, then it is over."""


class Runtime:
    """What one process needs to send and to run jobs. Thread-safe where it says so.

    Parameters:
      config: the checked configuration.
      broker: Dramatiq's face; its middleware is the chain, its actors are what can run here.
    """

    def __init__(
        self,
        config: Config,
        broker: dramatiq.Broker,
        *,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self.config, self.broker = config, broker
        self.clock = clock or SystemClock()
        self.events = events or Events()
        self.io = LoopThread("jq-io")
        self.chain: tuple[dramatiq.Middleware, ...] = tuple(broker.middleware)
        self.store: JobStore | None = None
        self.serving: Serving | None = None

    @property
    def actors(self) -> Mapping[str, JobActor[..., Any]]:
        """What can run here."""
        return self.broker.actors  # type: ignore[return-value]  # JobBroker declares nothing else

    @property
    def persistence(self) -> Any | None:
        """The middleware that brought the store; ``None`` without one."""
        return next((m for m in self.chain if isinstance(m, JobMiddleware) and m.brings_store), None)

    def start(self) -> None:
        """Start the I/O loop, and begin to connect. Any thread."""
        # Adapters are imported here: that reads files, which must not happen on a loop.
        make_transport = adapter_for(self.config.broker.url)
        for layer in self._layers():
            self.store = self.store or layer.open_store(self)
        self.io.start()
        self.io.call(self._start(make_transport))

    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send through the enqueue chain, and wait. Any thread but the I/O loop's."""
        self.io.call(self._enqueue(commands))

    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send through the enqueue chain, from any loop. A cancelled caller does not tear a sending."""
        await self.io.run(self._enqueue(commands))

    def require_store(self, what: str) -> JobStore:
        """The store.

        Raises:
          RequiresPersistenceError: there is none, and ``what`` needs it.
        """
        if self.store is None:
            raise RequiresPersistenceError(what)
        return self.store

    def serve(self, queues: Sequence[str], threads: int) -> Serving:
        """Become a worker: run jobs of ``queues``, sync ones in ``threads`` threads. Any thread, once."""
        self.serving = Serving(self, identify(self.clock, os.environ.get(WORKER_ID_VARIABLE)), threads)
        self.serving.actor_loop.start()
        self.io.call(self.serving.start(queues))
        return self.serving

    def drain(self) -> int:
        """Let the jobs that run come to their end, up to ``worker.shutdown_timeout``. Any thread."""
        if self.serving is None:
            return 0
        return self.io.call(self.serving.drain(self.config.worker.shutdown_timeout.total_seconds()))

    def close(self) -> None:
        """Write and send what is due, then stop the loops. Any thread; a second call does nothing."""
        if not self.io.is_alive:
            return
        try:
            self.io.call(self._stop(), CLOSE_TIMEOUT)
        finally:
            if self.serving is not None:
                self.serving.actor_loop.stop()
            self.io.stop()

    async def _start(self, make_transport: MakeTransport) -> None:
        self.transport = make_transport(self.config.broker, self.clock, self.events, has_store=self.store is not None)
        persistence = self.persistence
        self.sender = Sender(
            self.transport,
            self.store,
            self.clock,
            self.events,
            deadline=self.config.broker.confirm_timeout,
            publish_lease=persistence.leases.publish if persistence else self.config.broker.confirm_timeout,
            on_broker_down=persistence.on_broker_down if persistence else "raise",
        )
        self._enqueue = compose_enqueue(self.chain, self.sender.send)
        if self.store is not None:
            await self.store.open()
        await self.transport.start()
        for layer in self._layers():
            await layer.on_start(self)

    async def _stop(self) -> None:
        for layer in reversed(self._layers()):
            await layer.on_stop(self)
        await self.sender.close()
        if self.serving is not None:
            await self.serving.leave()
        await self.transport.close()
        if self.store is not None:
            await self.store.close()

    def _layers(self) -> list[JobMiddleware]:
        return [layer for layer in self.chain if isinstance(layer, JobMiddleware)]
