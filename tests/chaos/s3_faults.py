"""Stands between S3Storage and its server, and does to requests what networks and servers do to them."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, Self

Fault = Literal["", "away", "errors", "slow-down", "slow", "cut-request", "cut-answer", "silent"]
"""What happens to requests, one by one.

"" = nothing. away: connections are reset. errors, slow-down: answered 500 and 503 without being forwarded. slow: passed on
in small pieces. cut-request: the connection ends in the middle of the body. cut-answer: the server does what was asked, and
the connection ends before its answer. silent: forwarded, and the answer never comes.
"""

_PIECE: Final = 2048
_ERROR: Final = {
    "errors": (b"500 Internal Server Error", b"InternalError"),
    "slow-down": (b"503 Service Unavailable", b"SlowDown"),
}


class S3Faults:
    """A proxy on loopback; a context manager.

    Attributes:
        fault: of each request that begins from now on.
        only: the fault is for requests whose first line holds each of these words, "" = all.
        hit: how many requests it has struck.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault = ""
        self.only = ""
        self.hit = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back: asyncio.StreamWriter | None = None
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            while await self._exchange(reader, writer, there, back):
                pass
        except (OSError, EOFError, ValueError):
            pass
        finally:
            for one in (writer, back):
                if one is not None:
                    one.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.partition(b"\r\n")[0].decode()
        fault = self.fault if all(word in line for word in self.only.split()) else ""
        self.hit += bool(fault)
        if fault == "away":
            return False
        if b"expect: 100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = await reader.readexactly(_length(head))
        if fault in _ERROR:
            status, code = _ERROR[fault]
            text = b"<Error><Code>%s</Code><Message>on purpose</Message></Error>" % code
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(text), text))
            await writer.drain()
            return False
        await _forward(back, head, body[: len(body) // 2] if fault == "cut-request" else body, is_slow=fault == "slow")
        if fault == "cut-request":
            return False
        answer = await there.readuntil(b"\r\n\r\n")
        if fault == "silent":
            await asyncio.sleep(3600)
        if fault == "cut-answer":
            return False
        writer.write(answer)
        if not head.startswith(b"HEAD ") and answer.split(b" ", 2)[1] not in {b"204", b"304"}:
            await _give_back(there, writer, answer)
        await writer.drain()
        return True


async def _forward(back: asyncio.StreamWriter, head: bytes, body: bytes, *, is_slow: bool) -> None:
    back.write(head)
    size = _PIECE if is_slow else max(1, len(body))
    for at in range(0, len(body), size):
        back.write(body[at : at + size])
        await back.drain()
        if is_slow:
            await asyncio.sleep(0.005)


async def _give_back(there: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """The answer's body."""
    if b"transfer-encoding: chunked" in answer.lower():
        size = 1
        while size:
            head = await there.readuntil(b"\r\n")
            size = int(head.split(b";")[0], 16)
            writer.write(head + await there.readexactly(size + 2))
        return
    left = _length(answer)
    while left and (piece := await there.read(min(left, 1 << 16))):
        left -= len(piece)
        writer.write(piece)
        await writer.drain()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":", 1)[1])
    return 0
