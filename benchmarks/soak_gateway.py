"""The gateway against a real NATS server, a genuine capture and kill -9; and beside slow and idle clients.

    python benchmarks/soak_gateway.py [--capture CAPTURE.jsonl.zst] [--kills 200] [--seed 1] [--pairs 5]

1. resume: a client is cut off and comes back with resume_from `kills` times, while the gateway (every tenth time) and the
   NATS server (every fortieth) are killed. It must have every trade and book record of the stream exactly once, in order.
2. restart: a gateway that held the capture's books is killed; the time from the start of the new process until it
   says that it is up to date, and every book compared with one folded by a naive reader.
3. slow: 99 fast clients, in turns with and without one beside them that reads a frame a second and is closed for it;
   p99 of the fast ones, and whether received + lost is what was published. `pairs` such runs.
4. idle: 1,000 clients that subscribe and hear nothing: growth of resident memory. rest: order books at 500 requests/s,
   in turns with a bare uvicorn that answers the same bytes.
5. fan_out: 100 clients x 1,000 messages/s in, and at the limit, in turns with a bare uvicorn that sends the same frames.

Writes docs/measurements/gateway.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop
import websockets
from _measurement import MEASUREMENTS, write_measurement
from _rest_clients import asked_in_turns
from normalize import sessions_of

from gateway import beside_a_slow_one, measure
from ssmd.clock import SystemClock
from ssmd.errors import SsmdError, Unavailable
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.gateway.app import GatewayService, Surroundings
from ssmd.gateway.assembly import BlockAssembler
from ssmd.schemas.codecs import decode_records, encode_record
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id, parse_message_id
from ssmd.schemas.records import KIND_OF, BookDelta, BookSnapshot, Record, Side, SizeMeaning, Trade
from ssmd.services.embedded_servers import RunningServer, start_nats
from ssmd.streams import subjects, topology
from ssmd.streams.connection import Connection
from ssmd.streams.transport import Outgoing, Transport
from ssmd.streams.transport_nats import NatsTransport
from ssmd.telemetry.logging import configure_logging

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = MEASUREMENTS / "gateway.json"
CAPTURE = ROOT.parent / "shared" / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
ENV, FEED = "soak", "kalshi"
ENTRIES_A_BLOCK = 20
DEADLINE_S = 60.0
SATURATING = 10_000
"""Messages a second in: 100 clients of it are more than one process sends."""


def blocks_of(path: Path) -> list[list[Outgoing]]:
    """The capture's records as a publisher sends them."""
    blocks: list[list[Outgoing]] = []
    for number, entries in enumerate(sessions_of(path), 1):
        name, previous = f"c{number}", (0, 0)
        mapper = KalshiMapper(FEED, number)
        for at in range(0, len(entries), ENTRIES_A_BLOCK):
            taken = entries[at : at + ENTRIES_A_BLOCK]
            groups: dict[tuple[str, str], list[Record]] = {}
            for entry in taken:
                for record in mapper.map(entry).records:
                    groups.setdefault((KIND_OF[type(record)], record.ticker), []).append(record)
            first, last = taken[0].n, taken[-1].n
            messages = [
                Outgoing(
                    subjects.market(ENV, FEED, kind, ticker),
                    b"".join(encode_record(record) for record in group),
                    message_id(Place(name, number, first, part)),
                )
                for part, ((kind, ticker), group) in enumerate(groups.items())
            ]
            mark = Mark(name, number, first, last, len(groups), {}, *previous, taken[-1].ts_recv_ns, 1)
            place = message_id(Place(name, number, first, MARK_PART))
            blocks.append([*messages, Outgoing(subjects.mark(ENV, FEED, name), encode_mark(mark), place)])
            previous = (number, last)
    return blocks


async def publish(transport: Transport, blocks: list[list[Outgoing]], pause_s: float, done: asyncio.Event) -> None:
    """Send the blocks in order; after trouble again on a new connection, from the last mark the server has."""
    at = 0
    while at < len(blocks):
        try:
            publisher = await transport.publisher()
            try:
                while at < len(blocks):
                    before = publisher.acks("market")
                    await publisher.publish(blocks[at])
                    while publisher.acks("market") < before + len(blocks[at]):
                        await publisher.progress(5.0)
                    at += 1
                    await asyncio.sleep(pause_s)
            finally:
                await publisher.close()
        except Unavailable:
            await asyncio.sleep(0.2)
    done.set()


async def stored(transport: Transport) -> list[tuple[int, int, int]]:
    """(session, n, index) of every trade and book record of the stream, in the order of its blocks."""
    assembler, found = BlockAssembler(), []
    reader = await transport.read("market", filters=[subjects.market_filter(ENV, FEED)])
    while messages := await reader.next(2.0):
        for message in messages:
            for block in assembler.take(message, parse_message_id(message.message_id), 0):
                records = [record for part in block.parts for record in decode_records(part.payload)]
                records.sort(key=lambda record: (record.n, record.index))
                wanted = (Trade, BookDelta, BookSnapshot)
                found += [(one.session, one.n, one.index) for one in records if isinstance(one, wanted)]
    await reader.close()
    return found


def _gateway(nats_url: str, port: int, checkpoint: str) -> None:
    async def serve() -> None:
        transport = await NatsTransport.open(nats_url, ENV)
        around = Surroundings(checkpoint=Path(checkpoint))
        service = GatewayService(transport, env=ENV, feed=FEED, host="127.0.0.1", port=port, clock=SystemClock(), around=around)
        await service.run()

    # Written as it is always, but to nowhere: one line a request.
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    configure_logging("gateway", SystemClock(), nowhere)
    try:
        uvloop.run(serve())
    except SsmdError:
        return


class Gateway:
    """The gateway as a process of its own that can be killed."""

    def __init__(self, nats_url: str, port: int, checkpoint: Path) -> None:
        self._arguments = (nats_url, port, str(checkpoint))
        self.url = f"http://127.0.0.1:{port}"
        self.process: Any = None

    def start(self) -> None:
        self.process = multiprocessing.Process(target=_gateway, args=self._arguments)
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)

    async def up_to_date(self) -> float:
        """Wait until it says so; seconds."""
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=self.url) as http:
            while time.monotonic() - began < DEADLINE_S:
                if self.process.exitcode is not None:
                    self.start()
                try:
                    if (await http.get("/healthz", timeout=2)).status_code == 200:
                        return time.monotonic() - began
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.01)
        raise TimeoutError("the gateway did not catch up")


class Follower:
    """A client that is cut off and comes back."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("http", "ws", 1) + "/v1/stream"
        self.got: list[tuple[int, int, int]] = []
        self.at = 0
        self.resumed = 0
        self.refused: dict[str, int] = {}

    async def follow(self, seconds: float, until_seq: int = 2**53, since: str = "ack") -> bool:
        """One connection's life, cut `seconds` after the message of type `since`; False = the gateway did not take it on."""
        command = {"id": 1, "cmd": "subscribe", "tickers": ["*"], "kinds": ["trade", "book"], "resume_from": self.at}
        is_taken = False
        try:
            async with (
                asyncio.timeout(DEADLINE_S) as limit,
                websockets.connect(self._url, max_size=None, compression=None) as socket,
            ):
                await socket.send(json.dumps(command))
                try:
                    async for frame in socket:
                        messages = msgspec.json.decode(frame)
                        is_taken = is_taken or messages[0]["type"] == "ack"
                        if any(message["type"] == since for message in messages):
                            limit.reschedule(asyncio.get_running_loop().time() + seconds)
                        self._take(messages)
                        if self.at >= until_seq:
                            break
                finally:
                    socket.transport.abort()
        except (TimeoutError, OSError, websockets.WebSocketException):
            pass
        if not is_taken:
            await asyncio.sleep(0.05)
        return is_taken

    def _take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            match message["type"]:
                case "trade" | "book" | "snapshot":
                    self.got.append((message["session"], message["n"], message["index"]))
                    self.at = message["stream_seq"]
                case "resumed":
                    self.resumed += 1
                case "error":
                    self.refused[message["code"]] = self.refused.get(message["code"], 0) + 1


async def resume(directory: Path, blocks: list[list[Outgoing]], kills: int, chance: random.Random) -> dict[str, Any]:
    """Part 1."""
    nats = await start_nats(directory / "nats", sync_always=False)
    await apply(nats.url)
    transport = await NatsTransport.open(nats.url, ENV)
    gateway = Gateway(nats.url, 18_900, directory / "gateway.sqlite")
    gateway.start()
    done = asyncio.Event()
    publishing = asyncio.create_task(publish(transport, blocks, 0.8 * kills / len(blocks), done))
    follower = Follower(gateway.url)
    gateway_kills = nats_kills = delivering = had = 0
    for number in range(1, kills + 1):
        if number % 40 == 0:
            nats_kills += 1
            nats = await killed(nats, directory)
        if number % 10 == 0:
            gateway_kills += 1
            gateway.kill()
            gateway.start()
        # One half is cut while it is being sent what it missed, or soon after; the other when it has been live for a while.
        since = chance.choice(["ack", "resumed"])
        while not await follower.follow(chance.uniform(0.02, 0.5), since=since):
            pass
        delivering += len(follower.got) > had
        had = len(follower.got)
    await done.wait()
    await publishing
    await gateway.up_to_date()
    last = (await transport.state("market")).last_seq
    expected = await stored(transport)
    deadline = time.monotonic() + DEADLINE_S
    while len(follower.got) < len(expected) and time.monotonic() < deadline:
        await follower.follow(5.0, last)
    gateway.kill()
    await transport.close()
    await nats.stop()
    return {
        "client_cut_off": kills,
        "connections_that_delivered": delivering,
        "records_before_the_last_kill": had,
        "gateway_killed": gateway_kills,
        "nats_killed": nats_kills,
        "resumed": follower.resumed,
        "refused": follower.refused,
        "records": len(expected),
        "twice": len(follower.got) - len(set(follower.got)),
        "missing": len(set(expected) - set(follower.got)),
        "in_order": follower.got == expected,
    }


async def killed(nats: RunningServer, directory: Path) -> RunningServer:
    """kill -9, and the same server again at the same address."""
    port = nats.port
    nats.child.kill()
    nats.child.wait()
    await nats.stop()
    return await start_nats(directory / "nats", port=port, sync_always=False)


async def apply(url: str) -> None:
    connection = await Connection.open(url, name="soak", timeout_s=5)
    wanted = topology.desired(ENV, max_age_s=86_400, max_bytes=2 << 30)
    await topology.apply({"transport": connection}, [one for one in wanted if one.endpoint == "transport"])
    await connection.close()


Levels = dict[Decimal, Decimal]


def naive_books(blocks: list[list[Outgoing]]) -> dict[str, tuple[Levels, Levels]]:
    """Books folded without any of the gateway's code."""
    books: dict[str, tuple[Levels, Levels]] = {}
    for block in blocks:
        records = [record for message in block[:-1] for record in decode_records(message.payload)]
        for record in sorted(records, key=lambda one: (one.n, one.index)):
            if isinstance(record, BookSnapshot):
                books[record.ticker] = (
                    {_of(p, record.price_exponent): _of(s, record.size_exponent) for p, s in record.bids},
                    {_of(p, record.price_exponent): _of(s, record.size_exponent) for p, s in record.asks},
                )
            elif isinstance(record, BookDelta):
                side = books.setdefault(record.ticker, ({}, {}))[0 if record.side == Side.BID else 1]
                price, size = _of(record.price, record.price_exponent), _of(record.size, record.size_exponent)
                side[price] = size + (side.get(price, Decimal(0)) if record.meaning == SizeMeaning.CHANGE else 0)
                if not side[price]:
                    del side[price]
    return books


def _of(mantissa: int, exponent: int) -> Decimal:
    return Decimal(mantissa).scaleb(exponent)


async def restart(directory: Path, blocks: list[list[Outgoing]], rounds: int) -> dict[str, Any]:
    """Part 2."""
    nats = await start_nats(directory / "nats", sync_always=False)
    await apply(nats.url)
    transport = await NatsTransport.open(nats.url, ENV)
    done = asyncio.Event()
    await publish(transport, blocks, 0.0, done)
    gateway = Gateway(nats.url, 18_901, directory / "gateway.sqlite")
    gateway.start()
    first_s = await gateway.up_to_date()
    # A round of saving the state, and some.
    await asyncio.sleep(7)
    took, wrong = [], 0
    for _ in range(rounds):
        gateway.kill()
        gateway.start()
        took.append(round(await gateway.up_to_date(), 3))
        wrong += await wrong_books(gateway.url, naive_books(blocks))
    gateway.kill()
    await transport.close()
    await nats.stop()
    books = len(naive_books(blocks))
    return {"from_the_streams_start_s": round(first_s, 3), "restart_s": took, "books": books, "wrong_books": wrong}


async def wrong_books(url: str, books: dict[str, tuple[Levels, Levels]]) -> int:
    wrong = 0
    async with httpx.AsyncClient(base_url=url) as http:
        for ticker, sides in books.items():
            answer = (await http.get(f"/v1/markets/{ticker}/orderbook")).json()
            told = tuple({Decimal(p): Decimal(s) for p, s in answer[side]} for side in ("bids", "asks"))
            wrong += told != tuple({p: s for p, s in side.items() if s > 0} for side in sides)
    return wrong


def slow(pairs: int, window_s: float) -> dict[str, Any]:
    """Part 3."""
    runs = []
    for _ in range(pairs):
        run = beside_a_slow_one(window_s, 2)
        runs.append(run)
        print(json.dumps(run), flush=True)
    ratios = [round(run["p99_beside_ms"] / run["p99_without_ms"], 3) for run in runs]
    return {"paired_runs": runs, "p99_ratio": ratios, "median_p99_ratio": statistics.median(ratios)}


async def idle_and_rest(
    directory: Path, blocks: list[list[Outgoing]], clients: int, rate: int, seconds: float
) -> dict[str, Any]:
    """Part 4."""
    nats = await start_nats(directory / "nats", sync_always=False)
    await apply(nats.url)
    transport = await NatsTransport.open(nats.url, ENV)
    done = asyncio.Event()
    await publish(transport, blocks[:500], 0.0, done)
    gateway = Gateway(nats.url, 18_902, directory / "gateway.sqlite")
    gateway.start()
    await gateway.up_to_date()
    before = _rss(gateway.process.pid)
    url = gateway.url.replace("http", "ws", 1) + "/v1/stream"
    sockets = []
    for _ in range(clients):
        socket = await websockets.connect(url, compression=None)
        await socket.send('{"id":1,"cmd":"subscribe","tickers":["NONE"]}')
        await socket.recv()
        sockets.append(socket)
    after = _rss(gateway.process.pid)
    answer, ticker = await _some_book(gateway.url)
    found = await asked_in_turns(gateway.url, f"/v1/markets/{ticker}/orderbook", answer, rate, seconds)
    for socket in sockets:
        socket.transport.abort()
    gateway.kill()
    await transport.close()
    await nats.stop()
    return {
        "idle_clients": clients,
        "rss_growth_mb": round((after - before) / 1e6, 1),
        "rss_mb": round(after / 1e6, 1),
        "orderbook_requests_per_s": rate,
        "orderbook_bytes": len(answer),
        **found,
    }


async def _some_book(url: str) -> tuple[bytes, str]:
    async with httpx.AsyncClient(base_url=url) as http:
        ticker = (await http.get("/v1/markets?limit=1")).json()["markets"][0]["ticker"]
        return (await http.get(f"/v1/markets/{ticker}/orderbook")).content, ticker


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fan_out(rate: int, seconds: float) -> dict[str, Any]:
    """Part 5, at `rate` messages a second in."""
    runs = [measure(name, rate, 100, seconds) for _ in range(3) for name in ("bare", "gateway")]
    found: dict[str, Any] = {"clients": 100, "messages_per_s_in": rate}
    for prefix, name in (("", "gateway"), ("bare_", "bare")):
        of_name = [run for run in runs if run["server"] == name]
        found |= {
            f"{prefix}p99_ms": [run["p99_ms"] for run in of_name],
            f"{prefix}out_per_s": [run["out_per_s"] for run in of_name],
            f"{prefix}cpu_us_per_message": [run["server_cpu_us_per_message_out"] for run in of_name],
        }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", type=Path, default=CAPTURE)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--window", type=float, default=4.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    if not given.capture.exists():
        print(f"no {given.capture}: nothing to measure with")
        return
    blocks = blocks_of(given.capture)
    figures: dict[str, Any] = {}
    for name, work in (
        ("resume", lambda path: resume(path, blocks, given.kills, random.Random(given.seed))),
        ("restart", lambda path: restart(path, blocks, given.restarts)),
        ("idle_and_rest", lambda path: idle_and_rest(path, blocks, 1_000, 500, given.seconds)),
    ):
        with tempfile.TemporaryDirectory() as directory:
            figures[name] = uvloop.run(work(Path(directory)))
        print(json.dumps({name: figures[name]}), flush=True)
    figures["slow"] = slow(given.pairs, given.window)
    figures["fan_out"] = fan_out(1_000, given.seconds)
    figures["fan_out_at_the_limit"] = fan_out(SATURATING, given.seconds / 2)
    limit = figures["fan_out_at_the_limit"]
    runs = figures["slow"]["paired_runs"]
    resumed, connections = figures["resume"]["resumed"], figures["resume"]["connections_that_delivered"]
    held = {
        "every message exactly once": figures["resume"]["in_order"] and resumed > 0 and connections > given.kills // 2,
        "books within 2 s of a restart": max(figures["restart"]["restart_s"]) <= 2.0,
        "restarted books correct": figures["restart"]["wrong_books"] == 0,
        "a slow client slows nobody": figures["slow"]["median_p99_ratio"] <= 1.2,
        "its loss is told exactly": all(run["closed_slow"] and run["loss_told_exactly"] for run in runs),
        "idle clients <= 150 MB": figures["idle_and_rest"]["rss_growth_mb"] <= 150,
        "order book p99 <= 5 ms": statistics.median(figures["idle_and_rest"]["orderbook_p99_ms"]) <= 5.0,
        "fan-out p99 <= 10 ms": statistics.median(figures["fan_out"]["p99_ms"]) <= 10.0,
        "fan-out >= 0.7x bare": statistics.median(limit["out_per_s"]) >= 0.7 * statistics.median(limit["bare_out_per_s"]),
    }
    write_measurement(given.output, seed=given.seed, rounds=given.kills, held=held, figures=figures, is_good=all(held.values()))
    print(json.dumps(held, indent=2))


if __name__ == "__main__":
    main()
