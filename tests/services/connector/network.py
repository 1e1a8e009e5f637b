"""A TCP proxy on loopback that does to a connection what networks do: delay, silence, full buffers, half-open ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random


class Proxy:
    """Forwards to `port`. What is set holds for all connections, from now on.

    Attributes:
        is_cut: bytes are neither read nor forwarded, either way: a partition, or a stopped peer.
        is_half_open: what the client sends is read and thrown away; nothing comes back.
        is_deaf: nothing is read from the client, so that its buffers fill; nothing comes back.
        latency_s: how long each chunk to the client takes, `jitter_s` more or less; order is kept.
        refuses: new connections are reset.
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        self.port = 0
        self.is_cut = self.is_half_open = self.is_deaf = self.refuses = False
        self.latency_s = self.jitter_s = 0.0
        self.accepted = 0
        self._target = port
        self._random = Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def heal(self) -> None:
        """Let everything through again: what was cut stays lost, new connections work."""
        self.is_cut = self.is_half_open = self.is_deaf = self.refuses = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        if self.refuses or self.is_cut:
            # A partition answers nothing: the handshake waits for its own deadline. Refusing is quicker for tests.
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.append(back)
        for task in (
            asyncio.create_task(self._pump(reader, back, is_outward=True)),
            asyncio.create_task(self._pump(there, writer, is_outward=False)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_outward: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self.is_cut or (self.is_deaf and is_outward):
                    await asyncio.sleep(0.01)
                data = await source.read(1 << 16)
                if not data:
                    break
                while self.is_cut:
                    await asyncio.sleep(0.01)
                if self.is_half_open or self.is_deaf:
                    continue
                if self.latency_s and not is_outward:
                    until_s = loop.time() + self.latency_s + self._random.uniform(-self.jitter_s, self.jitter_s)
                    await asyncio.sleep(max(0.0, until_s - loop.time()))
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            if not (self.is_cut or self.is_half_open or self.is_deaf):
                sink.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@contextlib.asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy before `port` of loopback."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
