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

from .asking import asking
from .configured import ConfigOption
from .jobs import place_of
from .output import PROBLEM, JsonOption, as_cell, as_plain, as_time, print_error, print_json, print_table

EPILOG = (
    "Exit codes: 0 success; 1 no such group, nothing was confirmed, or no persistence is configured; 2 wrong command"
    " line or configuration; 3 the database cannot be reached."
)
FIRST_JOBS = 20
"""How many jobs of a group are shown."""
GroupArgument = Annotated[str, typer.Argument(metavar="NAME", help="The group's name.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Who and why, for those who look at it.")]

app = typer.Typer(help="Find groups, see why they wait, and steer them.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="`running`, `queued`, `blocked`, `paused` or `idle`; repeat it."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, 1 to 1000.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on after the page before.")] = None,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """List the groups that have unfinished jobs or are paused, by name."""
    with asking(config_path):
        page = jobs.groups(state=state or (), limit=limit, after=after)
    if as_json:
        print_json({"groups": [as_plain(group) for group in page.groups], "cursor": page.cursor})
        return
    print_table(_GROUP_COLUMNS, [_group_row(group) for group in page.groups])
    if page.cursor is not None:
        print_error(f"There are more: --after {page.cursor}", label="note")


@app.command(epilog=EPILOG)
def show(name: GroupArgument, as_json: JsonOption = False, config_path: ConfigOption = None) -> None:
    """Show one group, why it waits, and its first jobs in their order."""
    with asking(config_path):
        group = _known(name)
        first = call_sync("groups show", lambda _, store: store.first_of_group(name, FIRST_JOBS))
    fields = as_plain(group)
    if as_json:
        print_json({**fields, "jobs": [as_plain(job) for job in first]})
        return
    fields["lag"] = _lag(group)
    print_table(["field", "value"], [(field, as_cell(value)) for field, value in fields.items()])
    if first:
        typer.echo()
        print_table(_JOB_COLUMNS, [_job_row(job) for job in first])


@app.command(epilog=EPILOG)
def pause(
    name: GroupArgument, reason: ReasonOption, as_json: JsonOption = False, config_path: ConfigOption = None
) -> None:
    """Start nothing of a group until it is resumed; what runs comes to its end."""
    with asking(config_path):
        changed = jobs.pause(group=name, reason=reason)
    _tell(name, changed, "is paused" if changed else "was paused already", as_json)


@app.command(epilog=EPILOG)
def resume(name: GroupArgument, as_json: JsonOption = False, config_path: ConfigOption = None) -> None:
    """Let a paused group go on."""
    with asking(config_path):
        changed = jobs.resume(group=name)
    _tell(name, changed, "is resumed" if changed else "was not paused", as_json)


@app.command(epilog=EPILOG)
def cancel(
    name: GroupArgument,
    reason: ReasonOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Needed where there is no terminal to ask.")] = False,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Cancel the unfinished jobs of a group but those that run; says how many."""
    with asking(config_path):
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


def _tell(name: str, changed: bool, outcome: str, as_json: bool) -> None:
    if as_json:
        print_json({"group": name, "changed": changed})
    else:
        typer.echo(f"group {escape(name)} {outcome}")


def _confirm(group: Group) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask; say --yes.")
    count = group.waiting + group.scheduled
    if not typer.confirm(f"Cancel {count} jobs of group {escape(group.name)}?", err=True):
        raise typer.Exit(PROBLEM)


async def _cancel(runtime: Runtime, store: JobStore, name: str, reason: str) -> int:
    count = await store.cancel_group(named(name), reason)
    if count:
        runtime.events.emit(GroupCancelled(name, count, reason))
    return count
