"""The connection of one role: it reconnects for ever, reports its state, and closes in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jq_actors.clock import Clock
from jq_actors.concurrency.background import Background
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import BrokerConnected, BrokerDisconnected, Events

from .link import Link, open_link

FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Bounds, in seconds, of the pause before the next attempt. The bound doubles, and the pause is drawn below it."""
STEADY_AFTER = 10.0
"""Seconds that a connection has to last until the pauses begin from the shortest again."""
REPORT_EVERY = 10.0
"""Seconds in which a lost connection is reported at most once (A41)."""

OnUp = Callable[[Link], None]
OnDown = Callable[[], None]


class Connection:
    """Keeps one connection to the broker.

    Parameters:
      role: ``publisher`` or ``consumer``, for events and for the connection's name on the server.
      on_up: called with each new link, before `wait_up` returns to anybody.
      on_down: called when that link is lost.
    """

    def __init__(
        self, role: str, config: BrokerConfig, clock: Clock, events: Events, on_up: OnUp, on_down: OnDown
    ) -> None:
        self.role = role
        self.link: Link | None = None
        self.why_down = "not started"
        """Why there is no link, for the results of a publish."""
        self.generation = 0
        """How many links there have been."""
        self._config, self._clock, self._events = config, clock, events
        self._on_up, self._on_down = on_up, on_down
        self._up = asyncio.Event()
        self._background = Background(events, clock)
        self._reports = _Reports(role, clock, events)
        self._failures = 0

    def start(self) -> None:
        """Begin to connect, and return at once."""
        self.why_down = "not yet connected"
        self._background.keep(f"{self.role} connection", self._run)

    async def wait_up(self, timeout: float) -> bool:
        """Whether there is a link, waiting up to ``timeout`` seconds for it."""
        return await happens(self._up, timeout)

    async def close(self) -> None:
        """Close the link, after what was written to it, and connect no more."""
        await self._background.stop()
        link = self.link
        if link is not None:
            self._lose("closed")
            await link.close()
        self.why_down = "closed"

    async def _run(self) -> None:
        while True:
            try:
                link = await open_link(self._config, self.role)
            except TransportError as error:
                self._failures += 1
                self.why_down = str(error)
                self._reports.down(str(error))
            else:
                await self._until_lost(link)
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 16))
            await self._clock.sleep(ceiling * self._clock.random())

    async def _until_lost(self, link: Link) -> None:
        since = self._clock.monotonic()
        self.link = link
        self.generation += 1
        self._on_up(link)
        self._up.set()
        self._reports.up(link.server)
        await link.lost()
        self._failures = 0 if self._clock.monotonic() - since >= STEADY_AFTER else self._failures + 1
        self._lose("the connection was lost")
        self.why_down = await link.close()
        self._reports.down(self.why_down)

    def _lose(self, reason: str) -> None:
        self.link, self.why_down = None, reason
        self._up.clear()
        self._on_down()


async def happens(event: asyncio.Event, timeout: float) -> bool:
    """Whether ``event`` is set, waiting up to ``timeout`` seconds for it."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


class _Reports:
    """Reports a loss at most once in `REPORT_EVERY`, and each connect after a loss that was reported."""

    def __init__(self, role: str, clock: Clock, events: Events) -> None:
        self._role, self._clock, self._events = role, clock, events
        self._last_loss: float | None = None
        self._last_was_up = False

    def up(self, server: str) -> None:
        """Connected. Not reported if the loss before it was not: the log already says that it is connected."""
        if not self._last_was_up:
            self._last_was_up = True
            self._events.emit(BrokerConnected(self._role, server))

    def down(self, reason: str) -> None:
        """Lost, or still not reached."""
        now = self._clock.monotonic()
        if self._last_loss is None or now - self._last_loss >= REPORT_EVERY:
            self._last_loss = now
            self._last_was_up = False
            self._events.emit(BrokerDisconnected(self._role, reason))
