"""RabbitMQ goes away and comes back, in every way that it can: afterwards all is consumed again, by itself (A8)."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import BrokerConnected, BrokerDisconnected, ConsumerConfirmed, ConsumerLost, Events
from jq_actors.transport.port import NotPublished, Published
from jq_actors.transport.rabbitmq import RabbitTransport
from tests.conformance.transport.transports import AckingHand, Hand, job, jobs
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import CONNECT, Opened, opened

Server = PrivateRabbitMQ | GivenRabbitMQ
Proxied = Callable[[str], TcpProxy]

pytestmark = pytest.mark.broker

QUEUES = [f"q{number}" for number in range(40)]


@asynccontextmanager
async def consuming(url: str, namespace: str, hand: Hand) -> AsyncIterator[Opened]:
    """A transport that consumes `QUEUES`, with a hand full of unacked deliveries."""
    async with opened(url, namespace, confirm_timeout=timedelta(seconds=20)) as broker:
        for queue in QUEUES:
            broker.transport.want(queue, 5, hand)
        await broker.confirmed(*QUEUES)
        yield broker


async def all_consumed_again(broker: Opened, hand: AckingHand) -> None:
    """Wait for a new connection, then for a message by each queue; nothing was told but the loss."""
    await broker.reconnected()
    await broker.confirmed(*QUEUES)
    results = await broker.transport.publish([job(f"after {queue}", queue) for queue in QUEUES])
    assert results == [Published()] * len(QUEUES)
    await eventually(lambda: {f"after {queue}" for queue in QUEUES} <= {*hand.bodies}, CONNECT, "all messages")
    assert broker.told.of(ConsumerLost) == []
    assert {event.role for event in broker.told.of(BrokerDisconnected)} == {"publisher", "consumer"}


async def test_the_server_closes_all_connections(
    private_rabbitmq: PrivateRabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    hand = AckingHand()
    async with consuming(private_rabbitmq.url, "closed", hand) as broker:
        await asyncio.to_thread(private_rabbitmq.close_connections)

        await all_consumed_again(broker, hand)
        reasons = {event.reason for event in broker.told.of(BrokerDisconnected)}
        assert reasons == {"CONNECTION_FORCED - closed by a test"}
    assert not [record for record in caplog.records if record.name.startswith("aiormq")]


async def test_the_node_is_killed_and_comes_back_with_its_messages(private_rabbitmq: PrivateRabbitMQ) -> None:
    hand = AckingHand()
    async with consuming(private_rabbitmq.url, "killed", hand) as broker:
        await broker.transport.publish([job("kept", "unconsumed")])
        await asyncio.to_thread(private_rabbitmq.write_down)
        await asyncio.to_thread(private_rabbitmq.kill)
        await eventually(lambda: not broker.transport.health.connected, why="the loss to be seen")
        with pytest.raises(TransportError, match="no connection"):
            await broker.transport.depth("q1")
        waiting = asyncio.create_task(broker.transport.publish(jobs("waited", "q1")))
        await asyncio.to_thread(private_rabbitmq.start)

        await all_consumed_again(broker, hand)
        assert await waiting == [Published()]
        depth = await broker.transport.depth("unconsumed")
        assert depth is not None
        assert depth.ready == 1


async def test_the_node_comes_back_wiped(private_rabbitmq: PrivateRabbitMQ) -> None:
    hand = AckingHand()
    async with consuming(private_rabbitmq.url, "wiped", hand) as broker:
        await asyncio.to_thread(private_rabbitmq.kill)
        private_rabbitmq.wipe()
        await asyncio.to_thread(private_rabbitmq.start)

        await all_consumed_again(broker, hand)


async def test_a_connection_that_is_only_half_open_is_given_up(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    """Nobody closes it, and nothing comes: only heartbeats tell."""
    proxy = tcp_proxy(rabbitmq.url)
    settings: dict[str, Any] = {"heartbeat": timedelta(seconds=1)}
    async with opened(proxy.url(rabbitmq.url), amqp_namespace, **settings) as broker:
        hand = AckingHand()
        broker.transport.want("mail", 5, hand)
        await broker.confirmed("mail")

        proxy.freeze()
        lost = await broker.told.wait_for(BrokerDisconnected, count=2, timeout=20)
        assert {event.reason for event in lost} == {"nothing came for two heartbeats"}
        proxy.thaw()

        await broker.reconnected()
        await broker.confirmed("mail")
        await broker.transport.publish(jobs("after", "mail"))
        await hand.has(1)


async def test_deliveries_alone_keep_a_connection_alive(rabbitmq: Server, amqp_namespace: str) -> None:
    """aiormq sees none of the tapped frames, and must not take a busy connection for a dead one."""
    async with opened(rabbitmq.url, amqp_namespace, heartbeat=timedelta(seconds=1)) as broker:

        def again(delivery: object) -> None:
            asyncio.get_running_loop().call_later(0.05, delivery.requeue)  # type: ignore[attr-defined]

        broker.transport.want("mail", 1, again)
        await broker.transport.publish(jobs("circling", "mail"))
        beats = 3 * 2 + 2  # longer than two heartbeats of silence are borne
        await asyncio.sleep(beats)  # the absence of a loss has no event to wait for

        assert broker.told.of(BrokerDisconnected) == []
        assert broker.transport.generation == 1


async def test_a_flapping_connection_is_told_once(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied, caplog: pytest.LogCaptureFixture
) -> None:
    """A41: one line in ten seconds for each role, and the last line is true."""
    caplog.set_level(logging.INFO)
    proxy = tcp_proxy(rabbitmq.url)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace) as broker:
        broker.transport.want("mail", 5, AckingHand())
        await broker.confirmed("mail")
        for generation in range(1, 6):
            proxy.cut()
            await broker.reconnected(generation)
            await broker.confirmed("mail")

        losses = Counter(event.role for event in broker.told.of(BrokerDisconnected))
        connects = Counter(event.role for event in broker.told.of(BrokerConnected))
        assert losses == {"publisher": 1, "consumer": 1}
        assert connects == {"publisher": 2, "consumer": 2}
    assert not [record for record in caplog.records if record.name.startswith("aiormq")]


async def test_a_broker_that_is_not_there_yet_is_waited_for(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    proxy.refuse()
    config = BrokerConfig(
        url=proxy.url(rabbitmq.url), namespace=amqp_namespace, confirm_timeout=timedelta(milliseconds=200)
    )
    transport, hand = RabbitTransport(config, SystemClock(), Events()), AckingHand()
    transport.want("mail", 5, hand)
    await transport.start()
    [result] = await transport.publish(jobs("early", "mail"))
    assert isinstance(result, NotPublished)
    assert "no connection" in result.reason
    assert transport.health.missing == ("mail",)

    proxy.accept()

    assert await transport.wait_connected(CONNECT)
    assert await transport.publish(jobs("late", "mail")) == [Published()]
    await hand.has(1)
    await transport.close()


async def test_it_can_be_started_again_after_its_close(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        await broker.transport.close()
        assert not broker.transport.health.connected
        hand = AckingHand()

        await broker.transport.start()
        broker.transport.want("mail", 5, hand)

        assert await broker.transport.wait_connected(CONNECT)
        assert await broker.transport.publish(jobs("again", "mail")) == [Published()]
        await hand.has(1)


async def test_closing_waits_for_no_broker(rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace, confirm_timeout=timedelta(seconds=1)) as broker:
        broker.transport.want("mail", 5, Hand())
        await broker.told.wait_for(ConsumerConfirmed)
        proxy.freeze()

        await asyncio.wait_for(broker.transport.stop_intake(), 5)
        await asyncio.wait_for(broker.transport.close(), 20)


async def test_tls(rabbitmq: Server, amqp_namespace: str, tmp_path: Path) -> None:
    """A proxy ends the TLS of an ``amqps`` connection; its certificate is checked."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(_make_certificate, key, certificate)
    async with _tls_in_front_of(rabbitmq.url, key, certificate) as port:
        url = f"amqps://guest:guest@localhost:{port}/"
        async with opened(f"{url}?cafile={certificate}", amqp_namespace) as broker:
            hand = AckingHand()
            broker.transport.want("mail", 5, hand)
            body = "x" * 300_000
            assert await broker.transport.publish([job(body, "mail")]) == [Published()]
            await hand.has(1)
            assert hand.bodies == [body]
        report = await RabbitTransport(BrokerConfig(url=url), SystemClock(), Events()).check([])
        assert "CERTIFICATE_VERIFY_FAILED" in report.problems[0]


def _make_certificate(key: Path, certificate: Path) -> None:
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name, *files],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")


@asynccontextmanager
async def _tls_in_front_of(url: str, key: Path, certificate: Path) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    parts = urlsplit(url)

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, there), pump(there_reader, writer), return_exceptions=True)
        writer.close()
        there.close()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
