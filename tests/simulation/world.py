"""What the world does: time, which always passes in the end, and faults, as often as the budget says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .changes import forget_dead, with_copies, with_worker
from .state import Copy, Hand, Lease, Phase, State, Status, Tag, Worker
from .system import Step, System, booted

# -- time -------------------------------------------------------------------------------------------------


def lease_ends(system: System, state: State) -> Iterator[Step]:
    """The lease of a worker that is dead or stopped runs out."""
    for worker in state.workers:
        if worker.status is Status.STOPPED and worker.lease is Lease.LIVE:
            name = f"the lease of {worker.id} runs out while it is stopped"
            yield Step(name, with_worker(state, _over(worker)))
    for index, (worker_id, lease) in enumerate(state.dead):
        if lease is Lease.LIVE:
            dead = (*state.dead[:index], (worker_id, Lease.OVER), *state.dead[index + 1 :])
            yield Step(f"the lease of {worker_id}, dead, runs out", replace(state, dead=dead))


def _over(worker: Worker) -> Worker:
    """Its lease is over; and if it is stopped, what it runs may be run by another from now on."""
    if worker.status is not Status.STOPPED:
        return replace(worker, lease=Lease.OVER)
    hands = (replace(hand, lapsed=True) if hand.phase in _CLAIMED else hand for hand in worker.hands)
    return replace(worker, lease=Lease.OVER, hands=tuple(sorted(hands)))


_CLAIMED = frozenset({Phase.CLAIMED, Phase.RUNNING, Phase.ENDED})


def heartbeat(system: System, state: State) -> Iterator[Step]:
    """A worker renews a lease that had run out. While it lives undisturbed its lease never does."""
    for worker in state.workers:
        if worker.status is not Status.STOPPED and worker.lease is Lease.OVER:
            grace = system.contract.grace_after_own_lapse
            yield Step(
                f"{worker.id} renews its lease", with_worker(state, replace(worker, lease=Lease.LIVE, grace=grace))
            )


def grace_ends(system: System, state: State) -> Iterator[Step]:
    """A lease's time has passed: who can renew has renewed."""
    if any(worker.lease is Lease.OVER and worker.status is not Status.STOPPED for worker in state.workers):
        return
    for worker in state.workers:
        if worker.grace and worker.status is not Status.STOPPED:
            yield Step(f"the grace of {worker.id} ends", with_worker(state, replace(worker, grace=False)))


def broker_misses_heartbeats(system: System, state: State) -> Iterator[Step]:
    """The broker gives up on a stopped worker and takes its deliveries back."""
    for worker in state.workers:
        if worker.status is Status.STOPPED and _unacked(worker):
            yield Step(f"the broker closes the connection of {worker.id}, stopped", _disconnected(state, worker))


# -- faults -----------------------------------------------------------------------------------------------


def crash(system: System, state: State) -> Iterator[Step]:
    """kill -9; a new process takes its place at once: that it starts later is the same as that it does nothing."""
    for worker in _victims(system, state):
        if budget := state.budget.spend("crashes"):
            after = replace(
                _disconnected(state, worker),
                budget=budget,
                publishing=tuple(item for item in state.publishing if item.who != worker.letter),
                dead=(*state.dead, (worker.id, worker.lease)),
            )
            after = with_worker(after, booted(system, worker))
            yield Step(f"{worker.id} crashes", forget_dead(after), True)


def cut(system: System, state: State) -> Iterator[Step]:
    """A worker's connection to the broker is lost; it connects again, its runs go on."""
    for worker in _victims(system, state):
        if worker.status is not Status.STOPPED and _unacked(worker) and (budget := state.budget.spend("cuts")):
            cut_off = replace(_disconnected(state, worker), budget=budget)
            yield Step(f"{worker.id} loses its connection to the broker", cut_off, True)


def stop(system: System, state: State) -> Iterator[Step]:
    """A worker is stopped; one stays, or nothing could be said of what becomes of the jobs."""
    up = [worker for worker in state.workers if worker.status is Status.UP]
    for worker in up if len(up) > 1 else ():
        if worker.letter not in system.victims:
            continue
        busy = worker.hands or any(item.who == worker.letter for item in state.publishing)
        if busy and (budget := state.budget.spend("stops")):
            stopped = replace(worker, status=Status.STOPPED)
            if stopped.lease is Lease.OVER:
                stopped = _over(stopped)
            yield Step(f"{worker.id} is stopped", replace(with_worker(state, stopped), budget=budget), True)


def resume(system: System, state: State) -> Iterator[Step]:
    """A stopped worker goes on, perhaps."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            yield Step(f"{worker.id} goes on", with_worker(state, replace(worker, status=Status.UP)), True)


def wipe(system: System, state: State) -> Iterator[Step]:
    """The broker comes back without a single message."""
    budget = state.budget.spend("wipes")
    if budget is None or not (state.broker or any(_unacked(worker) for worker in state.workers)):
        return
    lost = {copy.job for copy in state.broker} | {hand.job for w in state.workers for hand in _unacked(w)}
    after = replace(
        state,
        broker=(),
        budget=budget,
        jobs=tuple(replace(job, excused=True) if index in lost else job for index, job in enumerate(state.jobs)),
        workers=tuple(replace(worker, hands=_lost(worker)) for worker in state.workers),
    )
    yield Step("the broker is wiped", after, True)


def outage(system: System, state: State) -> Iterator[Step]:
    """The database is away until every lease is over. Nobody was stopped: jobs run on."""
    if budget := state.budget.spend("outages"):
        after = replace(
            state,
            budget=budget,
            workers=tuple(_over(worker) for worker in state.workers),
            dead=tuple((worker_id, Lease.OVER) for worker_id, _ in state.dead),
        )
        yield Step("the database is away for longer than the leases last", after, True)


def duplicate(system: System, state: State) -> Iterator[Step]:
    """The broker has one more copy of what it has, or of what it waits to see acked."""
    if budget := state.budget.spend("duplicates"):
        unacked = [Copy(hand.job, hand.dispatch) for worker in state.workers for hand in _unacked(worker)]
        for copy in dict.fromkeys((*state.broker, *unacked)):
            twice = replace(with_copies(state, copy), budget=budget)
            yield Step(f"J{copy.job + 1}#{copy.dispatch} is duplicated", twice, True)


def _victims(system: System, state: State) -> Iterator[Worker]:
    return (worker for worker in state.workers if worker.letter in system.victims)


def _unacked(worker: Worker) -> list[Hand]:
    return [hand for hand in worker.hands if hand.tag is Tag.UNACKED]


def _lost(worker: Worker) -> tuple[Hand, ...]:
    return tuple(sorted(replace(hand, tag=Tag.LOST) if hand.tag is Tag.UNACKED else hand for hand in worker.hands))


def _disconnected(state: State, worker: Worker) -> State:
    """The broker takes back what the worker had not acked: redelivered, to anybody."""
    returned = with_copies(state, *(Copy(hand.job, hand.dispatch) for hand in _unacked(worker)))
    return with_worker(returned, replace(worker, hands=_lost(worker)))
