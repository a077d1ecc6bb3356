"""What an operator does to groups: `jobs.pause`, `jobs.resume`, `jobs.group`, `jobs.groups`.

All of it reads and writes rows. What may start again is published like any queued job.
"""

from __future__ import annotations

from collections.abc import Iterable

from jq_actors.events import GroupPaused, GroupResumed
from jq_actors.model.group import Group, GroupState
from jq_actors.model.group_rules import check_group
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore
from jq_actors.store.records import GroupPage

from .store_access import call, change, check_limit, look


def pause(*, group: str, reason: str) -> bool:
    """Start nothing of ``group`` any more, until it is resumed; jobs that run come to their end.

    It is stored, holds for all queues and processes from now on, and also for a group that has no jobs yet.

    Parameters:
      reason: who and why, for those who look at the group.

    Returns:
      ``False``: it was paused already, and keeps the reason that it had.

    Raises:
      ValueError: a group that cannot be one, or no reason.
    """
    name, why = named(group), reasoned(reason)
    return call("jobs.pause", lambda runtime, store: _pause(runtime, store, name, why))


async def pause_async(*, group: str, reason: str) -> bool:
    """Twin of `pause`."""
    name, why = named(group), reasoned(reason)
    return await change("jobs.pause", lambda runtime, store: _pause(runtime, store, name, why))


def resume(*, group: str) -> bool:
    """Let ``group`` go on, in order.

    Its first jobs are queued at once, and published by a relay: that of this process without delay, that of a worker
    elsewhere at its next look (``relay_interval``).

    Returns:
      ``False``: it was not paused.

    Raises:
      ValueError: a group that cannot be one.
    """
    name = named(group)
    return call("jobs.resume", lambda runtime, store: _resume(runtime, store, name))


async def resume_async(*, group: str) -> bool:
    """Twin of `resume`."""
    name = named(group)
    return await change("jobs.resume", lambda runtime, store: _resume(runtime, store, name))


def group(name: str) -> Group | None:
    """What the group of this name does, and why it waits; ``None`` when nothing is known of it.

    Raises:
      ValueError: a name that cannot be one.
    """
    name = named(name)
    return call("jobs.group", lambda _, store: store.get_group(name))


async def group_async(name: str) -> Group | None:
    """Twin of `group`."""
    name = named(name)
    return await look("jobs.group", lambda _, store: store.get_group(name))


def groups(*, state: str | Iterable[str] = (), limit: int = 50, after: str | None = None) -> GroupPage:
    """A page of the groups that have unfinished jobs or are paused, by name. Reads rows only, never the broker.

    Parameters:
      state: one state of `GroupState` or several.
      limit: 1 to 1000.
      after: the ``cursor`` of the page before.

    Raises:
      ValueError: an unknown state, a limit out of range, or a cursor that is none.
    """
    states = _states(state)
    check_limit(limit)
    return call("jobs.groups", lambda _, store: store.find_groups(states, limit, after))


async def groups_async(*, state: str | Iterable[str] = (), limit: int = 50, after: str | None = None) -> GroupPage:
    """Twin of `groups`."""
    states = _states(state)
    check_limit(limit)
    return await look("jobs.groups", lambda _, store: store.find_groups(states, limit, after))


def named(group: str) -> str:
    """``group``, if it can be the name of one.

    Raises:
      ValueError: says what is allowed.
    """
    try:
        return check_group(group)
    except ValueError as error:
        raise ValueError(f"A group's name {error}.") from None


def reasoned(reason: object) -> str:
    """``reason``, if it is text that says something.

    Raises:
      ValueError: it is not, or has a NUL, which PostgreSQL cannot hold.
    """
    if not isinstance(reason, str) or not reason.strip() or "\0" in reason:
        raise ValueError(f"Say why, in text without NUL, for those who look at the group: reason is {reason!r}.")
    return reason.strip()


async def _pause(runtime: Runtime, store: JobStore, name: str, reason: str) -> bool:
    is_new = await store.pause_group(name, reason)
    if is_new:
        runtime.events.emit(GroupPaused(name, reason))
    return is_new


async def _resume(runtime: Runtime, store: JobStore, name: str) -> bool:
    if await store.resume_group(name) is None:
        return False
    runtime.events.emit(GroupResumed(name))
    runtime.sender.on_stored()
    return True


def _states(names: str | Iterable[str]) -> frozenset[GroupState]:
    known = {state.value: state for state in GroupState}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise ValueError(f"Unknown group state {name!r}; allowed are {', '.join(known)}.")
    return frozenset(known[name] for name in wanted)
