"""Runs that their workers do not end: those of lost workers, and those that a worker gives back."""

from __future__ import annotations

from dataclasses import replace

from jq_actors.model.claim_rules import Owner
from jq_actors.model.job import JobState
from tests.simulation.rows import EARLIER, LATER
from tests.simulation.state import NOBODY, Lease

from .changes import counted, with_job
from .places import given, waits
from .settling import failed
from .state import Row, State, lease_of, row_of
from .system import System


def owner_of(state: State, row: Row) -> Owner | None:
    """The owner of a running row; leases become times."""
    lease = lease_of(state, row.owner)
    if row.state is not JobState.RUNNING or lease is Lease.GONE:
        return None
    return Owner(row.owner, LATER if lease is Lease.LIVE else EARLIER)


def taken_from_owner(system: System, state: State, index: int, *, assigns: bool) -> State:
    """A lost worker's job is queued again, unpublished, in its place, or failed. Then the places are given anew."""
    job, row = state.jobs[index], row_of(state, index)
    row = replace(row, token=0, published=False, publisher=NOBODY, crashes=row.crashes + 1)
    if not system.decisions.survives_crash(row.crashes, system.max_crashes):
        over = replace(row, state=JobState.FAILED, has_place=False)
        after = counted(with_job(state, index, replace(job, row=over, claim=0)), row.group, held=-1)
        after = failed(system, after, row.group)
    elif system.contract.losses_keep_the_place:
        after = with_job(state, index, replace(job, row=replace(row, state=JobState.QUEUED), claim=0))
    else:
        queued = replace(row, state=JobState.QUEUED, has_place=False)
        after = counted(with_job(state, index, replace(job, row=queued, claim=0)), row.group, held=-1)
    return given(system, after, row.group) if assigns else after


def interrupted(system: System, state: State, index: int, *, republish: bool) -> State:
    """A claim that nobody leads is undone, by the settlement of an interrupted run."""
    job, row = state.jobs[index], row_of(state, index)
    queued = replace(row, state=JobState.QUEUED, token=0, published=not republish, publisher=NOBODY)
    after = with_job(state, index, replace(job, row=queued, claim=0))
    if state.groups[row.group].paused:
        after = counted(waits(system, after, index), row.group, held=-1, waiting=1)
    return given(system, after, row.group)
