"""`/v1/stream` over a real uvicorn on loopback."""

from __future__ import annotations

from typing import Any

from ssmd.schemas.records import Side
from tests.gateway.conftest import START_NS, Gateway


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
