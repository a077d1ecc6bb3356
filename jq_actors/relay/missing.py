"""Which queued rows the broker no longer has: found by comparing counts, not by looking for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jq_actors.errors import TransportError
from jq_actors.store.port import JobStore
from jq_actors.transport.port import Transport

COUNT_UP_TO = 100_000
"""Most missing rows of a queue that one count finds."""


@dataclass(slots=True)
class Missing:
    """Rows of a queue, published before some time, that the broker does not seem to have."""

    before: datetime
    count: int
    at_once: bool = False
    """Found right after a reconnect: the age of the rows did not matter."""


class MissingRows:
    """Counts, and keeps what was found until it is published again; on the I/O loop.

    A shortage is believed when a second count sees it too: what a worker took from the broker since its last
    heartbeat is nowhere at first. So two counts have to be further apart than two heartbeats; but not after a
    reconnect, when every worker says anew what it holds.

    Where queues are not shared there is nothing to count: what is in the memory of a worker is marked so.

    Parameters:
      queues: those to count; may grow.
      held: how many deliveries of each queue this worker holds now; written as a heartbeat before a count.
      stale_after: a row that was published longer ago should be found in the broker's counts.
    """

    def __init__(
        self,
        store: JobStore,
        transport: Transport,
        queues: Sequence[str],
        held: Callable[[], Mapping[str, int]] | None,
        stale_after: timedelta,
    ) -> None:
        self._store, self._transport, self._queues = store, transport, queues
        self._held, self._stale_after = held, stale_after
        self._generation: int | None = None
        self._suspected: dict[str, Missing] = {}
        self._unseen = set[str]()
        """Queues that could not be looked at; the next look is as after a reconnect."""
        self.believed: dict[str, Missing] = {}
        """By queue; the relay that publishes them again removes them."""

    @property
    def is_urgent(self) -> bool:
        """Whether the next count should come soon: the broker is a new one, or was, and may be empty."""
        in_doubt = any(suspected.at_once for suspected in self._suspected.values())
        return in_doubt or (self._generation != self._transport.generation and self._transport.shared)

    async def count(self) -> None:
        """Compare queued rows with what the broker has ready and what the workers say they hold.

        After a reconnect to a broker whose queue is empty, it does not matter when the rows were published.

        Raises:
          TransportError: a queue could not be looked at; all others were.
        """
        if not self._transport.shared:
            return
        generation = self._transport.generation
        reconnected = generation != self._generation
        if self._held is not None:
            await self._store.heartbeat(self._held())
        problem: TransportError | None = None
        for queue in tuple(self._queues):
            try:
                await self._count(queue, reconnected or queue in self._unseen)
                self._unseen.discard(queue)
            except TransportError as error:
                self._unseen.add(queue)
                problem = problem or error
        self._generation = generation
        if problem is not None:
            raise problem

    async def _count(self, queue: str, reconnected: bool) -> None:
        suspected, now = self._suspected.pop(queue, None), self._store.now()
        depth = await self._transport.depth(queue)
        ready = 0 if depth is None else depth.ready
        # What moves on while we count moves from here to there, and is counted twice rather than not at all.
        there = ready + await self._store.held_deliveries(queue)
        found = Missing(now - self._stale_after, 0)
        if suspected is not None and suspected.at_once:
            found = Missing(suspected.before, 0, at_once=True)
        elif reconnected and ready == 0:
            found = Missing(now, 0, at_once=True)
        found.count = await self._store.count_published(queue, found.before, there + COUNT_UP_TO) - there
        if found.count > 0 and suspected is not None and suspected.at_once == found.at_once:
            found.count = min(found.count, suspected.count)
            self.believed[queue] = found
        elif found.count > 0:
            self._suspected[queue] = found
