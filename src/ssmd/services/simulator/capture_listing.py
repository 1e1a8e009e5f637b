"""What REST answers from in capture mode: the markets, trades and last books a capture shows.

Wire text becomes integers exactly; what does not fit today's wire (an old capture in cents) lists its market without
figures, for a simulator plays any capture and understands what it can.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ssmd.exchanges.kalshi.simulated.exchange_hours import ExchangeHours
from ssmd.exchanges.kalshi.simulated.listing import Event, MarketSpec
from ssmd.exchanges.kalshi.simulated.market import Market, Trade
from ssmd.services.simulator.capture_file import CapturedFrame


class _Frame(msgspec.Struct):
    type: str
    msg: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Frame)


class CaptureListing:
    """Fold of a capture's frames; satisfies `rest_calls.Listed` with the state at the capture's end."""

    def __init__(self) -> None:
        self.markets: dict[str, Market] = {}
        self.events: dict[str, Event] = {}
        self.trades: list[Trade] = []
        self.now_ns = 0
        self.hours = ExchangeHours(keeps_thursdays=False)

    def add(self, captured: CapturedFrame) -> None:
        """Take one frame; frames that mean nothing here change nothing."""
        self.now_ns = max(self.now_ns, captured.ts_recv_ns)
        try:
            frame = _decoder.decode(captured.payload)
        except (msgspec.DecodeError, UnicodeError):
            return
        ticker = frame.msg.get("market_ticker")
        if not isinstance(ticker, str) or not ticker:
            return
        market = self.markets.get(ticker) or self._list(ticker, captured.ts_recv_ns)
        try:
            self._fold(market, frame, captured.ts_recv_ns)
        except (KeyError, TypeError, ValueError):
            return  # figures this listing cannot read; the market is listed all the same

    def _list(self, ticker: str, ts_ns: int) -> Market:
        event_ticker, _, code = ticker.rpartition("-")
        series, _, _ = ticker.partition("-")
        event = self.events.setdefault(
            event_ticker or ticker, Event(event_ticker or ticker, series, event_ticker or ticker, "", ts_ns)
        )
        spec = MarketSpec(ticker, event, 0, ticker, code, 10, "custom", "", ts_ns, ts_ns, ts_ns, rolling=False)
        market = Market(spec, "", 0)
        market.phase = "active"
        self.markets[ticker] = market
        return market

    def _fold(self, market: Market, frame: _Frame, ts_ns: int) -> None:
        msg = frame.msg
        market.updated_ns = ts_ns
        match frame.type:
            case "orderbook_snapshot":
                market.yes = {units(price, 4): units(count, 2) for price, count in msg.get("yes_dollars_fp", ())}
                market.no = {units(price, 4): units(count, 2) for price, count in msg.get("no_dollars_fp", ())}
            case "orderbook_delta":
                price, delta = units(msg["price_dollars"], 4), units(msg["delta_fp"], 2)
                market.change(yes=msg["side"] == "yes", price=price, delta=delta)
            case "ticker":
                market.last_price = units(msg["price_dollars"], 4)
                market.volume, market.open_interest = units(msg["volume_fp"], 2), units(msg["open_interest_fp"], 2)
                empty = msg["yes_bid_dollars"] == "0.0000" and msg["yes_ask_dollars"] == "1.0000"
                market.phase = "closed" if empty else "active"
            case "trade":
                taker_yes = msg.get("taker_outcome_side", msg.get("taker_side")) == "yes"
                at_ns = int(msg["ts_ms"]) * 1_000_000 if "ts_ms" in msg else ts_ns
                self.trades.append(
                    Trade(
                        str(msg["trade_id"]),
                        market.spec.ticker,
                        units(msg["yes_price_dollars"], 4),
                        units(msg["count_fp"], 2),
                        taker_yes,
                        at_ns,
                    )
                )
            case _:
                pass


def units(text: str, places: int) -> int:
    """Decimal text as an integer of 10^-places; exact.

    Raises:
        ValueError: no decimal text, or more places than `places`.
    """
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.removeprefix("-").partition(".")
    kept = fraction.rstrip("0") if len(fraction) > places else fraction
    if not (whole.isascii() and whole.isdigit() and len(kept) <= places and (kept or "0").isdigit()):
        raise ValueError(f"{text!r} is no decimal of at most {places} places")
    return sign * int(whole + kept.ljust(places, "0"))
