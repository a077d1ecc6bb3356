"""Gives deliveries back that have waited too long, to a broker that counts how often a message was returned.

A quorum queue moves a message to the dead queue once it was returned ``broker.delivery_limit`` times. A job that merely
waits behind long ones must not end there, so it is published anew, and the old message acked.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jq_actors.events import DeliveryRenewed, Events, TaskFailed
from jq_actors.model.command import JobCommand
from jq_actors.model.outcome import failure_of
from jq_actors.transport.port import Delivery, Outgoing, Published, Transport


class Renewal:
    """Gives back deliveries that were not claimed; on the I/O loop."""

    def __init__(self, transport: Transport, events: Events) -> None:
        self._transport, self._events = transport, events
        self._tasks: set[asyncio.Task[None]] = set()

    def give_back(self, delivery: Delivery, command: JobCommand[Any]) -> None:
        """Let the broker deliver it again, to anybody; where that counts, as a new message behind the others.

        In a group it keeps its place, and is counted.
        """
        if not self._transport.counts_returns or delivery.lane is not None:
            delivery.requeue()
            return
        task = asyncio.get_running_loop().create_task(self._renew(delivery, command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew(self, delivery: Delivery, command: JobCommand[Any]) -> None:
        renewed = Outgoing(command.job_id, delivery.dispatch, delivery.queue, delivery.body, command.priority)
        try:
            [result] = await self._transport.publish([renewed])
        except Exception as error:  # noqa: BLE001 - a mistake of ours: reported, and the message is given back anyway
            failure = failure_of(error)
            self._events.emit(TaskFailed("renewing a delivery", failure.error, failure.traceback))
            delivery.requeue()
            return
        if isinstance(result, Published):
            delivery.ack()
            self._events.emit(DeliveryRenewed(command.job_id, delivery.queue))
        else:
            delivery.requeue()
