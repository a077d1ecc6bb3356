"""One small system of groups to explore: its lanes and jobs, what may go wrong, which decisions it is built on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from jq_actors.model.lane import Fairness
from jq_actors.transport import tokens
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import AfterCancel
from tests.simulation.budget import Budget

from .state import Job, Lane, State, Worker


class IsWanted(Protocol):
    """The shape of `tokens.is_wanted`."""

    def __call__(self, lane: QueueDepth | None, serving_here: int, seats: int) -> bool: ...


class LooksAgain(Protocol):
    """The shape of `tokens.looks_again`."""

    def __call__(self, lane: QueueDepth | None, seconds: float, *, redelivered: bool) -> bool: ...


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of production. A test replaces one, to show that the checker would find it wrong."""

    tokens_needed: Callable[[QueueDepth | None, int, int], int] = tokens.tokens_needed
    is_wanted: IsWanted = tokens.is_wanted
    looks_again: LooksAgain = tokens.looks_again
    after_cancel: Callable[[QueueDepth | None], AfterCancel] = tokens.after_cancel
    hands_over: Callable[[int, float, int, Fairness, QueueDepth | None], bool] = tokens.hands_over


@dataclass(frozen=True, slots=True)
class Contract:
    """What the transport has to keep besides, because no pure function can."""

    publishes_before_it_looks: bool = True
    acks_after_the_look: bool = True
    """The token of a lane that seems drained is acked when the look after the cancel has found it empty."""
    cancels_before_it_hands_over: bool = True
    """Also where a token is replaced because it was held for long: else somebody sees the lane served, and acks the
    fresh one."""
    waits_for_own_changes: bool = True
    """A token of a lane that this worker itself begins or ends to serve is not judged before it has; what counts as
    served here is only what looks again before it ends."""
    hands_over_before_it_acks: bool = True
    """The fresh token is confirmed before the old one is acked."""
    gives_back_in_one_breath: bool = True
    """What a cancelled consumer still had is given back at once, so that nobody gets what was behind it before, looks
    at the lane before, or deletes it."""
    deletes_under_its_token: bool = True
    """Only who has served a lane deletes it; else anybody does, at any time when it looks unused and empty."""
    deletes_if_unused: bool = True
    """The broker deletes no lane that somebody consumes."""
    outlasts_rivals: bool = True
    """Who has something to give back cancels only when no other consumer stands by: it would get what was behind it."""
    ghosts_do_not_last: bool = True
    """The broker learns that a connection is gone within `tokens.GHOSTS_LAST`, and before a lane that was attached
    meanwhile counts as idle, or goes to others."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    group: str = "g"
    seats: int = 1


@dataclass(frozen=True, slots=True)
class System:
    """A configuration to explore. Everything not bounded by ``budget`` may happen at any time, or never."""

    name: str
    jobs: tuple[int, ...]
    """The lane of each job, from 0. Within a group they are sent in this order, unless ``at_once``."""
    budget: Budget
    lanes: tuple[LanePlan, ...] = (LanePlan(),)
    workers: str = "AB"
    victims: str = "A"
    slots: int = 1
    """How many lanes a worker serves at once."""
    quantum: int = 1000
    concurrency: int = 1
    quick: bool = False
    """To publish, look and put tokens is one step: where the steps between are not what it is about."""
    at_once: bool = False
    """The jobs of a group are sent by several at the same time: which comes first is not said."""
    overlaps: bool = False
    """Something may happen after which jobs run twice or too early: a known limit. They end nevertheless."""
    decisions: Decisions = field(default=Decisions())
    contract: Contract = field(default=Contract())

    def initial(self) -> State:
        return State(
            jobs=tuple(Job() for _ in self.jobs),
            lanes=tuple(Lane(exists=not self.budget.deletes) for _ in self.lanes),
            workers=tuple(Worker(letter) for letter in self.workers),
            budget=self.budget,
        )

    def lane_of(self, job: int) -> LanePlan:
        return self.lanes[self.jobs[job]]

    def group_of(self, job: int) -> str:
        return self.lane_of(job).group

    def members(self, group: str) -> Iterator[int]:
        """The jobs of a group, in order."""
        return (job for job in range(len(self.jobs)) if self.group_of(job) == group)

    @property
    def fairness(self) -> Fairness:
        return Fairness(quantum=self.quantum)


class Step(NamedTuple):
    """Something that happens. ``fault``: the world did it, and it need never happen."""

    name: str
    state: State
    fault: bool = False


Rule = Callable[[System, State], Iterator[Step]]
