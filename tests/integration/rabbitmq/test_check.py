"""`check` against RabbitMQ: it finds what is wrong, says what may become wrong, and changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.events import Events
from jq_actors.transport.port import TransportReport
from jq_actors.transport.rabbitmq import RabbitTransport
from jq_actors.transport.rabbitmq.checking import warnings_for
from tests.support.amqp import Probe
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker


async def report(url: str, namespace: str, *queues: str, **settings: Any) -> TransportReport:
    config = BrokerConfig(url=url, namespace=namespace, **settings)
    return await RabbitTransport(config, SystemClock(), Events()).check(queues)


async def test_it_names_the_server_and_makes_no_queue(rabbitmq: Server, amqp_namespace: str) -> None:
    found = await report(rabbitmq.url, amqp_namespace, "mail")

    assert found.description.startswith("RabbitMQ ")
    assert "guest:***@" in found.description
    assert found.problems == ()
    with Probe(rabbitmq.url) as probe:
        assert probe.depth(f"{amqp_namespace}.mail") is None
        assert probe.depth(f"{amqp_namespace}.dead") is None


async def test_queues_with_other_arguments_are_problems(rabbitmq: Server, amqp_namespace: str) -> None:
    with Probe(rabbitmq.url) as probe:
        probe.declare(f"{amqp_namespace}.good", {})
        probe.declare(f"{amqp_namespace}.bad", {"x-max-length": 5})
        probe.declare(f"{amqp_namespace}.dead", {"x-max-length": 5})

    found = await report(rabbitmq.url, amqp_namespace, "good", "bad", "missing")

    assert len(found.problems) == 2
    assert f"{amqp_namespace}.dead" in found.problems[0]
    assert f"{amqp_namespace}.bad" in found.problems[1]
    assert "PRECONDITION_FAILED" in found.problems[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: "amqp://guest:guest@127.0.0.1:1/", "Connect call failed"),
        (lambda url: url.replace("guest:guest", "guest:wrong"), "ACCESS_REFUSED"),
        (lambda url: f"{url}nowhere", "nowhere"),
    ],
    ids=["nobody there", "password", "vhost"],
)
async def test_why_it_cannot_connect(rabbitmq: Server, amqp_namespace: str, change: Any, reason: str) -> None:
    found = await report(change(rabbitmq.url), amqp_namespace)

    [problem] = found.problems
    assert reason in problem
    assert "wrong" not in found.description + problem


@pytest.mark.parametrize(
    ("settings", "version", "words"),
    [
        ({}, (3, 10, 8), []),
        ({"delivery_timeout": timedelta(hours=1)}, (3, 10, 8), ["consumer_timeout"]),
        ({"delivery_timeout": timedelta(hours=1)}, (3, 8, 9), []),
        ({"delivery_timeout": timedelta(hours=1)}, (4, 3, 0), []),
        ({"queue_type": "quorum"}, (3, 10, 0), []),
        ({"queue_type": "quorum"}, (3, 9, 29), ["3.10"]),
        ({"queue_type": "quorum"}, (4, 2, 9), []),
        ({"queue_type": "quorum"}, (4, 3, 0), ["17317"]),
        ({"queue_type": "quorum"}, (4, 3, 6), ["17317"]),
        ({"queue_type": "quorum"}, (4, 3, 7), []),
    ],
)
def test_what_a_version_warns_of(settings: dict[str, Any], version: tuple[int, ...], words: list[str]) -> None:
    warnings = warnings_for(BrokerConfig(url="amqp://localhost", **settings), version)

    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))
