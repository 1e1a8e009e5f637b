"""The security master at its size: 100,000 markets from the venue's pages, a first load and a comparison without change.

    python benchmarks/secmaster.py [--markets N]

The pages are made here with the fields of a recorded market and served by an HTTP server in another process; the journal is
a real NATS server that syncs always. Baseline of the same run: the same pages fetched and parsed as JSON, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import resource
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from _table import heading, row

from ssmd.application.handler import Application
from ssmd.application.listings import Listings
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.rest import Limits
from ssmd.identifiers import system_random
from ssmd.services.embedded_servers import start_nats
from ssmd.services.kalshi_rest.client import KalshiRest, RestAccount
from ssmd.services.secmaster.kalshi_markets import KalshiMarkets
from ssmd.services.secmaster.sync import SyncParts, sync
from ssmd.services.secmaster.venue import Scope
from ssmd.streams.journal_nats import NatsJournal

PER_EVENT = 4
PER_PAGE = 200
FIRST_LOAD_S = 60
NO_CHANGE_S = 5
RSS_MB = 400
_RULES = "If the price is at or above the strike when the market expires, then the market resolves to Yes. " * 4


def market(event: int, number: int) -> dict[str, object]:
    ticker = f"KXBENCH-26NOV{event:06}"
    return {
        "ticker": f"{ticker}-T{number * 500}.99",
        "event_ticker": ticker,
        "status": "active",
        "title": f"Will it be above {number * 500}.99 at number {event}?",
        "open_time": "2026-11-20T00:00:00Z",
        "close_time": "2026-12-20T00:00:00Z",
        "latest_expiration_time": "2026-12-27T00:00:00Z",
        "market_type": "binary",
        "yes_sub_title": f"${number * 500}.99 or above",
        "no_sub_title": f"${number * 500}.99 or above",
        "settlement_timer_seconds": 300,
        "notional_value_dollars": "1.0000",
        "can_close_early": True,
        "strike_type": "greater_or_equal",
        "floor_strike": number * 500 + 0.99,
        "rules_primary": f"{event}: {_RULES}",
        "rules_secondary": _RULES,
        "price_level_structure": "linear_cent",
        "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
        "yes_bid_dollars": "0.4100",
        "yes_ask_dollars": "0.4200",
        "volume_fp": "12345.00",
        "open_interest_fp": "999.00",
        "updated_time": "2026-11-22T00:00:00Z",
        "result": "",
    }


def page(at: int, events: int) -> bytes:
    until = min(at + PER_PAGE, events)
    shown = [
        {
            "event_ticker": f"KXBENCH-26NOV{event:06}",
            "series_ticker": "KXBENCH",
            "title": f"Number {event}",
            "category": "Crypto",
            "mutually_exclusive": False,
            "markets": [market(event, number) for number in range(PER_EVENT)],
        }
        for event in range(at, until)
    ]
    return msgspec.json.encode({"events": shown, "cursor": str(until) if until < events else ""})


def serve(events: int, tell: multiprocessing.connection.Connection) -> None:
    """Every page, made beforehand; only events that are open exist."""
    pages = {at: page(at, events) for at in range(0, events, PER_PAGE)}
    nothing = b'{"events":[],"cursor":""}'

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = parse_qs(parts.query)
            body = nothing
            if parts.path.endswith("/series"):
                body = b'{"series":[{"ticker":"KXBENCH","category":"Crypto"}]}'
            elif asked.get("status") == ["open"]:
                body = pages[int(asked.get("cursor", ["0"])[0])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    tell.send(server.server_port)
    server.serve_forever()


async def bare(url: str, events: int) -> float:
    """Seconds to fetch and parse all pages."""
    started = time.perf_counter()
    async with httpx.AsyncClient(trust_env=False) as http:
        for at in range(0, events, PER_PAGE):
            answer = await http.get(f"{url}/events", params={"status": "open", "cursor": str(at)})
            msgspec.json.decode(answer.content)
    return time.perf_counter() - started


def unpaced(clock: SystemClock) -> RestAccount:
    """Of a venue without limits: else they would be what is measured."""
    account = RestAccount(clock)
    account.use(Limits(1_000_000, 1_000_000))
    return account


async def measured(url: str, journal: NatsJournal, listings: Listings, run: str) -> tuple[float, int]:
    """Seconds of one sync, and events it wrote."""
    clock = SystemClock()
    written = 0

    def say(_compared: int, so_far: int) -> None:
        nonlocal written
        written = so_far

    async with KalshiRest(url, None, clock, system_random, account=unpaced(clock)) as client:
        application = Application(journal, CATALOGUE, clock, system_random)
        parts = SyncParts("kalshi", KalshiMarkets(client), listings, application, say)
        started = time.perf_counter()
        await sync(parts, Scope(), run, actor="benchmark")
    return time.perf_counter() - started, written


async def main(markets: int) -> bool:
    events = markets // PER_EVENT
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(events, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/trade-api/v2"
    with tempfile.TemporaryDirectory() as directory:
        nats = await start_nats(Path(directory), sync_always=True)
        try:
            journal = await NatsJournal.open(nats.url, "bench", ensure=True)
            fetched_s = await bare(url, events)
            kept = Listings(journal, CATALOGUE, SystemClock(), system_random, "kalshi")
            first_s, written = await measured(url, journal, kept, "first")
            again_s, again = await measured(url, journal, kept, "again")
            kept = Listings(journal, CATALOGUE, SystemClock(), system_random, "kalshi")
            anew_s, anew = await measured(url, journal, kept, "anew")
            await journal.close()
        finally:
            await nats.stop()
            server.terminate()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    heading()
    what = f"secmaster, {markets:,} markets"
    bare_text = f"{fetched_s:.1f} s, pages fetched and parsed"
    row(first_s / fetched_s, f"{what}, first load", f"{first_s:.1f} s, {written:,} events", bare_text, f"<= {FIRST_LOAD_S} s")
    row(again_s / fetched_s, f"{what}, no change", f"{again_s:.1f} s, {again:,} events", bare_text, f"<= {NO_CHANGE_S} s")
    row(anew_s / fetched_s, f"{what}, no change, anew", f"{anew_s:.1f} s, {anew:,} events", bare_text, "")
    row(rss_mb / RSS_MB, f"{what}, memory", f"{rss_mb:.0f} MB at most", f"{RSS_MB} MB", "<= 1.00")
    return first_s <= FIRST_LOAD_S and again_s <= NO_CHANGE_S and rss_mb <= RSS_MB and not again and not anew


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=100_000)
    sys.exit(0 if asyncio.run(main(parser.parse_args().markets)) else 1)
