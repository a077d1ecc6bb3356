"""`jq-actors check` and `db` with real servers, on every configuration that we ship."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jq_actors.config.loading import load_config
from jq_actors.store.schema import migrate
from tests.conftest import StartWorker
from tests.support.amqp import Probe
from tests.support.postgres import Databases
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.workers import ROOT

OURS = sorted(
    path
    for folder in ("config", "examples")
    for path in (ROOT / folder).rglob("*.yaml")
    if path.name != "compose.yaml"  # Docker's
)

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(start_worker: StartWorker) -> Cli:
    """Run a command to its end; returns its exit code and all that it printed."""

    def run(*arguments: str, **env: str) -> tuple[int, str]:
        process = start_worker("jq-actors", *arguments, env=env)
        return process.wait(), process.text

    return run


@pytest.fixture
def servers(rabbitmq: PrivateRabbitMQ | GivenRabbitMQ, amqp_namespace: str, database_url: str) -> dict[str, str]:
    """The environment that names the servers of the test."""
    return {"JQ_BROKER_URL": rabbitmq.url, "JQ_NAMESPACE": amqp_namespace, "JQ_DATABASE_URL": database_url}


def test_there_are_configurations_of_ours() -> None:
    assert {"jq_actors.yaml", "production.yaml"} <= {path.name for path in OURS}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_each_shipped_configuration_is_read(
    path: Path, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in servers.items():
        monkeypatch.setenv(name, value)
    config = load_config(path)
    assert config.broker.url == servers["JQ_BROKER_URL"]
    assert config.middleware[0].options["url"] == servers["JQ_DATABASE_URL"]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_each_shipped_configuration_passes_with_servers(path: Path, servers: dict[str, str], cli: Cli) -> None:
    assert cli("db", "upgrade", "--config", str(path), **servers)[0] == 0
    code, printed = cli("check", "--config", str(path), **servers)
    assert code == 0, printed
    assert "PROBLEM" not in printed
    assert "RabbitMQ" in printed
    assert "PostgreSQL" in printed


def test_the_complete_configuration_passes_without_servers(cli: Cli) -> None:
    path = str(ROOT / "config" / "jq_actors.yaml")
    assert cli("db", "upgrade", "--config", path)[0] == 0
    code, printed = cli("check", "--config", path)
    assert code == 0, printed
    assert "embedded" in printed


def test_a_missing_variable_is_told(cli: Cli) -> None:
    code, printed = cli("check", "--config", str(ROOT / "config" / "production.yaml"))
    assert code == 1
    assert "broker.url: the environment variable JQ_BROKER_URL is not set" in printed
    assert "middleware[0].persistence.url: the environment variable JQ_DATABASE_URL is not set" in printed


# -- what is wrong with the servers -----------------------------------------------------------------------


@pytest.fixture
def production(tmp_path: Path, servers: dict[str, str], cli: Cli) -> Cli:
    """Run a command with the production configuration, one actor, and migrated tables."""
    (tmp_path / "mail_jobs.py").write_text("from jq_actors import actor\n@actor(queue_name='mail')\ndef send(): ...\n")
    path = str(ROOT / "config" / "production.yaml")

    def run(*arguments: str, **changed: str) -> tuple[int, str]:
        return cli(*arguments, "--config", path, **{**servers, **changed})

    migrate.upgrade(servers["JQ_DATABASE_URL"], "orm_jobs")
    return run


def test_a_queue_with_other_arguments_is_named(
    production: Cli, rabbitmq: PrivateRabbitMQ | GivenRabbitMQ, servers: dict[str, str]
) -> None:
    assert production("check", "mail_jobs")[0] == 0
    name = f"{servers['JQ_NAMESPACE']}.mail"
    with Probe(rabbitmq.url) as probe:
        probe.delete(name)
        probe.declare(name, {"x-max-length": 5})
    code, printed = production("check", "mail_jobs")
    assert code == 1
    assert "PROBLEM  broker         RabbitMQ " in printed
    assert f": the queue {name} cannot be used" in printed
    assert "ok       database" in printed  # it goes on


def test_check_makes_no_queue(
    production: Cli, rabbitmq: PrivateRabbitMQ | GivenRabbitMQ, servers: dict[str, str]
) -> None:
    assert production("check", "mail_jobs")[0] == 0
    assert rabbitmq.depth(f"{servers['JQ_NAMESPACE']}.mail") is None


def test_servers_that_cannot_be_reached_are_told_without_their_passwords(production: Cli) -> None:
    code, printed = production(
        "check",
        "mail_jobs",
        JQ_BROKER_URL="amqp://someone:hidden@127.0.0.1:1/",
        JQ_DATABASE_URL="postgresql+asyncpg://someone:hidden@127.0.0.1:1/db",
    )
    assert code == 1
    assert "PROBLEM  broker" in printed
    assert "PROBLEM  database" in printed
    assert "hidden" not in printed
    assert "Traceback" not in printed


def test_a_refused_password_is_told_without_it(production: Cli, servers: dict[str, str]) -> None:
    url = servers["JQ_BROKER_URL"].replace("guest:guest", "guest:hidden")
    code, printed = production("check", "mail_jobs", JQ_BROKER_URL=url)
    assert code == 1
    assert "PROBLEM  broker" in printed
    assert "hidden" not in printed


# -- db ---------------------------------------------------------------------------------------------------


def test_tables_are_made_and_told(
    cli: Cli, servers: dict[str, str], tmp_path: Path, postgres: Databases, database_url: str
) -> None:
    (tmp_path / "jq_actors.yaml").write_text(
        yaml.safe_dump(
            {"middleware": [{"persistence": {"url": database_url, "jobs_table": "my_jobs", "auto_migrate": False}}]}
        )
    )
    code, printed = cli("db", "current")
    assert code == 1
    assert "is at nothing; this version wants" in printed
    code, printed = cli("check")
    assert code == 1
    assert "PROBLEM  database" in printed
    assert "jq-actors db upgrade" in printed
    for _ in range(2):
        assert cli("db", "upgrade")[0] == 0
    code, printed = cli("db", "current")
    assert code == 0
    assert printed.startswith("my_jobs in postgresql+asyncpg://")
    assert cli("check")[0] == 0


@pytest.mark.parametrize("command", ["upgrade", "current"])
def test_a_database_that_cannot_be_reached_is_exit_code_3(cli: Cli, tmp_path: Path, command: str) -> None:
    url = "postgresql+asyncpg://someone:hidden@127.0.0.1:1/db"
    (tmp_path / "jq_actors.yaml").write_text(yaml.safe_dump({"middleware": [{"persistence": {"url": url}}]}))
    code, printed = cli("db", command)
    assert code == 3
    assert printed.startswith("error: ")
    assert "hidden" not in printed
    assert printed.count("\n") == 1


# -- beside it --------------------------------------------------------------------------------------------


def test_rabbitmq_starts_with_our_file(rabbitmq: PrivateRabbitMQ | GivenRabbitMQ) -> None:
    if isinstance(rabbitmq, GivenRabbitMQ):
        pytest.skip("needs a server of its own")
    lines = (ROOT / "config" / "rabbitmq.conf").read_text().splitlines()
    server = PrivateRabbitMQ(extra_conf=tuple(line for line in lines if line and not line.startswith("#")))
    try:
        server.start()
        environment = server.ctl("environment")
    finally:
        server.close()
    assert "{consumer_timeout,1800000}" in environment
    assert "{max_message_size,16777216}" in environment


def test_compose_gives_the_servers_that_it_says() -> None:
    text = (ROOT / "config" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    rabbitmq, postgres = services["rabbitmq"], services["postgres"]
    broker = "amqp://{RABBITMQ_DEFAULT_USER}:{RABBITMQ_DEFAULT_PASS}@127.0.0.1:5672/".format(**rabbitmq["environment"])
    database = "postgresql+asyncpg://{POSTGRES_USER}:{POSTGRES_PASSWORD}@127.0.0.1:5432/{POSTGRES_DB}".format(
        **postgres["environment"]
    )
    assert f"JQ_BROKER_URL={broker}\n" in text
    assert f"JQ_DATABASE_URL={database}\n" in text
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "/" not in service["image"]  # Docker Hub's own
