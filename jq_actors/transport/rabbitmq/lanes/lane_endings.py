"""The end of a lane's service, where others' consumers matter: what is given back in order, and the lane's deletion."""

from __future__ import annotations

from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import SETTLED

from .access import Access, Consuming
from .room import Room
from .seat import End, Seat

RIVAL_LEAVES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each further look whether a second consumer has left."""
STEP = 0.02
"""Seconds between two looks at whether a lane is still without work."""
EMPTY = QueueDepth(ready=0, consumers=0)


async def leave(access: Access, consuming: Consuming, seat: Seat) -> QueueDepth | None:
    """End the consumer of ``seat``, so that the lane has all back and in its order; then look.

    A lane that may be deleted always has a consumer while something is on its way back: see `leave_and_delete`. A
    quorum queue puts what comes back behind what came back before, so there the channel is closed: all at one stroke.
    Raises TransportError, TimeoutError.
    """
    if not seat.is_clean:
        seat.let_go()  # it may take a while
    if access.is_quorum and not seat.is_clean and consuming.channel.seats == 1:
        return await access.close(consuming, seat)
    if seat.is_clean or seat.lane.seats > 1 or access.is_quorum:
        return await access.give_back(consuming, seat)
    try:
        async with access.relief(seat.lane):
            await _outlast_rival(access, seat)
            if seat.end is End.LOST:
                return None
            await access.give_back(consuming, seat)
    except (TransportError, TimeoutError):
        if not consuming.channel.has(consuming.tag):
            raise
        # No relief: the broker has no channel for it, although some are kept for that (`numbers.RESERVED`), or hangs.
        return await access.give_back(consuming, seat)
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


async def leave_and_delete(access: Access, consuming: Consuming, seat: Seat) -> QueueDepth | None:
    """`leave`, and delete the lane if then nobody uses it; look. Raises TransportError, TimeoutError.

    The broker deletes what is unused and empty, and what somebody has unacked in hand is lost so. But whoever has in
    hand what has not ended consumes the lane, or has a relief there that does, until the broker has it back. So a lane
    without consumers and without messages has nothing unacked that matters, and in the step in which it deletes a lane
    the broker looks once more whether it is one.
    """
    depth = await leave(access, consuming, seat)
    if depth != EMPTY:
        return depth
    return None if await access.delete(seat.lane) else await access.look(seat.lane)


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
