"""Publishing: pipelined and confirmed, within a window and a deadline; what became of each is a value.

Letters wait in the `Window`, for each of the broker's queues in the order of the calls. `_pump` sends from there
whenever there is a channel, and the broker takes messages. Nothing here runs in the caller's task but the waiting: a
cancelled caller leaves channel and confirms alone (A12).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jq_actors.clock import Clock
from jq_actors.concurrency.background import Background
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import Events, PublisherBlocked
from jq_actors.transport.port import NotPublished, Published, PublishResult, PublishUnknown
from jq_actors.transport.rabbitmq.amqp.connection import Connection, happens
from jq_actors.transport.rabbitmq.amqp.link import Link

from .batch import REFUSED, Batch
from .outgoing import Letter, Mailbox, open_mailbox
from .routes import Ways
from .window import Window

CHUNK = 64
"""Most letters in one write; after each it is seen whether the socket takes more."""
AFTER_A_REFUSAL = (0.1, 0.5, 2.0)
"""Seconds before each further sending of a message that the broker refused (nack)."""
REOPEN_DELAY = 0.5
"""Seconds before the next try when the channel could not be opened."""
LOOKS, SILENT_LOOKS = 8, 4
"""Looks in one deadline at whether the broker answers, and how many in vain until the connection is given up."""

OpenWay = Callable[[Link, Letter], Awaitable[None]]
"""Declares what a letter needs to arrive; raises TransportError."""

_PUBLISHED = Published()
_CLOSED = "the transport is closed"


class Publisher:
    """The publishing side of the transport.

    Parameters:
      on_taking: called when the broker takes messages again.
    """

    def __init__(
        self, config: BrokerConfig, ways: Ways, clock: Clock, events: Events, on_taking: Callable[[], None]
    ) -> None:
        self.connection = Connection("publisher", config, clock, events, self._on_up, self._on_down)
        self.blocked = False
        """Whether the broker has stopped taking messages."""
        self._deadline = config.confirm_timeout.total_seconds()
        self._window = Window(config.publish_window)
        self._ways, self._clock, self._events, self._on_taking = ways, clock, events, on_taking
        self._background = Background(events, clock)
        self._mailbox: Mailbox | None = None
        self._has_mailbox = asyncio.Event()
        self._pump_is_due = self._is_closed = False
        self._opening: dict[tuple[str | None, str, str], asyncio.Task[str | None]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether there is a channel to publish on."""
        return self._mailbox is not None

    @property
    def is_taking(self) -> bool:
        """Whether the broker takes messages now."""
        return self.is_connected and not self.blocked

    def start(self) -> None:
        """Begin to connect, also again after `close`."""
        self._is_closed = False
        self.connection.start()
        self._background.keep("publisher's watch", self._watch)

    async def wait_connected(self, timeout: float) -> bool:
        """Whether there is a channel to publish on, waiting up to ``timeout`` seconds for it."""
        return await happens(self._has_mailbox, timeout)

    async def publish(self, letters: Sequence[Letter], within: float | None = None) -> list[PublishResult]:
        """Send ``letters`` in their order; what became of each, within the deadline or ``within`` seconds."""
        if self._is_closed:
            return [NotPublished(_CLOSED)] * len(letters)
        seconds = self._deadline if within is None else within
        batch = Batch(letters, f"the broker did not confirm within {seconds:.3g} s", self._ways.is_open)
        try:
            async with asyncio.timeout(seconds):
                if batch.unopened:
                    await self._open_ways(batch, batch.unopened, self._ways.prepare)
                await self._send(batch)
                await self._open_ways(batch, batch.take_returned(), self._ways.restore)
                await self._send(batch)
                await self._insist(batch)
        except TimeoutError:
            return batch.final(self._why_not_sent(batch))
        finally:
            self._window.withdraw(batch)
        return batch.final("")

    async def close(self) -> None:
        """Close the connection. What waits is not published, what is unconfirmed is unknown."""
        self._is_closed = True
        await self._background.stop()
        await self.connection.close()
        self._window.give_up(_CLOSED)

    # -- one call of publish

    async def _send(self, batch: Batch) -> None:
        if batch.to_send:
            self._window.add(batch)
            self._pump_soon()
            await batch.answered()

    async def _insist(self, batch: Batch) -> None:
        """Send again what the broker refused: a quorum queue does so until its leader is elected."""
        for pause in AFTER_A_REFUSAL:
            if not batch.take_refused():
                return
            await self._clock.sleep(pause)
            await self._send(batch)

    async def _open_ways(self, batch: Batch, indexes: Sequence[int], open_way: OpenWay) -> None:
        ways = {batch.letters[index].way: batch.letters[index] for index in indexes}
        opened = await asyncio.gather(*(self._open_once(letter, open_way) for letter in ways.values()))
        errors = dict(zip(ways, opened, strict=True))
        for index in indexes:
            error = errors[batch.letters[index].way]
            if error is None:
                batch.to_send.append(index)
            else:
                batch.results[index] = NotPublished(error)

    async def _open_once(self, letter: Letter, open_way: OpenWay) -> str | None:
        """Open the way of ``letter``, once for all calls that wait for the same one; what went wrong."""
        way = letter.way
        task = self._opening.get(way)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._open_way(letter, open_way))
            self._opening[way] = task
            task.add_done_callback(lambda _: self._opening.pop(way))
        return await asyncio.shield(task)

    async def _open_way(self, letter: Letter, open_way: OpenWay) -> str | None:
        await self.connection.wait_up(self._deadline)
        link = self.connection.link
        if link is None:
            return self._why_down()
        try:
            await open_way(link, letter)
        except TimeoutError:
            return f"no queue for {letter.routing_key}, and the broker does not answer"
        except TransportError as error:
            return f"no queue for {letter.routing_key}: {error}"
        return None

    def _why_not_sent(self, batch: Batch) -> str:
        if self.connection.link is None:
            return self._why_down()
        if self.blocked:
            return "the broker blocks publishers (memory or disk alarm)"
        return self._window.why_full(batch)

    def _why_down(self) -> str:
        return f"no connection to the broker: {self.connection.why_down}"

    # -- the channel

    def _pump_soon(self) -> None:
        # Once in a turn of the loop: what came meanwhile goes out in one write.
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        mailbox = self._mailbox
        while mailbox is not None and mailbox.writable and not self.blocked:
            numbered = self._window.take(CHUNK)
            if not numbered:
                return
            mailbox.send(numbered)

    async def _watch(self) -> None:
        """Give the connection up that the broker does not read any more for the sake of one queue (see `window`)."""
        answers, silent = 0, 0
        while True:
            await self._clock.sleep(self._deadline / LOOKS)
            queue, link = self._window.held_up_by, self.connection.link
            is_held_up = queue is not None and answers == self._window.answers and not self.blocked
            answers, silent = self._window.answers, silent + 1 if is_held_up else 0
            if silent == SILENT_LOOKS and link is not None:
                link.give_up(f"{queue} does not confirm, and holds up all others")

    async def _open_mailbox(self, link: Link) -> None:
        while link is self.connection.link:
            try:
                channel = await link.open_channel(confirms=True)
            except TransportError:
                await self._clock.sleep(REOPEN_DELAY)
                continue
            self._window.begin()
            self._mailbox = open_mailbox(link, channel, self._window.last_number, self)
            self._has_mailbox.set()
            self._pump_soon()
            self._on_taking()
            return

    def on_confirm(self, number: int, *, multiple: bool, taken: bool) -> None:
        """See `letters.Told`."""
        self._window.confirm(number, _PUBLISHED if taken else REFUSED, multiple=multiple)
        if self._window.is_waited_for:
            self._pump_soon()

    def on_return(self, number: int, reason: str) -> None:
        """See `letters.Told`."""
        self._window.came_back(number, reason)

    def on_mailbox_lost(self, mailbox: Mailbox, reason: str) -> None:
        """See `letters.Told`."""
        if mailbox is not self._mailbox:
            return
        self._mailbox = None
        self._has_mailbox.clear()
        self._ways.doubt()
        self._window.lose(PublishUnknown(f"not confirmed before the channel ended: {reason}"))
        link = self.connection.link
        if link is not None:
            self._background.send("publisher channel", self._open_mailbox(link))

    def _on_up(self, link: Link) -> None:
        if link.tap is not None:
            link.tap.on_blocked = self._set_blocked
            link.tap.on_writable = self._pump_soon
        self._background.send("publisher channel", self._open_mailbox(link))

    def _on_down(self) -> None:
        if self._mailbox is not None:
            self.on_mailbox_lost(self._mailbox, "the connection was lost")
        self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        if blocked == self.blocked:
            return
        self.blocked = blocked
        self._events.emit(PublisherBlocked(blocked))
        if self.is_taking:
            self._pump_soon()
            self._on_taking()
