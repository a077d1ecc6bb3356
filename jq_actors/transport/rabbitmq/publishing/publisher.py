"""Publishing: pipelined and confirmed, within a window and a deadline, with one result for each message.

Messages wait in the `Window`, for each of the broker's queues in the order of the calls. `_pump` sends them from there
whenever there is a channel and the broker takes messages. The caller's task does nothing but wait, so a cancelled
caller disturbs neither the channel nor the confirms (A12).
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
from .outgoing import OutgoingMessage, PublishingChannel
from .routes import Routes
from .window import Window

CHUNK = 64
"""Messages in one write. After each write it is checked whether the socket takes more."""
AFTER_A_REFUSAL = (0.1, 0.5, 2.0)
"""Seconds before each further attempt to send a message that the broker refused (nack)."""
REOPEN_DELAY = 0.5
"""Seconds before the next attempt when the channel could not be opened."""
CHECKS, SILENT_CHECKS = 8, 4
"""How often in one deadline it is checked whether the broker answers, and after how many checks without an answer the
connection is aborted."""

OpenRoute = Callable[[Link, OutgoingMessage], Awaitable[None]]
"""Declares what a message needs to arrive. Raises TransportError."""

_PUBLISHED = Published()
_CLOSED = "the transport is closed"


class Publisher:
    """The publishing side of the transport.

    Parameters:
      on_taking: called when the broker takes messages again.
    """

    def __init__(
        self, config: BrokerConfig, routes: Routes, clock: Clock, events: Events, on_taking: Callable[[], None]
    ) -> None:
        self.connection = Connection("publisher", config, clock, events, self._on_up, self._on_down)
        self.blocked = False
        """Whether the broker has stopped taking messages."""
        self._deadline = config.confirm_timeout.total_seconds()
        self._window = Window(config.publish_window)
        self._routes, self._clock, self._events, self._on_taking = routes, clock, events, on_taking
        self._background = Background(events, clock)
        self._channel: PublishingChannel | None = None
        self._has_channel = asyncio.Event()
        self._pump_is_due = self._is_closed = False
        self._opening: dict[tuple[str | None, str, str], asyncio.Task[str | None]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether there is a channel to publish on."""
        return self._channel is not None

    @property
    def is_taking(self) -> bool:
        """Whether the broker takes messages now."""
        return self.is_connected and not self.blocked

    def start(self) -> None:
        """Begin to connect. Works again after `close`."""
        self._is_closed = False
        self.connection.start()
        self._background.keep("publisher's watch", self._watch)

    async def wait_connected(self, timeout: float) -> bool:
        """Whether there is a channel to publish on, waiting up to ``timeout`` seconds for it."""
        return await happens(self._has_channel, timeout)

    async def publish(self, messages: Sequence[OutgoingMessage], within: float | None = None) -> list[PublishResult]:
        """Send ``messages`` in their order, within the deadline or ``within`` seconds. Returns a result for each."""
        if self._is_closed:
            return [NotPublished(_CLOSED)] * len(messages)
        seconds = self._deadline if within is None else within
        batch = Batch(messages, f"the broker did not confirm within {seconds:.3g} s", self._routes.is_open)
        try:
            async with asyncio.timeout(seconds):
                if batch.unopened:
                    await self._open_routes(batch, batch.unopened, self._routes.prepare)
                await self._send(batch)
                await self._open_routes(batch, batch.take_returned(), self._routes.restore)
                await self._send(batch)
                await self._insist(batch)
        except TimeoutError:
            return batch.final(self._why_not_sent(batch))
        finally:
            self._window.withdraw(batch)
        return batch.final("")

    async def close(self) -> None:
        """Close the connection. Waiting messages are not published, unconfirmed ones stay unknown."""
        self._is_closed = True
        await self._background.stop()
        await self.connection.close()
        self._window.reject_waiting(_CLOSED)

    # -- one call of publish

    async def _send(self, batch: Batch) -> None:
        if batch.to_send:
            self._window.add(batch)
            self._pump_soon()
            await batch.answered()

    async def _insist(self, batch: Batch) -> None:
        """Send refused messages again: a quorum queue refuses all until its leader is elected."""
        for pause in AFTER_A_REFUSAL:
            if not batch.take_refused():
                return
            await self._clock.sleep(pause)
            await self._send(batch)

    async def _open_routes(self, batch: Batch, indexes: Sequence[int], open_route: OpenRoute) -> None:
        routes = {batch.messages[index].route: batch.messages[index] for index in indexes}
        opened = await asyncio.gather(*(self._open_once(message, open_route) for message in routes.values()))
        errors = dict(zip(routes, opened, strict=True))
        for index in indexes:
            error = errors[batch.messages[index].route]
            if error is None:
                batch.to_send.append(index)
            else:
                batch.results[index] = NotPublished(error)

    async def _open_once(self, message: OutgoingMessage, open_route: OpenRoute) -> str | None:
        """Open the route of ``message``, once for all calls that wait for it. Returns what went wrong, if anything."""
        route = message.route
        task = self._opening.get(route)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._open_route(message, open_route))
            self._opening[route] = task
            task.add_done_callback(lambda _: self._opening.pop(route))
        return await asyncio.shield(task)

    async def _open_route(self, message: OutgoingMessage, open_route: OpenRoute) -> str | None:
        await self.connection.wait_up(self._deadline)
        link = self.connection.link
        if link is None:
            return self._why_down()
        try:
            await open_route(link, message)
        except TimeoutError:
            return f"no queue for {message.routing_key}, and the broker does not answer"
        except TransportError as error:
            return f"no queue for {message.routing_key}: {error}"
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
        # Once in a turn of the loop: all messages of that turn go out in one write.
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        channel = self._channel
        while channel is not None and channel.writable and not self.blocked:
            numbered = self._window.take(CHUNK)
            if not numbered:
                return
            channel.send(numbered)

    async def _watch(self) -> None:
        """Abort a connection that the broker no longer reads because of one queue (see `window`)."""
        answers, silent = 0, 0
        while True:
            await self._clock.sleep(self._deadline / CHECKS)
            queue, link = self._window.held_up_by, self.connection.link
            is_held_up = queue is not None and answers == self._window.answers and not self.blocked
            answers, silent = self._window.answers, silent + 1 if is_held_up else 0
            if silent == SILENT_CHECKS and link is not None:
                link.abort(f"{queue} does not confirm, and holds up all others")

    async def _open_channel(self, link: Link) -> None:
        while link is self.connection.link:
            try:
                channel = await link.open_channel(confirms=True)
            except TransportError:
                await self._clock.sleep(REOPEN_DELAY)
                continue
            self._window.begin()
            self._channel = PublishingChannel(link, channel, self._window.last_number, self)
            self._has_channel.set()
            self._pump_soon()
            self._on_taking()
            return

    # -- ConfirmListener

    def on_confirm(self, number: int, *, multiple: bool, taken: bool) -> None:
        """Settle what the broker has answered, and send on."""
        self._window.confirm(number, _PUBLISHED if taken else REFUSED, multiple=multiple)
        if self._window.is_waited_for:
            self._pump_soon()

    def on_return(self, number: int, reason: str) -> None:
        """Remember that no queue took the message, until its confirm arrives."""
        self._window.came_back(number, reason)

    def on_channel_lost(self, channel: PublishingChannel, reason: str) -> None:
        """Give up what is unconfirmed, and open another channel."""
        if channel is not self._channel:
            return
        self._channel = None
        self._has_channel.clear()
        self._routes.doubt()
        self._window.lose(PublishUnknown(f"not confirmed before the channel ended: {reason}"))
        link = self.connection.link
        if link is not None:
            self._background.send("publisher channel", self._open_channel(link))

    def _on_up(self, link: Link) -> None:
        link.tap.on_blocked = self._set_blocked
        link.tap.on_writable = self._pump_soon
        self._background.send("publisher channel", self._open_channel(link))

    def _on_down(self) -> None:
        if self._channel is not None:
            self.on_channel_lost(self._channel, "the connection was lost")
        self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        if blocked == self.blocked:
            return
        self.blocked = blocked
        self._events.emit(PublisherBlocked(blocked))
        if self.is_taking:
            self._pump_soon()
            self._on_taking()
