"""What is true of all groups after every commit, whatever was done to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobId, JobState
from jq_actors.model.turn_rules import GroupView, Member, Places, assign_places
from jq_actors.store.tables import NO_PLACE

from .stores import World

Row = sa.Row[Any]

PLACED = {JobState.QUEUED, JobState.RUNNING}
PLACELESS = {JobState.WAITING, JobState.SCHEDULED}


async def wrong_in(db: World, rules: GroupRules | None = None) -> list[str]:
    """All that is wrong with groups and their jobs, in words.

    Of each group: its places are held by those whose turn it is (`assign_places`, told all of its jobs), and its row
    counts them. Of each job: it is where somebody finds it.
    """
    jobs, groups = db.tables.jobs, db.tables.groups
    rows = await db.execute(sa.select(jobs).where(jobs.c.group_key.is_not(None)))
    known = {row.name: row for row in await db.execute(sa.select(groups))}
    of_group: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_group[row.group_key].append(row)
    wrong = [f"{row.id}: {problem}" for row in rows for problem in _wrong_in_row(row)]
    for name in {*known, *of_group}:
        wrong += [f"{name}: {problem}" for problem in _wrong_in_group(known, name, of_group[name], rules or db.rules)]
    return wrong


def _wrong_in_row(row: Row) -> list[str]:
    state = JobState(row.state)
    checks = {
        "holds a place in no state for it": row.has_place and (state.is_final or state in PLACELESS),
        "holds no place": not row.has_place and state in PLACED,
        "is queued, and nobody will publish it": (
            state is JobState.QUEUED and row.published_at is None and row.publish_at is None
        ),
        "would be published": row.publish_at is not None and state is not JobState.QUEUED,
        "is due, and nobody will look": row.wake_at is None and state in (JobState.SCHEDULED, JobState.RETRYING),
        "would be woken": row.wake_at is not None and state not in (JobState.SCHEDULED, JobState.RETRYING),
        "waits, since nobody knows when": row.parked_at is None and state is JobState.WAITING,
        "does not wait, and says since when": row.parked_at is not None and state is not JobState.WAITING,
    }
    return [f"{state.value}, {problem}" for problem, is_so in checks.items() if is_so]


def _wrong_in_group(known: Mapping[str, Row], name: str, rows: Sequence[Row], rules: GroupRules) -> list[str]:
    unfinished = [row for row in rows if row.final_state is None]
    if name not in known:
        return ["has jobs, and no row"] if unfinished else []
    group = known[name]
    counted = (sum(row.has_place for row in unfinished), sum(row.state == "waiting" for row in unfinished))
    wrong = [] if counted == (group.held, group.waiting) else [f"counts {group.held, group.waiting}, not {counted}"]
    places = replace(assign_places(_view(group, rows, rules)), next_position=None)
    return wrong if places == Places() else [*wrong, f"its places are to change: {places}"]


def _view(group: Row, rows: Sequence[Row], rules: GroupRules) -> GroupView:
    in_order = sorted(rows, key=_order)
    rule = rules.rule_of(group.name)
    return GroupView(
        members=tuple(
            Member(JobId(row.id), JobState(row.state), row.queue, row.due_at, row.has_place, row.position)
            for row in in_order
            if row.final_state is None and _order(row) < NO_PLACE
        ),
        concurrency=rule.concurrency,
        overtake=rule.overtake,
        paused=None if group.paused_at is None else "paused",
        next_position=group.next_position,
        ended=frozenset(row.position for row in rows if row.final_state is not None and row.position is not None),
    )


def _order(row: Row) -> int:
    return int(row.seq if row.order_key is None else row.order_key)
