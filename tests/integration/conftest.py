"""Places to run an application in: embedded and RabbitMQ, with rows and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.application import Application, Place, running

RETRY: dict[str, Any] = {"retry": {"max_retries": 2, "min_backoff": "50ms", "max_backoff": "100ms"}}


def with_rows(url: str) -> list[dict[str, Any]]:
    return [{"persistence": {"url": url, "relay_interval": "100ms"}}, RETRY]


@pytest.fixture
def embedded_rows(sqlite_url: str) -> Place:
    return Place("embedded-sqlite", {"broker": {"url": "embedded://"}, "middleware": with_rows(sqlite_url)})


@pytest.fixture
def embedded_memory() -> Place:
    return Place("embedded-memory", {"broker": {"url": "embedded://"}, "middleware": [RETRY]})


@pytest.fixture
def rabbit_rows(rabbitmq: Any, amqp_namespace: str, database_url: str) -> Place:
    broker = {"url": rabbitmq.url, "namespace": amqp_namespace}
    return Place("rabbitmq-postgresql", {"broker": broker, "middleware": with_rows(database_url)})


@pytest.fixture
def rabbit_alone(rabbitmq: Any, amqp_namespace: str) -> Place:
    broker = {"url": rabbitmq.url, "namespace": amqp_namespace}
    return Place("rabbitmq-alone", {"broker": broker, "middleware": [RETRY]})


@pytest.fixture(params=["embedded_rows", "embedded_memory", "rabbit_rows", "rabbit_alone"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]  # named above, each a Place


@pytest.fixture(params=["embedded_rows", "rabbit_rows"])
def place_with_rows(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]  # as above


@pytest.fixture
def app(place: Place) -> Iterator[Application]:
    with running(place.configuration) as application:
        yield application


@pytest.fixture
def app_with_rows(place_with_rows: Place) -> Iterator[Application]:
    with running(place_with_rows.configuration) as application:
        yield application


@pytest.fixture
def embedded_app(embedded_rows: Place) -> Iterator[Application]:
    with running(embedded_rows.configuration) as application:
        yield application
