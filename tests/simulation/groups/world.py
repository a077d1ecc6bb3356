"""What the world does: time, which always passes in the end, and faults, as often as the budget says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.state import Lease, Status, Tag

from .changes import forget_dead, lapsed, with_copies, with_worker
from .state import NO_JOB, Copy, Hand, Phase, State, Worker
from .system import Step, System
from .working import rebooted


def lease_ends(system: System, state: State) -> Iterator[Step]:
    """The lease of a worker that is dead or stopped runs out."""
    for worker in state.workers:
        if worker.status is Status.STOPPED and worker.lease is Lease.LIVE:
            yield Step(f"the lease of {worker.id} runs out while it is stopped", with_worker(state, lapsed(worker)))
    for index, (worker_id, lease) in enumerate(state.dead):
        if lease is Lease.LIVE:
            dead = (*state.dead[:index], (worker_id, Lease.OVER), *state.dead[index + 1 :])
            yield Step(f"the lease of {worker_id}, dead, runs out", replace(state, dead=dead))


def heartbeat(system: System, state: State) -> Iterator[Step]:
    """A worker renews a lease that had run out."""
    for worker in state.workers:
        if worker.status is not Status.STOPPED and worker.lease is Lease.OVER:
            yield Step(f"{worker.id} renews its lease", with_worker(state, replace(worker, lease=Lease.LIVE)))


def broker_misses_heartbeats(system: System, state: State) -> Iterator[Step]:
    """The broker gives up on a stopped worker and takes its deliveries back."""
    for worker in state.workers:
        if worker.status is Status.STOPPED and any(hand.tag is Tag.UNACKED for hand in worker.hands):
            yield Step(f"the broker closes the connection of {worker.id}, stopped", _disconnected(state, worker))


def crash(system: System, state: State) -> Iterator[Step]:
    """kill -9; a new process takes its place at once: that it starts later is the same as that it does nothing."""
    for worker in _victims(system, state):
        busy = worker.hands or any(item.who == worker.letter for item in state.publishing)
        busy = busy or any(job.row is not None and job.row.owner == worker.id for job in state.jobs)
        if busy and (budget := state.budget.spend("crashes")):
            after = replace(
                _disconnected(state, worker),
                budget=budget,
                publishing=tuple(item for item in state.publishing if item.who != worker.letter),
                dead=(*state.dead, (worker.id, worker.lease)),
            )
            yield Step(f"{worker.id} crashes", rebooted(forget_dead(after), worker), True)


def cut(system: System, state: State) -> Iterator[Step]:
    """A worker's connection to the broker is lost; it connects again, its runs go on."""
    for worker in _victims(system, state):
        unacked = any(hand.tag is Tag.UNACKED for hand in worker.hands)
        if worker.status is not Status.STOPPED and unacked and (budget := state.budget.spend("cuts")):
            cut_off = replace(_disconnected(state, worker), budget=budget)
            yield Step(f"{worker.id} loses its connection to the broker", cut_off, True)


def stop(system: System, state: State) -> Iterator[Step]:
    """A worker is stopped; one stays, or nothing could be said of what becomes of the jobs."""
    up = [worker for worker in state.workers if worker.status is Status.UP]
    for worker in up if len(up) > 1 else ():
        if worker.letter in system.victims and worker.hands and (budget := state.budget.spend("stops")):
            stopped = replace(worker, status=Status.STOPPED)
            yield Step(f"{worker.id} is stopped", replace(with_worker(state, stopped), budget=budget), True)


def resume(system: System, state: State) -> Iterator[Step]:
    """A stopped worker goes on, perhaps."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            yield Step(f"{worker.id} goes on", with_worker(state, replace(worker, status=Status.UP)), True)


def wipe(system: System, state: State) -> Iterator[Step]:
    """The broker comes back without a single message."""
    if not state.broker and not any(hand.tag is Tag.UNACKED for worker in state.workers for hand in worker.hands):
        return
    if budget := state.budget.spend("wipes"):
        jobs = tuple(replace(job, excused=True) for job in state.jobs)
        workers = tuple(replace(worker, hands=_lost(worker)) for worker in state.workers)
        yield Step("the broker is wiped", replace(state, broker=(), budget=budget, jobs=jobs, workers=workers), True)


def duplicate(system: System, state: State) -> Iterator[Step]:
    """The broker has one more copy of what it has, or of what it waits to see acked."""
    if budget := state.budget.spend("duplicates"):
        hands = [hand for worker in state.workers for hand in worker.hands if hand.tag is Tag.UNACKED]
        unacked = [Copy(hand.job, hand.dispatch) for hand in hands if hand.phase is not Phase.SETTLED]
        for copy in dict.fromkeys((*state.broker, *unacked)):
            twice = replace(with_copies(state, replace(copy, redelivered=True)), budget=budget)
            yield Step(f"J{copy.job + 1}#{copy.dispatch} is duplicated", twice, True)


def _victims(system: System, state: State) -> Iterator[Worker]:
    return (worker for worker in state.workers if worker.letter in system.victims)


def _lost(worker: Worker) -> tuple[Hand, ...]:
    def lost(hand: Hand) -> Hand:
        return replace(hand, tag=Tag.LOST, exposed=hand.running != NO_JOB) if hand.tag is Tag.UNACKED else hand

    return tuple(sorted(lost(hand) for hand in worker.hands))


def _disconnected(state: State, worker: Worker) -> State:
    """The broker takes back what the worker had not acked: redelivered, to anybody."""
    unacked = (hand for hand in worker.hands if hand.tag is Tag.UNACKED)
    returned = with_copies(state, *(Copy(hand.job, hand.dispatch, True) for hand in unacked))
    return with_worker(returned, replace(worker, hands=_lost(worker)))
