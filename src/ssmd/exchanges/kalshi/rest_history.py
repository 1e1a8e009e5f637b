"""Rows of the venue's past as REST lists them: trades, settled markets, candlesticks, and the cutoff between its sides.

A row is kept verbatim; what is read of it here is its identity and its time. Source: Kalshi's OpenAPI 3.25.0 (2026-07-21)
and recordings of 2026-06 to 2026-08.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.rest_pages import read_page
from ssmd.exchanges.kalshi.timestamps import rfc3339_ns

SECOND_NS: Final = 1_000_000_000
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


class Cutoff(NamedTuple):
    """Rows from these times on are on the live calls, older ones on the historical ones (UTC ns)."""

    trades_ns: int
    settled_ns: int


class ListedTrade(NamedTuple):
    """A trade as REST lists it. `row` is the venue's JSON, verbatim."""

    trade_id: str
    ticker: str
    ts_ns: int
    row: bytes


class ListedMarket(NamedTuple):
    """A market as REST lists it. `settled_ns` 0 = not settled."""

    ticker: str
    event: str
    open_ns: int
    close_ns: int
    settled_ns: int
    row: bytes


class CandleSpan(NamedTuple):
    """Candlesticks of `minutes` (1, 60 or 1440) whose end lies in [start_s, end_s]."""

    start_s: int
    end_s: int
    minutes: int


class _Cutoff(msgspec.Struct):
    trades_created_ts: str
    market_settled_ts: str


class _Trade(msgspec.Struct):
    trade_id: str
    ticker: str
    created_time: str


class _Market(msgspec.Struct):
    ticker: str
    event_ticker: str
    open_time: str
    close_time: str
    settlement_ts: str | None = None


class _Candle(msgspec.Struct):
    end_period_ts: int


def read_cutoff(body: bytes) -> Cutoff:
    """The cutoff in an answer of `/historical/cutoff`.

    Raises:
        Malformed: it tells none.
    """
    try:
        found = msgspec.json.decode(body, type=_Cutoff)
    except UNREADABLE as error:
        raise Malformed(f"no cutoff: {error}: {body[:200]!r}") from error
    return Cutoff(rfc3339_ns(found.trades_created_ts), rfc3339_ns(found.market_settled_ts))


def read_trade(row: msgspec.Raw | bytes) -> ListedTrade:
    """A row of a list of trades.

    Raises:
        Malformed: it has no id, ticker or time.
    """
    try:
        found = msgspec.json.decode(row, type=_Trade)
    except UNREADABLE as error:
        raise Malformed(f"no trade: {error}: {bytes(row)[:200]!r}") from error
    if not found.trade_id or not found.ticker:
        raise Malformed(f"a trade without id or ticker: {bytes(row)[:200]!r}")
    return ListedTrade(found.trade_id, found.ticker, rfc3339_ns(found.created_time), bytes(row))


def read_market(row: msgspec.Raw | bytes) -> ListedMarket:
    """A row of a list of markets.

    Raises:
        Malformed: it has no ticker, or a time that is none.
    """
    try:
        found = msgspec.json.decode(row, type=_Market)
    except UNREADABLE as error:
        raise Malformed(f"no market: {error}: {bytes(row)[:200]!r}") from error
    settled_ns = rfc3339_ns(found.settlement_ts) if found.settlement_ts else 0
    times = rfc3339_ns(found.open_time), rfc3339_ns(found.close_time)
    return ListedMarket(found.ticker, found.event_ticker, *times, settled_ns, bytes(row))


def candle_rows(body: bytes) -> Sequence[msgspec.Raw]:
    """The candlesticks in an answer, verbatim.

    Raises:
        Malformed: it has none.
    """
    return read_page(body, "candlesticks")[0]


def candle_end_ns(row: msgspec.Raw | bytes) -> int:
    """When a candlestick's period ends.

    Raises:
        Malformed: it does not say.
    """
    try:
        return msgspec.json.decode(row, type=_Candle).end_period_ts * SECOND_NS
    except UNREADABLE as error:
        raise Malformed(f"no candlestick: {error}: {bytes(row)[:200]!r}") from error


def series_of(event_ticker: str) -> str:
    """The series that an event's ticker begins with. Only a guess, for calls that want one: events name their own."""
    return event_ticker.partition("-")[0]
