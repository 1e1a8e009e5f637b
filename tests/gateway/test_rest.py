"""REST over a real uvicorn on loopback."""

from __future__ import annotations

from typing import Any

import httpx
from tests.gateway.conftest import START_NS, Gateway


async def test_a_market_its_book_and_its_trades(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        tape = running.tape
        first = running.put(
            tape.snapshot("KX.B-1", bids=[(4500, 10000), (4400, 100)]), tape.trade("KX.B-1", 4600), tape.quote("KX.B-1")
        )
        last = running.put(tape.trade("KX.B-1", 4700), tape.status("KX.B-1"))
        await running.settled(last)
        book_coverage = {
            "verified": True,
            "reason": "",
            "gap": None,
            "as_of_stream_seq": last,
            "book_stream_seq": first,
            "ts_event_ns": START_NS + 1000,
            "ts_recv_ns": START_NS + 1007,
            "session": START_NS,
            "n": 1,
        }
        book = await http.get("/v1/markets/KX%2EB-1/orderbook", params={"depth": 1})
        assert (book.status_code, book.headers["content-type"]) == (200, "application/json")
        assert book.json() == {
            "feed": "kalshi",
            "ticker": "KX.B-1",
            "bids": [["0.4500", "100.00"]],
            "asks": [["0.4700", "25.00"]],
            "bid_levels": 2,
            "ask_levels": 1,
            "coverage": book_coverage,
            "at_ns": 0,
            "reasons": [],
        }
        trades = (await http.get("/v1/markets/KX.B-1/trades")).json()
        assert [(trade["price"], trade["stream_seq"], trade["trade_id"]) for trade in trades["trades"]] == [
            ("0.4700", last, "t4"),
            ("0.4600", first, "t2"),
        ]
        assert trades["coverage"] == {"verified": True, "gaps": [], "is_truncated": False, "as_of_stream_seq": last}
        assert trades["cursor"] is None
        market = (await http.get("/v1/markets/KX%2EB-1")).json()
        assert market["last_trade"] == trades["trades"][0]
        assert market["status"]["status"] == "open"
        assert market["quote"]["bid_price"] == "0.4500"
        assert {key: market[key] for key in ("ticker", "best_bid", "best_ask", "spread", "records", "coverage", "links")} == {
            "ticker": "KX.B-1",
            "best_bid": ["0.4500", "100.00"],
            "best_ask": ["0.4700", "25.00"],
            "spread": "0.0200",
            "records": {"snapshot": 1, "trade": 2, "quote": 1, "status": 1},
            "coverage": book_coverage,
            "links": {
                "self": "/v1/markets/KX%2EB-1",
                "trades": "/v1/markets/KX%2EB-1/trades",
                "orderbook": "/v1/markets/KX%2EB-1/orderbook",
                "candles": "/v1/markets/KX%2EB-1/candles",
                "gaps": "/v1/gaps?ticker=KX%2EB-1",
                "stream": "/v1/stream",
            },
        }
        for link in list(market["links"].values())[:4]:
            assert (await http.get(link)).json()["ticker"] == "KX.B-1"


async def test_tickers_of_any_spelling(gateway: Gateway) -> None:
    tickers = ["BTC/USD", "A.B", "50%", "ÄÖ", "trades", "a b", "x/trades", "%2F"]
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        await running.settled(running.put(*(running.tape.trade(ticker) for ticker in tickers)))
        listed = (await http.get("/v1/markets")).json()
        assert [market["ticker"] for market in listed["markets"]] == sorted(tickers)
        for ticker in tickers:
            path = "/v1/markets/" + "".join(f"%{byte:02x}" for byte in ticker.encode())
            assert (await http.get(path)).json()["ticker"] == ticker
            assert [trade["ticker"] for trade in (await http.get(f"{path}/trades")).json()["trades"]] == [ticker]
            assert ticker in {
                market["ticker"] for market in (await http.get("/v1/markets", params={"q": ticker})).json()["markets"]
            }


async def test_pages_of_markets_leave_none_out_and_repeat_none(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        tape = running.tape
        tickers = [f"T-{at:02}" for at in range(25)]
        records = [tape.status(ticker, "open" if at % 2 else "closed") for at, ticker in enumerate(tickers)]
        await running.settled(running.put(*records))

        async def pages(**given: Any) -> list[str]:
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                page = (await http.get("/v1/markets", params=given | ({"cursor": cursor} if cursor else {}))).json()
                found += [market["ticker"] for market in page["markets"]]
                assert len(page["markets"]) <= given["limit"]
                cursor = page["cursor"]
            return found

        assert await pages(limit=4) == tickers
        assert await pages(limit=25) == tickers
        assert await pages(limit=3, status="open") == tickers[1::2]
        assert await pages(limit=3, status="open", q="t-1") == ["T-11", "T-13", "T-15", "T-17", "T-19"]
        assert await pages(limit=3, q="none") == []


PROBLEMS = [
    ("/v1/markets/NONE", 404, "market-unknown", "ticker 'NONE'"),
    ("/v1/markets/NONE/orderbook", 404, "market-unknown", "ticker 'NONE'"),
    ("/v1/markets/A/other", 404, "path-unknown", "'/v1/markets/A/other'"),
    ("/v1/markets/", 404, "path-unknown", "'/v1/markets/'"),
    ("/v1/nothing", 404, "not-found", "GET /v1/nothing"),
    ("/v1/markets/A?x=1", 400, "parameter-unknown", "no parameter 'x'"),
    ("/v1/markets/A/orderbook?depth=-1", 400, "parameter-value", "depth is a whole number from 0 to 10000"),
    ("/v1/markets/A/orderbook?depth=1&depth=2", 400, "parameter-value", "given twice"),
    ("/v1/markets/A/trades?limit=0", 400, "parameter-value", "from 1 to 1000"),
    ("/v1/markets/A/trades?limit=²", 400, "parameter-value", "from 1 to 1000"),
    ("/v1/markets/A/trades?cursor=x", 400, "parameter-value", "cursor is a whole number"),
    ("/v1/markets?cursor=%21", 400, "parameter-value", "not a cursor"),
    ("/v1/markets?limit=1001", 400, "parameter-value", "from 1 to 1000"),
    ("/v1/markets/%FF", 400, "parameter-value", "UTF-8"),
    ("/v1/stream", 426, "upgrade-required", "is a WebSocket"),
]


async def test_problems(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        await running.settled(running.put(running.tape.trade("A")))
        for path, status, rule, part in PROBLEMS:
            answer = await http.get(path)
            assert (path, answer.status_code, answer.headers["content-type"]) == (path, status, "application/problem+json")
            problem = answer.json()
            assert (problem["type"], problem["status"]) == (f"urn:ssmd:problem:{rule}", status)
            assert part in problem["detail"]
            assert set(problem) <= {"type", "title", "status", "detail", "mend", "instance"}


async def test_a_wrong_method_is_told_the_right_one(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.post("/v1/markets")
        assert (answer.status_code, answer.json()["type"]) == (405, "urn:ssmd:problem:method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_health_says_what_is_wrong(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        last = running.put(running.tape.trade("A"))
        await running.settled(last)
        answer = await http.get("/v1/health")
        health = answer.json()
        assert (answer.status_code, health["ok"], health["reason"]) == (200, True, "")
        stats = {
            key: health["stats"][key] for key in ("stream_seq", "position", "records", "markets", "clients", "lag_messages")
        }
        assert stats == {"stream_seq": last, "position": last, "records": 1, "markets": 1, "clients": 0, "lag_messages": 0}
