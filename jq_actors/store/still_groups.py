"""Groups that do not move although their head could: nobody serves their lane, or the broker has lost it.

A producer died between publish and look, a token was lost with its queue, an operator resumed the group while the
broker was away, the broker was wiped. A fresh token, or the messages once more, and it goes on (relay, point 6).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jq_actors.groups import GroupRules
from jq_actors.transport.port import QueueDepth, Transport

from .port import JobStore
from .records import Dispatch

BATCH = 500
"""Groups of one look."""


class StillGroups:
    """Finds them; on the I/O loop.

    Only where queues are shared: what lies in the memory of a process is not left, and is lost only with it.

    Parameters:
      still_after: a group that has not moved for so long is looked at.
    """

    def __init__(self, store: JobStore, transport: Transport, rules: GroupRules, still_after: timedelta) -> None:
        self._store, self._transport, self._rules, self._still_after = store, transport, rules, still_after
        self._generation: int | None = None
        self._all_before: datetime | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether the broker is a new one, or was: then it does not matter how long ago a group moved."""
        is_new = self._generation != self._transport.generation
        return self._transport.shared and (is_new or self._all_before is not None)

    async def look(self, publish_lease: timedelta) -> tuple[int, list[Dispatch]]:
        """Offer the lanes that have messages, and lease the rows of those that have none.

        Returns how many groups were looked at, and what is to be published for them.

        Raises:
          TransportError: the broker went away.
        """
        still = await self._store.still_groups(self._before(), BATCH)
        if len(still) < BATCH:
            self._all_before = None
        lanes = [self._rules.lane_of(group.queue, group.group) for group in still]
        depths = await self._transport.lane_depths(lanes) if lanes else []
        unserved = [lane for lane, depth in zip(lanes, depths, strict=True) if _is_unserved(depth)]
        if unserved:
            await self._transport.offer(unserved)
        lost = [group for group, depth in zip(still, depths, strict=True) if _is_lost(depth)]
        return len(still), await self._store.take_lost(lost, BATCH, publish_lease) if lost else []

    def _before(self) -> datetime:
        now = self._store.now()
        if self._generation != self._transport.generation:
            self._generation, self._all_before = self._transport.generation, now
        return self._all_before or now - self._still_after


def _is_unserved(lane: QueueDepth | None) -> bool:
    return lane is not None and lane.ready > 0 and lane.consumers == 0


def _is_lost(lane: QueueDepth | None) -> bool:
    # A lane that is served has its messages, or some of them, in a worker's hand.
    return lane is None or (lane.ready == 0 and lane.consumers == 0)
