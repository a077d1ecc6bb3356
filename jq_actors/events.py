"""Every event: the only source of logs and metrics, and what tests wait for.

An event is a frozen dataclass. Code emits it where something happens, and nothing else writes to the log. Subscribers
(metrics middleware, tests) choose events by class; the log takes all.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from jq_actors.model.job import JobId
from jq_actors.model.printable import escape

_log = logging.getLogger("jq_actors")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``level`` and ``text`` define its log entry."""

    level: ClassVar[int] = logging.INFO
    text: ClassVar[str] = ""


E = TypeVar("E", bound=Event)


class Events:
    """The event bus of one runtime. Without subscribers, an emit costs one dictionary look-up.

    A subscriber is called on the emitting thread, must return at once and must not raise. If it raises, the error is
    logged with its traceback, and the other subscribers are still called.
    """

    def __init__(self) -> None:
        self._by_type: dict[type[Event], list[Callable[[Any], None]]] = defaultdict(list)

    def subscribe(self, kind: type[E], subscriber: Callable[[E], None]) -> Callable[[], None]:
        """Call ``subscriber`` for each event of exactly the class ``kind``; returns the function that unsubscribes."""
        self._by_type[kind].append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._by_type[kind]:
                self._by_type[kind].remove(subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Call the event's subscribers, then write the log entry if its level is enabled."""
        for subscriber in tuple(self._by_type.get(type(event), ())):
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - a subscriber must not harm the code that emits
                _log.exception("A subscriber of %s failed.", type(event).__name__)
        if _log.isEnabledFor(event.level):
            _log.log(event.level, *_log_arguments(event))


def _log_arguments(event: Event) -> tuple[str, dict[str, Any]]:
    shown = {name: escape(getattr(event, name)) for name in event.__dataclass_fields__}
    for name in shown.keys() & _MULTILINE:
        shown[name] = "\n".join(escape(line) for line in getattr(event, name).splitlines())
    return event.text, shown


_MULTILINE = frozenset({"stack", "traceback"})
"""Fields that keep their line breaks in the log."""


# -- the life of a job ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobEnqueued(Event):
    """`send` has stored the job."""

    job_id: JobId
    actor: str
    queue: str
    level = logging.DEBUG
    text = "job %(job_id)s: %(actor)s enqueued on %(queue)s"


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """An attempt begins. ``queue_latency`` is the time, in seconds, since the job was due."""

    job_id: JobId
    actor: str
    queue: str
    attempt: int
    queue_latency: float
    level = logging.DEBUG
    text = "job %(job_id)s: %(actor)s starts attempt %(attempt)s"


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """An attempt has ended and its outcome is written. ``state`` is the job's state now."""

    job_id: JobId
    actor: str
    queue: str
    attempt: int
    state: str
    run_seconds: float
    level = logging.DEBUG
    text = "job %(job_id)s: %(actor)s attempt %(attempt)s ends %(state)s after %(run_seconds).3f s"


@dataclass(frozen=True, slots=True)
class JobRetryScheduled(Event):
    """A failed attempt will be repeated after ``delay`` seconds."""

    job_id: JobId
    actor: str
    queue: str
    attempt: int
    delay: float
    error: str
    traceback: str = ""
    level = logging.WARNING
    text = "job %(job_id)s: %(actor)s attempt %(attempt)s failed (%(error)s); retry in %(delay).1f s\n%(traceback)s"


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """A job failed for good."""

    job_id: JobId
    actor: str
    queue: str
    attempt: int
    error: str
    traceback: str = ""
    level = logging.ERROR
    text = "job %(job_id)s: %(actor)s failed for good in attempt %(attempt)s: %(error)s\n%(traceback)s"


@dataclass(frozen=True, slots=True)
class JobUnhandled(Event):
    """This worker cannot run the job; it is kept."""

    job_id: JobId
    actor: str
    queue: str
    reason: str
    level = logging.ERROR
    text = "job %(job_id)s: %(actor)s on %(queue)s is unhandled and kept: %(reason)s"


@dataclass(frozen=True, slots=True)
class JobInterrupted(Event):
    """A shutdown interrupted an attempt. The job is queued again, and the attempt does not count."""

    job_id: JobId
    actor: str
    queue: str
    text = "job %(job_id)s: %(actor)s was interrupted by the shutdown and is queued again"


@dataclass(frozen=True, slots=True)
class JobHeld(Event):
    """The job of a delivery runs elsewhere: the delivery stays unacked, as the safety copy.

    Emitted for the first look at a delivery only. ``seconds``: until the next look.
    """

    job_id: JobId
    seconds: float
    level = logging.INFO
    text = "job %(job_id)s runs elsewhere; this delivery is held, and checked again in %(seconds).1f s"


@dataclass(frozen=True, slots=True)
class JobTakenOver(Event):
    """The worker of a running job is lost. ``crashes`` is the job's count of crashes, this one included."""

    job_id: JobId
    crashes: int
    level = logging.WARNING
    text = "job %(job_id)s: its worker is lost (crash %(crashes)s)"


@dataclass(frozen=True, slots=True)
class JobParked(Event):
    """A job that came through the plain queue (from another producer, or after a delay) has to wait in its group.

    It waits in its row, or without persistence in its lane; its delivery is acked.
    """

    job_id: JobId
    group: str
    reason: str
    level = logging.DEBUG
    text = "job %(job_id)s of group %(group)s waits: %(reason)s"


@dataclass(frozen=True, slots=True)
class GroupPaused(Event):
    """A group was paused: none of its jobs starts until it is resumed."""

    group: str
    reason: str
    level = logging.WARNING
    text = "group %(group)s is paused: %(reason)s"


@dataclass(frozen=True, slots=True)
class GroupResumed(Event):
    """A paused group was resumed."""

    group: str
    text = "group %(group)s is resumed"


@dataclass(frozen=True, slots=True)
class GroupCancelled(Event):
    """``count`` unfinished jobs of a group, none of them running, were cancelled."""

    group: str
    count: int
    reason: str
    level = logging.WARNING
    text = "%(count)d jobs of group %(group)s were cancelled: %(reason)s"


@dataclass(frozen=True, slots=True)
class JobsReleased(Event):
    """``count`` jobs that waited in their groups got a place, and were queued."""

    count: int
    level = logging.DEBUG
    text = "%(count)d waiting job(s) of groups queued"


@dataclass(frozen=True, slots=True)
class GroupsMended(Event):
    """Groups stood still although a job could have started, or their counts were wrong. Their places were reassigned.

    ``first`` names one of them.
    """

    count: int
    first: str
    level = logging.WARNING
    text = "%(count)d group(s) stood still or were miscounted, %(first)s among them; their places were reassigned"


@dataclass(frozen=True, slots=True)
class LaneOpened(Event):
    """This worker began to serve a lane. ``served``: how many lanes it serves now."""

    queue: str
    key: str
    served: int
    level = logging.DEBUG
    text = "serving lane %(key)s of %(queue)s, %(served)d in all"


@dataclass(frozen=True, slots=True)
class LaneClosed(Event):
    """This worker stopped serving a lane. ``why``: ``drained``, ``handed over``, ``given back``, ``lost``.

    ``jobs``: how many jobs of the lane it ran.
    """

    queue: str
    key: str
    why: str
    jobs: int
    level = logging.DEBUG
    text = "lane %(key)s of %(queue)s %(why)s after %(jobs)d jobs"


@dataclass(frozen=True, slots=True)
class DeliveryDropped(Event):
    """A delivery was acked without running its job.

    ``reason``: ``final``, ``stale``, ``runs_elsewhere``, ``undecodable``.
    """

    job_id: JobId
    queue: str
    reason: str
    level = logging.DEBUG
    text = "job %(job_id)s: delivery on %(queue)s dropped (%(reason)s)"


@dataclass(frozen=True, slots=True)
class DeliveryBuried(Event):
    """A delivery went to the dead queue: it is not a command, or nobody here can run its job and no row keeps it."""

    queue: str
    reason: str
    level = logging.ERROR
    text = "a delivery of %(queue)s went to the dead queue: %(reason)s"


@dataclass(frozen=True, slots=True)
class DeliveryRenewed(Event):
    """A delivery waited here for too long: its message was published again, and the delivery acked.

    Giving it back would not do, since the broker counts how often a message comes back.
    """

    job_id: JobId
    queue: str
    level = logging.DEBUG
    text = "job %(job_id)s waited here for too long; its delivery from %(queue)s was renewed"


@dataclass(frozen=True, slots=True)
class DeliveryAckedEarly(Event):
    """The delivery of a long job was acked while the job runs. From now on the lease in its row is the safety copy."""

    job_id: JobId
    text = "job %(job_id)s runs long; its delivery was acked early, and its row keeps it safe"


@dataclass(frozen=True, slots=True)
class OutcomeDiscarded(Event):
    """A run that had lost its claim tried to write its outcome, which was refused."""

    job_id: JobId
    actor: str
    state: str
    level = logging.WARNING
    text = "job %(job_id)s: late outcome %(state)s of %(actor)s discarded, another run holds the claim"


@dataclass(frozen=True, slots=True)
class OutcomeLost(Event):
    """The process ends while the database is unreachable: an outcome is not written, and the job will run again."""

    job_id: JobId
    actor: str
    state: str
    level = logging.ERROR
    text = "job %(job_id)s: outcome %(state)s of %(actor)s could not be written before exit; the job will run again"


@dataclass(frozen=True, slots=True)
class AckLost(Event):
    """An ack was due on a channel that is closed; the broker delivers the message again."""

    queue: str
    level = logging.DEBUG
    text = "an ack on %(queue)s was lost with its channel"


# -- sending and the relay --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendDeferred(Event):
    """Jobs are stored, but the broker has not taken them; the relay will send them."""

    count: int
    reason: str
    level = logging.WARNING
    text = "%(count)s job(s) stored but not yet sent (%(reason)s); the relay will send them"


@dataclass(frozen=True, slots=True)
class MarkLost(Event):
    """Jobs were published, but the mark of that could not be written.

    The relay publishes them again, and the claim refuses the second copies.
    """

    reason: str
    level = logging.WARNING
    text = "published jobs could not be marked as published; the relay will send them again: %(reason)s"


@dataclass(frozen=True, slots=True)
class Redispatched(Event):
    """The relay published jobs. ``reason``: ``due``, ``unpublished``, ``missing``."""

    reason: str
    count: int
    level = logging.DEBUG
    text = "relay: %(count)s job(s) published (%(reason)s)"


@dataclass(frozen=True, slots=True)
class MemoryJobsLost(Event):
    """The embedded broker closed with jobs in its memory. Without persistence these were the only copies."""

    count: int
    level = logging.ERROR
    text = "%(count)s job(s) lost: they were only in this process's memory; add the `persistence` middleware"


@dataclass(frozen=True, slots=True)
class WorkerLost(Event):
    """A worker's lease ran out, or its process is gone."""

    worker_id: str
    level = logging.WARNING
    text = "worker %(worker_id)s is lost; its jobs are queued again"


@dataclass(frozen=True, slots=True)
class JobsPruned(Event):
    """Final rows past their retention were deleted."""

    count: int
    level = logging.DEBUG
    text = "retention: %(count)s row(s) deleted"


# -- connections ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerConnected(Event):
    """A connection to the broker is open. ``role``: ``publisher``, ``consumer``, ``embedded``."""

    role: str
    server: str
    text = "connected to the broker (%(role)s): %(server)s"


@dataclass(frozen=True, slots=True)
class BrokerDisconnected(Event):
    """A connection was lost or could not be opened; it is tried again. Emitted at most once in 10 s for each role."""

    role: str
    reason: str
    level = logging.WARNING
    text = "no connection to the broker (%(role)s): %(reason)s; trying again"


@dataclass(frozen=True, slots=True)
class ConsumerConfirmed(Event):
    """The broker confirmed that this process consumes the queue."""

    queue: str
    level = logging.DEBUG
    text = "consuming %(queue)s"


@dataclass(frozen=True, slots=True)
class ConsumerLost(Event):
    """The broker cancelled a consumer (its queue was deleted, or its channel closed); it will be restored."""

    queue: str
    reason: str
    level = logging.WARNING
    text = "consumer of %(queue)s lost: %(reason)s"


@dataclass(frozen=True, slots=True)
class QueueBroken(Event):
    """A queue cannot be consumed until somebody repairs it; the other queues are not affected."""

    queue: str
    reason: str
    level = logging.ERROR
    text = "queue %(queue)s is broken and left out: %(reason)s"


@dataclass(frozen=True, slots=True)
class PublisherBlocked(Event):
    """The broker stopped taking messages because of a memory or disk alarm, or (``blocked`` false) takes them again."""

    blocked: bool
    level = logging.WARNING
    text = "the broker blocks publishers: %(blocked)s"


@dataclass(frozen=True, slots=True)
class StoreLost(Event):
    """The database cannot be reached; pending writes wait."""

    reason: str
    level = logging.ERROR
    text = "the database cannot be reached: %(reason)s"


@dataclass(frozen=True, slots=True)
class StoreBack(Event):
    """The database answers again, after ``seconds``."""

    seconds: float
    level = logging.WARNING
    text = "the database is back after %(seconds).1f s"


@dataclass(frozen=True, slots=True)
class StoreFlushed(Event):
    """A group commit was made. ``kind``: ``claim``, ``settle``; with its number of rows and duration in seconds."""

    kind: str
    rows: int
    seconds: float
    level = logging.NOTSET + 1
    text = "store: %(kind)s of %(rows)s row(s) in %(seconds).4f s"


@dataclass(frozen=True, slots=True)
class StoreRefused(Event):
    """The database refused one write, although it takes others. The caller of the write gets the error.

    ``kind``: as in `StoreFlushed`.
    """

    kind: str
    error: str
    level = logging.ERROR
    text = "store: a %(kind)s was refused: %(error)s"


# -- the process ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuntimeStarted(Event):
    """A worker has started, and takes jobs from now on."""

    worker_id: str
    queues: str
    text = "worker %(worker_id)s takes jobs from %(queues)s"


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """A shutdown was requested: no new job starts. ``running``: how many are still running."""

    running: int
    text = "draining: %(running)s job(s) still running"


@dataclass(frozen=True, slots=True)
class LimitReached(Event):
    """A stop limit of `jq-actors worker` was reached: the worker drains, and exits with 0."""

    limit: str
    text = "stop limit reached, draining: %(limit)s"


@dataclass(frozen=True, slots=True)
class DrainFinished(Event):
    """No job is running any more. ``interrupted`` jobs were stopped, and queued again."""

    interrupted: int
    text = "drained; %(interrupted)s job(s) interrupted"


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """An actor blocks the actor loop; ``stack`` shows where. Connections and leases are not affected."""

    seconds: float
    stack: str
    level = logging.WARNING
    text = "the actor loop has been blocked for %(seconds).1f s; an async actor does blocking work here:\n%(stack)s"


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A background task of the runtime raised. One that runs all the time is started again."""

    task: str
    error: str
    traceback: str = ""
    level = logging.ERROR
    text = "background task %(task)s failed: %(error)s\n%(traceback)s"


@dataclass(frozen=True, slots=True)
class CloseFailed(Event):
    """A part of the runtime could not be closed in an orderly way; the other parts are still closed."""

    part: str
    error: str
    traceback: str = ""
    level = logging.ERROR
    text = "closing %(part)s failed: %(error)s\n%(traceback)s"
