"""How much of the jobs table to keep in this process's memory."""

from __future__ import annotations

from collections.abc import Callable

from jq_actors.transport.port import Outgoing


class Room:
    """Counts the messages of one queue, whose jobs have rows, so that the queue stays a small window on the table.

    Parameters:
      on_room: called when a quarter of the room is free again, after it was full.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._size = self._taken = 0
        self._is_open = False
        self._behind = False

    @property
    def free(self) -> int:
        """How many more messages there is room for; none while nobody consumes."""
        return max(0, self._size - self._taken) if self._is_open else 0

    def open(self, size: int) -> None:
        """There is a consumer now; ``size`` messages are enough for it."""
        self._size, self._is_open = size, True

    def close(self) -> None:
        """There is no consumer any more."""
        self._is_open = self._behind = False

    def admits(self, outgoing: Outgoing) -> bool:
        """Whether the queue should take ``outgoing`` now.

        A part of the room is reserved for the relay's messages, since a busy producer must not starve the waiting rows.
        Once a new send was refused, later ones are refused too, until the queue has caught up: they must not overtake.
        """
        if outgoing.relayed:
            return self._is_open
        admitted = self.free > self._kept and not self._behind
        self._behind = self._is_open and not admitted
        return admitted

    def caught_up(self) -> None:
        """The queue is empty, so what was refused before has been delivered by the relay."""
        self._behind = False

    def take(self, count: int) -> None:
        """Count ``count`` more messages. They may exceed the room, since the relay's are always taken."""
        self._taken += count

    def give(self, count: int) -> None:
        """Count ``count`` messages less, and report it if that makes a good part of the room free again."""
        threshold, before = max(1, self._kept), self._size - self._taken
        self._taken -= count
        if self._is_open and before < threshold <= before + count:  # true once on the way from full to empty
            self._on_room()

    @property
    def _kept(self) -> int:
        return self._size // 4
