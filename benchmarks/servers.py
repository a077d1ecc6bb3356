"""Creates and removes what the benchmark needs on RabbitMQ and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import LiteralString

import aio_pika
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url


def delete_queues(amqp_url: str, queues: Iterable[str], exchanges: Iterable[str] = ()) -> None:
    """Delete ``queues`` and ``exchanges`` if they exist, with their messages."""
    asyncio.run(_delete(amqp_url, queues, exchanges))


def broker_version(amqp_url: str) -> str:
    """The product and version that the server reports when a client connects."""
    return asyncio.run(_broker_version(amqp_url))


def database_version(database_url: str) -> str:
    """The server's version."""
    with psycopg.connect(database_url) as connection:
        return connection.info.parameter_status("server_version") or "unknown"


def make_database(database_url: str, name: str) -> str:
    """Create the database ``name``, empty, replacing an old one; return its URL (``postgresql://``)."""
    drop_database(database_url, name)
    _execute(database_url, "CREATE DATABASE {}", name)
    return make_url(database_url).set(database=name).render_as_string(hide_password=False)


def drop_database(database_url: str, name: str) -> None:
    """Drop the database, even if clients are still connected."""
    _execute(database_url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


async def _delete(amqp_url: str, queues: Iterable[str], exchanges: Iterable[str]) -> None:
    # One channel for all: there may be thousands, and RabbitMQ accepts deleting what does not exist.
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        for queue in queues:
            await channel.queue_delete(queue)
        for exchange in exchanges:
            await channel.exchange_delete(exchange)


async def _broker_version(amqp_url: str) -> str:
    async with await aio_pika.connect(amqp_url) as connection:
        assert connection.transport is not None
        reported: Mapping[str, object] = connection.transport.connection.server_properties
        return f"{reported['product']} {reported['version']}"


def _execute(database_url: str, statement: LiteralString, name: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
