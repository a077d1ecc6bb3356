"""How a command leaves a process: through the enqueue chain, into a row, to the broker.

The caller learns exactly what is known (`SendError` and its kinds): with persistence a committed row is enough,
and the `Dispatcher` or a relay brings it to the broker; without it only the broker's confirm counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import timedelta
from typing import Any, Literal

from jq_actors.clock import Clock
from jq_actors.errors import (
    NotStoredError,
    SendUnknownError,
    StoredNotSentError,
    StoreError,
    StoreUnavailableError,
    StoreUnknownError,
)
from jq_actors.events import Events, JobEnqueued, SendDeferred
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobId
from jq_actors.relay.dispatcher import Dispatcher
from jq_actors.store.port import JobStore
from jq_actors.store.records import Dispatch, NewJob
from jq_actors.transport.port import Deferred, NotPublished, Outgoing, PublishResult, PublishUnknown, Transport
from jq_actors.worker.ledger import new_row


class Sender:
    """The innermost step of the enqueue chain; on the I/O loop.

    Parameters:
      dispatcher: publishes what is stored; ``None``: nothing is, jobs go to the broker alone.
    """

    def __init__(
        self,
        transport: Transport,
        dispatcher: Dispatcher | None,
        clock: Clock,
        events: Events,
        *,
        deadline: timedelta,
        publish_lease: timedelta,
        rules: GroupRules,
        on_broker_down: Literal["store", "raise"] = "store",
    ) -> None:
        self._transport, self._dispatcher, self._rules = transport, dispatcher, rules
        self._clock, self._events = clock, events
        self._deadline = deadline.total_seconds()
        self._publish_lease, self._on_broker_down = publish_lease, on_broker_down
        self._connecting: asyncio.Task[None] | None = None
        self.on_stored: Callable[[], None] = lambda: None
        """Called when rows were stored for the relay to send; a worker wakes its own relay."""

    async def connect(self) -> None:
        """Start connecting to the broker at the first call. A process that only reads jobs never connects."""
        if self._connecting is None:
            # In an empty context: a task that runs for ever must not keep the context variables of the first sender.
            self._connecting = Context().run(asyncio.create_task, self._transport.start())
        await asyncio.shield(self._connecting)

    async def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Returns when the jobs are safe: with persistence their rows are committed, and published behind the caller.

        Raises:
          NotStoredError, SendUnknownError: without persistence, or with the database away.
          StoredNotSentError: only with ``on_broker_down: raise``.
        """
        await self.connect()
        if self._dispatcher is None:
            self._require(commands, await self._transport.publish([self._outgoing(c) for c in commands]))
        else:
            await self._store(self._dispatcher, commands)
        for command in commands:
            self._events.emit(JobEnqueued(command.job_id, command.actor_name, command.queue_name))

    def _outgoing(self, command: JobCommand[Any]) -> Outgoing:
        due, delay = command.due_at, None
        if due is not None:
            delay = max(due - self._clock.wall(), timedelta())
        queue, group, lane = command.queue_name, command.group, None
        if group is not None and not delay:  # a delayed job comes by the plain queue when it is due
            lane = self._rules.lane_of(queue, group)
        return Outgoing(command.job_id, 1, queue, command.encode(), command.priority, delay, lane, group)

    async def _store(self, dispatcher: Dispatcher, commands: Sequence[JobCommand[Any]]) -> None:
        now = dispatcher.store.now()
        for command in commands:
            command.count_from(now)
        rows = [new_row(command, command.queue_name, now) for command in commands]
        ready = [row for row in rows if row.due_at <= now]
        waits = self._on_broker_down == "raise"
        direct = await (dispatcher.connected() if waits else dispatcher.room()) and self._has_room(ready)
        dispatches = await self._insert(dispatcher.store, rows, direct)
        if not direct or len(ready) < len(rows):
            self.on_stored()
        if not direct and ready and dispatcher.obstacle is not None:
            self._deferred([row.id for row in ready], dispatcher.obstacle)
        if waits and dispatches:
            self._report_unsent(dispatches, await dispatcher.confirm(dispatches))
        else:
            dispatcher.dispatch(dispatches)

    def _has_room(self, rows: Sequence[NewJob]) -> bool:
        if self._transport.shared:
            return True
        counts = Counter(row.queue for row in rows)
        return all(self._transport.capacity(queue) >= count for queue, count in counts.items())

    async def _insert(self, store: JobStore, rows: Sequence[NewJob], direct: bool) -> list[Dispatch]:
        ids = [row.id for row in rows]
        try:
            async with asyncio.timeout(self._deadline):
                return await store.insert(rows, publish_lease=self._publish_lease if direct else None)
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

    def _report_unsent(self, dispatches: Sequence[Dispatch], results: Sequence[PublishResult]) -> None:
        unsent = [
            (dispatch.job_id, result.reason)
            for dispatch, result in zip(dispatches, results, strict=True)
            if isinstance(result, NotPublished | PublishUnknown)
        ]
        if unsent:
            self._deferred([job_id for job_id, _ in unsent], unsent[0][1])

    def _deferred(self, ids: Sequence[JobId], reason: str) -> None:
        self._events.emit(SendDeferred(len(ids), reason))
        if self._on_broker_down == "raise":
            raise StoredNotSentError(f"{len(ids)} job(s) stored, not yet sent: {reason}", ids)

    def _require(self, commands: Sequence[JobCommand[Any]], results: Sequence[PublishResult]) -> None:
        unknown = [c.job_id for c, r in zip(commands, results, strict=True) if isinstance(r, PublishUnknown)]
        refused = [c.job_id for c, r in zip(commands, results, strict=True) if isinstance(r, NotPublished | Deferred)]
        reasons = [r.reason for r in results if isinstance(r, NotPublished | PublishUnknown)]
        if unknown:
            raise SendUnknownError(
                f"{len(unknown)} job(s) not confirmed, they may run"
                + (f"; {len(refused)} definitely not sent ({', '.join(refused)})" if refused else "")
                + f": {reasons[0]}",
                unknown,
            )
        if refused:
            raise NotStoredError(f"{len(refused)} job(s) not sent: {reasons[0] if reasons else 'deferred'}", refused)
