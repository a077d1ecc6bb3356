"""The end of a lane's service where others' consumers matter: messages are returned in order, idle lanes deleted."""

from __future__ import annotations

from typing import Any

from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import SETTLED

from .access import Access, Attachment
from .lane_consumer import End, LaneConsumer
from .service_host import ServiceHost

RIVAL_LEAVES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each further look whether a second consumer has left."""
STEP = 0.02
"""Seconds between two looks at whether a lane is still without work."""
EMPTY = QueueDepth(ready=0, consumers=0)


async def end_consumer(access: Access, attachment: Attachment, consumer: LaneConsumer) -> QueueDepth | None:
    """End ``consumer`` so that the lane has all messages back and in their order, then look.

    A lane that may be deleted always has a consumer while something is being returned to it: see
    `end_consumer_and_delete`. A quorum queue puts each returned message behind those that were returned before, so
    there the channel is closed, which returns all at once.
    Raises TransportError, TimeoutError.
    """
    if not consumer.is_clean:
        consumer.send_kept_acks()  # the rest may take a while
    if access.is_quorum and not consumer.is_clean and attachment.channel.consumers == 1:
        return await access.close_channel(attachment, consumer)
    if consumer.is_clean or consumer.lane.seats > 1 or access.is_quorum:
        return await access.cancel_and_return(attachment, consumer)
    try:
        async with access.relief(consumer.lane):
            await _wait_for_rival_to_leave(access, consumer)
            if consumer.end is End.LOST:
                return None
            await access.cancel_and_return(attachment, consumer)
    except (TransportError, TimeoutError):
        if not attachment.channel.has(attachment.tag):
            raise
        # The broker hangs, or has no channel for a relief although some are reserved (`channel_numbers.RESERVED`).
        return await access.cancel_and_return(attachment, consumer)
    return await access.look(consumer.lane)


async def stays_idle(access: Access, host: ServiceHost[Any], consumer: LaneConsumer) -> bool:
    """Whether ``consumer`` is the only one and receives nothing for `tokens.SETTLED`."""
    try:
        if await access.look(consumer.lane) != QueueDepth(ready=0, consumers=1):
            return False
        until = access.clock.monotonic() + SETTLED.total_seconds()
        while consumer.end is End.DRAINED and consumer.has_nothing_to_return and not await _is_slot_wanted(host):
            if access.clock.monotonic() >= until:
                return True
            await access.clock.sleep(STEP)
    except (TransportError, TimeoutError):
        return False  # it is deleted another time
    return False


async def end_consumer_and_delete(access: Access, attachment: Attachment, consumer: LaneConsumer) -> QueueDepth | None:
    """`end_consumer`, then delete the lane if nobody uses it, else look. Raises TransportError, TimeoutError.

    The broker deletes a queue without consumers and messages, and with it what somebody has unacked in hand. But
    whoever has an unfinished message in hand consumes the lane, or has a relief there that does, until the broker has
    the message back. So a lane without consumers and messages has nothing unacked that matters, and the broker checks
    both once more in the step in which it deletes the lane.
    """
    depth = await end_consumer(access, attachment, consumer)
    if depth != EMPTY:
        return depth
    return None if await access.delete(consumer.lane) else await access.look(consumer.lane)


async def _wait_for_rival_to_leave(access: Access, consumer: LaneConsumer) -> None:
    """Wait for a consumer between ours and its relief. It leaves when it sees that it is one too many.

    If it were still there when ours is cancelled, it would get the messages behind those that we return.
    """
    if not consumer.received:
        return  # ours may be the one too many
    for pause in RIVAL_LEAVES:
        try:
            depth = await access.look(consumer.lane)
        except (TransportError, TimeoutError):
            return
        if depth is None or depth.consumers <= 2 or consumer.end is End.LOST:
            return
        await access.clock.sleep(pause)


async def _is_slot_wanted(host: ServiceHost[Any]) -> bool:
    # With a single slot there is never a free one: then the lobby says whether lanes wait.
    lobby = None if host.has_free_slot else await host.depth()
    return lobby is not None and lobby.ready > 0
