"""What a state of the model is: frozen, hashable, no more than the protocol can tell apart.

Jobs are J1, J2 …; workers are A and B, each boot of one a new worker (A1, then A2). Two renamings keep the number of
states finite, and neither hides anything, because the protocol compares the numbers only for equality:

- a *dispatch* is 2 (the row's, once it has been raised) or 1 (the first, or any older one: `raise_dispatch`);
- a *run token* is the smallest number that no living run of its job has (`fresh_token`).

RabbitMQ's ``redelivered`` flag is no part of the state: no decision about a job looks at it.
Fields under "remembered by the checker" are read by `properties` only, never by a rule's decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from jq_actors.model.job import JobState

from .budget import Budget

PRODUCER = "P"
"""Who publishes, when it is no worker's relay."""
NOBODY = ""


class Status(StrEnum):
    UP = "up"
    DRAINING = "draining"
    STOPPED = "stopped"
    """SIGSTOP, a suspended machine, or cut off from the database: it can do nothing that another would see."""


class Lease(StrEnum):
    LIVE = "live"
    OVER = "over"
    GONE = "gone"
    """The worker removed its row."""


class Tag(StrEnum):
    """What the broker thinks of a delivery in a worker's hand."""

    UNACKED = "unacked"
    LOST = "lost"
    """Its channel died: the broker has taken the message back, an ack means nothing."""
    ACKED = "acked"
    """Acked early."""


class Phase(StrEnum):
    RECEIVED = "received"
    """Not claimed: it waits for a slot, or is held to be looked at again."""
    CLAIMED = "claimed"
    RUNNING = "running"
    ENDED = "ended"
    """The actor has ended, its outcome is still to be written."""
    SETTLED = "settled"
    """To be acked."""
    RETURNING = "returning"
    """Settled, to be given back to the broker."""


class Ending(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRYING = "retrying"
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    UNHANDLED = "unhandled"


@dataclass(frozen=True, slots=True)
class Row:
    """A job's row, as far as the protocol looks at it."""

    state: JobState
    dispatch: int = 1
    published: bool = False
    publisher: str = NOBODY
    """Who holds its publish lease."""
    token: int = 0
    owner: str = NOBODY
    attempt: int = 0
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    sent: bool = False
    row: Row | None = None

    # remembered by the checker
    pruned: bool = False
    claim: int = 0
    """The token of the claim in force; 0 once it was taken away."""
    outcomes: int = 0
    """Outcomes written under that claim."""
    strays: int = 0
    """Outcomes written by a run that did not hold the claim."""
    counted: int = 0
    """Attempts that count: ended with a counted outcome, or lost with their worker."""
    lost: int = 0
    """Claims lost with their worker."""
    excused: bool = False
    """The broker itself lost copies of it (wiped)."""

    @property
    def is_over(self) -> bool:
        return self.pruned if self.row is None else self.row.state.is_final


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """A message that waits in the broker's queue. The queue is a multiset: the broker may reorder."""

    job: int
    dispatch: int


@dataclass(frozen=True, slots=True, order=True)
class Publishing:
    """A dispatch in the hands of somebody who took its publish lease."""

    who: str
    job: int
    dispatch: int
    confirmed: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Hand:
    """A delivery in a worker's hand, and the run that it became."""

    job: int
    dispatch: int
    phase: Phase = Phase.RECEIVED
    tag: Tag = Tag.UNACKED
    token: int = 0
    ending: str = ""
    """An `Ending`, once it has ended."""
    recorded: bool = False
    """A first try to settle it was committed, and its answer lost: the attempt's row says so."""

    # remembered by the checker
    lapsed: bool = False
    """Its worker was stopped until the lease ran out: from then on another run of the job may overlap it."""


@dataclass(frozen=True, slots=True)
class Worker:
    letter: str
    boot: int = 1
    status: Status = Status.UP
    lease: Lease = Lease.LIVE
    grace: bool = False
    """Its own lease had run out: until the others have had time to renew theirs, it takes none for lost."""
    hands: tuple[Hand, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.letter}{self.boot}"


@dataclass(frozen=True, slots=True)
class State:
    jobs: tuple[Job, ...]
    workers: tuple[Worker, ...]
    budget: Budget
    broker: tuple[Copy, ...] = ()
    publishing: tuple[Publishing, ...] = ()
    dead: tuple[tuple[str, Lease], ...] = ()
    """Workers that are no more and still own a running row, with their leases."""


def fresh_token(state: State, index: int) -> int:
    used = {hand.token for worker in state.workers for hand in worker.hands if hand.job == index}
    return next(token for token in range(1, len(used) + 2) if token not in used)


def lease_of(state: State, worker_id: str) -> Lease:
    for worker in state.workers:
        if worker.id == worker_id:
            return worker.lease
    return dict(state.dead).get(worker_id, Lease.GONE)


def is_dead(state: State, worker_id: str) -> bool:
    return all(worker.id != worker_id for worker in state.workers)


def copies_of(state: State, index: int, *dispatches: int) -> int:
    """How many copies of these dispatches the broker has, those that it waits to see acked included."""
    waiting = sum(copy.job == index and copy.dispatch in dispatches for copy in state.broker)
    return waiting + sum(
        hand.job == index
        and hand.dispatch in dispatches
        and hand.tag is Tag.UNACKED
        and hand.phase is not Phase.SETTLED
        for worker in state.workers
        for hand in worker.hands
    )


def distinct_hands(worker: Worker, *phases: Phase) -> Iterator[Hand]:
    for hand in dict.fromkeys(worker.hands):
        if hand.phase in phases:
            yield hand


def describe(state: State) -> str:
    """For people, under a trace."""
    return "\n".join(_described(state))


def _described(state: State) -> Iterator[str]:
    for number, job in enumerate(state.jobs, 1):
        yield f"J{number}: {job}"
    for worker in state.workers:
        yield f"{worker.id}: {worker.status}, lease {worker.lease}{', in grace' if worker.grace else ''}"
        yield from (f"    holds J{hand.job + 1}: {hand}" for hand in worker.hands)
    yield f"broker: {', '.join(f'J{copy.job + 1}#{copy.dispatch}' for copy in state.broker) or 'empty'}"
    yield from (f"being published by {p.who}: J{p.job + 1}#{p.dispatch}" for p in state.publishing)
    yield from (f"dead: {worker_id}, lease {lease}" for worker_id, lease in state.dead)
