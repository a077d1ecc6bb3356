"""One small system of groups to explore: its jobs, what may go wrong, which decisions it is built on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from jq_actors.model import claim_rules, turn_rules
from jq_actors.model.claim_rules import Owner
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import JobState
from jq_actors.model.lane import Fairness
from jq_actors.model.outcome import Outcome
from jq_actors.model.turn_rules import GroupView, Places
from tests.simulation.budget import Budget
from tests.simulation.system import Judge

from .state import Group, Job, State, Worker


class MayChain(Protocol):
    """The shape of `turn_rules.may_chain`."""

    def __call__(self, done: int, seconds: float, fairness: Fairness, weight: int, *, others_wait: bool) -> bool: ...


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of production. A test replaces one, to show that the checker would find it wrong."""

    judge: Judge = claim_rules.judge
    assign_places: Callable[[GroupView], Places] = turn_rules.assign_places
    may_chain: MayChain = turn_rules.may_chain
    owner_is_lost: Callable[[Owner | None, datetime], bool] = claim_rules.owner_is_lost
    survives_crash: Callable[[int, int], bool] = claim_rules.survives_crash
    may_settle: Callable[[JobState, int | None, int], bool] = claim_rules.may_settle
    state_after: Callable[[Outcome], JobState] = claim_rules.state_after


@dataclass(frozen=True, slots=True)
class Contract:
    """What store, relay and executor have to keep besides, because no pure function can.

    The model holds with all of them; `test_planted_turns` shows what happens without each.
    """

    # admission
    admits_only_if_none_waits: bool = True
    """Not by the places held alone: while some wait, or the group is paused, all that is sent waits."""

    # the statement that settles, releases and chains
    checks_the_version: bool = True
    """It works only in a group whose row has, under the lock, the version that the statement has seen."""
    moves_change_the_version: bool = True
    """Whoever changes nothing but the order of those that wait writes the group's row, too."""
    counts_under_the_lock: bool = True
    """It counts on from what the group's row says once it is locked, not from what the statement has seen."""
    looks_at_the_stuck: bool = True
    """It leaves a group alone in which a job that only waits for its retry, or for its actor, is the next one."""
    yields_to_earlier_ones: bool = True
    """It leaves a group alone in which one that waits comes before the run that keeps its place."""
    sees_pauses: bool = True
    frees_only_what_was_settled: bool = True
    """A run that the fence refuses frees no place."""

    # the way under the locks
    decides_on_what_it_writes: bool = True
    """Where a job was claimed that was to be withdrawn, it is decided anew: that one runs."""
    settlements_assign: bool = True
    """Also where the run keeps its place: an earlier one may have waited for it."""
    released_takes_next_dispatch: bool = True
    """So that the copies of a job that was withdrawn stay stale when its turn has come."""
    retry_keeps_the_place: bool = True
    cancel_frees_the_place: bool = True
    counts_once: bool = True
    """A place is freed once by a failure that cancels the rest: what is counted anew already lacks it."""

    # chains
    chains_while_connected: bool = True
    """Whose delivery was taken back goes on with no other job."""
    chains_under_own_lease: bool = True
    """A worker whose own lease is over renews it before it asks for the next job."""
    keeps_the_delivery: bool = True
    """The delivery that began a chain is acked behind its last job, not behind its first."""
    takes_over_chains: bool = True
    """A redelivered message of a job that has ended looks for the chain that it began."""
    holds_for_chains: bool = True
    """... and is held while that runs in a living worker, the one that had the message."""
    interrupted_chain_is_unpublished: bool = True
    """A job that was chained has no copy: interrupted, it is unpublished."""
    repeated_settlements_find_their_chain: bool = True
    forgotten_claims_are_given_back: bool = True
    given_back_is_unpublished: bool = True
    """Also when an older copy of the job is what reminds its worker of it: that is no copy of what ran."""

    # lost workers, the relay
    losses_keep_the_place: bool = True
    """A lost worker's job is queued again in the place that it holds."""
    recovery_assigns: bool = True
    """Who takes a job from a lost worker gives the places anew: an earlier one may have waited for it, or the group be
    paused."""
    take_over_assigns: bool = True
    """The same of a claim that takes it over; it runs the job only if that is then still queued."""
    wake_sees_pauses: bool = True
    wake_looks_at_the_place: bool = True
    """A job whose retry is due is queued only if it has kept its place."""
    set_aside_keeps_the_place: bool = True
    """A job that turns out to be one that nobody can run blocks its group."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is, before anything happens."""

    group: int = 0
    position: int | None = None
    """Its number, in a numbered group."""
    foreign: bool = False
    """Sent by another producer: no row, and none promised."""
    delayed: bool = False
    served_by: str = "AB"
    """The workers that consume its queue."""
    withheld: bool = False
    """It is never sent: a number that stays missing."""


@dataclass(frozen=True, slots=True)
class System:
    """A configuration to explore. Everything not bounded by ``budget`` may happen at any time, or never."""

    name: str
    jobs: tuple[Plan, ...]
    budget: Budget
    groups: int = 1
    concurrency: int = 1
    overtake: bool = False
    on_failure: OnFailure = OnFailure.CONTINUE
    gaps_end: bool = False
    """A number that does not come is not waited for for ever (``gap_timeout``)."""
    workers: str = "AB"
    victims: str = "A"
    """The workers that faults strike."""
    prefetch: int = 1
    quantum: int = 1000
    quick: str = "PRAB"
    """Who publishes and marks in one step: where the steps between are not what it is about."""
    acks_early: bool = False
    max_crashes: int = 3
    decisions: Decisions = field(default=Decisions())
    contract: Contract = field(default=Contract())

    @property
    def numbered(self) -> bool:
        return any(plan.position is not None for plan in self.jobs)

    @property
    def is_prompt(self) -> bool:
        """Whether what a lost worker ran is always found by a message that comes back, not only by its lease."""
        budget = self.budget
        others = budget.stops or budget.wipes or budget.errors or budget.lost_answers or budget.faults > 1
        return not (others or self.acks_early)

    def initial(self) -> State:
        return State(
            jobs=tuple(Job() for _ in self.jobs),
            groups=(Group(next_position=1 if self.numbered else None),) * self.groups,
            workers=tuple(Worker(letter) for letter in self.workers),
            budget=self.budget,
        )


class Step(NamedTuple):
    """Something that happens. ``fault``: it need never happen."""

    name: str
    state: State
    fault: bool = False


Rule = Callable[[System, State], Iterator[Step]]
