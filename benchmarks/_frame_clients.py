"""WebSocket clients for measurements that cost little: frames are looked at, not decoded, so that the server is the limit.

A frame's latency is that of its first message, the one that waited longest, and counts for all of its messages.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

STAMP: Final = b'"ts_recv_ns":'
TRADE: Final = b'"type":"trade"'
SUBSCRIBE: Final = b'{"id":1,"cmd":"subscribe","tickers":["*"]}'


def client_frame(payload: bytes) -> bytes:
    """A masked text frame of at most 125 bytes; the mask is zero."""
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


class FrameClient(asyncio.Protocol):
    """Subscribes to everything; for each frame of trades `take` is called with arrival and latency in ns, and messages."""

    def __init__(self, host: str, take: Callable[[int, int, int], None]) -> None:
        self._host = host
        self._take = take
        self._held = b""
        self._is_open = False
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a TCP connection
        key = base64.b64encode(os.urandom(16)).decode()
        self._write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.ready.set()
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        held = self._held + data if self._held else data
        at = 0
        if not self._is_open:
            end = held.find(b"\r\n\r\n")
            if end < 0:
                self._held = held
                return
            assert held.startswith(b"HTTP/1.1 101"), held[:80]
            self._is_open, at = True, end + 4
            self._write(client_frame(SUBSCRIBE))
        while len(held) - at >= 2:
            size, begin = held[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(held[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, begin = int.from_bytes(held[at + 2 : at + 10], "big"), at + 10
            if len(held) < max(begin + size, begin):
                break
            self._frame(held[at] & 15, held[begin : begin + size], now)
            at = begin + size
        self._held = held[at:]

    def _frame(self, opcode: int, payload: bytes, now: int) -> None:
        if opcode == 9:
            self._write(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)
        elif opcode == 1:
            found = payload.find(STAMP)
            if found < 0:
                self.ready.set()
                return
            begin = found + len(STAMP)
            stamp = int(payload[begin : payload.find(b",", begin)])
            self._take(now, now - stamp, payload.count(TRADE))


async def connect(url: str, take: Callable[[int, int, int], None]) -> FrameClient:
    """A client that has been answered."""
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: FrameClient(where.netloc, take), where.hostname, where.port)
    async with asyncio.timeout(30):
        await client.ready.wait()
    return client


def quantile(found: list[tuple[int, int]], share: float) -> float:
    """In ms: the latency that `share` of all messages of (latency ns, messages) did not exceed."""
    found.sort()
    left = sum(messages for _, messages in found) * share
    for latency, messages in found:
        left -= messages
        if left <= 0:
            return round(latency / 1e6, 2)
    return 0.0
