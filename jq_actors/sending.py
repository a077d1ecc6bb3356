"""The way of a command out of a process: through the enqueue chain, into a row, to the broker.

What a caller is told is exactly what is known (`SendError` and its kinds): with persistence a stored row is enough,
and the relay sends what the broker did not take; without it only the broker's confirm counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from .clock import Clock
from .command import JobCommand
from .errors import (
    NotStoredError,
    SendUnknownError,
    StoredNotSentError,
    StoreError,
    StoreUnavailableError,
    StoreUnknownError,
)
from .events import Events, JobEnqueued, MarkLost, SendDeferred
from .groups import GroupRules
from .ledger import new_row
from .store.port import JobStore
from .store.records import NewJob
from .transport.port import (
    Deferred,
    NotPublished,
    Outgoing,
    Published,
    PublishResult,
    PublishUnknown,
    Transport,
)

FIRST_CONNECT = 2.0
"""Seconds that the first sending of a process waits for the broker, when a row keeps the job anyway."""


class Sender:
    """The innermost step of the enqueue chain; on the I/O loop."""

    def __init__(
        self,
        transport: Transport,
        store: JobStore | None,
        clock: Clock,
        events: Events,
        *,
        deadline: timedelta,
        publish_lease: timedelta,
        rules: GroupRules,
        on_broker_down: Literal["store", "raise"] = "store",
    ) -> None:
        self._transport, self._store, self._rules = transport, store, rules
        self._clock, self._events = clock, events
        self._deadline = deadline.total_seconds()
        self._publish_lease, self._on_broker_down = publish_lease, on_broker_down
        self._connecting: asyncio.Task[None] | None = None
        self._waited = False
        self._marks: set[asyncio.Task[None]] = set()
        self.on_stored: Callable[[], None] = lambda: None
        """Called when rows were stored for the relay to send; a worker wakes its own relay."""

    async def connect(self) -> None:
        """Begin to connect to the broker, at the first call. Who only looks at jobs never does."""
        if self._connecting is None:
            # In an empty context: what runs for ever must not carry the variables of whatever was the first to send.
            self._connecting = Context().run(asyncio.create_task, self._transport.start())
        await asyncio.shield(self._connecting)

    async def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Store and publish; returns when the jobs are safe.

        Raises:
          NotStoredError, SendUnknownError: without persistence, or with the database away.
          StoredNotSentError: only with ``on_broker_down: raise``.
        """
        await self.connect()
        if self._store is None:
            self._require(commands, await self._transport.publish([self._outgoing(c) for c in commands]))
        else:
            await self._store_and_publish(self._store, commands)
        for command in commands:
            self._events.emit(JobEnqueued(command.job_id, command.actor_name, command.queue_name))

    async def close(self) -> None:
        """Wait for the marks that are being written."""
        if self._marks:
            await asyncio.wait(self._marks, timeout=self._deadline)

    def _outgoing(self, command: JobCommand[Any]) -> Outgoing:
        due, delay = command.due_at, None
        if due is not None and self._store is None:
            delay = max(due - self._clock.wall(), timedelta())
        queue, group, lane = command.queue_name, command.group, None
        if group is not None and not delay:  # held back by the broker, it comes by the plain queue, when it is due
            lane = self._rules.lane_of(queue, group)
        return Outgoing(command.job_id, 1, queue, command.encode(), command.priority, delay, lane, group)

    async def _store_and_publish(self, store: JobStore, commands: Sequence[JobCommand[Any]]) -> None:
        now = store.now()
        ready = [command for command in commands if command.due_at is None or command.due_at <= now]
        direct = await self._broker_is_there() and self._has_room(ready)
        await self._insert(store, [new_row(c, c.queue_name, now) for c in commands], direct)
        if not direct or len(ready) < len(commands):
            self.on_stored()
        if not direct:
            if ready and not self._transport.health.connected:
                self._deferred(ready, "no connection to the broker")
            return
        if ready:
            results = await self._transport.publish([self._outgoing(command) for command in ready])
            self._mark(store, ready, results)
            self._tell(ready, results)

    async def _broker_is_there(self) -> bool:
        if not self._waited and not self._transport.health.connected:
            await self._transport.wait_connected(min(FIRST_CONNECT, self._deadline))
        self._waited = True
        return self._transport.health.connected

    def _has_room(self, commands: Sequence[JobCommand[Any]]) -> bool:
        counts = Counter((command.queue_name, command.group is not None) for command in commands)
        return all(self._transport.capacity(queue, lanes=lanes) >= count for (queue, lanes), count in counts.items())

    async def _insert(self, store: JobStore, rows: Sequence[NewJob], direct: bool) -> None:
        ids = [row.id for row in rows]
        try:
            async with asyncio.timeout(self._deadline):
                await store.insert(rows, publish_lease=self._publish_lease if direct else None)
        except TimeoutError as error:
            raise SendUnknownError(
                f"The database did not answer within {self._deadline:g} s; {len(ids)} job(s) may be stored.", ids
            ) from error
        except StoreUnknownError as error:
            raise SendUnknownError(
                f"{len(ids)} job(s) may be stored, the commit had no answer: {error}", ids
            ) from error
        except StoreUnavailableError as error:
            raise NotStoredError(f"{len(ids)} job(s) not stored, the database is away: {error}", ids) from error
        except StoreError as error:
            raise NotStoredError(f"{len(ids)} job(s) not stored: {error}", ids) from error

    def _mark(self, store: JobStore, commands: Sequence[JobCommand[Any]], results: Sequence[PublishResult]) -> None:
        """Note in the rows what became of the publishing, without making the sender wait.

        Lost marks cost nothing but a second copy, which a claim refuses.
        """
        paired = list(zip(commands, results, strict=True))
        published = [(c.job_id, 1) for c, result in paired if isinstance(result, Published)]
        returned = [(c.job_id, 1) for c, result in paired if isinstance(result, NotPublished | Deferred)]
        # In a lane of this process a job is as mortal as the process: its row says whose lane it is.
        mark_published = partial(store.mark_published, lane_owner=not self._transport.shared)
        for write, dispatches in ((mark_published, published), (store.release_publish_lease, returned)):
            if dispatches:
                mark = asyncio.get_running_loop().create_task(self._written(write(dispatches)))
                self._marks.add(mark)
                mark.add_done_callback(self._marks.discard)

    async def _written(self, write: Any) -> None:
        try:
            await write
        except StoreError as error:
            self._events.emit(MarkLost(str(error)))

    def _tell(self, commands: Sequence[JobCommand[Any]], results: Sequence[PublishResult]) -> None:
        unsent = [
            (command, result)
            for command, result in zip(commands, results, strict=True)
            if isinstance(result, NotPublished | PublishUnknown)
        ]
        if unsent:
            self._deferred([command for command, _ in unsent], unsent[0][1].reason)

    def _deferred(self, commands: Sequence[JobCommand[Any]], reason: str) -> None:
        self._events.emit(SendDeferred(len(commands), reason))
        if self._on_broker_down == "raise":
            ids = [command.job_id for command in commands]
            raise StoredNotSentError(f"{len(ids)} job(s) stored, not yet sent: {reason}", ids)

    def _require(self, commands: Sequence[JobCommand[Any]], results: Sequence[PublishResult]) -> None:
        unknown = [c.job_id for c, r in zip(commands, results, strict=True) if isinstance(r, PublishUnknown)]
        refused = [c.job_id for c, r in zip(commands, results, strict=True) if isinstance(r, NotPublished | Deferred)]
        reasons = [r.reason for r in results if isinstance(r, NotPublished | PublishUnknown)]
        if unknown:
            raise SendUnknownError(
                f"{len(unknown)} job(s) not confirmed, they may run"
                + (f"; {len(refused)} more surely not sent ({', '.join(refused)})" if refused else "")
                + f": {reasons[0]}",
                unknown,
            )
        if refused:
            raise NotStoredError(f"{len(refused)} job(s) not sent: {reasons[0] if reasons else 'deferred'}", refused)
