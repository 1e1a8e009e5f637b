"""What 20,000 open markets cost the simulated venue, and whether its load is as measured.

    python benchmarks/soak_simulator.py [SECONDS]

Starts `ssmd simulate kalshi --preset exchange`, walks its listing by REST, subscribes to every market's book on one
connection, reads for SECONDS (default 60), and orders a churn of 1,000 markets. Writes docs/measurements/simulator.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import websockets
from _measurement import MEASUREMENTS, write_measurement

ROOT = Path(__file__).resolve().parents[1]
OUT = MEASUREMENTS / "simulator.json"
SEED, MARKETS, CHURN = 7, 20_000, 1_000
RSS_MAX_MB, SUBSCRIBED_MAX_S = 300, 60


def usage(pid: int) -> tuple[float, float]:
    """RSS in MB and CPU seconds of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def listing(http: httpx.AsyncClient, url: str) -> list[str]:
    tickers: list[str] = []
    cursor = ""
    while True:
        answer = await http.get(f"{url}/markets", params={"limit": "1000", "status": "open", "cursor": cursor})
        if answer.status_code == 429:
            await asyncio.sleep(0.1)
            continue
        page = answer.json()
        tickers += [market["ticker"] for market in page["markets"]]
        cursor = page["cursor"]
        if not cursor:
            return tickers


async def measured(urls: dict[str, str], pid: int, seconds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"rss_idle_mb": round(usage(pid)[0])}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        began = time.monotonic()
        tickers = await listing(http, urls["rest"])
        figures |= {"markets_open": len(tickers), "listing_s": round(time.monotonic() - began, 2)}
        async with websockets.connect(urls["websocket"], max_size=None, compression=None, proxy=None) as socket:
            params = {"channels": ["orderbook_delta"], "market_tickers": tickers, "skip_ticker_ack": True}
            began = time.monotonic()
            await socket.send(msgspec.json.encode({"id": 1, "cmd": "subscribe", "params": params}).decode())
            waiting = set(tickers)
            decoder = msgspec.json.Decoder()
            while waiting:
                frame = decoder.decode(await asyncio.wait_for(socket.recv(), 60))
                if frame["type"] == "orderbook_snapshot":
                    waiting.discard(frame["msg"]["market_ticker"])
            figures["subscribed_s"] = round(time.monotonic() - began, 2)
            lifecycle = {"id": 2, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}}
            await socket.send(msgspec.json.encode(lifecycle).decode())
            frames, cpu = 0, usage(pid)[1]
            began = until = time.monotonic()
            until += seconds
            while time.monotonic() < until:
                await asyncio.wait_for(socket.recv(), 60)
                frames += 1
            spent = time.monotonic() - began
            figures |= {
                "frames_s": round(frames / spent),
                "cpu_share_of_a_core": round((usage(pid)[1] - cpu) / spent, 2),
                "rss_subscribed_mb": round(usage(pid)[0]),
            }
            created: set[str] = set()
            began = time.monotonic()
            order = httpx.AsyncClient(timeout=30, trust_env=False)
            ordering = asyncio.create_task(order.post(f"{urls['control']}/orders", json={"kind": "list", "count": CHURN}))
            while len(created) < CHURN:
                frame = decoder.decode(await asyncio.wait_for(socket.recv(), 60))
                if frame["type"] == "market_lifecycle_v2" and frame["msg"]["event_type"] == "created":
                    created.add(frame["msg"]["market_ticker"])
            await ordering
            await order.aclose()
            figures |= {"churn_markets": len(created), "churn_s": round(time.monotonic() - began, 2)}
    figures["rss_end_mb"] = round(usage(pid)[0])
    return figures


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    command = [sys.executable, "-m", "ssmd", "simulate", "kalshi", "--preset", "exchange", "--seed", str(SEED), "--no-auth"]
    with tempfile.TemporaryDirectory() as workspace:
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "-o", "json", "--workspace", workspace], stdout=subprocess.PIPE, text=True, cwd=workspace
        )
        try:
            assert process.stdout is not None
            urls = json.loads(process.stdout.readline())
            started_s = round(time.monotonic() - began, 2)
            figures = {"started_s": started_s, **asyncio.run(measured(urls, process.pid, seconds))}
        finally:
            process.terminate()
            process.wait(30)
    holds = (
        figures["markets_open"] >= MARKETS
        and figures["subscribed_s"] <= SUBSCRIBED_MAX_S
        and figures["rss_end_mb"] <= RSS_MAX_MB
        and figures["churn_markets"] == CHURN
    )
    report = write_measurement(OUT, seed=SEED, rounds=1, seconds=seconds, figures=figures, is_good=holds)
    print(json.dumps(report, indent=2))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
