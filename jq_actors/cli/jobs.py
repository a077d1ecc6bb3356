"""``jq-actors jobs``: find jobs, show one, run jobs again, move one in its group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from jq_actors import jobs
from jq_actors.errors import JobNotFoundError
from jq_actors.jobs.store_access import MAX_PAGE
from jq_actors.model.job import Job, Place
from jq_actors.model.printable import escape

from .command_setup import ConfigOption, store_commands
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
    "Exit codes: 0 success; 1 no such job, its state does not allow it, or no persistence is configured; 2 wrong"
    " command line or configuration; 3 the database cannot be reached."
)
StateOption = Annotated[
    list[str] | None, typer.Option(metavar="STATE", help="Only jobs in this state; repeat it for several.")
]
ActorOption = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this actor.")]
QueueOption = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this queue.")]
GroupOption = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this group.")]
TagOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only jobs with this tag; if repeated, with all of them.")
]
LimitOption = Annotated[int, typer.Option(metavar="N", help="At most N, 1 to 1000.")]
AfterOption = Annotated[str | None, typer.Option(metavar="CURSOR", help="Continue after the previous page.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]

app = typer.Typer(help="Find jobs, look at them and steer them.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_(
    state: StateOption = None,
    actor: ActorOption = None,
    queue: QueueOption = None,
    group: GroupOption = None,
    tag: TagOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """List jobs, newest first."""
    with store_commands(config_path):
        page = jobs.find(
            state=state or (), actor=actor, queue=queue, group=group, tags=tag or (), limit=limit, after=after
        )
    print_page("jobs", page.jobs, page.cursor, _COLUMNS, _row, as_json=as_json)


@app.command(epilog=EPILOG)
def show(job_id: JobArgument, as_json: JsonOption = False, config_path: ConfigOption = None) -> None:
    """Show one job with its attempts, and its place in its group."""
    with store_commands(config_path):
        job = jobs.get(job_id)
    if job is None:
        raise JobNotFoundError(job_id)
    fields = as_plain(job)
    if as_json:
        print_json(fields)
        return
    fields["place"] = None if job.place is None else place_of(job.place)
    attempts = fields.pop("attempts")
    traceback = fields.pop("traceback")
    print_fields(fields)
    if attempts:
        typer.echo()
        print_table(list(attempts[0]), [list(attempt.values()) for attempt in attempts])
    if traceback:
        typer.echo()
        typer.echo("\n".join(escape(line) for line in traceback.rstrip("\n").split("\n")))


@app.command(epilog=EPILOG)
def retry(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="These jobs.")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="All jobs that are `failed`, or `cancelled`; repeat it for both."),
    ] = None,
    actor: ActorOption = None,
    queue: QueueOption = None,
    group: GroupOption = None,
    tag: TagOption = None,
    limit: LimitOption = MAX_PAGE,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Run failed or cancelled jobs again, those of a group in their old order, and print their ids."""
    with store_commands(config_path):
        retried = jobs.retry(
            job_ids or None, state=state or (), actor=actor, queue=queue, group=group, tags=tag or (), limit=limit
        )
    left = [job_id for job_id in job_ids or () if job_id not in retried]
    if as_json:
        print_json({"retried": retried, "left": left})
    else:
        typer.echo("".join(f"{job_id}\n" for job_id in retried), nl=False)
    if not job_ids and len(retried) == limit:
        print_error("There may be more: run it again.", label="note")
    for job_id in left:
        print_error(f"Job {job_id} is neither failed nor cancelled; it is left as it is.")
    raise typer.Exit(PROBLEM if left else 0)


@app.command(epilog=EPILOG)
def move(
    job_id: JobArgument,
    front: Annotated[bool, typer.Option("--front", help="To the front of its group.")] = False,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="To the end of this group.")] = None,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Move an unfinished job to the front of its group, or into another group; the other jobs keep their order."""
    with store_commands(config_path):
        job = jobs.move(job_id, group=group, front=front)
    if as_json:
        print_json(as_plain(job))
        return
    place = job.state.value if job.place is None else place_of(job.place)
    typer.echo(f"{job.id} in group {escape(job.group)}: {place}")


def place_of(place: Place) -> str:
    """``place`` as text for people: ``4 of 17, starts about 2026-11-24 12:03+00:00``."""
    starts = "" if place.starts_at is None else f", starts about {place.starts_at.isoformat(' ', 'minutes')}"
    return f"{place.number} of {place.of}{starts}"


_COLUMNS = ["id", "state", "actor", "queue", "group", "attempt", "enqueued", "reason"]


def _row(job: Job) -> Sequence[object]:
    return job.id, job.state, job.actor, job.queue, job.group, job.attempt, as_time(job.enqueued_at), job.reason
