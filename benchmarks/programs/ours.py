"""jq_actors: configured by the YAML file that $JQ_CONFIG names, with or without persistence."""

from __future__ import annotations

from collections.abc import Sequence

import dramatiq

from jq_actors import actor

from .jobs import JOBS

ACTORS = {job.__name__: actor(job) for job in JOBS}


class OurProducer:
    """`send` and `send_many` from a plain thread, as in a web application."""

    def open(self) -> None:
        """The first send connects."""

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """`send`, each confirmed (and, with persistence, committed)."""
        send = ACTORS[job].send
        for n in numbers:
            send(n)

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """One `send_many`."""
        ACTORS[job].send_many([((n,), {}) for n in numbers])

    def close(self) -> None:
        """Disconnect."""
        dramatiq.get_broker().close()


PRODUCER = OurProducer()
