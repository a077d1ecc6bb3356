"""The messages of one call of publish, and what is known of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from jq_actors.transport.port import NotPublished, PublishResult, PublishUnknown

from .outgoing import OutgoingMessage

REFUSED = NotPublished("the broker refused it (nack)")


class Batch:
    """Messages on their way.

    Parameters:
      unconfirmed: the reason in the result of a message that was sent and has no answer.
      is_open: whether the route of a message is known to be open. Plain queues are assumed to exist.
    """

    def __init__(
        self, messages: Sequence[OutgoingMessage], unconfirmed: str, is_open: Callable[[OutgoingMessage], bool]
    ) -> None:
        self.messages = messages
        self.unopened = [i for i, message in enumerate(messages) if message.is_special and not is_open(message)]
        """Indexes of the messages whose route has to be opened before they are sent."""
        indexes = range(len(messages))
        self.to_send = sorted({*indexes} - {*self.unopened}) if self.unopened else list(indexes)
        """Indexes of the messages to send next, in this order."""
        self.waiting = self.in_flight = 0
        """How many wait to be sent, and how many have no answer yet; counted by the `Window`."""
        self.is_withdrawn = False
        """Whether the caller of publish no longer waits."""
        self.results: list[PublishResult | None] = [None] * len(messages)
        self.returned: list[int] = []
        self.unconfirmed = PublishUnknown(unconfirmed)
        self._open = len(messages)
        self._answered: asyncio.Future[None] | None = None

    async def answered(self) -> None:
        """Wait until every message has an answer."""
        self._open = self.waiting + self.in_flight
        self._answered = asyncio.get_running_loop().create_future()
        await self._answered

    def confirm(self, index: int, result: PublishResult) -> None:
        """The broker has answered. A message that came back is confirmed too, but was not published."""
        if self.results[index] is self.unconfirmed:
            self.results[index] = result
        self._one_less()

    def came_back(self, index: int, reason: str) -> None:
        """No queue took the message."""
        self.results[index] = NotPublished(f"no queue took it: {reason}")
        self.returned.append(index)

    def take_returned(self) -> list[int]:
        """Take the indexes of the messages that came back, to send them once more."""
        returned, self.returned = self.returned, []
        return returned

    def take_refused(self) -> bool:
        """Prepare to send the refused messages again. Returns whether there are any."""
        self.to_send.extend(index for index, result in enumerate(self.results) if result is REFUSED)
        return bool(self.to_send)

    def reject(self, index: int, result: PublishResult) -> None:
        """A waiting message will not be sent."""
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
