"""Client libraries in a version that was not tested with are refused at start."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.transport.rabbitmq import RabbitTransport
from jq_actors.transport.rabbitmq.amqp import versions
from jq_actors.transport.rabbitmq.amqp.versions import SUPPORTED, ClientVersionError, check_versions

ROOT = Path(__file__).parents[3]
PYPROJECT, SOURCES = ROOT / "pyproject.toml", ROOT / "jq_actors"


def install(monkeypatch: pytest.MonkeyPatch, name: str, installed: str) -> None:
    """As if ``name`` were installed in the version ``installed``, and all others as they are."""
    monkeypatch.setitem(versions.INSTALLED, name, installed)


def test_the_installed_versions_are_supported() -> None:
    check_versions()


def test_the_dependencies_allow_the_same_versions() -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    for name, (first, below) in SUPPORTED.items():
        assert f"{name}>={first},<{below}" in declared


@pytest.mark.parametrize("installed", ["7.2.4", "7.2.5", "7.2.10", "7.2.4.post1"])
def test_any_version_in_the_range_works(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    install(monkeypatch, "aiormq", installed)
    check_versions()


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("installed", ["0.9", "99.0.0", "99.0rc1"])
def test_another_version_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, name: str, installed: str
) -> None:
    install(monkeypatch, name, installed)
    first, below = SUPPORTED[name]

    with pytest.raises(ClientVersionError) as error:
        check_versions()

    assert f"{name} {installed}" in str(error.value)
    assert f">={first},<{below}" in str(error.value)
    assert isinstance(error.value, TransportError)


async def test_the_transport_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "aiormq", "7.3.0")
    transport = RabbitTransport(BrokerConfig(url="amqp://127.0.0.1:1/"), SystemClock(), Events())

    with pytest.raises(ClientVersionError, match=r"aiormq 7\.3\.0"):
        await transport.start()


async def test_check_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "pamqp", "5.0.0")

    report = await RabbitTransport(BrokerConfig(url="amqp://127.0.0.1:1/"), SystemClock(), Events()).check([])

    [problem] = report.problems
    assert "pamqp 5.0.0" in problem


def test_only_one_folder_imports_what_is_below_aio_pika() -> None:
    imported = {
        path.relative_to(SOURCES)
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name.partition(".")[0] in ("aiormq", "pamqp")
    }

    assert {path.parent for path in imported} == {Path("transport/rabbitmq/amqp")}
    assert {path.name for path in imported} == {"client.py", "wire.py"}
