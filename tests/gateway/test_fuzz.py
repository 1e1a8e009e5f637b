"""10,000 commands that are none: no traceback, no leak, and whoever listens beside them notices nothing."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import Any

import msgspec
import websockets
from tests.gateway.conftest import DEADLINE_S, Gateway, Running

from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.server import FRAME_BYTES_MAX
from ssmd.gateway.websocket import ConnectionLimits

COMMANDS = 10_000
SEED = 20_260_514
LIMITS = GatewayLimits(connection=ConnectionLimits(commands_per_s=1_000_000, commands_burst=1_000_000, errors_max=200))


def _value(chance: random.Random, depth: int = 0) -> Any:
    match chance.randrange(9 if depth < 3 else 6):
        case 0:
            return None
        case 1:
            return chance.choice([True, False])
        case 2:
            return chance.choice([0, -1, 2**53, 2**64, 10**30, 1.5, -0.0])
        case 3:
            return "".join(chance.choice('aÄ*\u0000💥\\"%/.{') for _ in range(chance.randrange(20)))
        case 4:
            return chance.choice(["subscribe", "unsubscribe", "mode", "ping", "*", "A", "trade", "latest", "__class__"])
        case 5:
            return chance.randrange(100)
        case 6:
            return [_value(chance, depth + 1) for _ in range(chance.randrange(5))]
        case _:
            return {str(_value(chance, 3)): _value(chance, depth + 1) for _ in range(chance.randrange(5))}


def nonsense(chance: random.Random) -> str | bytes:
    """Malformed, wrong types, binary, too large for a command, out of order; now and then a good command among them."""
    match chance.randrange(10):
        case 0:
            return bytes(chance.randrange(256) for _ in range(chance.randrange(40)))
        case 1:
            return "".join(chance.choice('{}[]",:0123abc \n') for _ in range(chance.randrange(60)))
        case 2:
            return "[" * chance.randrange(1, 5_000)
        case 3:
            return '{"id":1,"cmd":"subscribe","tickers":["' + "x" * (70_000 if chance.random() < 0.1 else 300) + '"]}'
        case 4:
            return msgspec.json.encode({"id": 5, "cmd": "unsubscribe", "tickers": ["never"], "kinds": []}).decode()
        case 5:
            return msgspec.json.encode({"id": 6, "cmd": "subscribe", "tickers": ["A"], "resume_from": 2**53 - 1}).decode()
        case _:
            names = ["id", "cmd", "tickers", "kinds", "mode", "interval_ms", "resume_from", "stream", "extra"]
            command = {name: _value(chance) for name in chance.sample(names, chance.randrange(1, 6))}
            if chance.random() < 0.7:
                command["cmd"] = chance.choice(["subscribe", "unsubscribe", "mode", "ping"])
            return msgspec.json.encode(command).decode()


async def fuzz(running: Running, chance: random.Random, count: int) -> int:
    """Send `count` pieces of nonsense over as many connections as it takes; how many got an answer of type error."""
    url = running.url.replace("http", "ws", 1) + "/v1/stream"
    sent = refused = 0
    codes: set[int] = set()
    while sent < count:
        async with websockets.connect(url, max_size=None, compression=None) as socket:
            batch = min(150, count - sent)
            try:
                for _ in range(batch):
                    await socket.send(nonsense(chance))
                await socket.send('{"id":999,"cmd":"ping"}')
                while True:
                    async with asyncio.timeout(DEADLINE_S):
                        messages = msgspec.json.decode(await socket.recv())
                    refused += sum(1 for message in messages if message["type"] == "error")
                    if any(message["type"] == "pong" and message["id"] == 999 for message in messages):
                        break
            except websockets.ConnectionClosed as closed:
                codes.add(0 if closed.rcvd is None else closed.rcvd.code)
            sent += batch
    assert codes <= {1007, 1008, 1009}
    return refused


async def test_ten_thousand_pieces_of_nonsense(gateway: Gateway) -> None:
    chance = random.Random(SEED)
    async with gateway(limits=LIMITS) as running, running.connect() as bystander:
        await bystander.command("subscribe", tickers=["*"], kinds=["trade"])
        assert (await bystander.next())["type"] == "ack"
        # What is made once is made here.
        await fuzz(running, chance, 500)
        gc.collect()
        before = sys.getallocatedblocks()
        published: list[int] = []
        refused = 0
        for _ in range(19):
            published.append(running.put(running.tape.trade("A")))
            refused += await fuzz(running, chance, 500)
        heard: list[int] = []
        while len(heard) < len(published):
            message = await bystander.next()
            heard += [message["stream_seq"]] if message["type"] == "trade" else []
        assert heard == published
        gc.collect()
        after = sys.getallocatedblocks()
        assert refused > 0.5 * 9_500
        # Nothing stays of a piece of nonsense: not one object for every third of them.
        assert after - before < 3_000
        # The server's last disconnects may still be under way.
        async with asyncio.timeout(DEADLINE_S):
            while running.service.hub.clients != 1:
                await asyncio.sleep(0.001)
        assert len([task for task in asyncio.all_tasks() if task.get_name().startswith("gateway-client-")]) == 1
        assert running.service.health().ok


async def test_a_frame_past_the_limit_ends_its_connection_only(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as bystander, running.connect() as loud:
        await loud.send("x" * (FRAME_BYTES_MAX + 1))
        await loud.socket.wait_closed()
        assert loud.socket.close_code == 1009
        assert await bystander.barrier() == []
