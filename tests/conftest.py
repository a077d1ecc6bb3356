"""The fixtures. Servers are private to the test run, and start when the first test asks for them.

Servers (session; ``JQ_TEST_AMQP_URL`` / ``JQ_TEST_DATABASE_URL`` use given ones instead)
  rabbitmq: PrivateRabbitMQ | GivenRabbitMQ    never break it:
      ``.url .depth(queue) -> (ready, consumers) | None``
  postgres: PrivatePostgres | GivenPostgres    never break it: ``.create_database() .session()``
Servers to break (skipped with given servers)
  private_rabbitmq: PrivateRabbitMQ    one victim for the whole run, running and healthy when a test gets it:
      ``.url .kill() .start() .stop() .restart() .wipe() .pause() .unpause() .close_connections()
      .memory_alarm(on) .delete_queue(queue) .consumer_timeout(ms | None) .ctl(*arguments) -> str
      .queue_depths(prefix) -> {queue: ready + unacked} .queue_consumers(prefix) .write_down()
      .evaluate(erlang) -> str .log``
  private_postgres: PrivatePostgres    the test's own (0.5 s): ``.stop(mode="immediate") .start() .restart()
      .drop_connections(url=None) .create_database() -> url .session()``
Places
  amqp_namespace: str    unique; its queues are deleted from ``rabbitmq`` afterwards
  database_url: str      a fresh PostgreSQL database, ``postgresql+asyncpg://…``; dropped afterwards
  sqlite_url: str        ``sqlite+aiosqlite:///…/jobs.db``, no file yet
  store_url: str         the test runs twice: with ``sqlite_url`` and with ``database_url``
Things to use
  tcp_proxy: Callable[[url], TcpProxy]    started, in front of the server of ``url``:
      ``.url(url) -> url through it, .cut() .freeze() .thaw() .refuse() .accept() .connections``
  start_worker: StartWorker    ``start_worker("jq-actors", "worker", "myjobs", env={…}) -> WorkerProcess``,
      run in ``tmp_path`` (put ``myjobs.py`` there): ``.wait_for_line(regex, timeout, since)
      .seen(regex, since) .mark() .text .pid .children() .running .wait(timeout) -> exit code, .terminate()
      .interrupt() .kill() .kill_child() .stop_signal() .cont()``
  clock: FakeClock       ``await clock.advance(seconds)``, ``clock.jump(timedelta)``, ``clock.sleepers``
Without fixtures
  ``tests.support.waiting``: ``await eventually(predicate, timeout, why)``, ``eventually_sync(…)``
  ``tests.support.recorder.EventRecorder(events, *kinds)``: ``await .wait_for(kind, where, count=, timeout=)``
  ``tests.support.amqp.Probe(url)``: a foreign AMQP client, blocking

Always on: ``JQ_*`` of the developer's shell is gone (but ``JQ_TEST_*``); the global Dramatiq broker is put
back; a call that blocks an event loop below a frame of jq_actors / jq_middleware raises ``BlockingError``,
but in tests marked ``@pytest.mark.blocking_allowed``.
No server and no way to install one: such tests skip, loudly; with ``CI`` set they fail.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import dramatiq.broker
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from tests.support.amqp import Probe
from tests.support.clock import FakeClock
from tests.support.postgres import GivenPostgres, PrivatePostgres
from tests.support.processes import sweep
from tests.support.programs import MissingProgramError
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.workers import WorkerProcess

CHEAP_FIRST = ("unit", "typing", "simulation", "conformance", "integration", "packaging")
"""The order of the folders in a run; others come last. Servers start with the first test that needs one."""

not_tested: set[str] = set()


# `make fast`: a few examples show at once what is plainly wrong; the gate tries them all.
settings.register_profile("fast", max_examples=10)


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("JQ_") and not name.startswith("JQ_TEST_")]:
        del os.environ[name]
    sweep()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return CHEAP_FIRST.index(folder) if folder in CHEAP_FIRST else len(CHEAP_FIRST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what in sorted(not_tested):
        terminalreporter.write_line(f"NOT TESTED: {what}", red=True, bold=True)


# -- always on --------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _global_broker_is_put_back() -> Iterator[None]:
    before = dramatiq.broker.global_broker
    yield
    dramatiq.broker.global_broker = before


@pytest.fixture(autouse=True)
def _loops_are_not_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("blocking_allowed"):
        yield
        return
    with blockbuster_ctx(["jq_actors", "jq_middleware"]) as guard:
        for call, file, function in _DRIVERS_BLOCK:
            guard.functions[call].can_block_in(file, function)
        yield


_DRIVERS_BLOCK = [
    # Looks at the file system of some microseconds, with each connection: for ~/.pgpass and certificates.
    *((call, "asyncpg/connect_utils.py", "_parse_connect_dsn_and_args") for call in ("os.stat", "os.path.abspath")),
]


# -- servers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateRabbitMQ | GivenRabbitMQ]:
    given = os.environ.get("JQ_TEST_AMQP_URL")
    with _running(lambda: GivenRabbitMQ(given) if given else PrivateRabbitMQ()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres | GivenPostgres]:
    given = os.environ.get("JQ_TEST_DATABASE_URL")
    with _running(lambda: GivenPostgres(given) if given else PrivatePostgres()) as server:
        yield server


@pytest.fixture(scope="session")
def _victim() -> Iterator[PrivateRabbitMQ]:
    _needs_own_server("JQ_TEST_AMQP_URL")
    with _running(PrivateRabbitMQ) as server:
        yield server


@pytest.fixture
def private_rabbitmq(_victim: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    if not _victim.running:
        _victim.start()
    yield _victim
    _victim.heal()


@pytest.fixture
def private_postgres() -> Iterator[PrivatePostgres]:
    _needs_own_server("JQ_TEST_DATABASE_URL")
    with _running(PrivatePostgres) as server:
        yield server


# -- places -----------------------------------------------------------------------------------------------


@pytest.fixture
def amqp_namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    namespace = f"t{secrets.token_hex(5)}"
    yield namespace
    if "rabbitmq" in request.fixturenames:
        server = request.getfixturevalue("rabbitmq")
        if isinstance(server, PrivateRabbitMQ):
            with Probe(server.url) as probe:
                for queue in server.queue_depths(namespace):
                    probe.delete(queue)


@pytest.fixture
def database_url(postgres: PrivatePostgres | GivenPostgres) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/jobs.db"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "database_url")
    return url


# -- things to use ----------------------------------------------------------------------------------------


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[str], TcpProxy]]:
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(TcpProxy.to(url))


class StartWorker(Protocol):
    def __call__(self, *command: str, env: Mapping[str, str] | None = None) -> WorkerProcess: ...


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    with ExitStack() as stack:

        def start(*command: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
            output = tmp_path / f"worker-{secrets.token_hex(4)}.log"
            worker = WorkerProcess(command, env=env or {}, cwd=tmp_path, output=output)
            stack.callback(worker.close)
            return worker

        yield start


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


# -- how a server is got ----------------------------------------------------------------------------------


class _Server(Protocol):
    def start(self) -> None: ...

    def close(self) -> None: ...


_S = TypeVar("_S", bound=_Server)


@contextmanager
def _running(make: Callable[[], _S]) -> Iterator[_S]:
    try:
        server = make()
    except MissingProgramError as error:
        cannot_test(str(error))
    try:
        server.start()
        yield server
    finally:
        server.close()


def cannot_test(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    not_tested.add(why)
    pytest.skip(why)


def _needs_own_server(variable: str) -> None:
    if os.environ.get(variable):
        pytest.skip(f"breaks its server, and {variable} gives one that is not ours to break")
