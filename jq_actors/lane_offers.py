"""A group may go on: the lanes that workers have left are offered to them again."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import TransportError
from .events import OfferDeferred
from .runtime import Runtime

OFFER_TIMEOUT = 2.0
"""Seconds that an operation waits for the connection: it is stored already, and a relay does the rest."""


async def offer_group(runtime: Runtime, group: str, queues: Iterable[str]) -> None:
    """Have the lanes of ``group`` in ``queues`` served, and let this process's relay, if it has one, look at once.

    A broker that is away is no error (`OfferDeferred`): the workers' relays find groups that do not move.
    """
    runtime.sender.on_stored()
    lanes = [runtime.groups.lane_of(queue, group) for queue in sorted(set(queues))]
    if not lanes:
        return
    await runtime.sender.connect()
    if not await runtime.transport.wait_connected(OFFER_TIMEOUT):
        runtime.events.emit(OfferDeferred(group, "no connection to the broker"))
        return
    try:
        await runtime.transport.offer(lanes)
    except TransportError as error:
        runtime.events.emit(OfferDeferred(group, str(error)))
