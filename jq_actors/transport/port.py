"""The transport port: what the core needs of a broker.

Everything here is called on the I/O loop only. Two adapters implement it, ``transport.rabbitmq`` and
``transport.embedded``, and one conformance suite tests both. Queue names are the user's (``mail``); an adapter adds its
namespace. A transport reconnects by itself, without limit; only the methods that say so raise when the broker is
unreachable.
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
    """How long the transport holds the message back. Without persistence only: with rows, the relay waits instead."""
    lane: Lane | None = None
    """The lane that the message goes to, without persistence; ``None``: the plain queue."""
    group: str | None = None
    """The job's group; ``None``: none."""
    relayed: bool = False
    """Whether the relay publishes it. The relay asks for `Transport.capacity` first, so its messages are taken, ahead
    of new sends."""


@dataclass(frozen=True, slots=True)
class Published:
    """The broker confirmed that it stored the message."""


@dataclass(frozen=True, slots=True)
class NotPublished:
    """The broker does not have the message."""

    reason: str


@dataclass(frozen=True, slots=True)
class PublishUnknown:
    """No confirm came in time: the broker may have the message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """The message was not taken: this process has no room for it, or does not consume its queue.

    The job's row waits for a worker's relay. Occurs only with persistence, and only where queues are not shared.
    """


PublishResult = Published | NotPublished | PublishUnknown | Deferred


class Delivery(Protocol):
    """One message in this worker's hand. Its holder calls exactly one of the three endings, once.

    At most ``Lane.seats`` messages of one group are in this worker's hand: the next one comes when one has ended.

    The endings never block and never raise. If the channel has closed meanwhile, an ending only emits `AckLost`: the
    broker has already taken the message back.
    """

    @property
    def queue(self) -> str:
        """The queue that it came from, by the user's name."""
        ...

    @property
    def body(self) -> bytes:
        """The encoded command."""
        ...

    @property
    def dispatch(self) -> int:
        """The dispatch number that the publisher gave it; 1 for a message of a foreign producer."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered it before, to this or another consumer."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it is still in this worker's hand. If not, the broker has taken it back and delivers it again."""
        ...

    @property
    def lane(self) -> Lane | None:
        """The lane that it came from; ``None``: the plain queue."""
        ...

    def ack(self) -> None:
        """Acknowledge the message, so that the broker deletes it. Acks are coalesced where that is safe."""
        ...

    def requeue(self) -> None:
        """Give the message back: the broker delivers it again, to any consumer.

        A message of a lane goes back together with everything that came behind it, in order; its lane goes to the
        lobby's tail.
        """
        ...

    def bury(self, reason: str) -> None:
        """Move the message to the dead queue ``{namespace}.dead`` with ``reason`` in a header, then ack it.

        If the dead queue does not confirm it, the message is given back instead, so that it is not lost.
        """
        ...


Deliver = Callable[[Delivery], None]
"""Takes a delivery. It is called on the I/O loop, must return at once and must not raise."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What the broker counts in one queue."""

    ready: int
    """Waiting messages. Those that are delivered and not yet acked do not count."""
    consumers: int
    """Consumers of the queue, in all processes."""


@dataclass(frozen=True, slots=True)
class TransportHealth:
    """The state of a transport, for readiness probes."""

    connected: bool
    missing: tuple[str, ...] = ()
    """Queues that this process wants to consume, but for which the broker has not confirmed a consumer."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Queues that cannot be consumed until somebody repairs them, each with the reason (e.g. other arguments)."""
    publisher_blocked: bool = False
    """Whether the broker has stopped taking messages (memory or disk alarm)."""


class Transport(Protocol):
    """A broker, as the core sees it."""

    async def start(self) -> None:
        """Begin to connect, and return at once. A publish waits for the connection, within its deadline."""
        ...

    async def wait_connected(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the connection; returns whether it is there."""
        ...

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Publish ``batch`` pipelined, in its order, and return a result for each message, in the same order.

        Returns within ``broker.confirm_timeout``. If a queue is missing, it is declared and its messages are sent once
        more. If the caller is cancelled, the confirms are still collected. After publishing into lanes, the transport
        looks at each of them once, and publishes tokens for those that too few consumers serve (see `tokens`).
        """
        ...

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """Consume ``queue`` from now on, also after reconnects, with at most ``prefetch`` unacked messages."""
        ...

    def serve_lanes(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Serve the lanes of ``queue`` from now on, also after reconnects, at most ``slots`` at once."""
        ...

    async def stop_intake(self) -> None:
        """Stop all consuming. After it has returned, ``deliver`` is not called any more; deliveries stay valid."""
        ...

    async def close(self) -> None:
        """Send the acks that are due, then disconnect. Unacked messages go back to their queues."""
        ...

    def capacity(self, queue: str) -> int:
        """How many more messages of ``queue`` it makes sense to publish now.

        Only ``embedded`` with persistence has a limit: its `Room`.
        """
        ...

    async def depth(self, queue: str) -> QueueDepth | None:
        """The counts of one queue (embedded: with its lanes); ``None`` if the queue does not exist.

        Raises:
          TransportError: the broker cannot be reached.
        """
        ...

    async def purge(self, queue: str) -> int:
        """Delete the messages that `depth` counts as ready; returns how many.

        Raises:
          TransportError: the broker cannot be reached.
        """
        ...

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """For ``jq-actors check``: test whether the broker is reachable, its version, and that its queues fit ours."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all processes see the same queues.

        If not (embedded), each process has its own queues in memory, limited by `capacity`. A job that is published
        there is marked as this worker's (`JobStore.mark_published`); if the worker is lost, the relay finds it by that.
        """
        ...

    on_room: Callable[[], None]
    """Called when a full queue has room again (embedded). Does nothing until the worker sets it."""

    @property
    def health(self) -> TransportHealth:
        """The state of the connections and consumers now."""
        ...

    @property
    def generation(self) -> int:
        """A number that grows with each new connection of the consumer; after a change the relay compares counts."""
        ...

    @property
    def counts_returns(self) -> bool:
        """Whether the broker counts how often a message comes back, and buries one that has come back too often."""
        ...

    @property
    def delivery_timeout(self) -> timedelta | None:
        """How long the broker lets a delivery stay unacked before it closes the channel; ``None``: for ever."""
        ...


@dataclass(frozen=True, slots=True)
class TransportReport:
    """What `Transport.check` found."""

    description: str
    """For people: product, version and the address with its secrets masked."""
    problems: tuple[str, ...] = ()
    """Sentences; any of them makes ``jq-actors check`` exit non-zero."""
    warnings: tuple[str, ...] = ()
    """Sentences that do not change the exit code."""
