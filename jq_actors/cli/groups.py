"""``jq-actors groups``: find groups, see why one waits, pause, resume and cancel it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from jq_actors import jobs
from jq_actors.events import GroupCancelled
from jq_actors.jobs.groups import named, reasoned
from jq_actors.jobs.store_access import call_sync
from jq_actors.model.group import Group
from jq_actors.model.job import Job
from jq_actors.model.printable import escape
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore

from .command_setup import ConfigOption, store_commands
from .jobs import AfterOption, LimitOption, place_of
from .output import (
    PROBLEM,
    JsonOption,
    as_plain,
    as_time,
    print_error,
    print_fields,
    print_json,
    print_page,
    print_table,
)

EPILOG = (
    "Exit codes: 0 success; 1 no such group, the question was not answered with yes, or no persistence is configured;"
    " 2 wrong command line or configuration; 3 the database cannot be reached."
)
FIRST_JOBS = 20
"""How many jobs of a group `show` lists."""
GroupArgument = Annotated[str, typer.Argument(metavar="NAME", help="The group's name.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Who does this and why; shown with group or jobs.")]

app = typer.Typer(help="Find groups, see why they wait, and steer them.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE", help="Only groups that are `running`, `queued`, `blocked`, `paused` or `idle`; repeatable."
        ),
    ] = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """List the groups that have unfinished jobs or are paused, by name."""
    with store_commands(config_path):
        page = jobs.groups(state=state or (), limit=limit, after=after)
    print_page("groups", page.groups, page.cursor, _GROUP_COLUMNS, _group_row, as_json=as_json)


@app.command(epilog=EPILOG)
def show(name: GroupArgument, as_json: JsonOption = False, config_path: ConfigOption = None) -> None:
    """Show one group, why it waits, and its first jobs in order."""
    with store_commands(config_path):
        group = _known(name)
        first = call_sync("groups show", lambda _, store: store.first_of_group(name, FIRST_JOBS))
    fields = as_plain(group)
    if as_json:
        print_json({**fields, "jobs": [as_plain(job) for job in first]})
        return
    fields["lag"] = _lag(group)
    print_fields(fields)
    if first:
        typer.echo()
        print_table(_JOB_COLUMNS, [_job_row(job) for job in first])


@app.command(epilog=EPILOG)
def pause(
    name: GroupArgument, reason: ReasonOption, as_json: JsonOption = False, config_path: ConfigOption = None
) -> None:
    """Start no job of a group until it is resumed; running jobs finish."""
    with store_commands(config_path):
        changed = jobs.pause(group=name, reason=reason)
    _print_change(name, changed, "is paused" if changed else "was paused already", as_json)


@app.command(epilog=EPILOG)
def resume(name: GroupArgument, as_json: JsonOption = False, config_path: ConfigOption = None) -> None:
    """Resume a paused group."""
    with store_commands(config_path):
        changed = jobs.resume(group=name)
    _print_change(name, changed, "is resumed" if changed else "was not paused", as_json)


@app.command(epilog=EPILOG)
def cancel(
    name: GroupArgument,
    reason: ReasonOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Required where there is no terminal.")] = False,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Cancel a group's unfinished jobs, except running ones, and print how many were cancelled."""
    with store_commands(config_path):
        why, group = reasoned(reason), _known(name)
        if not yes:
            _confirm(group)
        count = call_sync("groups cancel", lambda runtime, store: _cancel(runtime, store, name, why))
    if as_json:
        print_json({"group": name, "cancelled": count})
        return
    typer.echo(f"{count} jobs of group {escape(name)} were cancelled")


def _known(name: str) -> Group:
    group = jobs.group(name)
    if group is None:
        print_error(f"Nothing is known of a group {name!r}.")
        raise typer.Exit(PROBLEM)
    return group


_GROUP_COLUMNS = ["group", "state", "waiting", "running", "scheduled", "lag", "head", "reason"]


def _group_row(group: Group) -> Sequence[object]:
    counts = group.waiting, group.running, group.scheduled
    return group.name, group.state, *counts, _lag(group), group.head, group.reason


def _lag(group: Group) -> str | None:
    return None if group.lag is None else f"{group.lag.total_seconds():.1f} s"


_JOB_COLUMNS = ["place", "id", "state", "actor", "queue", "attempt", "enqueued", "reason"]


def _job_row(job: Job) -> Sequence[object]:
    place = None if job.place is None else place_of(job.place)
    return place, job.id, job.state, job.actor, job.queue, job.attempt, as_time(job.enqueued_at), job.reason


def _print_change(name: str, changed: bool, outcome: str, as_json: bool) -> None:
    if as_json:
        print_json({"group": name, "changed": changed})
    else:
        typer.echo(f"group {escape(name)} {outcome}")


def _confirm(group: Group) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask on; use --yes.")
    count = group.waiting + group.scheduled
    if not typer.confirm(f"Cancel {count} jobs of group {escape(group.name)}?", err=True):
        raise typer.Exit(PROBLEM)


async def _cancel(runtime: Runtime, store: JobStore, name: str, reason: str) -> int:
    count = await store.cancel_group(named(name), reason)
    if count:
        runtime.events.emit(GroupCancelled(name, count, reason))
    return count
