"""``jq-actors worker``: Dramatiq's worker for our broker, plus limits at which it stops by itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import dramatiq.cli
import typer

from jq_actors.chain.loading import build_middleware, find_problems
from jq_actors.config.loading import Config, check_name, load_config, parse_size
from jq_actors.process.runtime import WORKER_ID_VARIABLE
from jq_actors.worker.limits import BOARD_VARIABLE, Board, Limits

from .command_setup import ConfigOption, ModulesArgument, PathOption, use_config
from .limits import WATCH_FUNCTION

EPILOG = (
    "Stop limits count over all processes together. When one is reached, the worker drains and exits with 0, so that"
    " the service manager starts it again. Jobs that are running then still finish, so a count may end above its"
    " limit. SIGTERM or SIGINT drains; a second one kills."
    " Exit codes: 0 drained; 1 killed, or a process crashed; 2 wrong command line or configuration, a"
    " module that cannot be imported, or tables that are not migrated; 3 broker not reachable at start; 4 the"
    " pid file belongs to a living process."
)

Id = Annotated[str | None, typer.Option("--id", metavar="NAME", help="A name for this worker, shown to people.")]
Seconds = Annotated[float | None, typer.Option(metavar="SECONDS", min=0.001, help="Stop after this many seconds.")]
Jobs = Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N attempts have ended.")]
Failures = Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N jobs have failed for good.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Stop at this much resident memory, such as 512M.")]
WhenEmpty = Annotated[bool, typer.Option("--stop-when-empty", help="Stop when nothing is left to do now.")]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queues", "-Q", metavar="NAME", help="Serve only these queues; repeat it, or separate by commas."),
]
Processes = Annotated[
    int | None, typer.Option("--processes", "-p", min=1, help="Number of processes. Default: one per CPU.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, help="Threads for sync actors, per process. Default: 8."),
]
Spawn = Annotated[bool, typer.Option("--use-spawn", help="Spawn processes instead of forking.")]
PidFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the parent's pid to FILE.")]
LogFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Log to FILE instead of stderr.")]
Watch = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Reload when a file below DIR changes; for development.")
]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more.")]


def worker(
    modules: ModulesArgument = None,
    id_: Id = None,
    time_limit: Seconds = None,
    limit: Jobs = None,
    failure_limit: Failures = None,
    memory_limit: Memory = None,
    stop_when_empty: WhenEmpty = False,
    queues: Queues = None,
    processes: Processes = None,
    threads: Threads = None,
    path: PathOption = None,
    config_path: ConfigOption = None,
    use_spawn: Spawn = False,
    pid_file: PidFile = None,
    log_file: LogFile = None,
    watch: Watch = None,
    verbose: Verbose = 0,
) -> None:
    """Run jobs: Dramatiq's worker (`dramatiq jq_actors MODULE…`), plus limits at which it stops by itself."""
    use_config(config_path)
    config = load_config(find_problems=find_problems)
    build_middleware(config)  # reports its problems here once, instead of once in each process
    if not modules and not config.imports:
        raise typer.BadParameter("name a module with actors, or list one under `imports` in the configuration")
    if id_ is not None:
        os.environ[WORKER_ID_VARIABLE] = _checked_name(id_, "--id")
    limits = Limits(time_limit, limit, failure_limit, _memory(memory_limit), stop_when_empty)
    arguments = [
        *(modules or ()),
        *_given("--processes", processes),
        *_given("--threads", threads),
        *_given("--pid-file", pid_file),
        *_given("--log-file", log_file),
        *_given("--watch", watch),
        *_given("--queues", *_queue_names(queues or ())),
        *_given("--path", *(path or ())),
        *(["--use-spawn"] if use_spawn else []),
        *["--verbose"] * verbose,
    ]
    raise typer.Exit(_run(arguments, config, limits))


def _run(arguments: Sequence[str], config: Config, limits: Limits) -> int:
    timeout = round(config.worker.shutdown_timeout.total_seconds() * 1000)
    base = ["jq_actors", *arguments, "--worker-shutdown-timeout", str(timeout)]
    parser: ArgumentParser = dramatiq.cli.make_argument_parser()  # type: ignore[no-untyped-call]  # Dramatiq has no types here
    parsed = parser.parse_args(base)
    if limits == Limits():
        return _dramatiq(parsed)
    with _board(limits, parsed.processes):
        parsed.forks = [*parsed.forks, WATCH_FUNCTION]
        return _dramatiq(parsed)


def _dramatiq(arguments: Namespace) -> int:
    code: int | None = dramatiq.cli.main(arguments)  # type: ignore[no-untyped-call]  # Dramatiq has no types here
    return code or 0


@contextmanager
def _board(limits: Limits, processes: int) -> Iterator[None]:
    prefix = f"jq-actors-{os.getpid()}-"
    left = os.environ.get(BOARD_VARIABLE)
    if left is not None and Path(left).name.startswith(prefix):
        # A reload (SIGHUP) executes this program again in the same process, without leaving the block below.
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        Board(Path(folder), limits, os.getpid(), processes).save()
        os.environ[BOARD_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[BOARD_VARIABLE]


def _given(option: str, *values: object) -> list[str]:
    given = [str(value) for value in values if value is not None]
    return [option, *given] if given else []


def _queue_names(given: Sequence[str]) -> list[str]:
    return [_checked_name(name, "--queues") for listed in given for name in listed.split(",")]


def _checked_name(name: str, option: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _memory(text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--memory-limit") from None
