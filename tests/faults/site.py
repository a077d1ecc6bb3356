"""A place where jobs run: a configuration, actors, a broker to break, worker processes, and looks from outside."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.amqp import Probe
from tests.support.application import Application, running
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import eventually_sync
from tests.support.workers import WorkerProcess

from . import journal
from .gate import GATE
from .rows import Rows
from .supervisor import Supervisor

ACTORS = "tests.faults.actors"
QUEUE = "work"

StartWorker = Callable[..., WorkerProcess]


class Site:
    """Everything that one fault test needs.

    Parameters:
      store_url: ``None``: without persistence.
      store_url_of_processes: another way to the same database, for all but the tests' own looks.
      journal_url: the database of the journal.
      broker, persistence, worker, queues: settings over those of `configuration`.
      groups: options of `group_fifo`; ``None``: there are no groups.
    """

    def __init__(
        self,
        folder: Path,
        start: StartWorker,
        server: PrivateRabbitMQ,
        namespace: str,
        store_url: str | None,
        journal_url: str,
        *,
        store_url_of_processes: str | None = None,
        actors: str = ACTORS,
        broker: Mapping[str, Any] | None = None,
        persistence: Mapping[str, Any] | None = None,
        worker: Mapping[str, Any] | None = None,
        queues: Mapping[str, Any] | None = None,
        groups: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.server, self.namespace = folder, server, namespace
        self.journal = journal.Journal(journal_url)
        self._rows = None if store_url is None else Rows(store_url)
        self._start, self._actors = start, actors
        self._store_url = store_url_of_processes or store_url
        self._changes = {"broker": broker or {}, "persistence": persistence or {}, "worker": worker or {}}
        self._queues = dict(queues or {})
        self._groups = [] if groups is None else [{"group_fifo": dict(groups)}]

    @property
    def rows(self) -> Rows:
        """The rows of its jobs."""
        assert self._rows is not None, "This site has no persistence."
        return self._rows

    def close(self) -> None:
        self.journal.close()
        if self._rows is not None:
            self._rows.close()

    def configuration(self, broker_url: str, **persistence: Any) -> dict[str, Any]:
        """For a process that reaches the broker by ``broker_url``; quick enough for a test."""
        rows = {"url": self._store_url, "relay_interval": "200ms", "publish_lease": "3s"}
        rows |= {**self._changes["persistence"], **persistence}
        retry = {"max_retries": 2, "min_backoff": "100ms", "max_backoff": "1s"}
        chain = [*self._groups, {"retry": retry}, "time_limit"]
        broker = {"url": broker_url, "namespace": self.namespace, "confirm_timeout": "2s", "reconcile_interval": "1s"}
        return {
            "broker": broker | {**self._changes["broker"]},
            "middleware": chain if self._store_url is None else [{"persistence": rows}, *chain],
            "worker": {"lease": "10s", **self._changes["worker"]},
            "queues": self._queues,
        }

    # -- workers

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Of a process that reaches the broker by ``url``; default: directly."""
        path = self.folder / "jq.json"
        path.write_text(json.dumps(self.configuration("${JQ_BROKER_URL}")))  # JSON is YAML
        return {
            "JQ_CONFIG": str(path),
            "JQ_BROKER_URL": url or self.server.url,
            journal.VARIABLE: self.journal.url,
        }

    def start(self, *, url: str | None = None, threads: int = 2) -> WorkerProcess:
        """Start a worker of one process, by ``jq-actors worker``."""
        command = ("jq-actors", "worker", self._actors, "-p", "1", "-t", str(threads))
        return self._start(*command, env=self.environment(url))

    def run(self, *command: str, url: str | None = None) -> WorkerProcess:
        """Start another program of this site."""
        return self._start(*command, env=self.environment(url))

    @contextmanager
    def workers(self, count: int = 2, *, threads: int = 2, queue: str = QUEUE) -> Iterator[Supervisor]:
        """Workers that are started again when they die; they consume ``queue`` when they are yielded."""
        with Supervisor([partial(self.start, threads=threads)] * count) as supervisor:
            self.wait_for_consumers(count, queue)
            yield supervisor

    # -- sending

    @contextmanager
    def sending(self, **persistence: Any) -> Iterator[Sending]:
        """The actors in this process, to send with. Several at once send with different options of persistence."""
        with running(self.configuration(self.server.url, **persistence)) as application:
            yield Sending(application, self._actors)

    def open_gate(self) -> None:
        """Let the jobs pass that wait before it."""
        (self.folder / GATE).touch()

    # -- the broker, from outside

    def name(self, queue: str = QUEUE) -> str:
        """What ``queue`` is called on the broker."""
        return f"{self.namespace}.{queue}"

    def consumers(self, queue: str = QUEUE) -> int:
        """How many consumers the broker sees on ``queue``; 0 also when it does not answer."""
        return self._depth(queue)[1]

    def ready(self, queue: str = QUEUE) -> int:
        """How many messages wait in ``queue``."""
        return self._depth(queue)[0]

    def wait_for_consumers(self, count: int, queue: str = QUEUE, timeout: float = 45.0) -> None:
        """Wait until ``count`` workers consume ``queue``."""
        eventually_sync(lambda: self.consumers(queue) == count, timeout, f"{count} consumers of {self.name(queue)}")

    def wait_until_queues_are_empty(self, timeout: float = 30.0, *, but: str | None = None) -> None:
        """Wait until the broker has no message of ours, neither ready nor unacked, ``but`` in that one queue.

        Tokens in lobbies do not count: workers may hold them as long as they please.
        """

        def counts(queue: str) -> bool:
            return not queue.startswith(self.name("lobby.")) and (but is None or queue != self.name(but))

        def look() -> bool:
            self.depths = self.server.queue_depths(f"{self.namespace}.")
            return not any(count for queue, count in self.depths.items() if counts(queue))

        try:
            eventually_sync(look, timeout, "empty queues")
        except AssertionError as error:
            error.add_note(f"Depths: {self.depths}")
            raise

    def _depth(self, queue: str) -> tuple[int, int]:
        try:
            with Probe(self.server.url) as probe:
                return probe.depth(self.name(queue)) or (0, 0)
        except OSError:
            return 0, 0


def numbered(numbers: Iterable[int], *arguments: float) -> list[tuple[tuple[float, ...], dict[str, Any]]]:
    """Calls for ``send_many``: each with its number, and then with ``arguments``."""
    return [((number, *arguments), {}) for number in numbers]


class Sending:
    """An application in the test's own process, and its actors."""

    def __init__(self, application: Application, module: str) -> None:
        self.application = application
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.loader is not None
        # A module of its own for each application: its actors belong to the broker that is installed now.
        self.actors: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.actors)
