"""What a state of the groups' model is: frozen, hashable, no more than the protocol can tell apart.

Jobs are J1, J2 … in the order of their group; lanes are L1, L2 …; workers are A and B, each boot of one a new worker.
A message is the number of its job, from 0: without rows there is nothing else in it to tell apart.
Fields under "remembered by the checker" are read by `properties` only, never by a rule's decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.simulation.budget import Budget
from tests.simulation.state import Status


class Phase(StrEnum):
    """How far a worker is with a lane, for which it holds a token."""

    LOOKING = "looking"
    """It has the token, and will look whether it is wanted."""
    JOINING = "joining"
    """It is, and will consume."""
    SERVING = "serving"
    IDLE = "idle"
    """Cancelled because nothing came: to look once more."""
    DELETING = "deleting"
    """The same, and nothing came for long: to delete the lane, if it is unused and empty."""
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
class Job:
    sent: bool = False

    # remembered by the checker
    done: bool = False
    """It has ended once."""
    excused: bool = False
    """Its sender died before `send` returned: nobody has promised anything."""

    @property
    def is_over(self) -> bool:
        return self.done or self.excused


@dataclass(frozen=True, slots=True)
class Lane:
    """A broker queue, in order. Of ``consumers``, workers' ids as they came, one is active if it has one seat."""

    exists: bool = False
    ready: tuple[int, ...] = ()
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A message of the lobby: this lane has work, and perhaps too few serve it."""

    lane: int
    redelivered: bool = False
    """The broker took it back from a worker that was gone."""


@dataclass(frozen=True, slots=True, order=True)
class Publishing:
    """A message on its way into its lane; then a look, then tokens."""

    lane: int
    job: int
    stored: bool = False
    """The lane has it."""
    looked: bool = False
    tokens: int = 0
    """So many are needed."""


@dataclass(frozen=True, slots=True, order=True)
class Hand:
    """A delivery in a worker's hand, and the run that came of it."""

    job: int
    running: bool = False
    lost: bool = False
    """The broker has taken it back, or its lane is gone: an ack means nothing."""


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
    unacked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    jobs: tuple[Job, ...]
    lanes: tuple[Lane, ...]
    workers: tuple[Worker, ...]
    budget: Budget
    lobby: tuple[Token, ...] = ()
    publishing: tuple[Publishing, ...] = ()
    ghosts: tuple[Ghost, ...] = ()


def describe(state: State) -> str:
    """For people, under a trace."""
    return "\n".join(_described(state))


def _described(state: State) -> Iterator[str]:
    for number, job in enumerate(state.jobs, 1):
        yield f"J{number}: {job}"
    for number, lane in enumerate(state.lanes, 1):
        ready = ", ".join(f"J{job + 1}" for job in lane.ready) or "empty"
        consumers = ", ".join(lane.consumers) or "none"
        yield f"L{number}: {ready}, consumers: {consumers}{'' if lane.exists else ', missing'}"
    for worker in state.workers:
        yield f"{worker.id}: {worker.status}"
        yield from (f"    {serving}" for serving in worker.servings)
        yield from (f"    runs on: {hand}" for hand in worker.runs)
    yield f"lobby: {', '.join(f'L{token.lane + 1}' for token in state.lobby) or 'empty'}"
    yield from (f"{item}" for item in (*state.publishing, *state.ghosts))
