"""The numbers of the channels of one connection: as many as the server allows, and none given twice."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol

from jq_actors.errors import TransportError

MOST = 65_535
"""AMQP's own bound."""
RESERVED = 8
"""Numbers for channels that nobody can share: declares, looks, reliefs."""


class Taken(Sized, Container[int], Protocol):
    """The numbers of the channels that are open, or whose end the broker has not confirmed."""


class ChannelsExhaustedError(TransportError):
    """The server allows no more channels on this connection."""


class ChannelNumbers:
    """Gives numbers in a circle: what was just freed is the last to be used again.

    aiormq would take the lowest one above all others, whatever the server allows: one too many ends the connection.

    Parameters:
      channel_max: what the connection has agreed on; 0: no limit.
      taken: kept by aiormq.
    """

    def __init__(self, channel_max: int, taken: Taken) -> None:
        self.most = channel_max or MOST
        self._taken, self._opening, self._last = taken, set[int](), 0

    @property
    def have_room(self) -> bool:
        """Whether one more channel may be opened for what could also share one."""
        return len(self._taken) + RESERVED < self.most

    @contextmanager
    def next(self) -> Iterator[int]:
        """A free number, nobody else's as long as this lasts.

        Raises:
          ChannelsExhaustedError: there is none.
        """
        number = self._free()
        self._opening.add(number)
        try:
            yield number
        finally:
            self._opening.discard(number)

    def _free(self) -> int:
        for _ in range(self.most):
            self._last = self._last % self.most + 1
            if self._last not in self._taken and self._last not in self._opening:
                return self._last
        raise ChannelsExhaustedError(
            f"All {self.most} channels of the connection are in use, and the server allows no more (channel_max)."
        )
