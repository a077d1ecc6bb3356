"""One small system to explore: its jobs, what may go wrong, and which decisions it is built on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from jq_actors.model import claim_rules
from jq_actors.model.claim_rules import Owner, RowView, Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Outcome

from .budget import Budget
from .state import Job, State, Worker


class Judge(Protocol):
    """The shape of `claim_rules.judge`."""

    def __call__(self, row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of production. A test replaces one, to show that the checker would find it wrong."""

    judge: Judge = claim_rules.judge
    owner_is_lost: Callable[[Owner | None, datetime], bool] = claim_rules.owner_is_lost
    survives_crash: Callable[[int, int], bool] = claim_rules.survives_crash
    may_settle: Callable[[JobState, int | None, int], bool] = claim_rules.may_settle
    state_after: Callable[[Outcome], JobState] = claim_rules.state_after
    attempt_counts: Callable[[Outcome], bool] = claim_rules.attempt_counts


@dataclass(frozen=True, slots=True)
class Contract:
    """What the store, the relay and the executor have to keep besides, because no pure function can.

    The model holds with all of them; `test_contract` shows what happens without each.
    """

    counts_crashes: bool = True
    """Whoever takes a job from a lost worker adds one to its ``crashes``, in the same compare-and-set."""
    recovered_is_unpublished: bool = True
    """A job given back by `recover` is unpublished: its delivery may have been acked early."""
    raised_is_unpublished: bool = True
    """A row that takes a new dispatch number is unpublished, until that dispatch is confirmed."""
    missing_keeps_dispatch: bool = True
    """A missing row is published under the dispatch that it has (DESIGN §11)."""
    republishes_interrupted: bool = True
    """Interrupted after an early ack: the row is unpublished."""
    claims_know_their_own: bool = True
    """A claim that is repeated, because its answer was lost, is granted what it was granted before."""
    settles_know_their_own: bool = True
    """A settlement that is repeated, because its answer was lost, counts as written if it was."""
    forgotten_claims_are_given_back: bool = True
    """A worker gives back rows that it owns and neither claims, runs nor settles: an error of ours ended their life."""
    acts_under_own_lease: bool = True
    """A worker whose own lease is over renews it before it claims or recovers anything."""
    grace_after_own_lapse: bool = True
    """... and then takes no other worker for lost, until the others have had time to renew theirs too; nor does a
    worker that has just started."""
    marks_under_publish_lease: bool = True
    """``mark_published`` does nothing when the row's publish lease is not the one that was published under."""
    offers_unhandled_again_and_again: bool = True
    """Unhandled rows are offered from time to time, not only when a worker joins."""
    leaves_when_idle: bool = True
    """A worker removes its row only after its last run is settled."""
    known_dead_is_dead: bool = True
    """No living worker is ever taken for known dead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is, before anything happens."""

    foreign: bool = False
    """Sent by another producer: no row, and none promised."""
    delayed: bool = False
    """Sent with a delay: its row starts ``scheduled``."""
    known_to: str = "AB"
    """The workers that know its actor."""


@dataclass(frozen=True, slots=True)
class System:
    """A configuration to explore. Everything not bounded by ``budget`` may happen at any time, or never."""

    name: str
    jobs: tuple[Plan, ...]
    budget: Budget
    workers: str = "AB"
    relays: str = "B"
    """The workers whose relay does something. One is as good as two, unless relays are to race or to die."""
    victims: str = "A"
    """The workers that faults strike. The first may be A: two workers that are alike may be renamed."""
    slow_publishing: bool = False
    """Producer and relays take, publish and mark in three steps, each of which may be the last; else in one."""
    prefetch: int = 1
    """Deliveries that a worker may have unacked."""
    same_host: bool = False
    """Workers see at once that another one's process is gone; else they wait for its lease."""
    acks_early: bool = False
    prunes: bool = False
    """Rows of ended jobs are deleted."""
    restless_relay: int = 0
    """If set: the relay takes rows for missing at will, while there are fewer copies than this."""
    max_crashes: int = 3
    decisions: Decisions = field(default=Decisions())
    contract: Contract = field(default=Contract())

    def initial(self) -> State:
        return State(
            jobs=tuple(Job() for _ in self.jobs),
            workers=tuple(Worker(letter) for letter in self.workers),
            budget=self.budget,
        )


def booted(system: System, before: Worker) -> Worker:
    """The worker that takes the place of ``before``, which is no more."""
    return Worker(before.letter, before.boot + 1, grace=system.contract.grace_after_own_lapse)


class Step(NamedTuple):
    """Something that happens. ``fault``: the world did it, and it need never happen."""

    name: str
    state: State
    fault: bool = False


Rule = Callable[[System, State], Iterator[Step]]
