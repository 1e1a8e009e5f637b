"""Requests at an even rate over a few kept connections, written by hand: the client must not be the limit."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import urlsplit

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONNECTIONS = 8
TURNS = 3


def _bare(path: str, body: bytes, pipe: Pipe) -> None:
    async def answer(_: Request) -> Response:
        return Response(body, 200, {"Cache-Control": "private, no-cache"}, "application/json")

    options: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "http": "httptools"}
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route(path, answer)]), port=0, **options))

    async def serve() -> None:
        running = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        pipe.send(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        await running

    uvloop.run(serve())


async def latencies(url: str, path: str, rate: int, seconds: float) -> list[float]:
    """Seconds from each request to its whole answer, ascending."""
    where = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nHost: {where.hostname}\r\n\r\n".encode()
    found: list[float] = []
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.2

    async def ask(first: int) -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for number in range(first, int(rate * seconds), CONNECTIONS):
            await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
            began = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in head.partition(b"\r\n")[0], head
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            found.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(ask(first) for first in range(CONNECTIONS)))
    return sorted(found)


async def asked_in_turns(url: str, path: str, body: bytes, rate: int, seconds: float) -> dict[str, Any]:
    """p50 and p99 of `path` at `url`, in turns with a bare server that answers `body`."""
    ours, theirs = multiprocessing.Pipe()
    bare = multiprocessing.Process(target=_bare, args=(path, body, theirs))
    bare.start()
    found: dict[str, Any] = {}
    try:
        bare_url = await asyncio.to_thread(ours.recv)
        for _ in range(TURNS):
            for name, where in (("bare_", bare_url), ("orderbook_", url)):
                taken = await latencies(where, path, rate, seconds)
                found.setdefault(f"{name}p50_ms", []).append(round(taken[len(taken) // 2] * 1e3, 2))
                found.setdefault(f"{name}p99_ms", []).append(round(taken[len(taken) * 99 // 100] * 1e3, 2))
    finally:
        bare.kill()
        bare.join(10)
    return found
