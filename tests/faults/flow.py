"""A sender that goes on and on, whatever breaks meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .site import Sending, numbered
from .tally import Tally

PACE = 0.02
"""Seconds between two sendings."""
STOP_TIMEOUT = 30.0


@contextmanager
def flowing(tally: Tally, sending: Sending) -> Iterator[None]:
    """Send jobs of all kinds, one by one and several at once, to the end of the block; ``tally`` says what became of
    them."""
    over = threading.Event()

    def flow() -> None:
        actors, number = sending.actors, 0
        while not over.wait(PACE):
            number += 1
            with tally.told() as told:
                match number % 3:
                    case 0:
                        told.append(actors.sleeps.send(number, 1.5))
                    case 1:
                        told.append(actors.sleeps_in_thread.send(number, 0.1))
                    case _:
                        told += actors.counts.send_many(numbered([number] * 3))

    thread = threading.Thread(target=flow, name="flow")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(STOP_TIMEOUT)
        assert not thread.is_alive(), "a sending hangs"
