"""One lane of this process: the messages that wait in it, and which of them may be delivered now."""

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
    """A heap by place: in a lane, a priority does not change the order."""
    in_hand: int = 0


class MemoryLane:
    """A lane: one line of messages, or in a partition one line for each of its groups."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.waiting = 0
        """How many messages wait; those in hand do not count."""
        self.in_hand = 0
        """How many messages are delivered and not yet ended."""
        self.seats = 0
        """How many of the worker's slots serve the lane."""
        self._lines: dict[str, _Line] = {}
        self._open: OrderedDict[str, _Line] = OrderedDict()
        """The lines with something to deliver. The first one was served longest ago."""

    @property
    def is_ready(self) -> bool:
        """Whether a message may be delivered now."""
        return bool(self._open)

    @property
    def wants_seat(self) -> bool:
        """Whether there is more to deliver than the slots that serve the lane will take."""
        return self.is_ready and self.seats == self.in_hand

    @property
    def is_over(self) -> bool:
        """Whether nothing waits, and no slot serves the lane."""
        return not self.waiting and not self.seats

    def put(self, message: Message) -> None:
        """Add ``message``, at its place in the order."""
        line = self._lines.setdefault(self._key(message), _Line())
        heapq.heappush(line.waiting, (message.place, message))
        self.waiting += 1
        self._see(message)

    def next(self) -> Message:
        """Take the next message in hand. Call it only if the lane `is_ready`."""
        _, line = self._open.popitem(last=False)
        _, message = heapq.heappop(line.waiting)
        line.in_hand += 1
        self.waiting -= 1
        self.in_hand += 1
        self._see(message)
        return message

    def end(self, message: Message) -> None:
        """``message`` is not in hand any more."""
        self._lines[self._key(message)].in_hand -= 1
        self.in_hand -= 1
        self._see(message)

    def purge(self) -> None:
        """Delete the waiting messages."""
        self.waiting = 0
        self._open.clear()
        self._lines = {key: _Line(in_hand=line.in_hand) for key, line in self._lines.items() if line.in_hand}

    def _key(self, message: Message) -> str:
        return "" if self.lane.partition is None else message.outgoing.group or ""

    def _see(self, message: Message) -> None:
        """Update the bookkeeping after a change in the line of ``message``."""
        key = self._key(message)
        line = self._lines[key]
        if line.waiting and line.in_hand < (1 if self.lane.partition else self.lane.seats):
            self._open.setdefault(key, line)
        else:
            self._open.pop(key, None)
        if not line.waiting and not line.in_hand:
            del self._lines[key]
