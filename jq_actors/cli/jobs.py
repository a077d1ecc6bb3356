"""``jq-actors jobs``: find jobs and look at one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from jq_actors import jobs
from jq_actors.errors import JobNotFoundError
from jq_actors.events import escape
from jq_actors.installed import installed_broker
from jq_actors.job import Job

from .configured import ConfigOption, use_config
from .output import print_error, print_table

EPILOG = (
    "Exit codes: 0 success; 1 no such job, or no persistence is configured; 2 wrong command line or"
    " configuration; 3 the database cannot be reached."
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(help="Find jobs and look at them.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_(
    state: Annotated[list[str] | None, typer.Option(metavar="STATE", help="In one of these states; repeat it.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Of this actor.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Of this queue.")] = None,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Of this group.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME", help="With all of these tags; repeat it.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, 1 to 1000.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on after the page before.")] = None,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """List jobs, newest first."""
    use_config(config_path)
    with _broker_closed():
        try:
            page = jobs.find(
                state=state or (),
                actor=actor,
                queue=queue,
                group=group,
                tags=tag or (),
                limit=limit,
                after=after,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if as_json:
        _print_json({"jobs": [_as_dict(job) for job in page.jobs], "cursor": page.cursor})
        return
    print_table(_COLUMNS, [_row(job) for job in page.jobs])
    if page.cursor is not None:
        print_error(f"There are more: --after {page.cursor}", label="note")


@app.command(epilog=EPILOG)
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Show one job with its attempts."""
    use_config(config_path)
    with _broker_closed():
        job = jobs.get(job_id)
    if job is None:
        raise JobNotFoundError(job_id)
    if as_json:
        _print_json(_as_dict(job))
        return
    fields = _as_dict(job)
    attempts = fields.pop("attempts")
    traceback = fields.pop("traceback")
    print_table(["field", "value"], [(name, _cell(value)) for name, value in fields.items()])
    if attempts:
        typer.echo()
        print_table(list(attempts[0]), [list(attempt.values()) for attempt in attempts])
    if traceback:
        typer.echo()
        typer.echo("\n".join(escape(line) for line in traceback.rstrip("\n").split("\n")))


_COLUMNS = ["id", "state", "actor", "queue", "group", "attempt", "enqueued", "reason"]


def _row(job: Job) -> Sequence[object]:
    enqueued = job.enqueued_at.isoformat(" ", "seconds")
    return job.id, job.state, job.actor, job.queue, job.group, job.attempt, enqueued, job.reason


@contextmanager
def _broker_closed() -> Iterator[None]:
    try:
        yield
    finally:
        installed_broker().close()


def _as_dict(job: Job) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(job), default=_plain))
    return plain


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _print_json(value: object) -> None:
    # ASCII only: JSON alone would let U+0085 or an ESC-like C1 character through to the terminal.
    typer.echo(json.dumps(value, indent=2))
