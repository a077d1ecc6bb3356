"""The letters of one call of publish, and what is known of each at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from jq_actors.transport.port import NotPublished, PublishResult, PublishUnknown

from .outgoing import Letter

REFUSED = NotPublished("the broker refused it (nack)")


class Batch:
    """Letters on their way.

    Parameters:
      unconfirmed: what is said of one that was sent and has no answer.
      is_open: whether the way of a letter is known to be open; plain queues are taken to be there.
    """

    def __init__(self, letters: Sequence[Letter], unconfirmed: str, is_open: Callable[[Letter], bool]) -> None:
        self.letters = letters
        self.unopened = [i for i, letter in enumerate(letters) if letter.is_special and not is_open(letter)]
        """Indexes of those whose way has to be opened before they are sent."""
        indexes = range(len(letters))
        self.to_send = sorted({*indexes} - {*self.unopened}) if self.unopened else list(indexes)
        """Indexes of those to send next, in this order."""
        self.waiting = self.in_flight = 0
        """How many of them wait to be sent, and how many have no answer yet; counted by the `Window`."""
        self.is_withdrawn = False
        """Whether nobody waits for it any more."""
        self.results: list[PublishResult | None] = [None] * len(letters)
        self.returned: list[int] = []
        self.unconfirmed = PublishUnknown(unconfirmed)
        self._open = len(letters)
        self._answered: asyncio.Future[None] | None = None

    async def answered(self) -> None:
        """Wait until nothing is known to be open."""
        self._open = self.waiting + self.in_flight
        self._answered = asyncio.get_running_loop().create_future()
        await self._answered

    def confirm(self, index: int, result: PublishResult) -> None:
        """The answer to a sending; that of one that came back is no success."""
        if self.results[index] is self.unconfirmed:
            self.results[index] = result
        self._one_less()

    def came_back(self, index: int, reason: str) -> None:
        """No queue took it."""
        self.results[index] = NotPublished(f"no queue took it: {reason}")
        self.returned.append(index)

    def take_returned(self) -> list[int]:
        """Those that came back, to be sent once more."""
        returned, self.returned = self.returned, []
        return returned

    def take_refused(self) -> bool:
        """Put those that the broker refused among those to send; whether there are any."""
        self.to_send.extend(index for index, result in enumerate(self.results) if result is REFUSED)
        return bool(self.to_send)

    def give_up(self, index: int, result: PublishResult) -> None:
        """It waited, and will not be sent."""
        self.results[index] = result
        self.waiting -= 1
        self._one_less()

    def final(self, why_not_sent: str) -> list[PublishResult]:
        """All results, as they are now."""
        return [NotPublished(why_not_sent) if result is None else result for result in self.results]

    def _one_less(self) -> None:
        self._open -= 1
        if self._open == 0 and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
