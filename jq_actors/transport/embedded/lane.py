"""One lane in this process: what waits in it, and which of it may be delivered now."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field

from jq_actors.model.lane import Lane

from .queues import Message


@dataclass(slots=True)
class _Line:
    """The messages of one group."""

    waiting: list[tuple[int, Message]] = field(default_factory=list)
    """A heap by place: in a lane no priority passes anybody."""
    in_hand: int = 0


class MemoryLane:
    """The messages of one group; of a partition, those of each of its groups in a line of its own."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.waiting = 0
        """How many messages wait; those in hand do not."""
        self.in_hand = 0
        self.seats = 0
        """How many of the worker's slots serve it."""
        self._lines: dict[str, _Line] = {}
        self._open: OrderedDict[str, _Line] = OrderedDict()
        """Those with something to deliver; the first was served longest ago."""

    @property
    def is_ready(self) -> bool:
        """Whether something of it may be delivered now."""
        return bool(self._open)

    @property
    def wants_seat(self) -> bool:
        """Whether there is more to deliver than those who serve it will take."""
        return self.is_ready and self.seats == self.in_hand

    @property
    def is_over(self) -> bool:
        """Whether it is empty and unserved."""
        return not self.waiting and not self.seats

    def put(self, message: Message) -> None:
        """Take it in, at its place."""
        line = self._lines.setdefault(self._key(message), _Line())
        heapq.heappush(line.waiting, (message.place, message))
        self.waiting += 1
        self._see(message)

    def next(self) -> Message:
        """Take the next one into hand; only if it `is_ready`."""
        _, line = self._open.popitem(last=False)
        _, message = heapq.heappop(line.waiting)
        line.in_hand += 1
        self.waiting -= 1
        self.in_hand += 1
        self._see(message)
        return message

    def end(self, message: Message) -> None:
        """It is in hand no more."""
        self._lines[self._key(message)].in_hand -= 1
        self.in_hand -= 1
        self._see(message)

    def purge(self) -> None:
        """Throw away what waits."""
        self.waiting = 0
        self._open.clear()
        self._lines = {key: _Line(in_hand=line.in_hand) for key, line in self._lines.items() if line.in_hand}

    def _key(self, message: Message) -> str:
        return "" if self.lane.partition is None else message.outgoing.group or ""

    def _see(self, message: Message) -> None:
        """Its line has changed."""
        key = self._key(message)
        line = self._lines[key]
        if line.waiting and line.in_hand < (1 if self.lane.partition else self.lane.seats):
            self._open.setdefault(key, line)
        else:
            self._open.pop(key, None)
        if not line.waiting and not line.in_hand:
            del self._lines[key]
