"""The lane and lobby protocol's decisions, as pure functions; the simulation calls the same ones.

A lane with work is served because of a *token* in its queue's lobby. Whoever publishes into a lane looks at it
*afterwards*, and puts a token into the lobby if too few serve it. A worker holds the token unacked while it serves. It
ends by cancelling its consumer and looking *afterwards*; only a lane without work lets it ack the token. With publish,
look on the one side and cancel, look on the other, one of the two sees the other: no wake-up is lost.
"""

from __future__ import annotations

from enum import Enum, auto

from .port import Fairness, QueueDepth


class AfterCancel(Enum):
    """What a worker does that has cancelled its consumer of a lane, and then looked."""

    SERVE_ON = auto()
    """There is work: consume again, under the same token."""
    LET_GO = auto()
    """Ack the token: whoever publishes from now on sees that nobody serves."""


def tokens_needed(lane: QueueDepth | None, published: int, seats: int) -> int:
    """How many tokens a producer puts into the lobby that has published so many messages, and then looked."""
    serving = 0 if lane is None else lane.consumers
    return max(0, min(published, seats - serving))


def is_wanted(lane: QueueDepth | None, serving_here: int, seats: int, *, redelivered: bool) -> bool:
    """Whether a worker that got a token begins to serve; else it acks the token, for others serve already.

    They see what the token stands for: it was published before the token, and they look after they cancel.
    ``redelivered``: its holder is gone, and what is counted may be the holder's own consumer: each of the broker's
    queues learns by itself that a connection is dead. Acked then, it would be the last token of a lane with work.
    """
    if lane is None or serving_here >= seats:
        return False
    return redelivered or lane.consumers < seats


def after_cancel(lane: QueueDepth | None, *, blocked: bool) -> AfterCancel:
    """What comes after cancel and look.

    ``blocked``: the rows say that nothing of it may run now; whoever ends that offers the lane anew.
    """
    if lane is None or lane.ready == 0 or blocked:
        return AfterCancel.LET_GO
    return AfterCancel.SERVE_ON


def hands_over(served: int, seconds: float, weight: int, fairness: Fairness, lobby: QueueDepth | None) -> bool:
    """Whether a lane that was served for so many jobs, and so long, goes to the lobby's tail now.

    Not only when tokens wait there: with an empty lobby the first of two workers would keep all lanes for itself.
    """
    if served < fairness.quantum * weight and seconds < fairness.time_slice.total_seconds() * weight:
        return False
    return lobby is not None and (lobby.ready > 0 or lobby.consumers > 1)
