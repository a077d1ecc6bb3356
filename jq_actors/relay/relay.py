"""The relay: moves rows to the broker, gives back the jobs of lost workers, deletes expired rows.

Every worker runs one. Several at once are safe: a row that a relay publishes is leased to it before. A check is
one small method; `Relay.run` calls each when it is due. By the numbers of DESIGN §11 they are:

1. `publish_due`: scheduled and retrying rows whose time has come;
2. `publish_unpublished`: rows that no producer brought to the broker (it died, or the broker was away);
3. `end_gaps`: jobs of numbered groups that waited too long for a number;
4. `recover_lost`: running rows whose worker's lease is over;
5. `count_missing`, then `publish_missing`: queued rows that the broker no longer has;
6. `mend_groups`: groups that could move and do not, which would be a defect: they are recounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Never

from jq_actors.clock import Clock
from jq_actors.concurrency.doorbell import Doorbell
from jq_actors.errors import StoreUnavailableError
from jq_actors.events import Events, JobsPruned, JobsReleased, TaskFailed, WorkerLost
from jq_actors.model.outcome import failure_of
from jq_actors.store.port import JobStore
from jq_actors.store.records import Retention
from jq_actors.transport.port import Transport

from .dispatcher import Dispatcher
from .missing import MissingRows

BATCH = 500
"""Most rows that one check takes. After a full batch the check runs again at once."""
STALE_AFTER = timedelta(seconds=30)
"""A row that was published longer ago, and is still queued, should be found in the broker's counts."""
RECOVER_EVERY = timedelta(seconds=5)
MEND_EVERY = timedelta(seconds=10)
COUNT_EVERY = timedelta(seconds=15)
"""Further apart than a worker's heartbeats (10 s by default), which a count relies on: see `MissingRows`."""
PRUNE_EVERY = timedelta(minutes=1)
SHORTEST_PAUSE = 0.005
"""Seconds. Rows that are due and locked by another relay must not keep this one running in circles."""
FINISH_TIMEOUT = 2.0
"""Seconds that a check has to finish when the relay is stopped."""
PRUNE_PACE = timedelta(milliseconds=100)
"""The pause after a full batch: deleting must keep up with what ends, and not crowd out what runs."""


class Relay:
    """The relay of one worker; everything here runs on the I/O loop.

    Parameters:
      queues: those that this worker serves; may grow later.
      interval: the longest time between two checks for due and unpublished rows. Due rows whose time was known
        before are published on time.
      publish_lease: how long the rows of one batch are kept from other relays.
      held: how many deliveries of each queue this worker holds now, as its heartbeat says it; given, it is
        brought up to date before the broker's counts are compared.
      stale_after: see `STALE_AFTER`; also how long a group may stand still.
    """

    def __init__(
        self,
        store: JobStore,
        transport: Transport,
        dispatcher: Dispatcher,
        clock: Clock,
        events: Events,
        *,
        queues: Sequence[str],
        interval: timedelta = timedelta(seconds=1),
        publish_lease: timedelta = timedelta(seconds=30),
        retention: Retention | None = None,
        held: Callable[[], Mapping[str, int]] | None = None,
        stale_after: timedelta = STALE_AFTER,
    ) -> None:
        self._store, self._transport, self._dispatcher = store, transport, dispatcher
        self._clock, self._events = clock, events
        self._queues, self._interval, self._publish_lease = queues, interval, publish_lease
        self._retention = retention or Retention()
        self._missing = MissingRows(store, transport, queues, held, stale_after)
        self._stale_after = stale_after
        self._bell = Doorbell(clock)
        self._is_woken = False
        self._next_due: datetime | None = None
        self._due = PeriodicCheck("due", self.publish_due, self._until_due)
        self._at_wake = (self._due, PeriodicCheck("unpublished", self.publish_unpublished, self._until_next_check))
        self._count = PeriodicCheck("count", self.count_missing, lambda: self._jittered(COUNT_EVERY))
        self._checks = (
            *self._at_wake,
            PeriodicCheck("gaps", self.end_gaps, self._until_next_check),
            PeriodicCheck("recover", self.recover_lost, lambda: self._jittered(RECOVER_EVERY)),
            self._count,
            PeriodicCheck("missing", self.publish_missing, self._until_next_check),
            PeriodicCheck("groups", self.mend_groups, lambda: self._jittered(MEND_EVERY)),
            PeriodicCheck("prune", self.prune, lambda: self._jittered(PRUNE_EVERY), PRUNE_PACE.total_seconds()),
        )

    async def run(self) -> Never:
        """Run the checks for ever. A check that fails is reported (`TaskFailed`), and runs again when it is due."""
        while True:
            for check in self._checks:
                if check.next_at <= self._clock.monotonic():
                    await self._take(check)
            soon = self._clock.monotonic() + self._until_next_check()
            if self._missing.is_urgent:
                self._count.next_at = min(self._count.next_at, soon)
            next_at = min(check.next_at for check in self._checks)
            await self._bell.wait(max(0.0, next_at - self._clock.monotonic()))
            if self._is_woken:
                self._is_woken = False
                for check in self._at_wake:
                    check.next_at = 0.0

    def wake(self) -> None:
        """Look for due and unpublished rows at once: a row was stored, or a full queue has room again."""
        self._is_woken = True
        self._bell.ring()

    def expect(self, due_at: datetime) -> None:
        """Check at ``due_at``, when a row becomes due."""
        if self._next_due is None or due_at < self._next_due:
            self._next_due = due_at
            self._due.next_at = min(self._due.next_at, self._clock.monotonic() + self._until_due())
            self._bell.ring()

    # -- the checks; each returns how many rows it moved

    async def publish_due(self) -> int:
        """(1) Publish what has become due, as a new dispatch, and see when the next row will be."""
        self._next_due = None
        if not self._can_publish():
            return 0
        due = await self._store.take_due(BATCH, self._publish_lease)
        await self._dispatcher.publish(due.dispatches, "due")
        # A row that was announced after this check began may be missing from this answer.
        times = (self._next_due, await self._store.next_due())
        self._next_due = min((time for time in times if time is not None), default=None)
        return due.count

    async def publish_unpublished(self) -> int:
        """(2) Publish what was never published, oldest first; where queues are not shared, what has room."""
        room = None if self._transport.shared else self._rooms()
        if room == {} or not self._can_publish():
            return 0
        unpublished = await self._store.take_unpublished(room, BATCH, self._publish_lease)
        await self._dispatcher.publish(unpublished, "unpublished")
        return len(unpublished)

    async def end_gaps(self) -> int:
        """(3) Let numbered groups go on that have waited too long for a number."""
        released = await self._store.end_gaps(BATCH)
        if released:
            self._events.emit(JobsReleased(released))
        return released

    async def recover_lost(self) -> int:
        """(4) Give the running jobs of lost workers back."""
        recovery = await self._store.recover(BATCH)
        for worker_id in recovery.workers:
            self._events.emit(WorkerLost(worker_id))
        if recovery.queued or recovery.workers:
            self.wake()  # also what only waited in a lost worker's memory is unpublished again
        return len(recovery.queued) + len(recovery.failed)

    async def count_missing(self) -> int:
        """(5) Find out what the broker no longer has."""
        if self._transport.health.connected:
            await self._missing.count()
        return 0

    async def publish_missing(self) -> int:
        """(5) Publish what is missing once more, the same dispatch: a claim refuses surplus copies."""
        moved = 0
        for queue, missing in tuple(self._missing.believed.items()):
            if not self._can_publish():
                break
            wanted = min(missing.count, BATCH)
            found = await self._store.take_missing(queue, missing.before, wanted, self._publish_lease)
            await self._dispatcher.publish(found, "missing")
            moved += len(found)
            missing.count -= len(found)
            if len(found) < wanted or missing.count <= 0:
                del self._missing.believed[queue]
        return moved

    async def mend_groups(self) -> int:
        """(6) Look at groups that have not moved for a while."""
        return await self._store.mend_groups(self._store.now() - self._stale_after, BATCH)

    async def prune(self) -> int:
        """Delete final rows that are past their retention."""
        count = await self._store.prune(self._retention, BATCH)
        if count:
            self._events.emit(JobsPruned(count))
        return count

    # -- when

    async def _take(self, check: PeriodicCheck) -> None:
        pause = self._until_next_check()
        try:
            pause = check.pace if await self._finish(check.call()) >= BATCH else check.pause()
            check.error = None
        except StoreUnavailableError:
            check.error = None  # the store reports it itself (`StoreLost`)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks have to go on
            failure = failure_of(error)
            if failure.error != check.error:  # report it once, not at each run
                check.error = failure.error
                self._events.emit(TaskFailed(f"relay ({check.name})", failure.error, failure.traceback))
        check.next_at = self._clock.monotonic() + pause

    async def _finish(self, call: Coroutine[Any, Any, int]) -> int:
        """The result of a check. A cancelled relay still finishes it, because the rows in its hand are leased."""
        checking = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(checking)
        except asyncio.CancelledError:
            await asyncio.wait([checking], timeout=FINISH_TIMEOUT)
            checking.cancel()
            raise

    def _until_due(self) -> float:
        pause = self._until_next_check()
        if self._next_due is None:
            return pause
        return min(pause, max(SHORTEST_PAUSE, (self._next_due - self._store.now()).total_seconds()))

    def _until_next_check(self) -> float:
        return self._jittered(self._interval)

    def _jittered(self, longest: timedelta) -> float:
        # Workers that started together must not run their checks in step for ever.
        return longest.total_seconds() * (0.8 + 0.2 * self._clock.random())

    # -- publishing

    def _can_publish(self) -> bool:
        # Rows are better left alone while the broker is away: taking and returning them only makes writes.
        health = self._transport.health
        return health.connected and not health.publisher_blocked

    def _rooms(self) -> dict[str, int]:
        rooms = {queue: self._transport.capacity(queue) for queue in self._queues}
        return {queue: room for queue, room in rooms.items() if room}


@dataclass(slots=True)
class PeriodicCheck:
    """One of the relay's checks, and when it runs next."""

    name: str
    call: Callable[[], Coroutine[Any, Any, int]]
    pause: Callable[[], float]
    """Returns the seconds until the next run."""
    pace: float = 0.0
    """Seconds until the next run after a full batch."""
    next_at: float = 0.0
    error: str | None = None
    """The error of the last run, so that a lasting error is reported once."""
