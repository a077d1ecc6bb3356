"""Compare-and-sets on the rows of groups: what the store promises, each one transaction."""

from __future__ import annotations

from dataclasses import replace

from jq_actors.job import JobState
from jq_actors.protocol import Owner, state_after
from tests.simulation.rows import EARLIER, LATER, OUTCOMES
from tests.simulation.state import NOBODY, Ending, Lease

from .changes import raised, with_row
from .state import Due, Hand, Row, State, Worker, fresh_token, lease_of
from .system import System
from .view import unfinished, view_of


def owner_of(state: State, row: Row) -> Owner | None:
    """The owner of a running row; leases become times."""
    lease = lease_of(state, row.owner)
    if row.state is not JobState.RUNNING or lease is Lease.GONE:
        return None
    return Owner(row.owner, LATER if lease is Lease.LIVE else EARLIER)


def granted(state: State, index: int, worker: Worker) -> State:
    """The job runs in ``worker``, under a fresh token."""
    row = state.jobs[index].row
    assert row is not None
    running = replace(row, state=JobState.RUNNING, owner=worker.id, due=Due.NOW, keeps_turn=False)
    return with_row(state, index, replace(running, token=fresh_token(state, index)))


def parked(state: State, index: int) -> State:
    """It waits for another one. A retrying job stays what it is: the relay takes it when it is due."""
    row = state.jobs[index].row
    assert row is not None
    if row.state is not JobState.QUEUED:
        return state
    return with_row(state, index, Row(JobState.WAITING, row.dispatch))


def taken_from_owner(state: State, index: int) -> State:
    """A lost worker's job is queued again, unpublished."""
    row = state.jobs[index].row
    assert row is not None
    return with_row(state, index, Row(JobState.QUEUED, row.dispatch))


def settled(system: System, state: State, hand: Hand, ending: Ending, *, is_long: bool, keeps_turn: bool) -> State:
    """The outcome is written; in the same transaction those are released that waited for it."""
    row = state.jobs[hand.running].row
    assert row is not None
    after = Row(state_after(OUTCOMES[ending]), row.dispatch)
    if ending is Ending.INTERRUPTED:
        unpublished = hand.lost or (hand.running != hand.job and system.contract.republishes_interrupted_instead)
        after = replace(after, published=row.published and not unpublished)
    elif ending is Ending.RETRYING:
        due = Due.LATE if is_long else Due.SOON
        after = replace(after, published=row.published, due=due, keeps_turn=keeps_turn)
    elif ending is Ending.SUCCEEDED:
        after = Row(JobState.SUCCEEDED)
    state = with_row(state, hand.running, after)
    return released(system, state, system.group_of(hand.running)) if after.state.is_final else state


def released(system: System, state: State, group: str) -> State:
    """If the head of a group is parked, and nothing is missing before it: queued again, with those behind it."""
    if not system.contract.releases_parked or group in state.paused:
        return state
    members = view_of(system, state, group).members
    if not members or members[0].state is not JobState.WAITING or members[0].gap_before is not None:
        return state
    for index, row in unfinished(system, state, group):
        if row.state is not JobState.WAITING:
            break
        state = queued_again(state, index)
    return state


def queued_again(state: State, index: int, publisher: str = NOBODY) -> State:
    """Released, due, or retried by an operator: under the next dispatch number, unpublished."""
    state = raised(state, index)
    row = state.jobs[index].row
    assert row is not None
    return with_row(state, index, Row(JobState.QUEUED, row.dispatch, publisher=publisher))
