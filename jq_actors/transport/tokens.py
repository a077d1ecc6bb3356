"""The decisions of the lane and lobby protocol, as pure functions. The simulation calls the same functions.

A *token* in a queue's lobby gets a lane served. After publishing into a lane, a producer looks at the lane, and puts a
token into the lobby if too few consumers serve it. A worker holds the token unacked while it serves the lane. It stops
by cancelling its consumer and then looking at the lane; it may ack the token only if the lane has no work. Since the
producer publishes before it looks, and the worker cancels before it looks, at least one of them sees what the other
did: no wake-up is lost.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto

from jq_actors.model.lane import Fairness

from .port import QueueDepth

GHOSTS_LAST = timedelta(seconds=15)
"""How long the broker may still count the consumer of a dead connection. 3 s were measured, with 8,000 lanes."""
GHOSTS_LAST_UNSEEN = timedelta(seconds=1)
"""How long the messages of a dead connection may still be missing after its consumer is no longer counted."""
SETTLED = timedelta(seconds=1)
"""How long the only consumer of a lane must get nothing before the lane is deleted. By then, a worker that had looked
just before, because it got a token, has begun to consume. If it found the lane missing, the broker would close its
channel."""


class AfterCancel(Enum):
    """What a worker does after it has cancelled its consumer of a lane, and then looked at the lane."""

    SERVE_ON = auto()
    """The lane has work: consume again, under the same token."""
    LET_GO = auto()
    """Ack the token: a producer that publishes from now on sees that nobody serves the lane."""


def tokens_needed(lane: QueueDepth | None, published: int, seats: int) -> int:
    """How many tokens a producer puts into the lobby after publishing ``published`` messages and looking at the lane.

    Messages of other producers that it sees in the lane do not count: two that publish at the same time see each
    other's messages, and would both rely on the other's token.
    """
    serving = 0 if lane is None else lane.consumers
    return max(0, min(published, seats - serving))


def is_wanted(lane: QueueDepth | None, serving_here: int, seats: int) -> bool:
    """Whether a worker that got a token begins to serve the lane. If not, enough others serve, and it acks the token.

    The others will see the messages that the token stands for: those were published before the token, and the others
    look after they cancel. But see `looks_again`.
    """
    if lane is None or serving_here >= seats:
        return False
    return lane.consumers < seats


def looks_again(lane: QueueDepth | None, seconds: float, *, redelivered: bool) -> bool:
    """Whether a worker that does not seem to be wanted keeps the token and looks again, instead of acking it.

    The holder of a ``redelivered`` token is gone. But each queue of the broker learns by itself, and later, that a
    connection is dead: the consumer that the lane counts may be the dead holder's, with the lane's last message in its
    hand. If the token were acked then, a lane with work would have lost its last token.

    Parameters:
      lane: what the worker saw.
      seconds: the time since the token came.
      redelivered: whether the token was delivered before.
    """
    if lane is None or not redelivered:
        return False
    return seconds < (GHOSTS_LAST if lane.consumers else GHOSTS_LAST_UNSEEN).total_seconds()


def stands_by(lane: QueueDepth, taken: int, seats: int) -> bool:
    """Whether a worker that has begun to consume, and then looked, is one too many and leaves without starting a job.

    If two workers get a token each, both may look before either consumes. With one seat, a consumer that stands behind
    another gets nothing as long as the other stays, so a worker that has ``taken`` a message is the first one. A worker
    starts no job before it knows which one it is. So it does no harm that, in a classic queue, RabbitMQ may deliver
    later messages first to a consumer that becomes active by another's cancel: ``basic_cancel`` of 3.10 does not run
    the queue, and the next publish is delivered past the waiting messages.
    """
    return lane.consumers > seats and (seats > 1 or taken == 0)


def after_cancel(lane: QueueDepth | None) -> AfterCancel:
    """What a worker does with its token, given what it saw in the lane after its cancel."""
    if lane is None or lane.ready == 0:
        return AfterCancel.LET_GO
    return AfterCancel.SERVE_ON


def hands_over(served: int, seconds: float, weight: int, fairness: Fairness, lobby: QueueDepth | None) -> bool:
    """Whether a lane goes to the lobby's tail: its turn is over, and tokens or other workers wait in the lobby.

    Waiting tokens alone would not do as the condition: the first of two workers would then keep all lanes for itself.

    Parameters:
      served: how many jobs of the lane this worker has run in this turn.
      seconds: how long the turn has lasted.
      weight: the group's share.
      fairness: the length of a turn of weight 1.
      lobby: the lobby's counts; ``None``: it does not exist.
    """
    if served < fairness.quantum * weight and seconds < fairness.time_slice.total_seconds() * weight:
        return False
    return lobby is not None and (lobby.ready > 0 or lobby.consumers > 1)
