"""The sending side of jq_actors, for all programs of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dramatiq

from jq_actors import JobActor


class OurProducer:
    """`send` and `send_many` from a plain thread, as in a web application."""

    def __init__(self, actors: Mapping[str, JobActor[[int], Any]]) -> None:
        self._actors = actors

    def open(self) -> None:
        """The first send connects."""

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """`send`, each confirmed (and, with persistence, committed)."""
        send = self._actors[job].send
        for n in numbers:
            send(n)

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """One `send_many`."""
        self._actors[job].send_many([((n,), {}) for n in numbers])

    def close(self) -> None:
        """Disconnect."""
        dramatiq.get_broker().close()
