"""Combos: made of open markets, told on a channel of their own, in no list of events, settled by their legs."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from tests.exchanges.kalshi_simulated.test_market_orders import START_NS, model, pass_s, rest

from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.master_data import RestMarket
from ssmd.exchanges.kalshi.simulated.combos import COLLECTION, SERIES
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market
from ssmd.exchanges.kalshi.simulated.market_orders import NothingFits, VenueOrder, apply
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel
from ssmd.exchanges.kalshi.simulated.wire import Message

CHANNEL = "multivariate_market_lifecycle"


def combos(held: MarketModel) -> list[Market]:
    return [market for market in held.markets.values() if market.spec.combo is not None]


def told(out: list[Message]) -> list[tuple[str, dict[str, Any]]]:
    return [(message.kind, msgspec.json.decode(message.body)) for message in out if message.channel == CHANNEL]


def settle(held: MarketModel, results: list[str]) -> list[Message]:
    """Have the legs of the only combo end so, one after another; what was said."""
    (combo,) = combos(held)
    assert combo.spec.combo is not None
    out: list[Message] = []
    for leg, wins in zip(combo.spec.combo.legs, results, strict=True):
        result = wins if wins == "scalar" else leg.side if wins == "won" else {"yes": "no", "no": "yes"}[leg.side]
        out += apply(held, VenueOrder(kind="determine", ticker=leg.market_ticker, result=result, value=2_500))  # type: ignore[arg-type]
    return out + pass_s(held, 60)


@pytest.fixture
def held() -> MarketModel:
    """A model with one combo of two legs."""
    return next(made for seed in range(50) if len(legs(made := model(seed=seed, combos=1))) == 2)


def legs(held: MarketModel) -> list[str]:
    (combo,) = combos(held)
    assert combo.spec.combo is not None
    return [leg.market_ticker for leg in combo.spec.combo.legs]


def test_a_combo_on_demand_is_announced_on_its_own_channel(held: MarketModel) -> None:
    out = apply(held, VenueOrder(kind="combo"))
    spec = combos(held)[1].spec
    assert spec.combo is not None
    assert re.fullmatch(r"KXMVECROSSCATEGORY-S2026[0-9A-F]{10}-[0-9A-F]{11}", spec.ticker)
    announced, created, activated = told(out)
    assert announced == (
        "event_lifecycle",
        {
            "event_ticker": spec.event.ticker, "exchange_index": 1, "title": "Combo", "subtitle": "MVE",
            "collateral_return_type": "", "series_ticker": SERIES, "strike_date": spec.close_ns // 10**9,
        },
    )  # fmt: skip
    kind, body = created
    assert (kind, body["market_ticker"], body["event_type"], body["exchange_index"]) == (CHANNEL, spec.ticker, "created", 1)
    assert body["price_level_structure"] == "center_deci_edge_centi_cent"
    assert [row["step"] for row in body["price_ranges"]] == ["0.0001", "0.0010", "0.0001"]
    strike = body["additional_metadata"]["custom_strike"]
    assert strike["Associated Markets"].split(",") == [leg.market_ticker for leg in spec.combo.legs]
    assert strike["Multivariate Event Ticker"] == spec.event.ticker == body["additional_metadata"]["event_ticker"]
    assert activated == (CHANNEL, {"market_ticker": spec.ticker, "is_deactivated": False, "event_type": "activated"})
    assert not [message for message in out if message.channel == "market_lifecycle_v2"]
    assert [message.kind for message in out[3:]] == ["orderbook_delta"] * (len(out) - 3), "it is quoted"
    assert all(message.ticker == spec.ticker for message in out[3:])
    assert len({leg.event_ticker for leg in spec.combo.legs}) == len(spec.combo.legs), "one leg an event"


def test_rest_has_combos_apart(held: MarketModel) -> None:
    (combo,) = combos(held)
    spec = combo.spec
    assert spec.combo is not None
    singles = [ticker for ticker in held.markets if not is_combo(ticker)]
    assert [row["ticker"] for row in rest(held, "/markets")["markets"]] == [*singles, spec.ticker]
    assert [row["ticker"] for row in rest(held, "/markets", mve_filter="exclude")["markets"]] == singles
    (row,) = rest(held, "/markets", mve_filter="only")["markets"]
    assert row == rest(held, f"/markets/{spec.ticker}")["market"]
    assert (row["mve_collection_ticker"], row["exchange_index"], row["strike_type"]) == (COLLECTION, 1, "custom")
    assert row["mve_selected_legs"] == [
        {"event_ticker": leg.event_ticker, "market_ticker": leg.market_ticker, "side": leg.side} for leg in spec.combo.legs
    ]
    assert row["custom_strike"]["Associated Market Sides"] == ",".join(leg.side for leg in spec.combo.legs)
    assert msgspec.json.decode(msgspec.json.encode(row), type=RestMarket).mve_collection_ticker == COLLECTION
    assert spec.event.ticker not in [row["event_ticker"] for row in rest(held, "/events")["events"]]
    events = rest(held, "/events/multivariate", with_nested_markets="true")
    assert [
        (one["event_ticker"], one["series_ticker"], [row["ticker"] for row in one["markets"]]) for one in events["events"]
    ] == [(spec.event.ticker, SERIES, [spec.ticker])]
    assert events["cursor"] == ""
    for query, found in (
        ({"collection_ticker": COLLECTION}, 1),
        ({"collection_ticker": "X"}, 0),
        ({"series_ticker": SERIES}, 1),
    ):
        assert len(rest(held, "/events/multivariate", **query)["events"]) == found
    assert "error" in rest(held, "/events/multivariate", collection_ticker="X", series_ticker="Y")
    assert "error" in rest(held, "/markets", mve_filter="some")
    assert rest(held, f"/events/{spec.event.ticker}")["event"]["title"] == "Combo"
    assert rest(held, f"/series/{SERIES}")["series"]["exchange_index"] == 1


def test_pages_of_combo_events_lead_to_the_end() -> None:
    held = model(markets=8, combos=7)
    first = rest(held, "/events/multivariate", limit="4")
    second = rest(held, "/events/multivariate", limit="4", cursor=first["cursor"])
    assert [one["event_ticker"] for one in first["events"] + second["events"]] == [
        one.spec.event.ticker for one in combos(held)
    ]
    assert (len(first["events"]), second["cursor"]) == (4, "")


@pytest.mark.parametrize(
    ("results", "result", "value"),
    [
        (["won", "won"], "yes", ONE_DOLLAR),
        (["won", "lost"], "no", 0),
        (["won", "scalar"], "scalar", None),
    ],
)
def test_a_combo_pays_what_its_legs_pay_multiplied(
    held: MarketModel, results: list[str], result: str, value: int | None
) -> None:
    (combo,) = combos(held)
    assert combo.spec.combo is not None
    out = [body for _, body in told(settle(held, results))]
    assert [body["event_type"] for body in out] == ["close_date_updated", "determined", "settled"]
    if value is None:
        value = 2_500 if combo.spec.combo.legs[1].side == "yes" else 7_500
    assert (out[1]["result"], out[1]["settlement_value"]) == (result, f"{value / 10_000:.4f}")
    assert (combo.phase, combo.yes, combo.no) == ("finalized", {}, {})


def test_a_lost_leg_ends_a_combo_at_once_and_an_open_one_does_not(held: MarketModel) -> None:
    (combo,) = combos(held)
    assert combo.spec.combo is not None
    first = combo.spec.combo.legs[0]
    apply(held, VenueOrder(kind="determine", ticker=first.market_ticker, result=first.side))  # type: ignore[arg-type]
    pass_s(held, 30)
    assert combo.phase == "active"
    second = combo.spec.combo.legs[1]
    lost: Any = "no" if second.side == "yes" else "yes"
    apply(held, VenueOrder(kind="determine", ticker=second.market_ticker, result=lost))
    assert combo.phase == "closed"
    pass_s(held, 60)
    assert (combo.phase, combo.result) == ("finalized", "no")


def test_combos_of_markets_that_roll_live_and_die_by_themselves() -> None:
    held = model(markets=40, roll_s=40, combos=30, determine_s=5, settle_s=5)
    ends = {market.spec.ticker: market.spec.close_ns for market in combos(held)}
    assert len(ends) == 30
    out = told(pass_s(held, 120))
    done = {body["market_ticker"]: body["result"] for _, body in out if body.get("event_type") == "determined"}
    over = {ticker for ticker, close_ns in ends.items() if close_ns < START_NS + 60 * 10**9}
    assert over
    assert over <= set(done)
    settled = [body["market_ticker"] for _, body in out if body.get("event_type") == "settled"]
    assert len(settled) == len(set(settled))
    assert over <= set(settled)


def test_the_same_seed_makes_the_same_combos() -> None:
    first, second = ([one.spec for one in combos(model(seed=9, markets=12, combos=5))] for _ in range(2))
    assert first == second
    assert len(first) == 5


def test_a_venue_of_one_event_has_none() -> None:
    lonely = model(markets=1, combos=3)
    assert combos(lonely) == []
    with pytest.raises(NothingFits, match="no two events"):
        apply(lonely, VenueOrder(kind="combo"))
