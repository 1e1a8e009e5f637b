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
import contextlib
import json
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Event
from typing import Any
from urllib.parse import urlsplit

import _table
import msgspec
import uvicorn
import uvloop
import websockets
from _frame_clients import SUBSCRIBE, connect, quantile
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ssmd.clock import SystemClock
from ssmd.gateway.app import GatewayLimits, GatewayService
from ssmd.gateway.client_queue import QueueLimits
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.messages import encode, of_record
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id
from ssmd.schemas.records import Side, Trade
from ssmd.streams import subjects
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_memory import MemoryTransport

ENV, FEED, TICKERS = "bench", "kalshi", 20
BLOCK_S = 0.01
_HEARING_OUT_S = 3.0


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


async def serve_gateway(pipe: Pipe, rate: int, seconds: float, queue_max: int) -> None:
    transport = MemoryTransport()
    limits = GatewayLimits(hub=HubLimits(queue=QueueLimits(messages_max=queue_max)))
    service = GatewayService(transport, env=ENV, feed=FEED, host="127.0.0.1", port=0, clock=SystemClock(), limits=limits)
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
        for one in list(sockets):
            await one.send_text(frame)

    spent = time.process_time()
    sent = await drive(rate, seconds, put)
    await asyncio.sleep(1)
    pipe.send({"in": sent, "lost": 0, "cpu_s": time.process_time() - spent})
    server.should_exit = True
    await running


async def listen(url: str, count: int, pipe: Pipe) -> tuple[list[tuple[int, int]], float]:
    """(latency in ns, messages) of every frame of every client, and the seconds from the first to the last."""
    found: list[tuple[int, int]] = []
    times: list[int] = []

    def take(now: int, latency: int, messages: int) -> None:
        found.append((latency, messages))
        times.append(now)

    clients = [await connect(url, take) for _ in range(count)]
    pipe.send("go")
    for client in clients:
        await client.closed.wait()
    return found, (times[-1] - times[0]) / 1e9


async def dawdle(url: str, is_wanted: Event, is_over: Event, pipe: Pipe) -> None:
    """While it is wanted, a client that reads a frame a second; then it hears out what it was sent, and tells of it."""
    while not is_over.is_set():
        if not is_wanted.is_set():
            await asyncio.sleep(0.02)
            continue
        plain = socket.socket()
        # What the kernel holds for it is no matter of the gateway's.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.connect((urlsplit(url).hostname, urlsplit(url).port))
        heard: list[dict[str, Any]] = []
        async with websockets.connect(url, sock=plain, compression=None, max_queue=1, max_size=None) as client:
            await client.send(SUBSCRIBE.decode())
            with contextlib.suppress(websockets.ConnectionClosed):
                await _hear(client, heard, is_wanted)
        first, last = heard[0], heard[-1]
        received = sum(message["type"] == "trade" for message in heard)
        told = (last["messages"], last["stream_seq"]) if last["type"] == "lost" else (0, 0)
        pipe.send((received, first["stream_seq"], *told))


async def _hear(client: websockets.ClientConnection, heard: list[dict[str, Any]], is_wanted: Event) -> None:
    unwanted_s = time.monotonic()
    # Past that it kept up after all, and nothing was lost.
    while time.monotonic() - unwanted_s < _HEARING_OUT_S:
        heard += msgspec.json.decode(await client.recv())
        if is_wanted.is_set():
            await asyncio.sleep(1)
            unwanted_s = time.monotonic()


def _dawdle(url: str, is_wanted: Event, is_over: Event, pipe: Pipe) -> None:
    uvloop.run(dawdle(url, is_wanted, is_over, pipe))


async def in_windows(
    url: str, clients: int, pipe: Pipe, window_s: float, windows: int, is_wanted: Event
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Frames of `clients` fast clients in windows without and with the slow one: first those without, then those with."""
    found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    kept: list[tuple[int, int]] | None = None

    def take(_: int, latency: int, messages: int) -> None:
        if kept is not None:
            kept.append((latency, messages))

    joined = [await connect(url, take) for _ in range(clients)]
    pipe.send("go")
    await asyncio.sleep(1)
    for number in range(2 * windows):
        # off, on, on, off ...: what gets slower with time weighs on both alike.
        with_slow = number % 4 in {1, 2}
        (is_wanted.set if with_slow else is_wanted.clear)()
        await asyncio.sleep(0.5)
        kept = found[with_slow]
        await asyncio.sleep(window_s)
        kept = None
    is_wanted.clear()
    for client in joined:
        await client.closed.wait()
    return found


def beside_a_slow_one(window_s: float, windows: int, rate: int = 1_000) -> dict[str, Any]:
    """One paired run: p99 of 99 fast clients beside a slow one, and without it, in turns over the same connections."""
    ours, theirs = multiprocessing.Pipe()
    told, telling = multiprocessing.Pipe(duplex=False)
    is_wanted, is_over = multiprocessing.Event(), multiprocessing.Event()
    seconds = 1.5 + 2 * windows * (window_s + 0.5)
    server = multiprocessing.Process(target=_serve, args=("gateway", theirs, rate, seconds, 500))
    server.start()
    url = ours.recv()
    slow = multiprocessing.Process(target=_dawdle, args=(url, is_wanted, is_over, telling))
    slow.start()
    without, beside = uvloop.run(in_windows(url, 99, ours, window_s, windows, is_wanted))
    is_over.set()
    counted = ours.recv()
    server.join(30)
    accounts = []
    while told.poll(12):
        accounts.append(told.recv())
    slow.join(15)
    if slow.is_alive():
        slow.kill()
        slow.join(10)
    # Each block is 10 trades in 11 messages, its mark the last: so a place in the stream tells the number of trades.
    size = max(1, round(rate * BLOCK_S))
    losses = [(received, lost, (upto - ack) // (size + 1) * size) for received, ack, lost, upto in accounts if lost]
    return {
        "p99_without_ms": quantile(without, 0.99),
        "p99_beside_ms": quantile(beside, 0.99),
        "closed_slow": len(losses),
        "lost": sum(lost for _, lost, _ in losses),
        "loss_told_exactly": all(received + lost == published for received, lost, published in losses),
        "lost_by_the_gateways_count": counted["lost"],
    }


def measure(name: str, rate: int, clients: int, seconds: float) -> dict[str, Any]:
    """One run."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(name, theirs, rate, seconds))
    process.start()
    url = ours.recv()
    found, spent = uvloop.run(listen(url, clients, ours))
    told = ours.recv()
    process.join(30)
    received = sum(messages for _, messages in found)
    return {
        "server": name,
        "in": told["in"],
        "received": received,
        "expected": told["in"] * clients,
        "lost": told["lost"],
        "out_per_s": round(received / spent),
        "server_cpu_us_per_message_out": round(told["cpu_s"] * 1e6 / max(1, received), 2),
        "p50_ms": quantile(found, 0.5),
        "p99_ms": quantile(found, 0.99),
    }


def _serve(name: str, pipe: Pipe, rate: int, seconds: float, queue_max: int = 10_000) -> None:
    uvloop.run(serve_gateway(pipe, rate, seconds, queue_max) if name == "gateway" else serve_bare(pipe, rate, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1000, help="trades a second in")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    _table.heading()
    for _ in range(given.rounds):
        bare, ours = (measure(name, given.rate, given.clients, given.seconds) for name in ("bare", "gateway"))
        who = f"gateway, {given.clients} clients, {given.rate:,} trades/s"
        for key, what, unit in (
            ("out_per_s", "messages out", "msg/s"),
            ("p99_ms", "p99", "ms"),
            ("server_cpu_us_per_message_out", "CPU a message out", "us"),
        ):
            _table.row(ours[key] / bare[key], f"{who}: {what}", f"{ours[key]:,} {unit}", f"{bare[key]:,} {unit}, bare uvicorn")
        for found in (bare, ours):
            _table.note(json.dumps(found))


if __name__ == "__main__":
    main()
