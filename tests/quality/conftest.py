"""A day told frame by frame, and what the mapper makes of it, measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.quality.measure import ConnectionMeasure
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import ClockStepped, Connected, Disconnected, PreviousSession, encode_fact
from ssmd.services.quality_assessor import READER

NOON = 1_778_760_000_000_000_000
"""2026-05-14T12:00:00Z."""
SECOND = 1_000_000_000
START, END = NOON - 12 * 3600 * SECOND, NOON + 12 * 3600 * SECOND
FEED = "kalshi"
CHANNELS = ("orderbook_delta", "trade", "market_lifecycle_v2")
CENT = [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]


class Day:
    """One connection's tape. Times are seconds after noon, given at each frame; sids: 1 books, 2 trades, 3 lifecycle."""

    def __init__(self) -> None:
        self.sessions: list[tuple[int, list[Entry]]] = []
        self._seq: dict[int, int] = {}
        self._previous: PreviousSession | None = None

    def add(self, at: float, kind: EntryKind, payload: bytes) -> None:
        session, entries = self.sessions[-1]
        del session
        entries.append(Entry(kind, len(entries) + 1, NOON + round(at * SECOND), payload))

    def fact(self, at: float, fact: Any) -> None:
        self.add(at, EntryKind.CTL, encode_fact(fact))

    def frame(self, at: float, kind: str, sid: int, msg: dict[str, Any], *, seq: int = 0, **more: Any) -> int:
        """A frame with the next number of its count, or `seq`."""
        if not seq:
            seq = self._seq[sid] = self._seq.get(sid, 0) + 1
        self.add(at, EntryKind.IN, json.dumps({"type": kind, "sid": sid, "seq": seq, "msg": msg, **more}).encode() + b"\n")
        return seq

    def skip(self, sid: int, count: int) -> None:
        """`count` frames of it are lost."""
        self._seq[sid] = self._seq.get(sid, 0) + count

    def connect(self, at: float, tickers: tuple[str, ...], channels: tuple[str, ...] = CHANNELS) -> None:
        session = NOON + round(at * SECOND)
        self.sessions.append((session, []))
        self._seq = {}
        self.fact(at, Connected(FEED, "main", "wss://x", "kalshi-dollars", "i", 1, "1", "", self._previous))
        for number, channel in enumerate(channels, 1):
            params: dict[str, Any] = {"channels": [channel], "use_yes_price": False}
            if channel != "market_lifecycle_v2":
                params["market_tickers"] = list(tickers)
            self.add(at, EntryKind.OUT, json.dumps({"id": number, "cmd": "subscribe", "params": params}).encode())
            ack = {"type": "subscribed", "id": number, "msg": {"channel": channel, "sid": number}}
            self.add(at, EntryKind.IN, json.dumps(ack).encode() + b"\n")

    def disconnect(self, at: float, last_recv: float) -> None:
        session, entries = self.sessions[-1]
        last_ns = NOON + round(last_recv * SECOND)
        self.fact(at, Disconnected("closed-by-venue", 1000, "", last_ns))
        self._previous = PreviousSession(session, len(entries), last_ns, "closed-by-venue")

    def clock_step(self, at: float) -> None:
        self.fact(at, ClockStepped(5_000_000))

    def grid(self, at: float, ticker: str, ranges: Any = None) -> None:
        body = {"market_ticker": ticker, "event_type": "price_level_structure_updated", "price_ranges": ranges or CENT}
        self.frame(at, "market_lifecycle_v2", 3, body)

    def snapshot(self, at: float, ticker: str, yes: Any = (("0.30", "10"),), no: Any = (("0.60", "10"),)) -> None:
        body = {"market_ticker": ticker, "market_id": "m"}
        levels = {f"{side}_dollars_fp": [list(one) for one in of] for side, of in (("yes", yes), ("no", no)) if of}
        self.frame(at, "orderbook_snapshot", 1, body | levels)

    def delta(self, at: float, ticker: str, price: str, size: str, side: str = "yes", **more: Any) -> None:
        body = {"market_ticker": ticker, "market_id": "m", "price_dollars": price, "delta_fp": size, "side": side}
        self.frame(at, "orderbook_delta", 1, body, **more)

    def trade(self, at: float, ticker: str, trade_id: str, price: str = "0.3000", **more: Any) -> None:
        prices = {"yes_price_dollars": price, "no_price_dollars": "0.7000", "count_fp": "2.50"}
        body = {"trade_id": trade_id, "market_ticker": ticker, "taker_book_side": "bid", "ts_ms": int(NOON / 1e6 + at * 1000)}
        self.frame(at, "trade", 2, body | prices, **more)

    def measure(self) -> ConnectionMeasure:
        found = ConnectionMeasure("main", START, END, READER)
        for session, entries in self.sessions:
            mapper = KalshiMapper(FEED, session)
            for entry in entries:
                found.take(session, entry, mapper.map(entry))
            found.end(mapper, is_last=(session, entries) == self.sessions[-1])
        found.close()
        return found


@pytest.fixture
def day() -> Day:
    return Day()


MakeDay = Callable[[], Day]
