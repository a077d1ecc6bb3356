"""Slots: the places of one kind in this process, who has them, and who waits for one.

A slot is a coroutine's place in its queue's ``concurrency``, or one of Dramatiq's worker threads. A delivery is claimed
only when it has a slot, so that a job that merely waits here is charged nothing when the process dies (A18).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jq_actors.model.command import JobCommand
from jq_actors.transport.port import Delivery


@dataclass(slots=True, eq=False)
class InHand:
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
    waiting: deque[InHand] = field(default_factory=deque)
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

    def take(self, in_hand: InHand) -> bool:
        """Give a slot to ``in_hand``; else it waits."""
        in_hand.has_slot = self.free > 0
        if in_hand.has_slot:
            self.free -= 1
        else:
            self.waiting.append(in_hand)
        return in_hand.has_slot

    def leave(self, in_hand: InHand) -> Iterator[InHand]:
        """``in_hand`` needs its slot no more; yields those that have one now."""
        if in_hand.has_slot:
            in_hand.has_slot = False
            self.free += 1
        while self.waiting and self.free > 0:
            first = self.waiting.popleft()
            if first.delivery.is_open:
                self.take(first)
                yield first
