"""The servers of a run: private ones, unless the environment names others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ

from .settings import Settings

DEFAULT_TICK = 60_000
"""Milliseconds: RabbitMQ's default. Tests set a much shorter interval."""


@contextmanager
def private_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    """A node with its own ports and its own folder."""
    node = PrivateRabbitMQ(channel_tick=DEFAULT_TICK)
    try:
        node.start()
        yield node
    finally:
        node.close()


@contextmanager
def servers(patience: float) -> Iterator[Settings]:
    """The servers of $JQ_BENCH_AMQP_URL and $JQ_BENCH_DATABASE_URL; private ones where a variable is not set."""
    with _amqp_url() as amqp_url, _database_url() as database_url:
        yield Settings(amqp_url, database_url, patience=patience)


@contextmanager
def _amqp_url() -> Iterator[str]:
    if given := os.environ.get("JQ_BENCH_AMQP_URL"):
        yield given
    else:
        with private_rabbitmq() as node:
            yield node.url


@contextmanager
def _database_url() -> Iterator[str]:
    if given := os.environ.get("JQ_BENCH_DATABASE_URL"):
        yield given
        return
    server = PrivatePostgres(durable=True)
    try:
        server.start()
        yield server.url
    finally:
        server.close()
