"""The protocol, from the outside: commands, sids, seq, snapshots, pings, REST."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

LONG = {"rate": 1, "roll_s": 100_000}  # a venue where next to nothing happens
Sides = dict[str, dict[str, int]]


def cents(text: str) -> int:
    return int(text.replace(".", ""))


async def test_frames_have_the_venues_key_order_and_newline(run_simulator: Any) -> None:
    async with run_simulator(markets=1, **LONG) as running, running.client() as client:
        await running.control("/pause")
        ticker = "KXBTCD-26NOV2517-T73499.99"
        await client.send({"id": 9, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_ticker": ticker}})
        assert await client.text() == '{"type":"subscribed","id":9,"msg":{"channel":"orderbook_delta","sid":1}}\n'
        snapshot = await client.text()
        assert snapshot.startswith(
            f'{{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{{"market_ticker":"{ticker}","market_id":"'
        )
        assert snapshot.endswith("]]}}\n")


async def test_an_unknown_ticker_has_an_empty_snapshot(run_simulator: Any) -> None:
    async with run_simulator(markets=1) as running, running.client() as client:
        await client.send(
            {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": ["KXNO-1"]}}
        )
        assert await client.frames(2) == [
            {"type": "subscribed", "id": 1, "msg": {"channel": "orderbook_delta", "sid": 1}},
            {"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": {"market_ticker": "KXNO-1", "market_id": ""}},
        ]


async def test_pings_carry_heartbeat_and_are_needed_and_a_client_that_pongs_stays(run_simulator: Any) -> None:
    async with run_simulator(markets=1, ping_s=1, pong_deadline_s=2, **LONG) as running, running.client() as client:
        reader, writer = await asyncio.open_connection(*running.simulator.websocket_url.split("/")[2].split(":"))
        writer.write(
            b"GET /trade-api/ws/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert await asyncio.wait_for(reader.readexactly(11), 30) == b"\x89\x09heartbeat"
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await asyncio.wait_for(reader.readexactly(100), 30)  # we never answer: the venue drops us
        status = await running.status_when(lambda page: not all(one["open"] for one in page["connections"]))
        assert sorted(one["cause"] for one in status["connections"]) == ["", "no pong for 2 s"]
        writer.close()
        # Who was there before and answers, stays.
        await client.send({"id": 1, "cmd": "list_subscriptions"})
        assert await client.frame() == {"type": "ok", "id": 1, "msg": []}


@pytest.mark.parametrize("yes_priced", [False, True])
async def test_a_naive_book_equals_rest_at_rest(run_simulator: Any, yes_priced: bool) -> None:
    async with run_simulator(markets=6, rate=500, roll_s=1, speed="4x", seed=3) as running, running.client() as client:
        _, listing = await running.get("/markets")
        tickers = [held["ticker"] for held in listing["markets"]]
        params = {"channels": ["orderbook_delta"], "market_tickers": tickers, "use_yes_price": yes_priced}
        await client.send({"id": 1, "cmd": "subscribe", "params": params})
        assert (await client.frame())["type"] == "subscribed"
        books: dict[str, Sides] = {}
        seq, deltas = 0, 0
        target = 1_000
        stopped = False
        while True:
            try:
                frame = await asyncio.wait_for(client.frame(), 0.3 if stopped else 10)
            except TimeoutError:
                break
            seq += 1
            assert frame["seq"] == seq
            msg = frame["msg"]
            if frame["type"] == "orderbook_snapshot":
                books[msg["market_ticker"]] = {
                    side: {price: cents(size) for price, size in msg.get(f"{side}_dollars_fp", ())} for side in ("yes", "no")
                }
                assert all([*sides] == sorted(sides) or yes_priced for sides in books[msg["market_ticker"]].values())
            else:
                side = books[msg["market_ticker"]][msg["side"]]
                level = side.get(msg["price_dollars"], 0) + cents(msg["delta_fp"])
                assert level >= 0
                side[msg["price_dollars"]] = level
                deltas += 1
            if deltas >= target and not stopped:
                stopped = True
                await running.control("/pause")
        for ticker, sides in books.items():
            _, body = await running.get(f"/markets/{ticker}/orderbook")
            for name, side in sides.items():
                shown = {price: cents(size) for price, size in body["orderbook_fp"][f"{name}_dollars"]}
                if yes_priced and name == "no":
                    shown = {f"{(10_000 - cents(price)) / 10_000:.4f}": size for price, size in shown.items()}
                assert {price: size for price, size in side.items() if size} == shown


async def test_at_full_speed_the_model_waits_for_its_reader(run_simulator: Any) -> None:
    async with run_simulator(markets=4, speed="max", seed=2) as running, running.client() as client:
        assert (await running.control("/status"))["feed"]["steps"] == 0
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}})
        frames = await client.frames(301)
        assert [frame["seq"] for frame in frames[1:]] == list(range(1, 301))


async def test_the_same_seed_sends_the_same_bytes(run_simulator: Any) -> None:
    async def session(seed: int) -> list[str]:
        async with run_simulator(markets=5, speed="max", seed=seed) as running, running.client() as client:
            _, listing = await running.get("/markets")
            tickers = [held["ticker"] for held in listing["markets"]]
            channels = ["orderbook_delta", "trade", "ticker", "market_lifecycle_v2"]
            await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, "market_tickers": tickers}})
            return [await client.text() for _ in range(400)]

    one, same, other = await session(4), await session(4), await session(5)
    assert one == same
    assert one != other


async def test_pages_walk_every_market_once_and_end_with_an_empty_cursor(run_simulator: Any) -> None:
    async with run_simulator(markets=25, **LONG) as running:
        seen: list[str] = []
        cursor = ""
        sizes = []
        while True:
            _, body = await running.get("/markets", limit="10", cursor=cursor)
            seen += [held["ticker"] for held in body["markets"]]
            sizes.append(len(body["markets"]))
            cursor = body["cursor"]
            if not cursor:
                break
        assert sizes == [10, 10, 5]
        assert len(set(seen)) == 25
        _, again = await running.get("/markets", limit="10", cursor="garbage")
        assert [held["ticker"] for held in again["markets"]] == seen[:10]


async def test_a_limit_above_the_maximum_has_the_recorded_body(run_simulator: Any) -> None:
    async with run_simulator(markets=2) as running:
        assert await running.get("/markets", limit="1001") == (
            400,
            {
                "msg": "Parameter validation failed for GetMarkets: Key: 'GetMarketsParams.Limit' "
                "Error:Field validation for 'Limit' failed on the 'lte' tag"
            },
        )
        assert (await running.get("/markets", limit="ten"))[0] == 400
        assert (await running.get("/markets", status="active"))[0] == 400
        assert (await running.get("/markets", limit="1000"))[0] == 200


async def test_errors_and_paths(run_simulator: Any) -> None:
    async with run_simulator(markets=2) as running:
        for path in ("/markets/KXNO", "/markets/KXNO/orderbook", "/events/KXNO", "/series/KXNO"):
            status, body = await running.get(path)
            assert (status, body["error"]["code"]) == (404, "not_found")
        assert (await running.get("/nothing"))[1] == {"code": "not_found", "message": "not found", "details": "page not found"}
        root = running.simulator.rest_url.removesuffix("/trade-api/v2")
        assert (await running.http.get(root + "/")).status_code == 404
        assert (await running.http.post(running.simulator.rest_url + "/markets")).status_code == 405
        assert (await running.http.get(root + "/simulator/nothing")).status_code == 404


async def test_listing_calls_agree(run_simulator: Any) -> None:
    async with run_simulator(markets=12, **LONG) as running:
        await running.control("/pause")
        _, listing = await running.get("/markets", status="open")
        market = listing["markets"][0]
        assert market["status"] == "active"
        assert await running.get(f"/markets/{market['ticker']}") == (200, {"market": market})
        _, event = await running.get(f"/events/{market['event_ticker']}")
        assert market in event["markets"]
        series = event["event"]["series_ticker"]
        assert (await running.get(f"/series/{series}"))[1]["series"]["ticker"] == series
        assert series in [held["ticker"] for held in (await running.get("/series"))[1]["series"]]
        _, events = await running.get("/events", with_nested_markets="true", series_ticker=series)
        assert {held["event_ticker"] for held in events["events"]} == {
            held["event_ticker"] for held in listing["markets"] if held["event_ticker"].startswith(f"{series}-")
        }
        assert market in events["events"][0]["markets"]
        _, book = await running.get(f"/markets/{market['ticker']}/orderbook", depth="1")
        assert book["orderbook_fp"]["yes_dollars"] == [[market["yes_bid_dollars"], market["yes_bid_size_fp"]]]
        _, books = await running.get("/markets/orderbooks", tickers=market["ticker"])
        assert books["orderbooks"][0]["orderbook_fp"]["yes_dollars"][-1] == book["orderbook_fp"]["yes_dollars"][0]
        assert (await running.get("/exchange/status"))[1]["trading_active"] is True
        assert "thursday" in (await running.get("/exchange/schedule"))[1]["schedule"]["standard_hours"][0]
        assert (await running.get("/historical/cutoff"))[1]["trades_created_ts"] == "2026-08-24T16:00:00Z"


async def test_rest_trades_are_those_of_the_stream_newest_first(run_simulator: Any) -> None:
    async with run_simulator(markets=3, rate=2_000) as running, running.client() as client:
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}})
        streamed = [frame["msg"] for frame in (await client.frames(201))[1:]]
        await running.control("/pause")
        found: list[Any] = []
        cursor = ""
        while True:
            _, body = await running.get("/markets/trades", limit="50", cursor=cursor)
            found += body["trades"]
            cursor = body["cursor"]
            if not cursor:
                break
        by_id = {trade["trade_id"]: trade for trade in found}
        assert len(by_id) == len(found)
        shared = ("yes_price_dollars", "no_price_dollars", "count_fp", "taker_side", "taker_outcome_side", "taker_book_side")
        for trade in streamed:
            kept = by_id[trade["trade_id"]]
            assert kept["ticker"] == trade["market_ticker"]
            assert {name: kept[name] for name in shared} == {name: trade[name] for name in shared}
        order = [trade["trade_id"] for trade in found]
        first, last = order.index(streamed[0]["trade_id"]), order.index(streamed[-1]["trade_id"])
        assert first - last == 199


async def test_stopping_says_goodbye(run_simulator: Any) -> None:
    async with run_simulator(markets=1) as running, running.client() as client:
        assert running.simulator.health().ok
        await running.simulator.stop()
        await running.simulator.stop()
        await client.until_closed()
        assert client.socket.close_code == 1001
        await asyncio.wait_for(running.task, 30)
        assert not running.simulator.health().ok
        with pytest.raises(httpx.ConnectError):
            await running.get("/exchange/status")


async def test_control_is_on_loopback_apart_when_the_venue_is_not(run_simulator: Any) -> None:
    async with run_simulator(markets=1, host="0.0.0.0") as running:
        control, venue = running.simulator.control_url, running.simulator.rest_url.removesuffix("/trade-api/v2")
        assert control.startswith("http://127.0.0.1:")
        assert (await running.http.get(venue + "/simulator/status")).status_code == 404
        assert (await running.http.get(control + "/status")).json()["done"] is False
        assert (await running.http.get(control.removesuffix("/simulator") + "/trade-api/v2/exchange/status")).status_code == 404
