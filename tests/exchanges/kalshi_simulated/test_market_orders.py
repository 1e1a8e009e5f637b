"""Lives of markets on demand: what the stream says, what REST shows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssmd.exchanges.kalshi.simulated.exchange_hours import ExchangeHours
from ssmd.exchanges.kalshi.simulated.market_orders import NothingFits, VenueOrder, apply
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel, ModelSettings
from ssmd.exchanges.kalshi.simulated.rest_calls import RestCalls
from ssmd.exchanges.kalshi.simulated.wire import Message

START_NS = 1_795_363_200_000_000_000
SECOND_NS = 1_000_000_000


def model(**more: Any) -> MarketModel:
    return MarketModel(
        ModelSettings(**{"seed": 2, "markets": 4, "rate": 50, "start_ns": START_NS, "roll_s": 10_000, "depth": 3, **more})
    )


def pass_s(held: MarketModel, seconds: int) -> list[Message]:
    until_ns, out = held.now_ns + seconds * SECOND_NS, []
    while held.next_ns <= until_ns:
        out += held.step()
    return out


def told(out: list[Message]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(message.body) for message in out if message.channel == "market_lifecycle_v2"]


def events(out: list[Message], ticker: str) -> list[str]:
    return [msg["event_type"] for msg in told(out) if msg.get("market_ticker") == ticker]


def rest(held: MarketModel, path: str, **query: str) -> Any:
    return RestCalls(held, settlement_timer_s=30, refill_rate=200).answer(path, query).body


def status(held: MarketModel, ticker: str) -> Any:
    return rest(held, f"/markets/{ticker}")["market"]["status"]


@pytest.fixture
def held() -> MarketModel:
    return model()


def test_a_paused_market_keeps_its_book_and_a_resumed_one_begins_anew(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    market = held.markets[ticker]
    out = apply(held, VenueOrder(kind="pause", ticker=ticker))
    assert told(out) == [{"market_ticker": ticker, "is_deactivated": True, "event_type": "deactivated"}]
    assert status(held, ticker) == "inactive"
    assert ticker in [row["ticker"] for row in rest(held, "/markets", status="paused")["markets"]]
    before = (dict(market.yes), dict(market.no))
    assert before != ({}, {})
    assert not [message for message in pass_s(held, 2) if message.ticker == ticker and message.kind == "orderbook_delta"]
    assert (market.yes, market.no) == before
    out = apply(held, VenueOrder(kind="resume", ticker=ticker))
    assert events(out, ticker) == ["activated"]
    deltas = [msgspec.json.decode(message.body)["delta_fp"] for message in out if message.kind == "orderbook_delta"]
    levels = len(before[0]) + len(before[1])
    assert all(delta.startswith("-") for delta in deltas[:levels])
    assert not any(delta.startswith("-") for delta in deltas[levels:])
    assert status(held, ticker) == "active"


def test_an_early_close_moves_the_close_time_then_ends_as_every_market_does(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    out = apply(held, VenueOrder(kind="close", ticker=ticker))
    assert told(out) == [{"market_ticker": ticker, "close_ts": held.now_ns // SECOND_NS, "event_type": "close_date_updated"}]
    assert status(held, ticker) == "closed"
    later = pass_s(held, 60)
    assert events(later, ticker) == ["determined", "settled"]
    assert [message.kind for message in later if message.ticker == ticker] == ["ticker", "orderbook_snapshot"]
    assert status(held, ticker) == "finalized"


def test_a_closed_market_whose_close_moves_trades_again(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    apply(held, VenueOrder(kind="close", ticker=ticker))
    out = apply(held, VenueOrder(kind="extend", ticker=ticker, for_s=30))
    assert events(out, ticker) == ["close_date_updated", "activated"]
    assert status(held, ticker) == "active"
    assert held.markets[ticker].yes
    assert events(pass_s(held, 29), ticker) == []
    assert events(pass_s(held, 60), ticker) == ["determined", "settled"]


def test_a_disputed_result_waits_and_an_amended_one_settles(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    out = apply(held, VenueOrder(kind="determine", ticker=ticker, result="yes"))
    assert events(out, ticker) == ["close_date_updated", "determined"]
    apply(held, VenueOrder(kind="dispute", ticker=ticker))
    assert events(pass_s(held, 100), ticker) == []
    assert status(held, ticker) == "disputed"
    out = apply(held, VenueOrder(kind="amend", ticker=ticker))
    assert told(out)[0]["result"] == "no"
    assert status(held, ticker) == "amended"
    assert events(pass_s(held, 31), ticker) == ["settled"]
    shown = rest(held, f"/markets/{ticker}")["market"]
    assert (shown["status"], shown["result"], shown["settlement_value_dollars"]) == ("finalized", "no", "0.0000")
    assert shown["settlement_ts"]


def test_a_scalar_result_pays_what_it_says(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    out = apply(held, VenueOrder(kind="determine", ticker=ticker, result="scalar", value=4_225))
    assert (told(out)[-1]["result"], told(out)[-1]["settlement_value"]) == ("scalar", "0.4225")
    assert rest(held, f"/markets/{ticker}")["market"]["settlement_value_dollars"] == "0.4225"


def test_grid_and_metadata_change_while_it_trades(held: MarketModel) -> None:
    ticker = next(ticker for ticker, market in held.markets.items() if market.spec.tick == 100)
    assert told(apply(held, VenueOrder(kind="regrid", ticker=ticker))) == [
        {
            "market_ticker": ticker,
            "price_level_structure": "deci_cent",
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}],
            "event_type": "price_level_structure_updated",
        }
    ]
    label = held.markets[ticker].spec.yes_sub_title
    assert told(apply(held, VenueOrder(kind="rename", ticker=ticker))) == [
        {"market_ticker": ticker, "yes_sub_title": f"{label} (clarified)", "event_type": "metadata_updated"}
    ]
    assert rest(held, f"/markets/{ticker}")["market"]["price_level_structure"] == "deci_cent"
    fee = apply(held, VenueOrder(kind="fee-change"))
    assert [message.kind for message in fee] == ["event_fee_update"]
    assert set(told(fee)[0]) == {"event_ticker", "fee_type_override", "fee_multiplier_override"}


def test_a_thousand_new_markets_are_told_listed_and_can_all_be_ended(held: MarketModel) -> None:
    out = apply(held, VenueOrder(kind="list", count=1_000))
    kinds = [msg.get("event_type", "event") for msg in told(out)]
    assert (kinds.count("created"), kinds.count("activated"), kinds.count("event")) == (1_000, 1_000, 125)
    assert len(held.markets) == 1_004
    out = apply(held, VenueOrder(kind="close", count=1_004))
    assert len(told(out)) == 1_004
    assert [msg["event_type"] for msg in told(pass_s(held, 41)) if "event_type" in msg].count("settled") == 1_004


def test_a_vanished_market_is_nowhere_and_nobody_was_told(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    event = held.markets[ticker].spec.event.ticker
    assert apply(held, VenueOrder(kind="vanish", ticker=ticker)) == []
    assert rest(held, f"/markets/{ticker}")["error"]["code"] == "not_found"
    assert ticker not in [row["ticker"] for row in rest(held, "/markets")["markets"]]
    assert event not in held.events
    assert not [message for message in pass_s(held, 5) if message.ticker == ticker]


def test_what_fits_no_market_is_refused_with_what_would(held: MarketModel) -> None:
    ticker = next(iter(held.markets))
    with pytest.raises(NothingFits, match=f"amend {ticker}: active; expected disputed"):
        apply(held, VenueOrder(kind="amend", ticker=ticker))
    with pytest.raises(NothingFits, match="no such market"):
        apply(held, VenueOrder(kind="close", ticker="KXNO"))
    with pytest.raises(NothingFits, match="no market is inactive"):
        apply(held, VenueOrder(kind="resume"))


@pytest.mark.parametrize(("kind", "exchange"), [("pause-trading", True), ("pause-exchange", False)])
def test_in_a_pause_books_persist_and_only_cancels_may_come(held: MarketModel, kind: Any, exchange: bool) -> None:
    apply(held, VenueOrder(kind=kind, for_s=10))
    shown = rest(held, "/exchange/status")
    assert (shown["trading_active"], shown["exchange_active"]) == (False, exchange)
    assert shown["exchange_estimated_resume_time"] == "2026-11-22T16:00:10Z"
    deltas = [msgspec.json.decode(message.body)["delta_fp"] for message in pass_s(held, 9) if message.kind == "orderbook_delta"]
    assert all(delta.startswith("-") for delta in deltas)
    assert bool(deltas) is exchange
    out = pass_s(held, 5)
    assert any(message.kind == "trade" for message in out)
    assert rest(held, "/exchange/status")["trading_active"] is True


@pytest.mark.parametrize(
    ("at_ns", "ends_ns"),
    [
        (1_795_680_000_000_000_000 - 1, 0),  # Thursday 2026-11-26, 02:59:59 EST
        (1_795_680_000_000_000_000, 1_795_687_200_000_000_000),
        (1_795_687_200_000_000_000 - 1, 1_795_687_200_000_000_000),
        (1_795_687_200_000_000_000, 0),
        (1_782_975_600_000_000_000, 1_782_982_800_000_000_000),  # Thursday 2026-07-02, 03:00 EDT
    ],
)
def test_thursdays_pause_follows_eastern_time(at_ns: int, ends_ns: int) -> None:
    assert ExchangeHours(keeps_thursdays=True).resumes_ns(at_ns) == ends_ns
    assert ExchangeHours(keeps_thursdays=False).resumes_ns(at_ns) == 0


def test_the_model_keeps_thursdays() -> None:
    held = model(start_ns=1_795_680_000_000_000_000 - 5 * SECOND_NS, keeps_thursdays=True)
    assert any(message.kind == "trade" for message in pass_s(held, 4))
    pass_s(held, 2)
    assert not any(message.kind == "trade" for message in pass_s(held, 60))
    assert rest(held, "/exchange/status")["exchange_estimated_resume_time"] == "2026-11-26T10:00:00Z"


def test_a_pause_can_be_ended_before_its_time(held: MarketModel) -> None:
    apply(held, VenueOrder(kind="pause-exchange", for_s=1_000))
    assert rest(held, "/exchange/status")["exchange_active"] is False
    apply(held, VenueOrder(kind="resume-exchange"))
    status = rest(held, "/exchange/status")
    assert (status["exchange_active"], status["trading_active"], "exchange_estimated_resume_time" in status) == (
        True, True, False,
    )  # fmt: skip
    assert any(message.kind == "orderbook_delta" for message in pass_s(held, 2))
