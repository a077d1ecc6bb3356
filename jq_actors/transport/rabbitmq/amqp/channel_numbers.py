"""The numbers of the channels of one connection: as many as the server allows, and none given twice."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from jq_actors.errors import TransportError

MOST = 65_535
"""AMQP's own bound."""
RESERVED = 8
"""Numbers for channels that cannot be shared: those for declares, queue counts and reliefs."""


class ChannelsExhaustedError(TransportError):
    """The server allows no more channels on this connection."""


class ChannelNumbers:
    """Gives numbers in a circle, so that the one that was freed last is used again last.

    aiormq would choose the lowest one above all others, whatever the server allows. One too many ends the connection.

    Parameters:
      channel_max: what the connection has agreed on; 0: no limit.
      in_use: kept by aiormq, which frees a number when the broker confirms the end of its channel.
    """

    def __init__(self, channel_max: int, in_use: Collection[int]) -> None:
        self.most = channel_max or MOST
        self._in_use, self._opening, self._last = in_use, set[int](), 0

    @property
    def have_spare(self) -> bool:
        """Whether one more channel may be opened for those who could also share one."""
        return len(self._in_use) + RESERVED < self.most

    @contextmanager
    def next(self) -> Iterator[int]:
        """A free number, which nobody else gets as long as this lasts.

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
            if self._last not in self._in_use and self._last not in self._opening:
                return self._last
        raise ChannelsExhaustedError(
            f"All {self.most} channels of the connection are in use, and the server allows no more (channel_max)."
        )
