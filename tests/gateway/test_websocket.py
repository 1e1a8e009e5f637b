"""`/v1/stream` over a real uvicorn on loopback."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest
import websockets
from tests.gateway.conftest import START_NS, Gateway

from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.server import FRAME_BYTES_MAX
from ssmd.gateway.websocket import ConnectionLimits
from ssmd.schemas.decimals import render
from ssmd.schemas.records import Side


async def test_a_subscriber_gets_the_snapshot_first_and_then_what_happens(gateway: Gateway) -> None:
    async with gateway() as running:
        tape = running.tape
        before = running.put(tape.snapshot("A-1"), tape.delta("A-1", 4400, 500))
        await running.settled(before)
        async with running.connect() as client:
            await client.command("subscribe", tickers=["A-1"], kinds=["book", "trade"])
            assert await client.next() == {
                "type": "ack",
                "id": 1,
                "cmd": "subscribe",
                "tickers": ["A-1"],
                "kinds": ["book", "trade"],
                "snapshots": 1,
                "stream_seq": before,
                "stream": "00000002",
            }
            assert await client.next() == {
                "type": "snapshot",
                "feed": "kalshi",
                "ticker": "A-1",
                "stream_seq": before,
                "ts_event_ns": START_NS + 2000,
                "ts_recv_ns": START_NS + 2007,
                "session": START_NS,
                "n": 2,
                "index": 0,
                "seq": 2,
                "bids": [["0.4500", "100.00"], ["0.4400", "5.00"]],
                "asks": [["0.4700", "25.00"]],
                "is_derived": True,
                "verified": True,
                "reason": "",
                "gap": None,
            }
            after = running.put(
                tape.trade("A-1"), tape.delta("A-1", 4700, -2500, Side.ASK), tape.trade("B-1"), tape.quote("A-1")
            )
            trade, delta = await client.take(2)
            head: dict[str, Any] = {"feed": "kalshi", "ticker": "A-1", "stream_seq": after, "session": START_NS, "index": 0}
            assert trade == {
                **head,
                "type": "trade",
                "ts_event_ns": START_NS + 3000,
                "ts_recv_ns": START_NS + 3007,
                "n": 3,
                "seq": 3,
                "trade_id": "t3",
                "price": "0.5600",
                "size": "1.00",
                "aggressor": "bid",
                "is_block": False,
            }
            assert delta == {
                **head,
                "type": "book",
                "ts_event_ns": START_NS + 4000,
                "ts_recv_ns": START_NS + 4007,
                "n": 4,
                "seq": 4,
                "side": "ask",
                "price": "0.4700",
                "size": "-25.00",
                "meaning": "change",
            }
            assert await client.barrier() == []


async def test_deltas_on_the_snapshot_give_the_gateways_book_wherever_the_subscription_falls(gateway: Gateway) -> None:
    chance = random.Random(7)
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        running.put(tape.snapshot("A-1", bids=[(100, 1000)], asks=[]))
        received: list[dict[str, Any]] = []
        for _ in range(40):
            running.put(*(tape.delta("A-1", chance.randint(1, 40), 100) for _ in range(chance.randint(1, 5))))
            if chance.random() < 0.4:
                # Asking again is how a client resynchronizes; the new snapshot replaces all it had.
                await client.command("subscribe", tickers=["A-1"], kinds=["book"])
            if chance.random() < 0.5:
                received += await client.barrier()
        last = running.put(tape.delta("A-1", 1, 100))
        await running.settled(last)
        received += await client.barrier()
        market = running.service.state.find("A-1")
        assert market is not None
        expected = {render(level.price, -4): Decimal(render(level.size, -2)) for level in market.book.levels()[0]}
        starts = [at for at, message in enumerate(received) if message["type"] == "snapshot"]
        assert len(starts) > 5
        for start in starts:
            book: dict[str, Decimal] = {}
            for message in received[start:]:
                if message["type"] == "snapshot":
                    book = {price: Decimal(size) for price, size in message["bids"]}
                elif message["type"] == "book":
                    book[message["price"]] = book.get(message["price"], Decimal(0)) + Decimal(message["size"])
            assert book == expected
        # Before the first snapshot every delta came, after it none twice: places rise.
        deltas = [(message["n"], message["index"]) for message in received if message["type"] == "book"]
        assert deltas == sorted(set(deltas))


async def test_all_tickers_and_all_kinds(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("A-1"), tape.snapshot("B/2"), tape.trade("C")))
        await client.command("subscribe", tickers=["*", "A-1"])
        ack, *snapshots = await client.take(3)
        assert (ack["snapshots"], ack["kinds"]) == (2, ["trade", "book", "quote", "status", "gap"])
        assert [(message["type"], message["ticker"]) for message in snapshots] == [("snapshot", "A-1"), ("snapshot", "B/2")]
        running.put(tape.quote("NEW"), tape.status("NEW"), tape.snapshot("NEW"), tape.trade("A-1"), tape.gap("*"))
        found = await client.take(5)
        assert [(message["type"], message["ticker"]) for message in found] == [
            ("quote", "NEW"),
            ("status", "NEW"),
            ("snapshot", "NEW"),
            ("trade", "A-1"),
            ("gap", "*"),
        ]
        assert {key: found[0][key] for key in ("bid_price", "bid_size", "ask_price", "last_price", "volume")} == {
            "bid_price": "0.4500",
            "bid_size": None,
            "ask_price": "0.4700",
            "last_price": "0.4600",
            "volume": "1234.56",
        }
        assert (found[1]["change"], found[1]["status"], found[1]["detail"]) == (
            "activated",
            "open",
            '{"event_type":"activated"}',
        )
        assert (found[2]["is_derived"], found[2]["verified"], found[2]["bids"]) == (False, True, [["0.4500", "100.00"]])
        assert (found[4]["state"], found[4]["cause"], found[4]["start_ns"]) == ("opened", "disconnected", START_NS)


async def test_nothing_comes_after_the_ack_of_an_unsubscribe(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("A"), tape.snapshot("B")))
        await client.command("subscribe", tickers=["A", "B"])
        await client.take(3)
        await client.command("unsubscribe", tickers=["A"], kinds=["book"])
        await client.command("unsubscribe", tickers=["B", "never"])
        assert [(ack["type"], ack["cmd"], ack["tickers"]) for ack in await client.take(2)] == [
            ("ack", "unsubscribe", ["A"]),
            ("ack", "unsubscribe", ["B", "never"]),
        ]
        await running.settled(running.put(tape.delta("A", 1, 1), tape.trade("A", 77), tape.trade("B"), tape.delta("B", 1, 1)))
        assert [(message["type"], message["price"]) for message in await client.barrier()] == [("trade", "0.0077")]


async def test_a_gap_makes_the_book_suspect_until_the_resync(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        await client.command("subscribe", tickers=["A"], kinds=["gap"])
        await client.next()
        await running.settled(running.put(tape.snapshot("A"), tape.gap("A")))
        gap = await client.next()
        assert (gap["type"], gap["gap_id"], gap["state"], gap["end_ns"]) == ("gap", "g1", "opened", 0)
        await client.command("subscribe", tickers=["A"], kinds=["book"])
        _, snapshot = await client.take(2)
        assert (snapshot["verified"], snapshot["reason"]) == (False, "gap")
        assert snapshot["gap"] == {
            "gap_id": "g1",
            "cause": "disconnected",
            "start_ns": START_NS,
            "end_ns": 0,
            "channel": "",
            "evidence": "the socket closed",
        }
        running.put(tape.snapshot("A", bids=[(10, 10)]), tape.gap("A", closed=True))
        fresh, closed = await client.take(2)
        assert (fresh["verified"], fresh["bids"], closed["state"]) == (True, [["0.0010", "0.10"]], "closed")


async def test_every_mistake_gets_its_typed_error_and_the_connection_goes_on(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        mistakes: list[tuple[str | bytes, str]] = [
            ("{", "malformed-json"),
            (b'{"id":1,"cmd":"ping"}', "binary-frame"),
            ('{"id":1,"cmd":"fly"}', "unknown-command"),
            ('{"id":1,"cmd":"subscribe","tickers":[]}', "bad-command"),
            ('{"id":1,"cmd":"subscribe","tickers":["A"],"kinds":["x"]}', "unknown-kind"),
            ('{"id":1,"cmd":"subscribe","tickers":["' + "A" * 70_000 + '"]}', "too-large"),
        ]
        for sent, code in mistakes:
            await client.send(sent)
            error = await client.next()
            assert (error["type"], error["code"]) == ("error", code)
        assert await client.barrier() == []


async def test_a_frame_past_the_servers_limit_and_broken_utf8_close_with_their_codes(gateway: Gateway) -> None:
    async with gateway() as running:
        async with running.connect() as client:
            await client.send("x" * (FRAME_BYTES_MAX + 1))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        async with running.connect() as client:
            await client.socket.send(b"\xff\xfe", text=True)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1007


async def test_limits_on_commands_errors_tickers_and_clients(gateway: Gateway) -> None:
    limits = GatewayLimits(
        hub=HubLimits(clients_max=1, tickers_per_client_max=2),
        connection=ConnectionLimits(commands_per_s=1, commands_burst=4, errors_max=4),
    )
    async with gateway(limits=limits) as running:
        async with running.connect() as client:
            await client.command("subscribe", tickers=["A", "B"])
            await client.command("subscribe", tickers=["B", "C"])
            ack, refused = await client.take(2)
            assert (ack["type"], refused["id"], refused["code"]) == ("ack", 2, "too-many-tickers")
            async with running.connect() as second:
                assert (await second.next())["code"] == "too-many-clients"
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await second.next()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
            for _ in range(5):
                await client.command("nonsense")
            codes = [(await client.next())["code"] for _ in range(3)]
            assert codes[:2] == ["unknown-command", "unknown-command"]
            assert codes[2] in ("unknown-command", "rate-limited")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.take(5)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "too many refused commands in a row")
        async with asyncio.timeout(30):
            await running.service.hub.emptied()
        async with running.connect() as third:
            assert await third.barrier() == []


async def test_hundreds_of_hostile_frames_disturb_nobody(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20_261_122)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        '"id"',
        '"cmd"',
        '"subscribe"',
        '"tickers"',
        "1",
        "-1",
        "1e999",
        "null",
        "\x00",
        "é",
    ]
    limits = GatewayLimits(connection=ConnectionLimits(commands_per_s=100_000, commands_burst=100_000, errors_max=10_000))
    async with gateway(limits=limits) as running, running.connect() as watcher, running.connect() as hostile:
        await watcher.command("subscribe", tickers=["A"], kinds=["trade"])
        await watcher.next()
        answers = 0
        for at in range(400):
            text = "".join(chance.choice(pieces) for _ in range(chance.randint(0, 30)))
            match chance.randint(0, 4):
                case 0:
                    await hostile.send(text.encode())
                case 1:
                    await hostile.socket.send(['{"id":1,', '"cmd":', text])
                case 2:
                    await hostile.send('{"id":1,"cmd":"subscribe","tickers":[' + text + "]}")
                case _:
                    await hostile.send(text)
            answers += 1
            if at % 40 == 0:
                running.put(running.tape.trade("A", at + 1))
        found = await hostile.barrier()
        assert len(found) == answers
        assert {message["type"] for message in found} == {"error"}
        trades = await watcher.take(10)
        assert [trade["price"] for trade in trades] == [render(at + 1, -4) for at in range(0, 400, 40)]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_vanishes_is_forgotten(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway() as running:
        async with running.connect() as client:
            await client.command("subscribe", tickers=["*"])
            await client.next()
            client.socket.transport.abort()
            await running.settled(running.put(running.tape.trade("A")))
            async with asyncio.timeout(30):
                await running.service.hub.emptied()
        await running.settled(running.put(running.tape.trade("A")))
        assert running.service.health().stats["clients"] == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_stopping_tells_the_clients_why_and_where_to_go_on(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        await client.command("subscribe", tickers=["*"])
        await client.next()
        last = running.put(running.tape.trade("A"))
        await running.settled(last)
        await running.service.stop()
        trade, closing = await client.take(2)
        assert trade["type"] == "trade"
        assert closing == {"type": "closing", "reason": f"gateway stopping; resume_from {last}", "resume_from": last}
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.next()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, f"gateway stopping; resume_from {last}")
