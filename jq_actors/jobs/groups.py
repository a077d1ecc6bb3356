"""What an operator does to groups: `jobs.pause`, `jobs.resume`, `jobs.group`, `jobs.groups`.

These functions only read and write rows. Jobs that may start again are published like any queued job.
"""

from __future__ import annotations

from collections.abc import Iterable

from jq_actors.events import GroupPaused, GroupResumed
from jq_actors.model.group import Group, GroupState
from jq_actors.model.group_rules import check_group
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore
from jq_actors.store.records import GroupPage

from .store_access import Question, call_sync, check_limit, read, write


def pause(*, group: str, reason: str) -> bool:
    """Start no more jobs of ``group`` until it is resumed; running jobs finish.

    The pause is stored. It holds for all queues and processes, and also for a group that has no jobs yet.

    Parameters:
      reason: who paused the group and why, for anyone who looks at it.

    Returns:
      ``False`` if the group was already paused; it keeps its reason.

    Raises:
      ValueError: the group's name is invalid, or the reason is empty.
    """
    return call_sync("jobs.pause", _pause(group, reason))


async def pause_async(*, group: str, reason: str) -> bool:
    """Twin of `pause`."""
    return await write("jobs.pause", _pause(group, reason))


def resume(*, group: str) -> bool:
    """Let the jobs of ``group`` run again, in order.

    The first jobs are queued at once and published by a relay: without delay if this process has one, otherwise when
    a worker's relay next checks (``relay_interval``).

    Returns:
      ``False`` if the group was not paused.

    Raises:
      ValueError: the group's name is invalid.
    """
    return call_sync("jobs.resume", _resume(group))


async def resume_async(*, group: str) -> bool:
    """Twin of `resume`."""
    return await write("jobs.resume", _resume(group))


def group(name: str) -> Group | None:
    """The state of a group and why it waits; ``None`` if the group is unknown.

    Raises:
      ValueError: the name is invalid.
    """
    return call_sync("jobs.group", _group(name))


async def group_async(name: str) -> Group | None:
    """Twin of `group`."""
    return await read("jobs.group", _group(name))


def groups(*, state: str | Iterable[str] = (), limit: int = 50, after: str | None = None) -> GroupPage:
    """A page of the groups that have unfinished jobs or are paused, by name. Reads rows only, never the broker.

    Parameters:
      state: one state of `GroupState` or several.
      limit: the size of the page, 1 to 1000.
      after: the ``cursor`` of the previous page.

    Raises:
      ValueError: a state is unknown, the limit is out of range, or the cursor is invalid.
    """
    return call_sync("jobs.groups", _groups(state, limit, after))


async def groups_async(*, state: str | Iterable[str] = (), limit: int = 50, after: str | None = None) -> GroupPage:
    """Twin of `groups`."""
    return await read("jobs.groups", _groups(state, limit, after))


def named(group: str) -> str:
    """Return ``group`` if it is a valid group name.

    Raises:
      ValueError: it is not.
    """
    try:
        return check_group(group)
    except ValueError as error:
        raise ValueError(f"A group's name {error}.") from None


def reasoned(reason: object) -> str:
    """Return ``reason``, stripped, if it is text that is not blank.

    Raises:
      ValueError: it is not, or contains NUL, which PostgreSQL cannot store.
    """
    if not isinstance(reason, str) or not reason.strip() or "\0" in reason:
        raise ValueError(f"Say why, in text without NUL, for anyone who looks at the group: reason is {reason!r}.")
    return reason.strip()


def _pause(group: str, reason: str) -> Question[bool]:
    name, why = named(group), reasoned(reason)

    async def pause_it(runtime: Runtime, store: JobStore) -> bool:
        is_new = await store.pause_group(name, why)
        if is_new:
            runtime.events.emit(GroupPaused(name, why))
        return is_new

    return pause_it


def _resume(group: str) -> Question[bool]:
    name = named(group)

    async def resume_it(runtime: Runtime, store: JobStore) -> bool:
        if await store.resume_group(name) is None:
            return False
        runtime.events.emit(GroupResumed(name))
        runtime.sender.on_stored()
        return True

    return resume_it


def _group(name: str) -> Question[Group | None]:
    checked = named(name)
    return lambda _, store: store.get_group(checked)


def _groups(state: str | Iterable[str], limit: int, after: str | None) -> Question[GroupPage]:
    states = _states(state)
    check_limit(limit)
    return lambda _, store: store.find_groups(states, limit, after)


def _states(names: str | Iterable[str]) -> frozenset[GroupState]:
    known = {state.value: state for state in GroupState}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise ValueError(f"Unknown group state {name!r}; allowed are {', '.join(known)}.")
    return frozenset(known[name] for name in wanted)
