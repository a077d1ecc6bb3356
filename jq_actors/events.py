"""Everything that happens, by name: the only source for logs and metrics, and what tests wait for.

An event is a frozen dataclass. Code emits it where the thing happens; nobody else logs. Subscribers (the log
below, metrics middleware, a test) take what they want by class.
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
    """Something that happened. ``level`` and ``text`` say how the log tells it."""

    level: ClassVar[int] = logging.INFO
    text: ClassVar[str] = ""


E = TypeVar("E", bound=Event)


class Events:
    """The bus of one runtime. Emitting costs one dictionary look-up when nobody listens.

    A subscriber is called on the emitting thread, must return at once, and must not raise: one that does is
    logged with its traceback, and the others are still called.
    """

    def __init__(self) -> None:
        self._by_type: dict[type[Event], list[Callable[[Any], None]]] = defaultdict(list)

    def subscribe(self, kind: type[E], subscriber: Callable[[E], None]) -> Callable[[], None]:
        """Call ``subscriber`` for each event of exactly this class; returns the function that ends it."""
        self._by_type[kind].append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._by_type[kind]:
                self._by_type[kind].remove(subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell the subscribers, then the log if its level is on."""
        for subscriber in tuple(self._by_type.get(type(event), ())):
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - a listener must not harm the one it listens to
                _log.exception("A subscriber of %s failed.", type(event).__name__)
        if _log.isEnabledFor(event.level):
            _log.log(event.level, *_told(event))


def _told(event: Event) -> tuple[str, dict[str, Any]]:
    told = {name: escape(getattr(event, name)) for name in event.__dataclass_fields__}
    for name in told.keys() & _MULTILINE:
        told[name] = "\n".join(escape(line) for line in getattr(event, name).splitlines())
    return event.text, told


_MULTILINE = frozenset({"stack", "traceback"})
"""Fields whose own line breaks are wanted in the log."""


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
    """An attempt begins. ``queue_latency`` is the time since it was due, in seconds."""

    job_id: JobId
    actor: str
    queue: str
    attempt: int
    queue_latency: float
    level = logging.DEBUG
    text = "job %(job_id)s: %(actor)s starts attempt %(attempt)s"


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """An attempt ended and its outcome is written; ``state`` is what the job is in now."""

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
    text = "job %(job_id)s: %(actor)s attempt %(attempt)s failed (%(error)s); again in %(delay).1f s\n%(traceback)s"


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
    """A shutdown stopped an attempt; the job is queued again and the attempt does not count."""

    job_id: JobId
    actor: str
    queue: str
    text = "job %(job_id)s: %(actor)s interrupted by the shutdown, queued again"


@dataclass(frozen=True, slots=True)
class JobHeld(Event):
    """A delivery of a job that runs elsewhere is kept, unacked, as its safety copy; told at its first look only."""

    job_id: JobId
    seconds: float
    level = logging.INFO
    text = "job %(job_id)s runs elsewhere; this delivery is held and looked at again in %(seconds).1f s"


@dataclass(frozen=True, slots=True)
class JobTakenOver(Event):
    """The worker of a running job is lost; a crash is counted."""

    job_id: JobId
    crashes: int
    level = logging.WARNING
    text = "job %(job_id)s: its worker is lost (crash %(crashes)s)"


@dataclass(frozen=True, slots=True)
class JobParked(Event):
    """A job of a group that came by itself, from another producer or after a delay, waits for its turn elsewhere: in
    its row, or without persistence in its lane."""

    job_id: JobId
    group: str
    reason: str
    level = logging.DEBUG
    text = "job %(job_id)s of group %(group)s waits: %(reason)s"


@dataclass(frozen=True, slots=True)
class GroupPaused(Event):
    """A group starts nothing until it is resumed."""

    group: str
    reason: str
    level = logging.WARNING
    text = "group %(group)s is paused: %(reason)s"


@dataclass(frozen=True, slots=True)
class GroupResumed(Event):
    """A group goes on."""

    group: str
    text = "group %(group)s is resumed"


@dataclass(frozen=True, slots=True)
class GroupCancelled(Event):
    """The jobs of a group that did not run were cancelled."""

    group: str
    count: int
    reason: str
    level = logging.WARNING
    text = "%(count)d jobs of group %(group)s were cancelled: %(reason)s"


@dataclass(frozen=True, slots=True)
class JobsReleased(Event):
    """Jobs that waited in their groups were queued: what they waited for is over."""

    count: int
    level = logging.DEBUG
    text = "%(count)d waiting jobs queued"


@dataclass(frozen=True, slots=True)
class GroupsMended(Event):
    """Groups stood still although a job could have started, or counted wrong: their places were given anew."""

    count: int
    first: str
    level = logging.WARNING
    text = "%(count)d group(s) stood still and were counted anew, %(first)s among them"


@dataclass(frozen=True, slots=True)
class LaneOpened(Event):
    """This worker serves a lane. ``served``: how many it serves now."""

    queue: str
    key: str
    served: int
    level = logging.DEBUG
    text = "serving lane %(key)s of %(queue)s, %(served)d in all"


@dataclass(frozen=True, slots=True)
class LaneClosed(Event):
    """This worker serves a lane no more. ``why``: ``drained``, ``handed over``, ``given back``, ``lost``."""

    queue: str
    key: str
    why: str
    jobs: int
    level = logging.DEBUG
    text = "lane %(key)s of %(queue)s %(why)s after %(jobs)d jobs"


@dataclass(frozen=True, slots=True)
class DeliveryDropped(Event):
    """A delivery was acked without a run. ``reason``: ``final``, ``stale``, ``runs_elsewhere``, ``undecodable``."""

    job_id: JobId
    queue: str
    reason: str
    level = logging.DEBUG
    text = "job %(job_id)s: delivery on %(queue)s dropped (%(reason)s)"


@dataclass(frozen=True, slots=True)
class DeliveryBuried(Event):
    """A delivery that is no command, or that nobody here can run and no row keeps, went to the dead queue."""

    queue: str
    reason: str
    level = logging.ERROR
    text = "a delivery of %(queue)s went to the dead queue: %(reason)s"


@dataclass(frozen=True, slots=True)
class DeliveryRenewed(Event):
    """A delivery waited here for too long, and was published anew: the broker counts how often it comes back."""

    job_id: JobId
    queue: str
    level = logging.DEBUG
    text = "job %(job_id)s waited here for too long, its delivery from %(queue)s is renewed"


@dataclass(frozen=True, slots=True)
class DeliveryAckedEarly(Event):
    """A long job's delivery was acked before its end: from now on its row's lease is the safety copy."""

    job_id: JobId
    text = "job %(job_id)s runs long; its delivery is acked early, the row keeps it safe"


@dataclass(frozen=True, slots=True)
class OutcomeDiscarded(Event):
    """A run that had lost its claim wanted to write an outcome."""

    job_id: JobId
    actor: str
    state: str
    level = logging.WARNING
    text = "job %(job_id)s: late outcome %(state)s of %(actor)s discarded, another run holds the claim"


@dataclass(frozen=True, slots=True)
class OutcomeLost(Event):
    """The process ended before the database came back: what the run came to is not written, and the job runs again."""

    job_id: JobId
    actor: str
    state: str
    level = logging.ERROR
    text = "job %(job_id)s: outcome %(state)s of %(actor)s could not be written before the end; the job runs again"


@dataclass(frozen=True, slots=True)
class AckLost(Event):
    """An ack was due on a channel that has died; the broker delivers the message again."""

    queue: str
    level = logging.DEBUG
    text = "an ack on %(queue)s was lost with its channel"


# -- sending and the relay --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendDeferred(Event):
    """Jobs are stored and the broker has not taken them: the relay will send them."""

    count: int
    reason: str
    level = logging.WARNING
    text = "%(count)s job(s) stored but not yet sent (%(reason)s); the relay sends them"


@dataclass(frozen=True, slots=True)
class MarkLost(Event):
    """That jobs were published could not be written: the relay publishes them once more, and a claim refuses a copy."""

    reason: str
    level = logging.WARNING
    text = "a mark was not written, the relay repeats the sending: %(reason)s"


@dataclass(frozen=True, slots=True)
class Redispatched(Event):
    """The relay published jobs. ``reason``: ``due``, ``unpublished``, ``missing``."""

    reason: str
    count: int
    level = logging.DEBUG
    text = "relay: %(count)s job(s) published (%(reason)s)"


@dataclass(frozen=True, slots=True)
class MemoryJobsLost(Event):
    """The embedded broker closed without persistence, with jobs in its memory: the only copies there were."""

    count: int
    level = logging.ERROR
    text = "%(count)s job(s) were only in this process's memory and end with it; add the `persistence` middleware"


@dataclass(frozen=True, slots=True)
class WorkerLost(Event):
    """A worker's lease ran out, or its process is gone."""

    worker_id: str
    level = logging.WARNING
    text = "worker %(worker_id)s is lost; its jobs are given back"


@dataclass(frozen=True, slots=True)
class JobsPruned(Event):
    """Final rows past their retention were deleted."""

    count: int
    level = logging.DEBUG
    text = "retention: %(count)s row(s) deleted"


# -- connections ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerConnected(Event):
    """A connection stands. ``role``: ``publisher``, ``consumer``."""

    role: str
    server: str
    text = "connected to the broker (%(role)s): %(server)s"


@dataclass(frozen=True, slots=True)
class BrokerDisconnected(Event):
    """A connection was lost, or could not be made; it is tried again. Emitted at most once in 10 s a role."""

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
    """The broker ended a consumer (its queue was deleted, its channel closed); it is restored."""

    queue: str
    reason: str
    level = logging.WARNING
    text = "consumer of %(queue)s lost: %(reason)s"


@dataclass(frozen=True, slots=True)
class QueueBroken(Event):
    """A queue cannot be consumed until somebody acts; the others go on."""

    queue: str
    reason: str
    level = logging.ERROR
    text = "queue %(queue)s is broken and left out: %(reason)s"


@dataclass(frozen=True, slots=True)
class PublisherBlocked(Event):
    """The broker stopped (or resumed) taking messages: a memory or disk alarm."""

    blocked: bool
    level = logging.WARNING
    text = "the broker blocks publishers: %(blocked)s"


@dataclass(frozen=True, slots=True)
class StockFrameReader(Event):
    """The fast frame reader does not fit the installed aiormq; all works, slower."""

    reason: str
    level = logging.WARNING
    text = "the fast frame reader is off, aiormq's own is used: %(reason)s"


@dataclass(frozen=True, slots=True)
class StoreLost(Event):
    """The database cannot be reached; what has to be written waits."""

    reason: str
    level = logging.ERROR
    text = "the database is away: %(reason)s"


@dataclass(frozen=True, slots=True)
class StoreBack(Event):
    """The database answers again after ``seconds``."""

    seconds: float
    level = logging.WARNING
    text = "the database is back after %(seconds).1f s"


@dataclass(frozen=True, slots=True)
class StoreFlushed(Event):
    """One group commit: ``kind`` (``claim``, ``settle``), its rows and its duration in seconds."""

    kind: str
    rows: int
    seconds: float
    level = logging.NOTSET + 1
    text = "store: %(kind)s of %(rows)s row(s) in %(seconds).4f s"


@dataclass(frozen=True, slots=True)
class StoreRefused(Event):
    """The database does not take this one write (``kind`` as in `StoreFlushed`), and takes others; its caller gets the
    error."""

    kind: str
    error: str
    level = logging.ERROR
    text = "store: a %(kind)s was refused: %(error)s"


# -- the process ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuntimeStarted(Event):
    """The worker takes jobs from now on."""

    worker_id: str
    queues: str
    text = "worker %(worker_id)s takes jobs from %(queues)s"


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """A shutdown was asked for; no new job is started."""

    running: int
    text = "draining: %(running)s job(s) still run"


@dataclass(frozen=True, slots=True)
class LimitReached(Event):
    """A stop limit of `jq-actors worker` was reached: the worker drains, and ends with exit code 0."""

    limit: str
    text = "stop limit reached, draining: %(limit)s"


@dataclass(frozen=True, slots=True)
class DrainFinished(Event):
    """Nothing runs any more. ``interrupted`` jobs were stopped and queued again."""

    interrupted: int
    text = "drained; %(interrupted)s job(s) interrupted"


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """An actor blocks the actor loop; ``stack`` shows where. The connection and the leases are not affected."""

    seconds: float
    stack: str
    level = logging.WARNING
    text = "the actor loop has been blocked for %(seconds).1f s; an async actor does blocking work here:\n%(stack)s"


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A background task of the runtime raised; it is started again."""

    task: str
    error: str
    traceback: str = ""
    level = logging.ERROR
    text = "background task %(task)s failed and is started again: %(error)s\n%(traceback)s"


@dataclass(frozen=True, slots=True)
class CloseFailed(Event):
    """A part of the runtime could not be closed in order; the others were."""

    part: str
    error: str
    traceback: str = ""
    level = logging.ERROR
    text = "closing %(part)s failed: %(error)s\n%(traceback)s"
