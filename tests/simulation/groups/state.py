"""What a state of the groups' model is: frozen, hashable, no more than the protocol can tell apart.

Jobs are J1, J2 …; groups are g, h …; workers are A and B, each boot of one a new worker. Dispatches and run tokens are
renamed as in the claim model (`simulation.state`), for the same reason. A group's version is no number here: what
matters is whether it is still the one that a statement has seen, which its `Look` says.
Fields under "remembered by the checker" are read by `properties` only, never by a rule's decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from jq_actors.model.job import JobState
from jq_actors.model.turn_rules import Places
from tests.simulation.budget import Budget
from tests.simulation.state import NOBODY, Lease, Status, Tag

PRODUCER, RELAY = "P", "R"
"""Who publishes besides the workers. The relay is one that never dies: the claim model lets relays die."""
NO_JOB = -1
NO_PLACE = 99
"""The order of a job that has none yet."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job's row, as far as groups look at it."""

    state: JobState
    group: int
    order: int
    """Its place in the order of its group, or `NO_PLACE`."""
    has_place: bool = False
    dispatch: int = 1
    published: bool = False
    """Of a queued one: nobody has to publish it any more."""
    publisher: str = NOBODY
    """Who holds its publish lease."""
    token: int = 0
    owner: str = NOBODY
    """The worker that runs it, or that ran it last, as long as that may matter (`model`)."""
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A group's row."""

    held: int = 0
    waiting: int = 0
    paused: bool = False
    next_position: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    sent: bool = False
    row: Row | None = None

    # remembered by the checker
    claim: int = 0
    """The token of the claim in force; 0 once it was taken away."""
    strays: int = 0
    """Outcomes written by a run that did not hold the claim."""
    excused: bool = False
    """The broker itself lost copies of it (wiped)."""

    @property
    def is_over(self) -> bool:
        return self.row is not None and self.row.state.is_final


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """A message that waits in the broker's queue, of which all workers are consumers. A multiset."""

    job: int
    dispatch: int
    redelivered: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Publishing:
    """A dispatch in the hands of somebody who took its publish lease."""

    who: str
    job: int
    dispatch: int
    confirmed: bool = False


class Phase(StrEnum):
    RECEIVED = "received"
    """Not claimed, or held to be looked at again."""
    RUNNING = "running"
    SETTLING = "settling"
    """The actor has ended. What settles it has seen the rows, and is still to take its locks."""
    SETTLED = "settled"
    """To be acked."""
    RETURNING = "returning"
    """Settled, to be given back to the broker."""


@dataclass(frozen=True, slots=True, order=True)
class Look:
    """What the statement that settles a run has seen of its group, before it had its locks."""

    next: int = NO_JOB
    """The first job that holds no place, if it is a plain waiting one; `NO_JOB`: there is none."""
    is_plain: bool = True
    """Nothing but that has to be done: else it is for the way under the locks."""
    is_current: bool = True
    """The group's row has the version that was seen."""
    chains: bool = False
    """Asks to go on with the next one here."""
    counts: tuple[int, int] = (0, 0)
    """What the group's row counted. Only where the contract is broken."""


@dataclass(frozen=True, slots=True, order=True)
class Hand:
    """A delivery in a worker's hand, and the run that came of it: of its own job, or of another one of the group."""

    job: int
    dispatch: int
    redelivered: bool = False
    phase: Phase = Phase.RECEIVED
    tag: Tag = Tag.UNACKED
    running: int = NO_JOB
    is_own: bool = True
    """What runs is the job of the delivery, by its claim."""
    token: int = 0
    done: int = 0
    """Jobs of the group that were ended by this delivery, in its turn."""
    ending: str = ""
    look: Look = Look()
    recorded: bool = False
    """It was settled, and the answer lost."""
    chained: tuple[int, int] = (NO_JOB, 0)
    """The job that it then asked for and got, and the token that it asked for it with."""

    # remembered by the checker
    lapsed: bool = False
    """Its worker was stopped until the lease ran out: from then on another run of the job may overlap it."""
    exposed: bool = False
    """Its connection was lost meanwhile, or while it was asked for: perhaps only the lease is its safety copy."""


@dataclass(frozen=True, slots=True)
class Worker:
    letter: str
    boot: int = 1
    status: Status = Status.UP
    lease: Lease = Lease.LIVE
    hands: tuple[Hand, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.letter}{self.boot}"


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """What an operator wants done; ``job`` or ``group`` says to what."""

    kind: str
    job: int = NO_JOB
    group: int = 0


@dataclass(frozen=True, slots=True)
class Deciding:
    """A transaction that has decided who gets places, and is still to write it. Only where the contract is broken."""

    action: Action
    groups: tuple[int, ...]
    places: tuple[Places, ...]


@dataclass(frozen=True, slots=True)
class State:
    jobs: tuple[Job, ...]
    groups: tuple[Group, ...]
    workers: tuple[Worker, ...]
    budget: Budget
    broker: tuple[Copy, ...] = ()
    publishing: tuple[Publishing, ...] = ()
    dead: tuple[tuple[str, Lease], ...] = ()
    """Workers that are no more and still own a running row, with their leases."""
    deciding: tuple[Deciding, ...] = ()


def row_of(state: State, index: int) -> Row:
    """The row of a job that has one."""
    row = state.jobs[index].row
    assert row is not None
    return row


def unfinished(state: State, group: int) -> list[tuple[int, Row]]:
    """The jobs of a group that have not ended, in order; those that have no place in it yet are the last."""
    open_ = [
        (index, job.row)
        for index, job in enumerate(state.jobs)
        if job.row is not None and job.row.group == group and not job.row.state.is_final
    ]
    return sorted(open_, key=lambda item: item[1].order)


def lease_of(state: State, worker_id: str) -> Lease:
    for worker in state.workers:
        if worker.id == worker_id:
            return worker.lease
    return dict(state.dead).get(worker_id, Lease.GONE)


def fresh_token(state: State, index: int) -> int:
    used = {hand.token for worker in state.workers for hand in worker.hands if hand.running == index}
    used |= {hand.chained[1] for worker in state.workers for hand in worker.hands if hand.chained[0] == index}
    return next(token for token in range(1, len(used) + 2) if token not in used)


def copies_of(state: State, index: int, dispatch: int) -> int:
    """How many copies of a dispatch the broker has, those that it waits to see acked included."""
    waiting = sum(copy.job == index and copy.dispatch == dispatch for copy in state.broker)
    return waiting + sum(
        hand.job == index and hand.dispatch == dispatch and hand.tag is Tag.UNACKED and hand.phase is not Phase.SETTLED
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
    for number, group in enumerate(state.groups):
        yield f"{group_name(number)}: {group}"
    for worker in state.workers:
        yield f"{worker.id}: {worker.status}, lease {worker.lease}"
        yield from (f"    {hand}" for hand in worker.hands)
    yield f"broker: {', '.join(f'J{copy.job + 1}#{copy.dispatch}' for copy in state.broker) or 'empty'}"
    yield from (f"{item}" for item in (*state.publishing, *state.deciding))
    yield from (f"dead: {worker_id}, lease {lease}" for worker_id, lease in state.dead)


def group_name(group: int) -> str:
    return "gh"[group]
