"""A TCP proxy that breaks connections on demand, in a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from .processes import free_port

CALL_TIMEOUT = 10.0


class TcpProxy:
    """Stands between a client and ``host:port``. All methods may be called from any thread.

    Use it as a context manager, or by the fixture ``tcp_proxy``.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """How many client connections there have been."""
        self._flowing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)

    @classmethod
    def to(cls, url: str) -> Self:
        """A proxy in front of the server of ``url``."""
        parts = urlsplit(url)
        assert parts.port is not None, f"{url} has no port"
        return cls(parts.port, parts.hostname or "127.0.0.1")

    def url(self, url: str) -> str:
        """``url``, changed to go through this proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._tasks)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        self.thaw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT)
        self._loop.close()

    def cut(self) -> None:
        """Reset all open connections (RST, both sides). New ones are served."""
        self._call(self._cut())

    def freeze(self) -> None:
        """Half-open: connections stay open and new ones are accepted, but no byte passes until `thaw`."""
        self._call(self._set_flowing(False))

    def thaw(self) -> None:
        """Pass on what was held back, and everything that comes."""
        self._call(self._set_flowing(True))

    def refuse(self) -> None:
        """Refuse new connections (no listener). Open ones stay; see `cut`."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Accept new connections again, on the same port."""
        self._call(self._accept())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_TIMEOUT)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._on_client, "127.0.0.1", self.port, reuse_address=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _set_flowing(self, on: bool) -> None:
        if on:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _cut(self) -> None:
        for writer in tuple(self._pipes):
            _reset(writer)

    async def _shutdown(self) -> None:
        await self._refuse()
        await self._cut()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own, since the one of start_server would log the end of a cut connection.
        self.accepted += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._piping(writer))
            await self._flowing.wait()
            try:
                server_reader, server_writer = await asyncio.open_connection(*self._target)
            except OSError:
                return
            stack.enter_context(self._piping(server_writer))
            async with asyncio.TaskGroup() as ways:
                there = ways.create_task(self._pump(reader, server_writer))
                back = ways.create_task(self._pump(server_reader, writer))
                # Neither AMQP nor PostgreSQL continues after one side has closed.
                there.add_done_callback(lambda _: back.cancel())
                back.add_done_callback(lambda _: there.cancel())

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()  # the end of the stream is held back as well

    @contextlib.contextmanager
    def _piping(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._pipes.add(writer)
        try:
            yield
        finally:
            self._pipes.discard(writer)
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:  # the client may have closed it, while it was frozen
        # Linger of zero seconds: close() sends RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
