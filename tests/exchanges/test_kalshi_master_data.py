"""Kalshi's REST markets as master data: genuine recordings, exact texts, and what must not be taken."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest
from tests.conftest import NOT_HERE, ROOT

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.master_data import RestEvent, decode_market, observation_of, text_of

RECORDED = ROOT.parent / "shared" / "data" / "kalshi"
EVENT = RestEvent("EV-1", "SER", "The event", category="Old", mutually_exclusive=False)
CHANGING = {"bid", "ask", "volume", "open_interest", "last_price", "previous", "updated_time", "liquidity", "status", "result"}


def recorded_markets() -> list[dict[str, Any]]:
    path = RECORDED / "rest-demo-2026-06" / "markets__status_open.json.gz"
    if not path.exists():
        pytest.skip(f"{path.name} {NOT_HERE}")
    with gzip.open(path) as file:
        markets: list[dict[str, Any]] = json.load(file)["markets"]
    for name in ("closed", "settled"):
        markets += json.loads((path.parent / f"markets__status_{name}.json").read_bytes())["markets"]
    return markets


def test_genuine_markets_keep_everything_that_does_not_change_by_trading() -> None:
    markets = recorded_markets()
    assert len(markets) > 200
    stages = set()
    for market in markets:
        found = observation_of(decode_market(json.dumps(market).encode()), EVENT)
        stages.add(found.stage)
        attributes = found.market.attributes
        assert list(attributes) == sorted(attributes)
        assert not [name for name in attributes if any(part in name for part in CHANGING)]
        assert found.event == market["event_ticker"]
        assert found.market.close_ns > found.market.open_ns > 0
        assert attributes["rules_primary"] == market["rules_primary"] if market["rules_primary"] else True
        assert json.loads(attributes["price_ranges"]) == market["price_ranges"]
        # A price that moves changes nothing.
        moved = market | {"yes_bid_dollars": "0.0100", "volume_fp": "9.00", "updated_time": "2030-01-01T00:00:00Z"}
        assert observation_of(decode_market(json.dumps(moved).encode()), EVENT) == found
    assert stages == {"listed", "determined", "settled"}


def market(**fields: object) -> bytes:
    return msgspec.json.encode({"ticker": "T", "event_ticker": "EV-1", "status": "active", **fields})


def test_numbers_and_parts_are_written_as_they_came() -> None:
    body = market(floor_strike=0, custom_strike={"b": 1, "a": [2, None]}, settlement_timer_seconds=300, can_close_early=False)
    body = body.replace(b'"floor_strike":0', b'"floor_strike":73499.990')
    shown = observation_of(decode_market(body), EVENT, "Crypto").market
    assert shown.attributes == {
        "can_close_early": "false",
        "custom_strike": '{"a":[2,null],"b":1}',
        "event_title": "The event",
        "floor_strike": "73499.990",
        "mutually_exclusive": "false",
        "settlement_timer_seconds": "300",
    }
    assert (shown.category, shown.title, shown.series) == ("Crypto", "The event", "SER")
    assert text_of(msgspec.Raw(b"[]")) is None


def test_times_stages_and_results() -> None:
    settled = observation_of(
        decode_market(
            market(
                status="finalized",
                result="yes",
                settlement_value_dollars="1.0000",
                settlement_ts="2026-06-28T00:31:00.5Z",
                open_time="0001-01-01T00:00:00Z",
            )
        ),
        EVENT,
    )
    assert (settled.stage, settled.at_ns, settled.result, settled.value) == ("settled", 1782606660500000000, "yes", "1.0000")
    assert settled.market.open_ns == 0
    paused = observation_of(decode_market(market(status="inactive", result="")), EVENT)
    assert (paused.stage, paused.result) == ("listed", "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (market(status="odd"), "market T has the unknown status 'odd'"),
        (market(open_time="yesterday"), "not an RFC 3339 time: 'yesterday'"),
        (b'{"ticker":"T"}', "Kalshi's answer is not a market: "),
        (b"[", "Kalshi's answer is not a market: "),
    ],
)
def test_what_is_no_market_is_said(body: bytes, message: str) -> None:
    with pytest.raises(Malformed) as found:
        observation_of(decode_market(body), EVENT)
    assert found.value.message.startswith(message)
