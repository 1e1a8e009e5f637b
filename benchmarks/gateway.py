"""Fan-out of the gateway beside a bare uvicorn that sends the same frames: .venv/bin/python benchmarks/gateway.py

Server and clients are two processes on one machine. `--clients` clients subscribe to everything; `--rate` trades a second
come in, one block every 10 ms. Latency is from just before the block is put on the (memory) stream to its arrival in
the client process, both by the machine's monotonic clock, carried as `ts_recv_ns`. The baseline encodes each block once
and sends it to each client from one loop: no state, no subscriptions, no bounds. Where the machine is busy with other
work, compare the servers' own processor time per message out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec
import uvicorn
import uvloop
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ssmd.clock import SystemClock
from ssmd.gateway.app import GatewayService
from ssmd.gateway.messages import encode, of_record
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id
from ssmd.schemas.records import Side, Trade
from ssmd.streams import subjects
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_memory import MemoryTransport

ENV, FEED, TICKERS = "bench", "kalshi", 20
BLOCK_S = 0.01


def trade(n: int) -> Trade:
    now = time.monotonic_ns()
    head: dict[str, Any] = {"feed": FEED, "ticker": f"KXBTC15M-{n % TICKERS:02}", "ts_event_ns": now, "ts_recv_ns": now}
    place: dict[str, Any] = {"session": 1, "n": n, "index": 0, "sid": 1, "seq": n, "price_exponent": -4, "size_exponent": -2}
    return Trade(**head, **place, trade_id=f"00000000-{n:012}", price=5600, size=100, aggressor=Side.BID, is_block=False)


def block_of(records: list[Trade], previous_n: int) -> list[Outgoing]:
    groups: dict[str, list[Trade]] = {}
    for record in records:
        groups.setdefault(record.ticker, []).append(record)
    first, last = records[0].n, records[-1].n
    messages = [
        Outgoing(
            subjects.market(ENV, FEED, "trade", ticker),
            b"".join(encode_record(record) for record in group),
            message_id(Place("main", 1, first, part)),
        )
        for part, (ticker, group) in enumerate(groups.items())
    ]
    previous = 1 if previous_n else 0
    counts = {"trade": len(records)}
    mark = Mark("main", 1, first, last, len(groups), counts, previous, previous_n, records[-1].ts_recv_ns, 1)
    name = message_id(Place("main", 1, first, MARK_PART))
    return [*messages, Outgoing(subjects.mark(ENV, FEED, "main"), encode_mark(mark), name)]


async def drive(rate: int, seconds: float, put: Callable[[list[Trade]], Awaitable[None]]) -> int:
    """Hand out `rate` trades a second in even blocks; how many."""
    size, n = max(1, round(rate * BLOCK_S)), 0
    loop = asyncio.get_running_loop()
    start = loop.time()
    while loop.time() - start < seconds:
        await put([trade(n + at) for at in range(1, size + 1)])
        n += size
        await asyncio.sleep(max(0.0, start + n / rate - loop.time()))
    return n


async def serve_gateway(pipe: Pipe, rate: int, seconds: float) -> None:
    transport = MemoryTransport()
    service = GatewayService(transport, env=ENV, feed=FEED, host="127.0.0.1", port=0, clock=SystemClock())
    running = asyncio.create_task(service.run())
    await service.started.wait()
    pipe.send(service.url.replace("http", "ws") + "/v1/stream")
    await asyncio.to_thread(pipe.recv)

    async def put(records: list[Trade]) -> None:
        for message in block_of(records, records[0].n - 1):
            transport.put(message)

    spent = time.process_time()
    sent = await drive(rate, seconds, put)
    await asyncio.sleep(1)
    pipe.send({"in": sent, "lost": service.hub.messages_lost, "cpu_s": time.process_time() - spent})
    await service.stop()
    await running


async def serve_bare(pipe: Pipe, rate: int, seconds: float) -> None:
    sockets: set[WebSocket] = set()

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        sockets.add(socket)
        try:
            await socket.receive_text()
            await socket.send_text('[{"type":"ack"}]')
            await socket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(socket)

    app = Starlette(routes=[WebSocketRoute("/v1/stream", endpoint)])
    options: dict[str, Any] = {
        "log_config": None,
        "lifespan": "off",
        "ws": "websockets-sansio",
        "ws_per_message_deflate": False,
    }
    server = uvicorn.Server(uvicorn.Config(app, port=0, timeout_graceful_shutdown=1, **options))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    pipe.send(f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/stream")
    await asyncio.to_thread(pipe.recv)

    async def put(records: list[Trade]) -> None:
        frame = f"[{','.join(encode(of_record(record, record.n)) for record in records)}]"
        for socket in list(sockets):
            await socket.send_text(frame)

    spent = time.process_time()
    sent = await drive(rate, seconds, put)
    await asyncio.sleep(1)
    pipe.send({"in": sent, "lost": 0, "cpu_s": time.process_time() - spent})
    server.should_exit = True
    await running


async def listen(url: str, count: int, pipe: Pipe) -> tuple[list[int], float]:
    """Latencies (ns) of every message of every client, and the seconds from the first to the last."""
    latencies: list[int] = []
    times: list[int] = []
    decoder = msgspec.json.Decoder(list[Stamp])

    async def client(ready: asyncio.Semaphore) -> None:
        async with websockets.connect(url, compression=None, max_queue=None, max_size=None) as socket:
            await socket.send('{"id":1,"cmd":"subscribe","tickers":["*"]}')
            await socket.recv()
            ready.release()
            try:
                while True:
                    frame = await socket.recv(decode=False)
                    now = time.monotonic_ns()
                    found = [now - stamp.ts_recv_ns for stamp in decoder.decode(frame) if stamp.ts_recv_ns]
                    if found:
                        latencies.extend(found)
                        times.append(now)
            except websockets.ConnectionClosed:
                return

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(client(ready)) for _ in range(count)]
    for _ in tasks:
        await ready.acquire()
    pipe.send("go")
    await asyncio.wait(tasks)
    return latencies, (times[-1] - times[0]) / 1e9


class Stamp(msgspec.Struct):
    ts_recv_ns: int = 0


async def dawdle(url: str, count: int) -> None:
    """`count` clients that read a message a second, as long as they are let."""

    async def client() -> None:
        async with websockets.connect(url, compression=None, max_queue=1, max_size=None) as socket:
            await socket.send('{"id":1,"cmd":"subscribe","tickers":["*"]}')
            while True:
                await socket.recv()
                await asyncio.sleep(1)

    await asyncio.gather(*(client() for _ in range(count)), return_exceptions=True)


def _dawdle(url: str, count: int) -> None:
    uvloop.run(dawdle(url, count))


def measure(name: str, rate: int, clients: int, seconds: float, slow: int = 0) -> dict[str, Any]:
    """One run; `slow`: clients beside the measured ones that hardly read, in a process of their own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(name, theirs, rate, seconds))
    process.start()
    url = ours.recv()
    dawdling = multiprocessing.Process(target=_dawdle, args=(url, slow))
    if slow:
        dawdling.start()
        time.sleep(1.5)
    latencies, spent = uvloop.run(listen(url, clients, ours))
    told = ours.recv()
    process.join(30)
    if slow:
        dawdling.kill()
        dawdling.join(10)
    latencies.sort()
    return {
        "server": name,
        "in": told["in"],
        "received": len(latencies),
        "expected": told["in"] * clients,
        "lost": told["lost"],
        "out_per_s": round(len(latencies) / spent),
        "server_cpu_us_per_message_out": round(told["cpu_s"] * 1e6 / max(1, len(latencies)), 2),
        "p50_ms": round(latencies[len(latencies) // 2] / 1e6, 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] / 1e6, 2),
    }


def _serve(name: str, pipe: Pipe, rate: int, seconds: float) -> None:
    uvloop.run((serve_gateway if name == "gateway" else serve_bare)(pipe, rate, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1000, help="trades a second in")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    for _ in range(given.rounds):
        for name in ("bare", "gateway"):
            print(json.dumps(measure(name, given.rate, given.clients, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
