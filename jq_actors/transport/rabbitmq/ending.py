"""The end of a lane's service, where others' consumers matter: what is given back in order, and the lane's deletion."""

from __future__ import annotations

from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import SETTLED, may_delete

from .access import Access, Consuming
from .room import Room
from .seat import End, Seat

RIVAL_LEAVES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each further look whether a second consumer has left."""
STEP = 0.02
"""Seconds between two looks at whether a lane is still without work."""


async def leave(access: Access, consuming: Consuming, seat: Seat) -> QueueDepth | None:
    """End the consumer of ``seat``, so that the lane has all back and in its order; then look.

    A quorum queue puts what comes back behind what came back before, so there the channel is closed: all at one stroke.
    Raises TransportError, TimeoutError.
    """
    if not seat.is_clean:
        seat.let_go()  # it may take a while
    if access.is_quorum and not seat.is_clean and consuming.channel.seats == 1:
        return await access.close(consuming, seat)
    if seat.is_clean or seat.lane.seats > 1 or access.is_quorum:
        return (await access.give_back(consuming, seat))[1]
    try:
        async with access.relief(seat.lane):
            await _outlast_rival(access, seat)
            if seat.end is End.LOST:
                return None
            await access.give_back(consuming, seat)
    except (TransportError, TimeoutError):
        if not consuming.channel.has(consuming.tag):
            raise
        return (await access.give_back(consuming, seat))[1]
    return await access.look(seat.lane)


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


async def cancel_and_delete(access: Access, consuming: Consuming, seat: Seat) -> QueueDepth | None:
    """Cancel our consumer, and delete the lane if nobody uses it; then look. Raises TransportError, TimeoutError."""
    async with access.shield(seat.lane) as ours:
        depth = await access.look(seat.lane)
        gave_back, _ = await access.give_back(consuming, seat)
        if may_delete(depth, ours, gave_back=gave_back):
            await access.delete(seat.lane)
    return await access.look(seat.lane)


async def _outlast_rival(access: Access, seat: Seat) -> None:
    """Wait for a consumer to leave that stands between ours and its relief: it leaves when it sees that it is too many.

    Were it there when ours is cancelled, it would get what comes behind that which is given back.
    """
    if not seat.taken:
        return  # then we may be the one too many
    for pause in RIVAL_LEAVES:
        try:
            depth = await access.look(seat.lane)
        except (TransportError, TimeoutError):
            return
        if depth is None or depth.consumers <= 2 or seat.end is End.LOST:
            return
        await access.clock.sleep(pause)


async def _is_slot_wanted(room: Room) -> bool:
    # With a single slot there is never one free: then the lobby tells.
    lobby = None if room.has_free else await room.depth()
    return lobby is not None and lobby.ready > 0
