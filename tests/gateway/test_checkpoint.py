"""A gateway that starts again has what it had, without reading the stream from its start."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import Gateway, Running, Tape

from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.checkpoint import decode_market, encode_market
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.trade_views import trades
from ssmd.gateway.views import detail, order_book
from ssmd.schemas.records import Record
from ssmd.streams.transport_memory import MemoryTransport

LIMITS = GatewayLimits(checkpoint_s=0.01)
NEVER = GatewayLimits(checkpoint_s=3600)


def shown(state: MarketState, trades_max: int = 50) -> dict[str, Any]:
    """Everything REST says of every market, and what stands behind it."""
    return {
        market.ticker: (
            order_book(state, market, 0),
            detail(state, market),
            trades(state, market, limit=trades_max, before=0).trades,
            market.book.digest,
            market.connection,
        )
        for market in state.after("")
    }


def records(tape: Tape, chance: random.Random, count: int) -> list[Record]:
    def one() -> Record:
        ticker, is_closed, channel = f"T{chance.randrange(7)}", chance.random() < 0.5, chance.choice(["", "b"])
        match chance.choices(range(7), [12, 3, 1, 1, 1, 1, 1])[0]:
            case 0:
                return tape.delta(ticker, chance.randint(1, 90), chance.choice([100, 200, -50]))
            case 1:
                return tape.trade(ticker)
            case 2:
                return tape.snapshot(ticker, bids=[(chance.randint(1, 40), 100)], asks=[(chance.randint(50, 90), 100)])
            case 3:
                return tape.quote(ticker, chance.choice([None, 5]))
            case 4:
                return tape.status(ticker, chance.choice(["open", "closed"]))
            case 5:
                return tape.gap(ticker, f"g{chance.randrange(3)}", closed=is_closed, channel=channel)
            case _:
                return tape.gap("*", f"w{chance.randrange(3)}", closed=is_closed, channel=channel)

    return [one() for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_a_market_comes_back_whole(seed: int) -> None:
    chance, tape, state = random.Random(seed), Tape(), MarketState("kalshi")
    for seq, record in enumerate(records(tape, chance, 400), 1):
        state.apply(record, seq, "main")
    back = MarketState("kalshi")
    back.restore([decode_market(encode_market(market, state.stream_seq), 500) for market in state.after("")])
    back.whole_gaps_open, back.whole_gaps_closed = state.whole_gaps_open, state.whole_gaps_closed
    back.stream_seq = state.stream_seq
    assert shown(back) == shown(state)


async def publish(running: Running, chance: random.Random, blocks: int) -> None:
    for _ in range(blocks):
        last = running.put(*records(running.tape, chance, chance.randint(0, 8)))
    await running.settled(last)


@pytest.mark.parametrize("seed", range(3))
async def test_after_a_restart_state_is_that_of_a_gateway_that_read_everything(
    gateway: Gateway, tmp_path: Path, seed: int
) -> None:
    chance, transport = random.Random(seed), MemoryTransport()
    tape = Tape()
    path = tmp_path / "gateway" / "checkpoint.sqlite"
    read_again = []
    for _ in range(4):
        async with gateway(transport, LIMITS, checkpoint=path) as running:
            running.tape = tape
            await running.settled(transport.stored("market")[-1].seq if transport.stored("market") else 0)
            read_again.append(running.service.state.records)
            for _ in range(5):
                await publish(running, chance, 20)
                await running.service.flush()
        # What comes while no gateway runs, half a block of it.
        messages = [message for _ in range(3) for message in tape.block(*records(tape, chance, 5))]
        for message in messages[:-2]:
            transport.put(message)
        for message in messages[-2:]:
            transport.put(message)
    async with gateway(transport, NEVER) as whole, gateway(transport, NEVER, checkpoint=path) as again:
        last = transport.stored("market")[-1].seq
        await whole.settled(last)
        await again.settled(last)
        assert shown(again.service.state) == shown(whole.service.state)
        assert again.service.state.records == whole.service.state.records
        assert again.service.reader.points.points


async def test_a_checkpoint_of_another_stream_is_not_used(gateway: Gateway, tmp_path: Path) -> None:
    transport, path = MemoryTransport(), tmp_path / "checkpoint.sqlite"
    async with gateway(transport, NEVER, checkpoint=path) as running:
        await running.settled(running.put(running.tape.snapshot("OLD")))
    transport.reset("market")
    async with gateway(transport, NEVER, checkpoint=path) as running:
        await running.settled(running.put(running.tape.snapshot("NEW")))
        assert running.service.state.tickers == ("NEW",)
    # The same life of the stream, but it lost its tail and went on with other messages.
    transport.reset("market", keep=0)
    async with gateway(transport, NEVER, checkpoint=path) as running:
        await running.settled(running.put(running.tape.snapshot("A"), running.tape.snapshot("B")))
    transport.reset("market", keep=1)
    anew = Tape(session=running.tape.session + 9)
    async with gateway(transport, GatewayLimits(hold_ns=0), checkpoint=path) as running:
        running.tape = anew
        await running.settled(running.put(anew.snapshot("C"), anew.snapshot("D")))
        assert running.service.state.tickers == ("A", "C", "D")


async def test_a_checkpoint_that_retention_has_overtaken_is_not_used(gateway: Gateway, tmp_path: Path) -> None:
    transport, path = MemoryTransport(), tmp_path / "checkpoint.sqlite"
    async with gateway(transport, NEVER, checkpoint=path) as running:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("A")))
    for _ in range(10):
        for message in tape.block(tape.delta("A", 10, 100)):
            transport.put(message)
    transport.truncate("market", 9)
    async with gateway(transport, NEVER, checkpoint=path) as running:
        await running.settled(22)
        market = running.service.state.find("A")
        assert market is not None
        assert market.book_doubt == ("no-snapshot", None)


async def test_a_damaged_checkpoint_is_put_aside(gateway: Gateway, tmp_path: Path) -> None:
    transport, path = MemoryTransport(), tmp_path / "checkpoint.sqlite"
    for damage in (b"not a database at all" * 100, None):
        async with gateway(transport, NEVER, checkpoint=path) as running:
            last = running.put(Tape().snapshot("A")) if not transport.stored("market") else 2
            await running.settled(last)
            assert running.service.state.tickers == ("A",)
        if damage is not None:
            path.write_bytes(damage)
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("UPDATE markets SET body = x'00'")
            connection.close()
    async with gateway(transport, NEVER, checkpoint=path) as running:
        await running.settled(2)
        assert running.service.state.tickers == ("A",)


async def test_a_client_resumes_over_a_restart(gateway: Gateway, tmp_path: Path) -> None:
    transport, path, tape = MemoryTransport(), tmp_path / "checkpoint.sqlite", Tape()
    received: list[int] = []
    at, stream = 0, ""
    for _ in range(5):
        async with gateway(transport, LIMITS, checkpoint=path) as running:
            running.tape = tape
            stored = transport.stored("market")
            await running.settled(stored[-1].seq if stored else 0)
            async with running.connect() as client:
                await client.command("subscribe", tickers=["*"], kinds=["trade"], resume_from=at, stream=stream)
                stream = (await client.next())["stream"]
                for _ in range(20):
                    running.put(*(tape.trade("A") for _ in range(3)))
                while (message := await client.next())["type"] == "trade" or message["type"] == "resumed":
                    if message["type"] == "trade":
                        received.append(message["n"])
                        at = message["stream_seq"]
                        if len(received) % 40 == 0:
                            await running.service.stop()
                assert message["type"] == "closing"
                at = message["resume_from"]
    assert received == list(range(1, len(received) + 1))
    assert len(received) >= 100


async def test_while_catching_up_nobody_is_told_old_news(gateway: Gateway) -> None:
    async with gateway() as running:
        running.service.state.is_current = False
        async with running.connect() as client:
            error = await client.next()
            assert (error["type"], error["code"]) == ("error", "catching-up")
