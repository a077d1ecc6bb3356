"""The transport port: what the core asks of a broker.

Everything here is called on the I/O loop only. Two adapters implement it, held to one conformance suite:
``transport.rabbitmq`` and ``transport.embedded``. Queue names are the user's (``mail``); an adapter adds
its namespace. A transport reconnects by itself for ever; it never raises because the broker is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from jq_actors.model.job import JobId
from jq_actors.model.lane import Fairness, Lane


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One dispatch of a job, ready to be published."""

    job_id: JobId
    dispatch: int
    queue: str
    body: bytes
    priority: int = 0
    delay: timedelta | None = None
    """Only without persistence: the transport itself holds the message back. With rows, the relay does it."""
    lane: Lane | None = None
    """The lane that takes it, without persistence; ``None``: the plain queue."""
    group: str | None = None
    """Its group, if it has one."""
    relayed: bool = False
    """The relay publishes it: it has asked for `Transport.capacity` before, and goes ahead of new sendings."""


@dataclass(frozen=True, slots=True)
class Published:
    """The broker confirmed that it stored the message."""


@dataclass(frozen=True, slots=True)
class NotPublished:
    """The broker surely does not have it."""

    reason: str


@dataclass(frozen=True, slots=True)
class PublishUnknown:
    """No confirm in time: the broker may have it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """No room for it here, or nobody in this process serves the queue: its row waits for a worker's relay.

    Only where queues are not shared, and only with persistence.
    """


PublishResult = Published | NotPublished | PublishUnknown | Deferred


class Delivery(Protocol):
    """One message in this worker's hand. Exactly one of the three endings is called, once.

    Of one group, at most a lane's ``seats`` are in this worker's hands: the next one comes when one has ended.

    The endings never block and never raise. On a channel that has died meanwhile they are counted
    (`AckLost`) and forgotten: the broker has already taken the message back.
    """

    @property
    def queue(self) -> str:
        """The user's name of the queue that it came from."""
        ...

    @property
    def body(self) -> bytes:
        """The encoded command."""
        ...

    @property
    def dispatch(self) -> int:
        """The dispatch number that the publisher gave; 1 for a message of another producer."""
        ...

    @property
    def redelivered(self) -> bool:
        """The broker delivered it before, to somebody."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it is still in our hand; ``False``: the broker has taken it back, and delivers it again."""
        ...

    @property
    def lane(self) -> Lane | None:
        """The lane that it came by; ``None``: the plain queue."""
        ...

    def ack(self) -> None:
        """Done with it: the broker forgets it. Acks are coalesced where that is safe."""
        ...

    def requeue(self) -> None:
        """Give it back: the broker delivers it again, to anybody.

        One of a lane goes back with all that came behind it, in order, and the lane to the lobby's tail.
        """
        ...

    def bury(self, reason: str) -> None:
        """Move it to the dead queue ``{namespace}.dead`` with ``reason`` in a header, then ack it.

        When the dead queue does not confirm, it is given back instead: nothing is lost.
        """
        ...


Deliver = Callable[[Delivery], None]
"""Takes a delivery; called on the I/O loop, must return at once and not raise."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What a narrow look at one queue tells."""

    ready: int
    """Messages that wait in it; those delivered and not yet acked do not count."""
    consumers: int


@dataclass(frozen=True, slots=True)
class TransportHealth:
    """What readiness asks."""

    connected: bool
    missing: tuple[str, ...] = ()
    """Queues that this process wants to consume and the broker has not confirmed."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Queues that cannot be consumed until somebody acts, with the reason (e.g. inequivalent arguments)."""
    publisher_blocked: bool = False
    """The broker has stopped taking messages (memory or disk alarm)."""


class Transport(Protocol):
    """A broker, as the core sees it."""

    async def start(self) -> None:
        """Begin to connect, and return at once. Publishing waits for the connection, within its deadline."""
        ...

    async def wait_connected(self, timeout: float) -> bool:
        """Whether it is connected, waiting up to ``timeout`` seconds for it."""
        ...

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Publish ``batch`` pipelined, in its order, and return one result for each, in the same order.

        A missing queue is declared and its messages are sent once more. Returns within the configured
        deadline (``broker.confirm_timeout``); a cancelled caller leaves the confirms to be collected.
        What goes into lanes is followed by one look at each, and tokens for those that too few serve (`tokens`).
        """
        ...

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """Consume ``queue`` from now on, through every reconnect, with at most ``prefetch`` unacked."""
        ...

    def serve_lanes(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Serve the lanes of ``queue`` from now on, through every reconnect, at most ``slots`` at once."""
        ...

    async def stop_intake(self) -> None:
        """Stop all consuming; after it returns ``deliver`` is not called any more. Deliveries stay valid."""
        ...

    async def close(self) -> None:
        """Send the acks that are due, then disconnect; what is unacked goes back to its queue."""
        ...

    def capacity(self, queue: str) -> int:
        """How many more messages of ``queue`` it makes sense to publish now (embedded with persistence: its room)."""
        ...

    async def depth(self, queue: str) -> QueueDepth | None:
        """A narrow look at one queue (embedded: and its lanes); ``None`` when it does not exist.

        Raises TransportError when away.
        """
        ...

    async def purge(self, queue: str) -> int:
        """Throw away what `depth` calls ready; returns how many. Raises TransportError when away."""
        ...

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """For ``jq-actors check``: reachability, version, and whether the broker's queues equal ours."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all processes see the same queues.

        ``False`` (embedded): each has its own, in its memory, bounded by `capacity`. What was published there is
        marked as this worker's (`JobStore.mark_published`), and is lost and found again with it.
        """
        ...

    on_room: Callable[[], None]
    """Set by the worker: called when what was full has room again (embedded). Does nothing until then."""

    @property
    def health(self) -> TransportHealth:
        """The state of the connections and consumers now."""
        ...

    @property
    def generation(self) -> int:
        """Grows with each new connection of the consumer; the relay compares counts after a change."""
        ...

    @property
    def counts_returns(self) -> bool:
        """Whether the broker counts how often a message comes back, and buries one that does so too often."""
        ...

    @property
    def delivery_timeout(self) -> timedelta | None:
        """How long the broker lets a delivery stay unacked before it takes the channel away; ``None``: for ever."""
        ...


@dataclass(frozen=True, slots=True)
class TransportReport:
    """What ``check`` found."""

    description: str
    """For people: product, version and the address with its secrets masked."""
    problems: tuple[str, ...] = ()
    """Each makes ``check`` exit non-zero."""
    warnings: tuple[str, ...] = ()
