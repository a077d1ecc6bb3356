"""Into a lane: store the row, publish, look, put tokens into the lobby, mark. And an offer: look, and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.job import JobState
from jq_actors.transport.port import QueueDepth
from tests.simulation.state import NOBODY

from .changes import with_job, with_lane, with_publishing, with_row, with_tokens
from .state import NO_JOB, OPERATOR, PRODUCER, Copy, Job, Publishing, Row, State, Token
from .system import Step, System


def send(system: System, state: State) -> Iterator[Step]:
    """The producer of a group stores the next row, and begins to publish. Without rows it sends one after another."""
    for index, job in enumerate(state.jobs):
        if job.sent or not _may_be_sent(system, state, index):
            continue
        row = Row(JobState.QUEUED, publisher=PRODUCER) if system.rows else None
        sent = with_job(state, index, Job(sent=True, row=row))
        name = f"J{index + 1} is stored" if system.rows else f"J{index + 1} is sent"
        yield Step(name, taken(system, sent, PRODUCER, index))


def _may_be_sent(system: System, state: State, index: int) -> bool:
    before = [other for other in system.members(system.group_of(index)) if other < index]
    if not system.rows and any(item.job in before for item in state.publishing):
        return False
    return system.numbered or all(state.jobs[other].sent for other in before)


def taken(system: System, state: State, who: str, index: int) -> State:
    """``who`` has to publish the dispatch of a row that it leases."""
    row = state.jobs[index].row
    return _begun(system, state, Publishing(who, system.jobs[index], index, 1 if row is None else row.dispatch))


def offered(system: System, state: State, who: str, lane: int) -> State:
    """``who`` has to look at a lane, and to put tokens into the lobby if it has messages."""
    return _begun(system, state, Publishing(who, lane, NO_JOB, stored=True))


def _begun(system: System, state: State, item: Publishing) -> State:
    if item.who not in system.quick:
        return with_publishing(state, None, item)
    if item.job != NO_JOB:
        lane = state.lanes[item.lane]
        ready = (*lane.ready, Copy(item.job, item.dispatch))
        state = with_lane(state, item.lane, replace(lane, exists=True, ready=ready))
    put = with_tokens(state, *[Token(item.lane)] * _needed(system, state, item))
    return _marked(put, item)


def publish(system: System, state: State) -> Iterator[Step]:
    """Into the lane, confirmed; where it is missing, the broker returns the message, and it is declared first."""
    for item in dict.fromkeys(state.publishing):
        lane = state.lanes[item.lane]
        if item.stored or (not item.looked and not system.contract.publishes_before_it_looks):
            continue
        name = f"{_name(item.who)} publishes J{item.job + 1}#{item.dispatch} into L{item.lane + 1}"
        if not lane.exists:
            yield Step(f"{name}: returned, declared", with_lane(state, item.lane, replace(lane, exists=True)))
            continue
        stored = with_lane(state, item.lane, replace(lane, ready=(*lane.ready, Copy(item.job, item.dispatch))))
        yield Step(name, _with(stored, item, replace(item, stored=True)))


def look(system: System, state: State) -> Iterator[Step]:
    """How many serve it? Where enough do, that was all; else tokens, and the mark."""
    for item in dict.fromkeys(state.publishing):
        if item.looked or (not item.stored and system.contract.publishes_before_it_looks):
            continue
        needed = _needed(system, state, item)
        name = f"{_name(item.who)} looks at L{item.lane + 1}: {f'needs {needed} token' if needed else 'is served'}"
        yield Step(name, _with(state, item, replace(item, looked=True, tokens=needed)))


def _with(state: State, old: Publishing, new: Publishing) -> State:
    return _done(state, old) if new.stored and new.looked and not new.tokens else with_publishing(state, old, new)


def _needed(system: System, state: State, item: Publishing) -> int:
    depth = depth_of(state, item.lane)
    offered_ = 0 if depth is None else depth.ready
    return system.decisions.tokens_needed(depth, offered_ if item.job == NO_JOB else 1, system.lanes[item.lane].seats)


def put_tokens(system: System, state: State) -> Iterator[Step]:
    for item in dict.fromkeys(state.publishing):
        if item.tokens and item.stored:
            put = with_tokens(state, *[Token(item.lane)] * item.tokens)
            yield Step(f"{_name(item.who)} puts {item.tokens} token of L{item.lane + 1}", _done(put, item))


def _done(state: State, item: Publishing) -> State:
    return _marked(with_publishing(state, item, None), item)


def _marked(state: State, item: Publishing) -> State:
    """The dispatch is marked in its row, if that is still the one; an offer is just over."""
    row = None if item.job == NO_JOB else state.jobs[item.job].row
    if row is None or row.dispatch != item.dispatch or row.publisher != item.who or row.state.is_final:
        return state
    return with_row(state, item.job, replace(row, published=True, publisher=NOBODY))


def publish_lease_ends(system: System, state: State) -> Iterator[Step]:
    """A row is free for the relay again, because its publisher is gone."""
    for index, job in enumerate(state.jobs):
        if job.row is None or job.row.publisher == NOBODY:
            continue
        if all(p.job != index or p.who != job.row.publisher for p in state.publishing):
            free = with_row(state, index, replace(job.row, publisher=NOBODY))
            yield Step(f"the publish lease of J{index + 1} runs out", free)


def producer_dies(system: System, state: State) -> Iterator[Step]:
    """Or the operator's process, between a resume and its offer."""
    for item in dict.fromkeys(state.publishing):
        if item.who in (PRODUCER, OPERATOR) and (budget := state.budget.spend("crashes")):
            gone = replace(with_publishing(state, item, None), budget=budget)
            if item.who == OPERATOR:
                yield Step(f"the operator dies before offering L{item.lane + 1}", gone, True)
                continue
            if not system.rows:
                gone = with_job(gone, item.job, replace(gone.jobs[item.job], excused=True))
            yield Step(f"the producer of J{item.job + 1} dies", gone, True)


def depth_of(state: State, index: int) -> QueueDepth | None:
    """What a passive declare tells."""
    lane = state.lanes[index]
    return QueueDepth(len(lane.ready), len(lane.consumers)) if lane.exists else None


def _name(who: str) -> str:
    return {PRODUCER: "the producer", OPERATOR: "the operator"}.get(who, "the relay")
