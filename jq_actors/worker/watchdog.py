"""Watches the actor loop from the I/O loop, and shows where an async actor blocks it."""

from __future__ import annotations

import sys
import traceback

from jq_actors.clock import Clock
from jq_actors.concurrency.loops import LoopThread
from jq_actors.events import Events, LoopBlocked

STACK_DEPTH = 12
"""Innermost frames shown: the actor's own lines are among them."""


class Watchdog:
    """Pings the actor loop, and reports a missing answer: once per block, then each time its length has doubled.

    ``lag`` is the age of the last unanswered ping, in seconds; 0 when the loop answers.
    """

    def __init__(self, watched: LoopThread, warn_after: float, clock: Clock, events: Events) -> None:
        self._watched = watched
        self._warn_after = warn_after
        self._clock = clock
        self._events = events
        self._asked_at: float | None = None
        self._next_warning = warn_after

    @property
    def lag(self) -> float:
        """Seconds since the loop was asked and has not answered."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else self._clock.monotonic() - asked_at

    async def run(self) -> None:
        """Watch for ever; runs on the I/O loop."""
        while True:
            self.look()
            await self._clock.sleep(self._warn_after / 4)

    def look(self) -> None:
        """Ping the loop, or report that the last ping has gone unanswered for too long."""
        if self._asked_at is None:
            self._next_warning = self._warn_after
            self._asked_at = self._clock.monotonic()
            self._watched.loop.call_soon_threadsafe(self._answer)
        elif (lag := self.lag) >= self._next_warning:
            self._events.emit(LoopBlocked(lag, self._stack()))
            self._next_warning *= 2

    def _answer(self) -> None:
        self._asked_at = None

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched.ident or 0)
        return "".join(traceback.format_stack(frame)[-STACK_DEPTH:]) if frame else "(the thread is gone)"
