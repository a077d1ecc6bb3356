"""Into a lane: publish, look, put tokens into the lobby."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.transport.port import QueueDepth

from .changes import with_job, with_lane, with_publishing, with_tokens
from .state import Job, Publishing, State, Token
from .system import Step, System


def send(system: System, state: State) -> Iterator[Step]:
    """The producer of a group begins to publish the next job: one after another, or several do, at once."""
    for index, job in enumerate(state.jobs):
        if not job.sent and _may_be_sent(system, state, index):
            sent = with_job(state, index, Job(sent=True))
            yield Step(f"J{index + 1} is sent", _begun(system, sent, Publishing(system.jobs[index], index)))


def _may_be_sent(system: System, state: State, index: int) -> bool:
    if system.at_once:
        return True
    before = [other for other in system.members(system.group_of(index)) if other < index]
    return all(state.jobs[other].sent for other in before) and all(p.job not in before for p in state.publishing)


def _begun(system: System, state: State, item: Publishing) -> State:
    if not system.quick:
        return with_publishing(state, None, item)
    lane = state.lanes[item.lane]
    state = with_lane(state, item.lane, replace(lane, exists=True, ready=(*lane.ready, item.job)))
    return with_tokens(state, *[Token(item.lane)] * _needed(system, state, item))


def publish(system: System, state: State) -> Iterator[Step]:
    """Into the lane, confirmed; where it is missing, the broker returns the message, and it is declared first."""
    for item in dict.fromkeys(state.publishing):
        lane = state.lanes[item.lane]
        if item.stored or (not item.looked and not system.contract.publishes_before_it_looks):
            continue
        name = f"the producer publishes J{item.job + 1} into L{item.lane + 1}"
        if not lane.exists:
            yield Step(f"{name}: returned, declared", with_lane(state, item.lane, replace(lane, exists=True)))
            continue
        stored = with_lane(state, item.lane, replace(lane, ready=(*lane.ready, item.job)))
        yield Step(name, _with(stored, item, replace(item, stored=True)))


def look(system: System, state: State) -> Iterator[Step]:
    """How many serve it? Where enough do, that was all; else tokens."""
    for item in dict.fromkeys(state.publishing):
        if item.looked or (not item.stored and system.contract.publishes_before_it_looks):
            continue
        needed = _needed(system, state, item)
        name = f"the producer looks at L{item.lane + 1}: {f'needs {needed} token' if needed else 'is served'}"
        yield Step(name, _with(state, item, replace(item, looked=True, tokens=needed)))


def _with(state: State, old: Publishing, new: Publishing) -> State:
    is_over = new.stored and new.looked and not new.tokens
    return with_publishing(state, old, None if is_over else new)


def _needed(system: System, state: State, item: Publishing) -> int:
    return system.decisions.tokens_needed(depth_of(state, item.lane), 1, system.lanes[item.lane].seats)


def put_tokens(system: System, state: State) -> Iterator[Step]:
    for item in dict.fromkeys(state.publishing):
        if item.tokens and item.stored:
            put = with_tokens(state, *[Token(item.lane)] * item.tokens)
            name = f"the producer puts {item.tokens} token of L{item.lane + 1}"
            yield Step(name, with_publishing(put, item, None))


def producer_dies(system: System, state: State) -> Iterator[Step]:
    """Nobody has promised that the job will run; it may."""
    for item in dict.fromkeys(state.publishing):
        if budget := state.budget.spend("crashes"):
            gone = replace(with_publishing(state, item, None), budget=budget)
            excused = with_job(gone, item.job, replace(gone.jobs[item.job], excused=True))
            yield Step(f"the producer of J{item.job + 1} dies", excused, True)


def depth_of(state: State, index: int) -> QueueDepth | None:
    """What a passive declare tells."""
    lane = state.lanes[index]
    return QueueDepth(len(lane.ready), len(lane.consumers)) if lane.exists else None
