"""``jq-actors check``: find what would go wrong in a worker, at its start or later, without starting one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import typer

from jq_actors.chain.loading import build_middleware, find_problems
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.loading import Config, find_config, format_duration, load_config
from jq_actors.config.problems import did_you_mean
from jq_actors.errors import ConfigError, JobQueueError
from jq_actors.process.installed import installed_broker
from jq_actors.process.runtime import Runtime
from jq_actors.transport.adapters import adapter_for
from jq_actors.transport.port import Transport

from .command_setup import ConfigOption, ModulesArgument, PathOption, find_modules_in, use_config
from .output import OK, PROBLEM, print_error, print_table

EPILOG = "Exit codes: 0 no problems (there may be warnings); 1 problems were found; 2 wrong command line."


class Kind(Enum):
    """How bad a finding is."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result."""

    part: str
    kind: Kind
    text: str


def check(modules: ModulesArgument = None, path: PathOption = None, config_path: ConfigOption = None) -> None:
    """Check configuration, imports, actors, broker, database and topology, without starting anything."""
    use_config(config_path)
    find_modules_in(path or ["."])
    findings = list(_findings(modules or []))
    print_table(["", "part", "found"], [(found.kind.value, found.part, found.text) for found in findings])
    problems = sum(found.kind is Kind.PROBLEM for found in findings)
    if problems:
        print_error(f"{problems} problem(s) found.")
    raise typer.Exit(PROBLEM if problems else OK)


def _findings(modules: Sequence[str]) -> Iterator[Finding]:
    source = str(find_config() or "built-in defaults")
    try:
        config = load_config(find_problems=find_problems)
    except ConfigError as error:
        yield from (Finding("configuration", Kind.PROBLEM, f"{source}: {found}") for found in error.problems)
        return
    yield Finding("configuration", Kind.GOOD, source)
    for module in (*config.imports, *modules):
        yield _import(module)
    try:
        build_middleware(config)
        installed_broker().resolve()
    except ConfigError as error:
        yield from (Finding("configuration", Kind.PROBLEM, str(found)) for found in error.problems)
        return
    yield from _actors(config)
    yield from _servers(config)


def _import(module: str) -> Finding:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything, and it is reported
        return Finding("imports", Kind.PROBLEM, f"{module}: {type(error).__name__}: {error}")
    return Finding("imports", Kind.GOOD, module)


def _actors(config: Config) -> Iterator[Finding]:
    broker = installed_broker()
    declared, queues = set(broker.actors), set(broker.queues)
    kind = Kind.GOOD if declared else Kind.WARNING
    yield Finding("actors", kind, ", ".join(sorted(declared)) or "there are none")
    for name in config.actors.keys() - declared:
        text = f"actors.{name}: no such actor is imported; {did_you_mean(name, declared)}"
        yield Finding("actors", Kind.PROBLEM, text)
    for name in config.queues.keys() - queues:
        text = f"queues.{name}: no imported actor uses this queue; {did_you_mean(name, queues)}"
        yield Finding("queues", Kind.WARNING, text)


def _servers(config: Config) -> Iterator[Finding]:
    """Ask broker and database on an I/O loop, as a worker would, but open neither for work."""
    runtime = Runtime(config, installed_broker())
    has_store = any(isinstance(layer, JobMiddleware) and layer.brings_store for layer in runtime.chain)
    make_transport = adapter_for(config.broker.url)
    runtime.io.start()
    try:
        yield from runtime.io.call(
            _broker(runtime, make_transport(config.broker, runtime.clock, runtime.events, has_store=has_store))
        )
        yield from runtime.io.call(_database(runtime))
    finally:
        runtime.io.stop()


async def _broker(runtime: Runtime, transport: Transport) -> list[Finding]:
    try:
        report = await transport.check(sorted(installed_broker().queues))
    except JobQueueError as error:
        return [Finding("broker", Kind.PROBLEM, str(error))]
    return [
        *_reported("broker", report.description, report.problems),
        *(Finding("broker", Kind.WARNING, warning) for warning in report.warnings),
        *_lease_warning(runtime),
    ]


def _lease_warning(runtime: Runtime) -> Iterator[Finding]:
    timeout = runtime.config.broker.confirm_timeout
    lease = runtime.persistence.leases.publish if runtime.persistence is not None else None
    if lease is not None and lease <= timeout:
        text = (
            f"broker.confirm_timeout ({format_duration(timeout)}) should be shorter than publish_lease of"
            f" persistence ({format_duration(lease)}): while the broker is slow, the relay publishes second copies"
        )
        yield Finding("broker", Kind.WARNING, text)


async def _database(runtime: Runtime) -> list[Finding]:
    findings: list[Finding] = []
    for layer in runtime.chain:
        store = layer.open_store(runtime) if isinstance(layer, JobMiddleware) else None
        if store is None:
            continue
        try:
            report = await store.check()
        except JobQueueError as error:
            findings.append(Finding("database", Kind.PROBLEM, str(error)))
            continue
        findings += _reported("database", report.description, report.problems)
    return findings


def _reported(part: str, description: str, problems: Sequence[str]) -> list[Finding]:
    if not problems:
        return [Finding(part, Kind.GOOD, description)]
    return [
        Finding(part, Kind.PROBLEM, problem if description in problem else f"{description}: {problem}")
        for problem in problems
    ]
