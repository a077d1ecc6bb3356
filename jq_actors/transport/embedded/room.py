"""How much of the jobs table makes sense in this process's memory."""

from __future__ import annotations

from collections.abc import Callable

from jq_actors.transport.port import Outgoing


class Room:
    """The places of the messages of one queue that have rows: a window on the table, not a copy of it.

    Parameters:
      on_room: called when what was full has drained to a good part.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._size = self._taken = 0
        self._is_open = False
        self._behind = False

    @property
    def free(self) -> int:
        """How many more make sense here; none while nobody consumes."""
        return max(0, self._size - self._taken) if self._is_open else 0

    def open(self, size: int) -> None:
        """Somebody consumes, for whom ``size`` messages are enough."""
        self._size, self._is_open = size, True

    def close(self) -> None:
        """Nobody consumes any more."""
        self._is_open = self._behind = False

    def admits(self, outgoing: Outgoing) -> bool:
        """Whether ``outgoing`` should come in now.

        A part of the room is kept for what the relay brings: a busy producer must not starve the rows that
        wait. Once a sending was refused, new ones stay out until those before them have come in.
        """
        if outgoing.relayed:
            return self._is_open
        admitted = self.free > self._kept and not self._behind
        self._behind = self._is_open and not admitted
        return admitted

    def caught_up(self) -> None:
        """Nothing waits any more: what was refused before has come in."""
        self._behind = False

    def take(self, count: int) -> None:
        """So many have come in. It may be more than there is room for: those that the relay brings come in always."""
        self._taken += count

    def give(self, count: int) -> None:
        """So many are gone."""
        threshold, before = max(1, self._kept), self._size - self._taken
        self._taken -= count
        if self._is_open and before < threshold <= before + count:  # passed once on the way from full to empty
            self._on_room()

    @property
    def _kept(self) -> int:
        return self._size // 4
