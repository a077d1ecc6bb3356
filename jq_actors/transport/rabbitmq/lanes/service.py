"""One lane served by this worker: from the token that asked for it to the end of that token.

The token stays unacked all the time, so that it goes to another worker if this one dies. The order of the steps is the
protocol: consume; cancel, *then* look; and only what that look has seen allows the token to be acked
(`transport.tokens`).
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
from .lane_consumer import End, LaneConsumer
from .lane_endings import EMPTY, end_consumer, end_consumer_and_delete, stays_idle
from .service_host import ServiceHost

QUIET = 0.5
"""Seconds without work after which a lane's turn begins anew, as if its service had just begun."""
FIRST_PATIENCE, LONGEST_PATIENCE = 0.1, 5.0
"""Bounds, in seconds, of the time in which messages that were seen have to arrive; it doubles. If they do not, another
consumer has them, which attached at the same moment."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Bounds, in seconds, of the pause before the next look at a lane whose token was another worker's; it doubles."""
STEP_BACK = 0.05
"""Most seconds, chosen at random, before a consumer that is one too many ends. The others then see that, and stay."""
AFTER_AN_ERROR = 1.0
"""Seconds before the token of a lane that the broker refuses is returned."""
SOMEBODY = QueueDepth(ready=1, consumers=2)
"""A lobby in which somebody waits."""


class LaneService:
    """The service of one lane under one token."""

    def __init__(self, lane: Lane, token: RabbitDelivery, host: ServiceHost[LaneService], access: Access) -> None:
        self.lane = lane
        self.left_empty = False
        """Whether at the end the lane existed, and was seen empty and without consumers."""
        self._host, self._access, self._clock = host, access, access.clock
        self._token: RabbitDelivery | None = token
        self._since_token = self._clock.monotonic()
        self._spare: RabbitDelivery | None = None
        self._consumer: LaneConsumer | None = None
        self._since = self._quiet_since = math.inf
        self._expected = self._jobs = self._jobs_before = 0
        self._why: Why | None = None
        self._patience, self._is_reported = FIRST_PATIENCE, False

    @property
    def is_busy(self) -> bool:
        """Whether a message of the lane is in the worker's hand."""
        return self._consumer is not None and not self._consumer.is_hand_empty

    @property
    def sees_all(self) -> bool:
        """Whether it consumes, and will look after that: then another token for its lane has nothing new to say."""
        return self._consumer is not None and self._consumer.end is None

    def join(self, token: RabbitDelivery) -> None:
        """Take another token for the same lane: as its own if that is gone, or as a reason to look again if needed."""
        if self.sees_all and self._token is None:
            self._token, self._since_token = token, self._clock.monotonic()
        elif self.sees_all or self._spare is not None:
            token.ack()
        else:
            self._spare = token

    async def run(self) -> None:
        """Serve the lane. When this returns, the worker has nothing of the lane any more."""
        end = End.LOST
        try:
            end = await self._serve()
            while self._spare is not None and not self._host.is_stopped:
                # Somebody may have published after our last look.
                self._settle_token(acked=True)
                self._token, self._spare = self._spare, None
                end = await self._serve()
        except (TransportError, TimeoutError):
            if self._token is not None and self._token.is_open:
                await self._clock.sleep(AFTER_AN_ERROR)
        finally:
            self._consumer = None
            self._settle_token(acked=False)
            self._token, self._spare = self._spare, None
            self._settle_token(acked=False)
            if self._is_reported:
                self._access.events.emit(LaneClosed(self.lane.queue, self.lane.key, end.why, self._jobs))

    def stop(self) -> None:
        """Hand nothing more over. The lane and its token are returned as soon as nothing is in hand."""
        if self._consumer is not None:
            self._consumer.end_with(End.STOPPED)

    def lose(self) -> None:
        """The connection is gone."""
        if self._consumer is not None:
            self._consumer.end_with(End.LOST)

    def tick(self, now: float) -> None:
        """Do what is due because of the time."""
        consumer, token = self._consumer, self._token
        if consumer is None or consumer.end is not None:
            return
        consumer.age()
        if token is not None and not token.is_open:
            consumer.end_with(End.HANDED_OVER)  # its channel was lost: the lane needs a token that is still held
        elif self._holds_token_too_long(now):
            if consumer.is_hand_empty:
                consumer.end_with(End.HANDED_OVER)  # the lane goes on with a fresh token
        elif consumer.is_empty and now - self._quiet_since >= self._longest_quiet(consumer):
            consumer.end_with(End.DRAINED)
        elif consumer.is_empty and now - self._quiet_since >= QUIET:
            self._since, self._jobs_before = now, consumer.jobs

    def end_quiet(self, *, is_wanted: bool) -> None:
        """If the lane has no work at the moment, free its slot if that ``is_wanted``; else wait for more work."""
        consumer = self._consumer
        if consumer is None or consumer.end is not None or not consumer.is_empty:
            return
        if not is_wanted:
            consumer.allow_more()
        elif consumer.received >= self._expected:
            consumer.end_with(End.DRAINED)

    # -- from look to look

    async def _serve(self) -> End:
        depth = await self._first_look()
        end = End.DRAINED
        while depth is not None:
            if self._host.is_stopped:
                self._settle_token(acked=False)
                return End.STOPPED
            end, seen = await self._consume(depth)
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
            if wanted or self._host.is_stopped or not looks_again(depth, seconds, redelivered=redelivered):
                return wanted
            if depth is not None and depth.ready < before:
                return None  # fewer messages wait for a consumer with its hands full: it is alive
            if pause == LONGEST_PAUSE and not self._host.has_free_slot:
                self._settle_token(acked=await self._access.put_token(self.lane, Why.DOUBTED))
                return None
            before = depth.ready if depth is not None else 0
            await self._clock.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _if_wanted(self, depth: QueueDepth | None) -> QueueDepth | None:
        """Return ``depth`` if it says that this worker has to serve the lane."""
        self.left_empty = depth == EMPTY
        if not is_wanted(depth, self._host.others_serving(self), self.lane.seats):
            return None
        return None if after_cancel(depth) is AfterCancel.LET_GO else depth

    async def _consume(self, depth: QueueDepth) -> tuple[End, QueueDepth | None]:
        """Consume until there is a reason to end, and end with nothing outstanding. Then look."""
        consumer = self._consumer = self._consumer_for(depth)
        attachment = await self._access.attach(consumer)
        self._since = self._clock.monotonic()
        if consumer.is_empty:
            self._quiet_since = self._since
        self._started()
        if stands_by(attachment.seen, consumer.received, self.lane.seats):
            consumer.end_with(End.DRAINED)
            if self.lane.seats > 1:
                await self._clock.sleep(STEP_BACK * self._clock.random())
        else:
            consumer.resume()
        if self._host.is_stopped:
            consumer.end_with(End.STOPPED)
        end, seen = await self._until_end(consumer), None
        self._jobs += consumer.jobs
        if end is End.DRAINED and self._is_over(consumer) and await stays_idle(self._access, self._host, consumer):
            seen = await end_consumer_and_delete(self._access, attachment, consumer)
        elif (consumer.end or end) is not End.LOST:
            seen = await end_consumer(self._access, attachment, consumer)
        self._patience = FIRST_PATIENCE if consumer.received else min(LONGEST_PATIENCE, 2 * self._patience)
        return consumer.end or end, seen

    def _consumer_for(self, depth: QueueDepth) -> LaneConsumer:
        self._expected, self._jobs_before, self._quiet_since = depth.ready, 0, math.inf
        prefetch, turn = self._access.prefetch(self.lane), 0
        if self.lane.partition is None:
            turn = max(1, min(depth.ready, self._host.fairness.quantum * self.lane.weight))
            prefetch = min(prefetch, turn)  # it takes no more than it can finish in a turn: see `LaneConsumer.is_clean`
        return LaneConsumer(self.lane, prefetch, turn, self._host.deliver, self._access.bury, self._after_job)

    def _started(self) -> None:
        if self._spare is not None:
            self._spare.ack()  # we see now what it was put for
            self._spare = None
        if not self._is_reported:
            self._is_reported = True
            self._access.events.emit(LaneOpened(self.lane.queue, self.lane.key, self._host.served))

    async def _until_end(self, consumer: LaneConsumer) -> End:
        while True:
            await consumer.woken.wait()
            if consumer.end is not None:
                return consumer.end
            if await self._is_others_turn(consumer):
                consumer.end_with(End.HANDED_OVER)
            else:
                consumer.resume()

    async def _is_others_turn(self, consumer: LaneConsumer) -> bool:
        try:
            return self._hands_over(consumer, await self._host.depth())
        except (TransportError, TimeoutError):
            return False

    def _is_over(self, consumer: LaneConsumer) -> bool:
        """Whether the lane had no work for so long that it is deleted, unless another worker serves it."""
        quiet = self._clock.monotonic() - self._quiet_since
        is_idle = quiet >= self._host.fairness.idle.total_seconds() or (self._why is Why.IDLE and not consumer.received)
        return is_idle and consumer.received >= self._expected and self._access.deletes(self.lane)

    async def _after(self, end: End, seen: QueueDepth | None) -> QueueDepth | None:
        """The look that says to consume again after a consumer has ended; ``None``: the service is over."""
        match end:
            case End.DRAINED:
                return self._if_wanted(seen)
            case End.HANDED_OVER | End.GIVEN_BACK:
                self._settle_token(acked=await self._access.put_token(self.lane))
        return None

    def _settle_token(self, *, acked: bool) -> None:
        token, self._token = self._token, None
        if token is None or not token.is_open:
            return
        if acked:
            token.ack()
        else:
            token.requeue()

    # -- while it is served

    def _after_job(self, consumer: LaneConsumer) -> bool:
        """End ``consumer`` if there is a reason. Returns whether the next message is handed over at once."""
        now = self._clock.monotonic()
        if consumer.is_empty:
            self._quiet_since = now
        end = self._reason_to_end(consumer, now)
        if end is not None:
            consumer.end_with(end)
            return False
        if self._is_drained(consumer):
            self._host.fell_quiet(self)
        if self._host.recent_depth() is None and self._hands_over(consumer, SOMEBODY, now):
            return False  # only a fresh look at the lobby says whether others wait
        if consumer.received < self._expected:
            consumer.allow_more()
        return True

    def _reason_to_end(self, consumer: LaneConsumer, now: float) -> End | None:
        if self._is_drained(consumer) and not self._host.has_free_slot:
            return End.DRAINED
        if self._holds_token_too_long(now) or self._hands_over(consumer, self._host.recent_depth(), now):
            return End.HANDED_OVER
        return None

    def _is_drained(self, consumer: LaneConsumer) -> bool:
        return consumer.is_empty and consumer.received >= self._expected

    def _holds_token_too_long(self, now: float) -> bool:
        return self._token is not None and now - self._since_token >= self._access.longest_hold

    def _hands_over(self, consumer: LaneConsumer, lobby: QueueDepth | None, now: float | None = None) -> bool:
        seconds = (self._clock.monotonic() if now is None else now) - self._since
        return hands_over(consumer.jobs - self._jobs_before, seconds, self.lane.weight, self._host.fairness, lobby)

    def _longest_quiet(self, consumer: LaneConsumer) -> float:
        if consumer.received < self._expected:
            return self._patience
        if not self._host.has_free_slot or (self._why is Why.IDLE and not consumer.received):
            return 0.0
        return self._host.fairness.idle.total_seconds()
