"""One lane served by this worker: from the token that asked for it to the end of that token.

The token is held unacked all the time, so that it goes to another worker when this one dies. What comes after what is
the protocol: consume; cancel, *then* look; and only what was seen then lets the token go (`transport.tokens`).
"""

from __future__ import annotations

import math

from jq_actors.errors import TransportError
from jq_actors.events import LaneClosed, LaneOpened
from jq_actors.model.lane import Lane
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.lane_names import Why, why_of
from jq_actors.transport.tokens import AfterCancel, after_cancel, hands_over, is_wanted, looks_again, stands_by

from .access import Access
from .lane_endings import EMPTY, leave, leave_and_delete, stays_alone
from .room import Room
from .seat import End, Seat

QUIET = 0.5
"""Seconds without work after which a lane's turn begins anew, as if it had just been taken."""
FIRST_PATIENCE, LONGEST_PATIENCE = 0.1, 5.0
"""Bounds, in seconds, of the time in which messages that were seen have to come; it doubles. Else another consumer has
them, which attached at the same moment."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Bounds, in seconds, of the pause before a further look at a lane whose token was another worker's; it doubles."""
STEP_BACK = 0.05
"""Most seconds, by chance, in which one consumer too many goes before the others, who then stay."""
AFTER_AN_ERROR = 1.0
"""Seconds before a token is given back of a lane that the broker refuses."""
SOMEBODY = QueueDepth(ready=1, consumers=2)


class Service:
    """The service of one lane under one token."""

    def __init__(self, lane: Lane, token: RabbitDelivery, room: Room, access: Access) -> None:
        self.lane = lane
        self.left_empty = False
        """How it ended: the lane is there, and was seen empty and unserved."""
        self._room, self._access, self._clock = room, access, access.clock
        self._token: RabbitDelivery | None = token
        self._since_token = self._clock.monotonic()
        self._spare: RabbitDelivery | None = None
        self._seat: Seat | None = None
        self._since = self._quiet_since = math.inf
        self._expected = self._jobs = self._jobs_before = 0
        self._why: Why | None = None
        self._patience, self._is_told = FIRST_PATIENCE, False

    @property
    def is_busy(self) -> bool:
        """Whether something of the lane is in the worker's hand."""
        return self._seat is not None and not self._seat.is_free

    @property
    def sees_all(self) -> bool:
        """Whether it consumes, and will look after that: then another token for its lane says nothing new."""
        return self._seat is not None and self._seat.end is None

    def join(self, token: RabbitDelivery) -> None:
        """Take another token for the same lane: as one's own if that is gone, as a reason to look again, or not."""
        if self.sees_all and self._token is None:
            self._token, self._since_token = token, self._clock.monotonic()
        elif self.sees_all or self._spare is not None:
            token.ack()
        else:
            self._spare = token

    async def run(self) -> None:
        """Serve the lane. After it returns nothing of it is here any more."""
        end = End.LOST
        try:
            end = await self._serve()
            while self._spare is not None and not self._room.is_stopped:
                # Somebody has published after our last look, perhaps.
                self._settle_token(acked=True)
                self._token, self._spare = self._spare, None
                end = await self._serve()
        except (TransportError, TimeoutError):
            if self._token is not None and self._token.is_open:
                await self._clock.sleep(AFTER_AN_ERROR)
        finally:
            self._seat = None
            self._settle_token(acked=False)
            self._token, self._spare = self._spare, None
            self._settle_token(acked=False)
            if self._is_told:
                self._access.events.emit(LaneClosed(self.lane.queue, self.lane.key, end.why, self._jobs))

    def stop(self) -> None:
        """Hand nothing more over; the lane and its token go back as soon as nothing is in hand."""
        if self._seat is not None:
            self._seat.give_up(End.STOPPED)

    def lose(self) -> None:
        """The connection is gone."""
        if self._seat is not None:
            self._seat.give_up(End.LOST)

    def tick(self, now: float) -> None:
        """Do what is due by time alone."""
        seat, token = self._seat, self._token
        if seat is None or seat.end is not None:
            return
        seat.age()
        if token is not None and not token.is_open:
            seat.give_up(End.HANDED_OVER)  # its channel was lost: the lane needs a token that lives with it
        elif token is not None and now - self._since_token >= self._access.longest_hold:
            self._refresh(seat)
        elif seat.is_empty and now - self._quiet_since >= self._longest_quiet(seat):
            seat.give_up(End.DRAINED)
        elif seat.is_empty and now - self._quiet_since >= QUIET:
            self._since, self._jobs_before = now, seat.jobs

    def end_quiet(self, *, is_wanted: bool) -> None:
        """If its lane has no work at the moment: give up its place if that ``is_wanted``; else wait for more work."""
        seat = self._seat
        if seat is None or seat.end is not None or not seat.is_empty:
            return
        if not is_wanted:
            seat.let_more_come()
        elif seat.taken >= self._expected:
            seat.give_up(End.DRAINED)

    # -- from look to look

    async def _serve(self) -> End:
        depth = await self._first_look()
        end = End.DRAINED
        while depth is not None:
            if self._room.is_stopped:
                self._settle_token(acked=False)
                return End.STOPPED
            end, seen = await self._sit(depth)
            depth = await self._after(end, seen)
        self._settle_token(acked=end is End.DRAINED)
        return end

    async def _first_look(self) -> QueueDepth | None:
        assert self._token is not None
        self._why = why_of(self._token.body)
        redelivered = self._token.redelivered or self._why is Why.DOUBTED
        since, pause, before = self._clock.monotonic(), FIRST_PAUSE, 0
        while True:
            depth = await self._access.look(self.lane)
            if self._why is Why.IDLE and depth == EMPTY:
                return depth
            wanted = self._if_wanted(depth)
            seconds = self._clock.monotonic() - since
            if wanted or self._room.is_stopped or not looks_again(depth, seconds, redelivered=redelivered):
                return wanted
            if depth is not None and depth.ready < before:
                return None  # what waits for a consumer with its hands full becomes less: it is alive
            if pause == LONGEST_PAUSE and not self._room.has_free:
                self._settle_token(acked=await self._access.renew(self.lane, Why.DOUBTED))
                return None
            before = depth.ready if depth is not None else 0
            await self._clock.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _if_wanted(self, depth: QueueDepth | None) -> QueueDepth | None:
        """``depth``, if it says that the lane is to be served by us."""
        self.left_empty = depth == EMPTY
        if not is_wanted(depth, self._room.others_serving(self), self.lane.seats):
            return None
        return None if after_cancel(depth) is AfterCancel.LET_GO else depth

    async def _sit(self, depth: QueueDepth) -> tuple[End, QueueDepth | None]:
        """Consume until there is a reason to end, and end with nothing outstanding; then look."""
        seat = self._seat = self._seat_for(depth)
        consuming = await self._access.attach(seat)
        self._since = self._clock.monotonic()
        if seat.is_empty:
            self._quiet_since = self._since
        self._begun()
        if stands_by(consuming.seen, seat.taken, self.lane.seats):
            seat.give_up(End.DRAINED)
            if self.lane.seats > 1:
                await self._clock.sleep(STEP_BACK * self._clock.random())
        else:
            seat.go_on()
        if self._room.is_stopped:
            seat.give_up(End.STOPPED)
        end, seen = await self._until_end(seat), None
        self._jobs += seat.jobs
        if end is End.DRAINED and self._is_over(seat) and await stays_alone(self._access, self._room, seat):
            seen = await leave_and_delete(self._access, consuming, seat)
        elif (seat.end or end) is not End.LOST:
            seen = await leave(self._access, consuming, seat)
        self._patience = FIRST_PATIENCE if seat.taken else min(LONGEST_PATIENCE, 2 * self._patience)
        return seat.end or end, seen

    def _seat_for(self, depth: QueueDepth) -> Seat:
        self._expected, self._jobs_before, self._quiet_since = depth.ready, 0, math.inf
        prefetch, turn = self._access.prefetch(self.lane), 0
        if self.lane.partition is None:
            turn = max(1, min(depth.ready, self._room.fairness.quantum * self.lane.weight))
            prefetch = min(prefetch, turn)  # it takes no more than it can end in one turn: see `Seat.is_clean`
        return Seat(self.lane, prefetch, turn, self._room.deliver, self._access.bury, self._may_go_on)

    async def _until_end(self, seat: Seat) -> End:
        while True:
            await seat.woken.wait()
            if seat.end is not None:
                return seat.end
            if await self._is_others_turn(seat):
                seat.give_up(End.HANDED_OVER)
            else:
                seat.go_on()

    async def _is_others_turn(self, seat: Seat) -> bool:
        try:
            return self._hands_over(seat, await self._room.depth())
        except (TransportError, TimeoutError):
            return False

    def _is_over(self, seat: Seat) -> bool:
        """Whether the lane had no work for so long that it is to be deleted, if nobody else serves it."""
        quiet = self._clock.monotonic() - self._quiet_since
        is_idle = quiet >= self._room.fairness.idle.total_seconds() or (self._why is Why.IDLE and not seat.taken)
        return is_idle and seat.taken >= self._expected and self._access.deletes(self.lane)

    async def _after(self, end: End, seen: QueueDepth | None) -> QueueDepth | None:
        """What to do when the consumer is gone: a look that says to consume again; ``None``: it is over."""
        match end:
            case End.DRAINED:
                return self._if_wanted(seen)
            case End.HANDED_OVER | End.GIVEN_BACK:
                self._settle_token(acked=await self._access.renew(self.lane))
        return None

    # -- while it is served

    def _may_go_on(self, seat: Seat) -> bool:
        now = self._clock.monotonic()
        if seat.is_empty:
            self._quiet_since = now
            if seat.taken >= self._expected:
                if not self._room.has_free:
                    seat.give_up(End.DRAINED)
                    return True
                self._room.fell_quiet(self)
        if now - self._since_token >= self._access.longest_hold and self._token is not None:
            seat.give_up(End.HANDED_OVER)
            return True
        depth = self._room.recent_depth()
        if depth is None and self._hands_over(seat, SOMEBODY, now):
            return False
        if self._hands_over(seat, depth, now):
            seat.give_up(End.HANDED_OVER)
        elif seat.taken < self._expected:
            seat.let_more_come()
        return True

    def _hands_over(self, seat: Seat, lobby: QueueDepth | None, now: float | None = None) -> bool:
        seconds = (self._clock.monotonic() if now is None else now) - self._since
        return hands_over(seat.jobs - self._jobs_before, seconds, self.lane.weight, self._room.fairness, lobby)

    def _longest_quiet(self, seat: Seat) -> float:
        if seat.taken < self._expected:
            return self._patience
        if not self._room.has_free or (self._why is Why.IDLE and not seat.taken):
            return 0.0
        return self._room.fairness.idle.total_seconds()

    def _refresh(self, seat: Seat) -> None:
        """The token is held for too long: the lane goes on with a fresh one, as soon as no job runs."""
        if seat.is_free:
            seat.give_up(End.HANDED_OVER)

    def _settle_token(self, *, acked: bool) -> None:
        token, self._token = self._token, None
        if token is None or not token.is_open:
            return
        if acked:
            token.ack()
        else:
            token.requeue()

    def _begun(self) -> None:
        if self._spare is not None:
            self._spare.ack()  # what it stands for we see now
            self._spare = None
        if not self._is_told:
            self._is_told = True
            self._access.events.emit(LaneOpened(self.lane.queue, self.lane.key, self._room.served))
