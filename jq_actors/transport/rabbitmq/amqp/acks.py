"""The acks of one consuming channel: gathered in a turn of the loop, and sent as few as possible."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from jq_actors.events import AckLost, Events

from . import wire


class Acks:
    """Which deliveries of a channel are open, and which acks and requeues are still to be sent.

    All acks below the oldest open delivery go out as one ``multiple`` ack, the others one by one: a job that takes an
    hour makes those behind it dearer, not later. Once the channel is gone its tags mean nothing any more; they are
    counted (`AckLost`) and never sent on another channel (A6).
    """

    def __init__(self, channel: int, write: Callable[[bytes], None], events: Events) -> None:
        self._channel, self._write, self._events = channel, write, events
        # In the order of the tags. An OrderedDict finds its oldest entry at once, also after many were removed.
        self._open: OrderedDict[int, str] = OrderedDict()
        self._acked: dict[int, str] = {}
        self._requeued: dict[int, str] = {}
        self._flush_is_due = self._is_dead = False

    def opened(self, tag: int, queue: str) -> None:
        """A delivery of ``queue`` arrived with ``tag``."""
        self._open[tag] = queue

    def has(self, tag: int) -> bool:
        """Whether ``tag`` is open, on a channel that lives."""
        return not self._is_dead and tag in self._open

    def ack(self, tag: int) -> None:
        """Ack it with the next flush."""
        self._end(tag, self._acked)

    def requeue(self, tag: int) -> None:
        """Return it with the next flush, in the order of the calls."""
        self._end(tag, self._requeued)

    def flush(self) -> None:
        """Send what is due."""
        self._flush_is_due = False
        frames = self.take_due()
        if frames:
            self._write(frames)

    def take_due(self) -> bytes:
        """Take the frames of what is due, to be sent together with others."""
        if self._is_dead:
            return b""
        # Requeues first: a ``multiple`` ack would otherwise include what is requeued.
        frames = [wire.requeue(self._channel, tag) for tag in self._requeued]
        self._requeued.clear()
        frames += self._ack_frames()
        self._acked.clear()
        return b"".join(frames)

    def die(self) -> None:
        """The channel is gone."""
        self._is_dead = True
        unsent = [*self._acked.values(), *self._requeued.values()]
        self._acked.clear()
        self._requeued.clear()
        for queue in unsent:
            self._events.emit(AckLost(queue))

    def _end(self, tag: int, ending: dict[int, str]) -> None:
        # A second ack or requeue of one delivery must not reach the broker: it would close the channel.
        queue = self._open.pop(tag, None)
        if queue is None:
            return
        if self._is_dead:
            self._events.emit(AckLost(queue))
            return
        ending[tag] = queue
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def _ack_frames(self) -> list[bytes]:
        if not self._acked:
            return []
        oldest_open = next(iter(self._open), None)
        if oldest_open is None:
            return [wire.ack(self._channel, max(self._acked), multiple=True)]
        prefix = [tag for tag in self._acked if tag < oldest_open]
        frames = [wire.ack(self._channel, max(prefix), multiple=True)] if prefix else []
        return frames + [wire.ack(self._channel, tag, multiple=False) for tag in self._acked if tag > oldest_open]
