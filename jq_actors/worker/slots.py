"""Slots: the places of one kind in this process, who has them, and who waits for one.

A slot is a coroutine's place in its queue's ``concurrency``, or one of Dramatiq's worker threads. A delivery is claimed
only when it has a slot, so that a job that merely waits here is charged nothing when the process dies (A18).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from jq_actors.model.command import JobCommand
from jq_actors.transport.port import Delivery


@dataclass(slots=True, eq=False)
class ReceivedDelivery:
    """A delivery in this process's hands."""

    delivery: Delivery
    command: JobCommand[Any]
    slots: Slots
    since: float
    has_slot: bool = False
    was_held: bool = False


@dataclass(slots=True, eq=False)
class Slots:
    """The slots of one kind.

    Parameters:
      name: what fits there is known by it (`JobStore.fits`).
      count: how many jobs run there at once.
    """

    name: str
    count: int
    waiting: deque[ReceivedDelivery] = field(default_factory=deque)
    """In the order in which they came."""
    held: int = 0
    """Deliveries that are looked at again later."""
    free: int = field(init=False)
    """How many are free."""

    def __post_init__(self) -> None:
        self.free = self.count

    @property
    def may_hold(self) -> bool:
        """Whether one more delivery may be held. They count in the prefetch: with many, slots would stay empty."""
        return self.held < max(self.count // 4, 1)

    def take(self, received: ReceivedDelivery) -> bool:
        """Give a slot to ``received``; else it waits."""
        received.has_slot = self.free > 0
        if received.has_slot:
            self.free -= 1
        else:
            self.waiting.append(received)
        return received.has_slot

    def release(self, received: ReceivedDelivery) -> Iterator[ReceivedDelivery]:
        """``received`` needs its slot no more; yields those that have one now."""
        if received.has_slot:
            received.has_slot = False
            self.free += 1
        while self.waiting and self.free > 0:
            first = self.waiting.popleft()
            if first.delivery.is_open:
                self.take(first)
                yield first


class Slot(Protocol):
    """A place to run in, as the one who gives it to a delivery shows it."""

    @property
    def name(self) -> str:
        """What fits there is known by it (`JobStore.fits`)."""
        ...

    @property
    def others_wait(self) -> bool:
        """Whether other deliveries wait for it."""
        ...

    @property
    def may_hold(self) -> bool:
        """Whether one more delivery may be held, for those that run there."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether a job may still start there."""
        ...

    def hold(self, time: timedelta) -> bool:
        """Do not run now: offer the delivery again after that time. Whether this is the first time."""
        ...

    def free(self) -> None:
        """It is not needed any more. A second call does nothing."""
        ...
