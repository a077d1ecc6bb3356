"""Which messages are on their way to the broker, and which come next: one line for each of the broker's queues.

The broker gives each queue a credit on our channel, and stops reading the whole connection when a queue does not return
it (measured with RabbitMQ 3.10, 4.0 and 4.3: after 200 to 400 messages for a classic queue that does not answer, after
32 for a quorum queue). So a queue begins with a share that holds up nobody, and gets more as it answers.
"""

from __future__ import annotations

from collections import deque

from jq_actors.transport.port import NotPublished, Published, PublishResult

from .batch import Batch
from .outgoing import OutgoingMessage

FIRST_SHARE = 31
"""As many unconfirmed messages of one queue never hold up others."""
AT_ONCE = 16
"""Messages that are taken from one line before the next one."""


class Window:
    """At most ``most`` unconfirmed messages, half of them for one queue.

    Messages that nobody waits for any more count only for their own queue, which may never answer.
    """

    def __init__(self, most: int) -> None:
        self.answers = 0
        """How often the broker has answered."""
        self.last_number = 0
        """The number of the message that was sent last."""
        self._most, self._first_share = most, min(FIRST_SHARE, most)
        self._largest_share = max(self._first_share, most // 2)
        self._lines: dict[str, _Line] = {}
        self._ready: deque[_Line] = deque()
        """Lines whose own share allows their next message to be sent."""
        self._in_flight: dict[int, tuple[Batch, int, _Line]] = {}
        self._counted, self._oldest = 0, 1

    @property
    def is_waited_for(self) -> bool:
        """Whether messages wait that may be sent."""
        return bool(self._ready)

    @property
    def held_up_by(self) -> str | None:
        """The broker's queue that may hold up messages for others, if there are any."""
        for line in self._lines.values() if len(self._lines) > 1 else ():
            if line.in_flight > FIRST_SHARE:
                return line.queue
        return None

    def add(self, batch: Batch) -> None:
        """Put the messages that ``batch`` has to send at the ends of their lines."""
        messages = batch.messages
        batch.waiting += len(batch.to_send)
        for index in batch.to_send:
            queue = _queue_of(messages[index])
            line = self._lines.get(queue)
            if line is None:
                line = self._lines[queue] = _Line(queue, self._first_share)
            line.waiting.append((batch, index))
            if not line.is_ready and line.in_flight < line.share:
                line.is_ready = True
                self._ready.append(line)
        batch.to_send.clear()

    def take(self, most: int) -> list[tuple[int, OutgoingMessage]]:
        """Take up to ``most`` messages with their numbers, some of each line in turn, to be sent now."""
        taken: list[tuple[int, OutgoingMessage]] = []
        most = min(most, self._most - self._counted)
        while self._ready and len(taken) < most:
            line = self._ready.popleft()
            self._take_from(line, taken, min(most, len(taken) + AT_ONCE))
            line.is_ready = bool(line.waiting) and line.in_flight < line.share
            if line.is_ready:
                self._ready.append(line)
            else:
                line.is_short = bool(line.waiting)
                self._forget_if_idle(line)
        return taken

    def confirm(self, number: int, result: PublishResult, *, multiple: bool) -> None:
        """The broker's answer to the message ``number``, with ``multiple`` also to all before it."""
        self.answers += 1
        numbers = range(self._oldest, number + 1) if multiple else (number,)
        for confirmed in numbers:
            entry = self._in_flight.pop(confirmed, None)
            if entry is not None:
                self._answered(*entry, result)
        if multiple:
            self._oldest = number + 1

    def came_back(self, number: int, reason: str) -> None:
        """No queue took the message ``number``; its confirm follows."""
        entry = self._in_flight.get(number)
        if entry is not None:
            entry[0].came_back(entry[1], reason)

    def begin(self) -> None:
        """A new channel begins: the broker counts its messages from 1 again."""
        self._oldest = self.last_number + 1

    def lose(self, result: PublishResult) -> None:
        """The channel is gone, and with it the answers to all unconfirmed messages."""
        in_flight, self._in_flight, self._counted = self._in_flight, {}, 0
        for batch, index, line in in_flight.values():
            line.in_flight, batch.in_flight = 0, batch.in_flight - 1
            batch.confirm(index, result)
        for line in tuple(self._lines.values()):
            line.share = self._first_share
            self._ready_or_forget(line)

    def withdraw(self, batch: Batch) -> None:
        """Send nothing more of ``batch``, whose caller no longer waits."""
        batch.is_withdrawn = True
        if not batch.waiting and not batch.in_flight:
            return
        self._counted -= batch.in_flight
        for queue in {_queue_of(message) for message in batch.messages}:
            line = self._lines.get(queue)
            if line is not None:
                line.drop_withdrawn()
                self._forget_if_idle(line)

    def reject_waiting(self, reason: str) -> None:
        """Send nothing of what waits."""
        lines, self._lines = self._lines, {}
        self._ready.clear()
        for line in lines.values():
            for batch, index in line.waiting:
                batch.reject(index, NotPublished(reason))

    def why_full(self, batch: Batch) -> str:
        """Why messages of ``batch`` still wait."""
        for index, result in enumerate(batch.results):
            line = self._lines.get(_queue_of(batch.messages[index])) if result is None else None
            if line is not None and line.in_flight >= line.share:
                return f"{line.in_flight} earlier messages for {line.queue} are not confirmed"
        return f"{self._counted} earlier messages are not confirmed (broker.publish_window)"

    def _take_from(self, line: _Line, taken: list[tuple[int, OutgoingMessage]], up_to: int) -> None:
        waiting = line.waiting
        while waiting and line.in_flight < line.share and len(taken) < up_to:
            batch, index = waiting.popleft()
            batch.waiting -= 1
            if batch.is_withdrawn:
                continue
            self.last_number += 1
            self._in_flight[self.last_number] = batch, index, line
            self._counted += 1
            line.in_flight += 1
            batch.in_flight += 1
            batch.results[index] = batch.unconfirmed
            taken.append((self.last_number, batch.messages[index]))

    def _answered(self, batch: Batch, index: int, line: _Line, result: PublishResult) -> None:
        line.in_flight -= 1
        batch.in_flight -= 1
        if not batch.is_withdrawn:
            self._counted -= 1
        batch.confirm(index, result)
        if line.is_short and line.share < self._largest_share and isinstance(result, Published):
            line.share += 1
        if not line.is_ready:
            self._ready_or_forget(line)

    def _ready_or_forget(self, line: _Line) -> None:
        line.drop_withdrawn()
        if line.waiting and not line.is_ready and line.in_flight < line.share:
            line.is_ready = True
            self._ready.append(line)
        else:
            self._forget_if_idle(line)

    def _forget_if_idle(self, line: _Line) -> None:
        if not line.waiting and not line.in_flight and self._lines.get(line.queue) is line and not line.is_ready:
            del self._lines[line.queue]


class _Line:
    """The messages for one of the broker's queues."""

    __slots__ = ("in_flight", "is_ready", "is_short", "queue", "share", "waiting")

    def __init__(self, queue: str, share: int) -> None:
        self.queue, self.share = queue, share
        self.waiting: deque[tuple[Batch, int]] = deque()
        self.in_flight = 0
        self.is_ready = False
        self.is_short = False
        """Whether its share was too small when messages of it were taken last."""

    def drop_withdrawn(self) -> None:
        """Drop messages at the head of the line that nobody waits for any more."""
        while self.waiting and self.waiting[0][0].is_withdrawn:
            self.waiting.popleft()[0].waiting -= 1


def _queue_of(message: OutgoingMessage) -> str:
    # A delayed message goes to the timer queue that has the name of its exchange.
    return message.exchange or message.routing_key
