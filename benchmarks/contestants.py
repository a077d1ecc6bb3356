"""The contestants: how their workers are started, what they use on the servers, and their environments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jq_actors.model.lane import Lane
from jq_actors.transport.rabbitmq.lane_names import lane_name
from jq_actors.transport.rabbitmq.topology import lobby_label

from .programs.group_names import group_name
from .settings import CONCURRENCY, PROCESSES, THREADS, Settings

PROGRAMS = f"{__package__}.programs"
NAMESPACE = "jq-bench"
SHUTDOWN_TIMEOUT = "5s"
"""For our workers: shorter than the time that the benchmark waits for them."""

CONFIRM_TIMEOUT = "60s"
"""For ours: a thousand new groups in one batch are a thousand new queues, which takes a while on a busy machine."""


@dataclass(frozen=True)
class Contestant:
    """One job queue in one configuration."""

    name: str
    module: str
    """A module of benchmarks.programs; it has a PRODUCER."""
    worker: tuple[str, ...]
    """Arguments to `python -m` that start its workers."""
    commands: int = 1
    """How many of these commands make up PROCESSES worker processes."""
    is_peer: bool = True
    uses_database: bool = False
    queues: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = CONCURRENCY
    """Only ours: the most concurrent async jobs per process."""
    groups: int = 0
    """Only ours: the number of groups of its jobs; 0 for no groups."""

    @property
    def database(self) -> str:
        """The name of its own database."""
        return f"jq_bench_{self.name.replace('-', '_')}"

    def python(self, settings: Settings) -> Path:
        """The interpreter of its environment."""
        return settings.peers_python if self.is_peer else settings.our_python

    def environment(self, settings: Settings, folder: Path, database_url: str) -> Mapping[str, str]:
        """Environment variables for its programs. For ours, writes the configuration file into ``folder``."""
        variables = {
            "JQ_BENCH_FOLDER": str(folder),
            "JQ_BENCH_AMQP_URL": settings.amqp_url,
            "JQ_BENCH_DATABASE_URL": database_url,
            "JQ_BENCH_CONCURRENCY": str(CONCURRENCY),
            **self.variables,
        }
        if not self.is_peer:
            variables["JQ_BENCH_GROUPS"] = str(self.groups)
            variables["JQ_CONFIG"] = str(self._write_configuration(folder, database_url))
        return variables

    def _write_configuration(self, folder: Path, database_url: str) -> Path:
        middleware: list[Mapping[str, object]] = []
        if database_url:
            url = database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
            middleware.append({"persistence": {"url": url}})
        if self.groups:
            # Lanes stay idle for longer than a run: deleting them during it would distort the measurement.
            middleware.append({"group_fifo": {} if database_url else {"idle": "1h"}})
        path = folder / "jq_actors.yaml"
        configuration = {
            # By variable, not by value: the memory benchmark gives its workers another route to the broker.
            "broker": {"url": "${JQ_BENCH_AMQP_URL}", "namespace": NAMESPACE, "confirm_timeout": CONFIRM_TIMEOUT},
            "queues": {"default": {"concurrency": self.concurrency}},
            "middleware": middleware,
            "worker": {"shutdown_timeout": SHUTDOWN_TIMEOUT},
        }
        path.write_text(json.dumps(configuration, indent=2))  # JSON is YAML
        return path


def grouped(contestant: Contestant, groups: int, program: str = "ours_grouped", **changes: Any) -> Contestant:
    """``contestant``, one of ours, with its jobs in ``groups`` groups.

    Without persistence each group has its own queue on the broker, which must be deleted.
    """
    queues = contestant.queues if contestant.uses_database else (*contestant.queues, *_queues_of_lanes(groups))
    return replace(
        contestant,
        name=f"{contestant.name}-{groups}-groups",
        module=f"{PROGRAMS}.{program}",
        worker=_our_worker(program),
        queues=queues,
        groups=groups,
        **changes,
    )


def _queues_of_lanes(groups: int) -> Iterator[str]:
    yield f"{NAMESPACE}.{lobby_label('default')}"
    for number in range(groups):
        yield lane_name(NAMESPACE, Lane("default", group_name(number)))


def _our_worker(program: str) -> tuple[str, ...]:
    return ("jq_actors.cli", "worker", f"{PROGRAMS}.{program}", "-p", str(PROCESSES), "-t", str(THREADS))


DRAMATIQ = Contestant(
    name="dramatiq",
    module=f"{PROGRAMS}.dramatiq_peer",
    worker=("dramatiq", f"{PROGRAMS}.dramatiq_peer", "-p", str(PROCESSES), "-t", str(THREADS)),
    queues=("jq_bench_dramatiq", "jq_bench_dramatiq.DQ", "jq_bench_dramatiq.XQ"),
)
DRAMATIQ_PREFETCHING = replace(
    DRAMATIQ, name="dramatiq-prefetching", variables={"dramatiq_queue_prefetch": str(CONCURRENCY)}
)
"""Dramatiq prefetches 2 × threads = 16 by default, far less than the others; this one prefetches as much as they do."""
TASKIQ = Contestant(
    name="taskiq",
    module=f"{PROGRAMS}.taskiq_peer",
    worker=(
        *("taskiq", "worker", f"{PROGRAMS}.taskiq_peer:broker", "--workers", str(PROCESSES)),
        *("--max-async-tasks", str(CONCURRENCY), "--max-threadpool-threads", str(THREADS)),
        *("--log-level", "WARNING"),
    ),
    queues=("jq_bench_taskiq", "jq_bench_taskiq.dead"),
    exchanges=("jq_bench_taskiq",),
)
PROCRASTINATE = Contestant(
    name="procrastinate",
    module=f"{PROGRAMS}.procrastinate_peer",
    worker=(
        *("procrastinate", "--app", f"{PROGRAMS}.procrastinate_peer.app", "--log-level", "warning"),
        *("worker", "--concurrency", str(CONCURRENCY)),
    ),
    commands=PROCESSES,
    uses_database=True,
)
OURS = Contestant(
    name="ours",
    module=f"{PROGRAMS}.ours",
    worker=_our_worker("ours"),
    is_peer=False,
    queues=(f"{NAMESPACE}.default", f"{NAMESPACE}.dead"),
)
OURS_PERSISTENT = replace(OURS, name="ours-persistent", uses_database=True)
CONTESTANTS = (DRAMATIQ, DRAMATIQ_PREFETCHING, TASKIQ, PROCRASTINATE, OURS, OURS_PERSISTENT)
