"""The proxy breaks connections in the ways it names, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

MakeProxy = Callable[[str], TcpProxy]


@pytest.fixture
async def echo_url() -> AsyncIterator[str]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except ConnectionResetError:
            pass  # a test cut it
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield f"tcp://user@127.0.0.1:{server.sockets[0].getsockname()[1]}/path"


async def _connect(proxy: TcpProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def _echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    async with asyncio.timeout(5):
        return await reader.readexactly(len(data))


async def test_a_url_is_led_through_it_with_all_else_kept(tcp_proxy: MakeProxy, echo_url: str) -> None:
    proxy = tcp_proxy(echo_url)
    assert proxy.url(echo_url) == f"tcp://user@127.0.0.1:{proxy.port}/path"
    reader, writer = await _connect(proxy)
    assert await _echoed(reader, writer, b"hello") == b"hello"
    writer.close()
    await eventually(lambda: proxy.connections == 0, 5, "the proxy to see the close")


async def test_cut_resets_what_stands_and_serves_what_comes(tcp_proxy: MakeProxy, echo_url: str) -> None:
    proxy = tcp_proxy(echo_url)
    reader, writer = await _connect(proxy)
    await _echoed(reader, writer, b"hello")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    reader, writer = await _connect(proxy)
    assert await _echoed(reader, writer, b"again") == b"again"
    writer.close()


async def test_frozen_connections_stay_open_and_silent_until_the_thaw(tcp_proxy: MakeProxy, echo_url: str) -> None:
    proxy = tcp_proxy(echo_url)
    old_reader, old_writer = await _connect(proxy)
    await _echoed(old_reader, old_writer, b"hello")
    proxy.freeze()
    new_reader, new_writer = await _connect(proxy)
    for writer in (old_writer, new_writer):
        writer.write(b"held")
    silence = [asyncio.create_task(reader.read(4)) for reader in (old_reader, new_reader)]
    done, _ = await asyncio.wait(silence, timeout=0.2)  # silence has no event to wait for
    assert not done
    proxy.thaw()
    assert await asyncio.gather(*silence) == [b"held", b"held"]
    old_writer.close()
    new_writer.close()


async def test_refused_means_no_listener_and_accepting_is_on_the_same_port(tcp_proxy: MakeProxy, echo_url: str) -> None:
    proxy = tcp_proxy(echo_url)
    reader, writer = await _connect(proxy)
    await _echoed(reader, writer, b"hello")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await _connect(proxy)
    assert await _echoed(reader, writer, b"still") == b"still"
    writer.close()
    proxy.accept()
    reader, writer = await _connect(proxy)
    assert await _echoed(reader, writer, b"again") == b"again"
    writer.close()
