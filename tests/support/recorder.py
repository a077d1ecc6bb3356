"""Record the events that the code under test emits, so that a test waits for them instead of for seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jq_actors.events import Event, Events

from .waiting import eventually

E = TypeVar("E", bound=Event)


class EventRecorder:
    """Records all events of the given classes, in order, from all threads.

    Make it before what it watches is started: `EventRecorder(runtime.events, JobFinished, JobFailed)`.
    """

    def __init__(self, events: Events, *kinds: type[Event]) -> None:
        self.seen: list[Event] = []
        self._stops = [events.subscribe(kind, self.seen.append) for kind in kinds]

    def of(self, kind: type[E], where: Callable[[E], bool] = lambda _: True) -> list[E]:
        """The events so far of exactly this class that satisfy ``where``."""
        return [event for event in tuple(self.seen) if isinstance(event, kind) and where(event)]

    async def wait_for(
        self,
        kind: type[E],
        where: Callable[[E], bool] = lambda _: True,
        *,
        count: int = 1,
        timeout: float = 15.0,
    ) -> list[E]:
        """Wait until there are ``count`` such events, and return them."""

        def enough() -> list[E] | None:
            found = self.of(kind, where)
            return found if len(found) >= count else None

        try:
            return await eventually(enough, timeout, f"{count} {kind.__name__}")
        except AssertionError as error:
            error.add_note(f"Seen were: {self.seen}")
            raise

    def stop(self) -> None:
        """Stop recording."""
        for stop in self._stops:
            stop()
