"""The end of a lane's service, where others' consumers matter: a rival that stands by, and the lane's deletion."""

from __future__ import annotations

from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import SETTLED, may_delete

from .access import Access
from .consuming import ConsumingChannel
from .room import Room
from .seat import End, Seat

RIVAL_LEAVES = (0.05, 0.1, 0.2, 0.4)
"""Seconds before each further look whether a second consumer has left."""
STEP = 0.02
"""Seconds between two looks at whether a lane is still without work."""


async def outlast_rival(access: Access, seat: Seat) -> None:
    """Wait for a second consumer to leave that attached at the same moment as ours: it sees that nothing comes.

    Were it there when ours is cancelled, it would get what comes behind that which is given back.
    """
    if seat.lane.seats > 1 or seat.has_no_rest:
        return
    for pause in RIVAL_LEAVES:
        try:
            depth = await access.look(seat.lane)
        except (TransportError, TimeoutError):
            return
        if depth is None or depth.consumers <= 1 or seat.end is End.LOST:
            return
        await access.clock.sleep(pause)


async def stays_alone(access: Access, room: Room, seat: Seat) -> bool:
    """See `tokens.SETTLED`: whether so long nothing comes to us, and we are the only consumer."""
    try:
        if await access.look(seat.lane) != QueueDepth(ready=0, consumers=1):
            return False
        until = access.clock.monotonic() + SETTLED.total_seconds()
        while seat.end is End.DRAINED and seat.has_no_rest and not await _is_slot_wanted(room):
            if access.clock.monotonic() >= until:
                return True
            await access.clock.sleep(STEP)
    except (TransportError, TimeoutError):
        pass  # then it is deleted another time
    return False


async def cancel_and_delete(access: Access, channel: ConsumingChannel, tag: str, seat: Seat) -> None:
    """Cancel our consumer, and delete the lane if nobody uses it. Raises TransportError, TimeoutError."""
    async with access.shield(seat.lane) as ours:
        depth = await access.look(seat.lane)
        gave_back = await access.give_back(channel, tag, seat)
        if may_delete(depth, ours, gave_back=gave_back):
            await access.delete(seat.lane)


async def _is_slot_wanted(room: Room) -> bool:
    # With a single slot there is never one free: then the lobby tells.
    lobby = None if room.has_free else await room.depth()
    return lobby is not None and lobby.ready > 0
