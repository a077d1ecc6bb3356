"""The lane and lobby protocol's decisions, as pure functions; the simulation calls the same ones.

A lane with work is served because of a *token* in its queue's lobby. Whoever publishes into a lane looks at it
*afterwards*, and puts a token into the lobby if too few serve it. A worker holds the token unacked while it serves. It
ends by cancelling its consumer and looking *afterwards*; only a lane without work lets it ack the token. With publish,
look on the one side and cancel, look on the other, one of the two sees the other: no wake-up is lost.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto

from jq_actors.model.lane import Fairness

from .port import QueueDepth

GHOSTS_LAST = timedelta(seconds=15)
"""So long the broker may count the consumer of a dead connection: 3 s were measured, of one with 8,000 lanes."""
GHOSTS_LAST_UNSEEN = timedelta(seconds=1)
"""The same, when it counts none any more and may still have to put back what was in hand."""
SETTLED = timedelta(seconds=1)
"""So long nothing came to the only consumer of a lane before it is deleted. Who had just got a token and looked then
has begun to consume: it would find the lane missing, and the broker would close its channel."""


class AfterCancel(Enum):
    """What a worker does that has cancelled its consumer of a lane, and then looked."""

    SERVE_ON = auto()
    """There is work: consume again, under the same token."""
    LET_GO = auto()
    """Ack the token: whoever publishes from now on sees that nobody serves."""


def tokens_needed(lane: QueueDepth | None, published: int, seats: int) -> int:
    """How many tokens a producer puts into the lobby that has published so many messages, and then looked.

    Also when it sees the messages of others: two that publish at once see each other's, and would both rely on it.
    """
    serving = 0 if lane is None else lane.consumers
    return max(0, min(published, seats - serving))


def is_wanted(lane: QueueDepth | None, serving_here: int, seats: int) -> bool:
    """Whether a worker that got a token begins to serve; else it acks the token, for others serve already.

    They see what the token stands for: it was published before the token, and they look after they cancel. But see
    `looks_again`.
    """
    if lane is None or serving_here >= seats:
        return False
    return lane.consumers < seats


def looks_again(lane: QueueDepth | None, seconds: float, *, redelivered: bool) -> bool:
    """Whether a worker that seems not to be wanted keeps the token and looks again, instead of acking it.

    The holder of a ``redelivered`` token is gone, but each of the broker's queues learns by itself, and later, that a
    connection is dead: the consumer that is counted may be the holder's own, with the lane's last message in its hand.
    Acked then, the token was the last one of a lane with work. ``seconds``: since the token came.
    """
    if lane is None or not redelivered:
        return False
    return seconds < (GHOSTS_LAST if lane.consumers else GHOSTS_LAST_UNSEEN).total_seconds()


def stands_by(lane: QueueDepth, taken: int, seats: int) -> bool:
    """Whether a worker that has begun to consume, and then looked, is one too many, and leaves without a job.

    Of two workers with a token each both may have looked before one of them consumed. Who stands behind another gets
    nothing, as long as that one stays: so who has ``taken`` something is the first, with one seat. Before a worker
    knows, it starts no job; so it does not matter that RabbitMQ may bring the later messages first to a classic queue's
    consumer that comes to its turn by another's cancel (``basic_cancel`` of 3.10 does not run the queue, the next
    publish is delivered past what waits).
    """
    return lane.consumers > seats and (seats > 1 or taken == 0)


def after_cancel(lane: QueueDepth | None) -> AfterCancel:
    """What comes after cancel and look."""
    if lane is None or lane.ready == 0:
        return AfterCancel.LET_GO
    return AfterCancel.SERVE_ON


def hands_over(served: int, seconds: float, weight: int, fairness: Fairness, lobby: QueueDepth | None) -> bool:
    """Whether a lane that was served for so many jobs, and so long, goes to the lobby's tail now.

    Not only when tokens wait there: with an empty lobby the first of two workers would keep all lanes for itself.
    """
    if served < fairness.quantum * weight and seconds < fairness.time_slice.total_seconds() * weight:
        return False
    return lobby is not None and (lobby.ready > 0 or lobby.consumers > 1)
