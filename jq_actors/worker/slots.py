"""Slots: how many jobs of one kind run in this process at once, which deliveries have a slot, and which wait for one.

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
    """A delivery that this process has received and not yet ended."""

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
      name: the key under which `JobStore.fits` lists the actors that fit here.
      count: how many jobs run there at once.
    """

    name: str
    count: int
    waiting: deque[ReceivedDelivery] = field(default_factory=deque)
    """In the order in which they came."""
    held: int = 0
    """How many deliveries are held, to be offered again later."""
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
        """Take back the slot of ``received``; yields the deliveries that get one instead."""
        if received.has_slot:
            received.has_slot = False
            self.free += 1
        while self.waiting and self.free > 0:
            first = self.waiting.popleft()
            if first.delivery.is_open:
                self.take(first)
                yield first


class Slot(Protocol):
    """The slot of one delivery, as the executor sees it."""

    @property
    def name(self) -> str:
        """The key under which `JobStore.fits` lists the actors that fit here."""
        ...

    @property
    def others_wait(self) -> bool:
        """Whether other deliveries wait for it."""
        ...

    @property
    def may_hold(self) -> bool:
        """Whether one more delivery may be held here."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether a job may still start there."""
        ...

    def hold(self, time: timedelta) -> bool:
        """Do not run now, but offer the delivery again after ``time``; returns whether this is its first time."""
        ...

    def free(self) -> None:
        """Let other deliveries have the slot. A second call does nothing."""
        ...
