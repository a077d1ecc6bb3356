"""taskiq on RabbitMQ by taskiq-aio-pika: a classic queue like the others, prefetch = its concurrency."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_aio_pika.queue import QueueType

from .jobs import JOBS

PREFETCH = int(os.environ["JQ_BENCH_CONCURRENCY"])

broker = AioPikaBroker(
    url=os.environ["JQ_BENCH_AMQP_URL"],
    qos=PREFETCH,
    exchange=Exchange(name="jq_bench_taskiq"),
    task_queues=[Queue(name="jq_bench_taskiq", type=QueueType.CLASSIC)],
    dead_letter_queue=Queue(name="jq_bench_taskiq.dead", type=QueueType.CLASSIC),
)
TASKS = {job.__name__: broker.register_task(job, task_name=job.__name__) for job in JOBS}


class TaskiqProducer:
    """`kiq` on a loop of this thread; aio-pika's channel has publisher confirms on."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def open(self) -> None:
        """Connect and declare."""
        self._loop.run_until_complete(broker.startup())

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """One `await kiq` after the other."""
        self._loop.run_until_complete(self._one_by_one(job, numbers))

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """All `kiq` of the batch in flight together: taskiq has no call for many, and this is the usual way."""
        self._loop.run_until_complete(self._together(job, numbers))

    def close(self) -> None:
        """Disconnect."""
        self._loop.run_until_complete(broker.shutdown())
        self._loop.close()

    async def _one_by_one(self, job: str, numbers: Sequence[int]) -> None:
        for n in numbers:
            await TASKS[job].kiq(n)

    async def _together(self, job: str, numbers: Sequence[int]) -> None:
        await asyncio.gather(*(TASKS[job].kiq(n) for n in numbers))


PRODUCER = TaskiqProducer()
