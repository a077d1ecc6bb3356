"""What a state of the groups' model is: frozen, hashable, no more than the protocol can tell apart.

Jobs are J1, J2 … in the order of their group; lanes are L1, L2 …; workers are A and B, each boot of one a new worker.
Dispatches and run tokens are renamed as in the claim model (`simulation.state`), for the same reason.
Fields under "remembered by the checker" are read by `properties` only, never by a rule's decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from jq_actors.job import JobState
from tests.simulation.budget import Budget
from tests.simulation.state import NOBODY, Lease, Status

PRODUCER, OPERATOR, RELAY = "P", "O", "R"
"""Who publishes and offers. The relay is one that never dies: the claim model lets relays die."""
NO_JOB = -1


class Due(StrEnum):
    """When a retrying job may run, as far as `turns` tells it apart."""

    NOW = "now"
    SOON = "soon"
    """Within `turns.LONGEST_WAIT`."""
    LATE = "late"


class Phase(StrEnum):
    """How far a worker is with a lane, for which it holds a token."""

    LOOKING = "looking"
    """It has the token, and will look whether it is wanted."""
    JOINING = "joining"
    """It is, and will consume."""
    SERVING = "serving"
    LEAVING = "leaving"
    """What it has in hand may not start for long: it will cancel its consumer, and give it back."""
    LEFT = "left"
    """Cancelled after that: to give back, then to ask once more."""
    IDLE = "idle"
    """Cancelled because nothing came: to look once more."""
    SHIELDED = "shielded"
    """The same, and only its shield consumes, which takes nothing: to delete the lane."""
    HANDING = "handing"
    """Cancelled because others are to have their turn: to put a fresh token into the lobby."""
    HANDED = "handed"
    """The fresh one is confirmed: to ack the old one."""


class Held(StrEnum):
    """What became of the token that a lane is served for."""

    UNACKED = "unacked"
    LOST = "lost"
    """The broker took it back."""
    ACKED = "acked"
    """Too early."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job's row, as far as groups look at it."""

    state: JobState
    dispatch: int = 1
    published: bool = False
    publisher: str = NOBODY
    token: int = 0
    owner: str = NOBODY
    due: Due = Due.NOW
    keeps_turn: bool = False
    """Retrying, and its delivery, or another one of its group, was in a worker's hand to run it again."""


@dataclass(frozen=True, slots=True)
class Job:
    sent: bool = False
    row: Row | None = None

    # remembered by the checker
    done: bool = False
    """It has ended once. Without rows, that is all there is to know."""
    excused: bool = False
    """Its sender died before `send` returned: without a row, nobody has promised anything."""

    @property
    def is_over(self) -> bool:
        return self.done or self.excused if self.row is None else self.row.state.is_final


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    job: int
    dispatch: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A broker queue, in order. Of ``consumers``, workers' ids as they came, one is active if it has one seat."""

    exists: bool = False
    ready: tuple[Copy, ...] = ()
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A message of the lobby: this lane has work, and perhaps too few serve it."""

    lane: int
    redelivered: bool = False
    """The broker took it back from a worker that was gone."""


@dataclass(frozen=True, slots=True, order=True)
class Publishing:
    """A dispatch on its way into its lane, or (`NO_JOB`) a lane that is offered; then a look, then tokens."""

    who: str
    lane: int
    job: int
    dispatch: int = 0
    stored: bool = False
    """The lane has it."""
    looked: bool = False
    tokens: int = 0
    """So many are needed."""


@dataclass(frozen=True, slots=True, order=True)
class Hand:
    """A delivery in a worker's hand, and the run that came of it: of its own job, or of another one instead."""

    job: int
    dispatch: int
    running: int = NO_JOB
    token: int = 0
    lost: bool = False
    """The broker has taken it back, or its lane is gone: an ack means nothing."""

    # remembered by the checker
    lapsed: bool = False
    """Its worker was stopped until the lease ran out: from then on another run may overlap it."""


@dataclass(frozen=True, slots=True, order=True)
class Serving:
    """What a worker does with one token. It has one delivery in hand at most."""

    lane: int
    phase: Phase = Phase.LOOKING
    token: Held = Held.UNACKED
    redelivered: bool = False
    """Its token was."""
    served: bool = False
    """It has led a delivery to its end since it got the token."""
    hand: tuple[Hand, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    letter: str
    boot: int = 1
    status: Status = Status.UP
    lease: Lease = Lease.LIVE
    servings: tuple[Serving, ...] = ()
    runs: tuple[Hand, ...] = ()
    """Runs whose connection to the broker was lost; they go on."""

    @property
    def id(self) -> str:
        return f"{self.letter}{self.boot}"

    @property
    def hands(self) -> tuple[Hand, ...]:
        return (*self.runs, *(hand for serving in self.servings for hand in serving.hand))


@dataclass(frozen=True, slots=True, order=True)
class Ghost:
    """What the broker still believes of a connection that is gone. Each of its queues learns it by itself."""

    lane: int
    worker_id: str
    consuming: bool
    unacked: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    jobs: tuple[Job, ...]
    lanes: tuple[Lane, ...]
    workers: tuple[Worker, ...]
    budget: Budget
    paused: tuple[str, ...] = ()
    """Groups."""
    lobby: tuple[Token, ...] = ()
    publishing: tuple[Publishing, ...] = ()
    ghosts: tuple[Ghost, ...] = ()
    dead: tuple[tuple[str, Lease], ...] = ()
    """Workers that are no more and still own a running row, with their leases."""


def lease_of(state: State, worker_id: str) -> Lease:
    for worker in state.workers:
        if worker.id == worker_id:
            return worker.lease
    return dict(state.dead).get(worker_id, Lease.GONE)


def fresh_token(state: State, job: int) -> int:
    used = {hand.token for worker in state.workers for hand in worker.hands if hand.running == job}
    return next(token for token in range(1, len(used) + 2) if token not in used)


def copies_of(state: State, job: int) -> int:
    """How many copies of a job the broker has, those that it waits to see acked included."""
    hands = (hand for worker in state.workers for hand in worker.hands)
    ghosts = (copy for ghost in state.ghosts for copy in ghost.unacked)
    waiting = (copy for lane in state.lanes for copy in lane.ready)
    in_hand = sum(hand.job == job and not hand.lost for hand in hands)
    return in_hand + sum(copy.job == job for copy in (*ghosts, *waiting))


def describe(state: State) -> str:
    """For people, under a trace."""
    return "\n".join(_described(state))


def _described(state: State) -> Iterator[str]:
    for number, job in enumerate(state.jobs, 1):
        yield f"J{number}: {job}"
    for number, lane in enumerate(state.lanes, 1):
        ready = ", ".join(f"J{copy.job + 1}#{copy.dispatch}" for copy in lane.ready) or "empty"
        consumers = ", ".join(lane.consumers) or "none"
        yield f"L{number}: {ready}, consumers: {consumers}{'' if lane.exists else ', missing'}"
    for worker in state.workers:
        yield f"{worker.id}: {worker.status}, lease {worker.lease}"
        yield from (f"    {serving}" for serving in worker.servings)
        yield from (f"    runs on: {hand}" for hand in worker.runs)
    yield f"lobby: {', '.join(f'L{token.lane + 1}' for token in state.lobby) or 'empty'}"
    yield from (f"{item}" for item in (*state.publishing, *state.ghosts))
    yield from (f"paused: {group}" for group in state.paused)
