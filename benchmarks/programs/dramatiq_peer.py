"""Dramatiq on RabbitMQ: its own defaults, publisher confirms on, the AsyncIO middleware for async actors."""

from __future__ import annotations

import os
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware.asyncio import AsyncIO

from .jobs import JOBS

QUEUE = "jq_bench_dramatiq"

broker = RabbitmqBroker(url=os.environ["JQ_BENCH_AMQP_URL"], confirm_delivery=True)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)
ACTORS = {job.__name__: dramatiq.actor(queue_name=QUEUE, broker=broker)(job) for job in JOBS}


class DramatiqProducer:
    """`actor.send` in a loop: Dramatiq has no call for sending many."""

    def open(self) -> None:
        """Connect and declare."""
        broker.declare_queue(QUEUE, ensure=True)

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """`send`, each confirmed."""
        send = ACTORS[job].send
        for n in numbers:
            send(n)

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """The same loop."""
        self.send_each(job, numbers)

    def close(self) -> None:
        """Disconnect."""
        broker.close()


PRODUCER = DramatiqProducer()
