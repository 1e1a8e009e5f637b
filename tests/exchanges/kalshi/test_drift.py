"""Whatever a venue sends, reading it never raises, and what was not read is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.domain import capture
from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.kalshi import drift
from ssmd.exchanges.kalshi.drift import Finding, classify, prune, salvage
from ssmd.exchanges.kalshi.frames import DOLLARS, UNREADABLE, DeltaBody, MarketLifecycleBody, OrderbookDelta
from ssmd.exchanges.kalshi.legacy import CENTS
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.session import KalshiSession
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, encode_fact
from ssmd.schemas.records import Record

TICKER = "KXBTCD-26MAY3017-T73499.99"
# Shapes of genuine frames (docs of the venue and recordings), with made-up values.
FRAMES: list[dict[str, Any]] = [
    {"type": "subscribed", "id": 1, "msg": {"channel": "orderbook_delta", "sid": 1}},
    {"type": "ok", "id": 2, "sid": 1, "seq": 2, "msg": {"market_tickers": [TICKER]}},
    {"type": "ok", "id": 3, "msg": [{"channel": "ticker", "sid": 2}]},
    {"type": "unsubscribed", "id": 4, "sid": 1, "seq": 3},
    {"type": "error", "id": 5, "sid": 1, "seq": 4, "msg": {"code": 25, "msg": "Subscription buffer overflow"}},
    {
        "type": "orderbook_snapshot",
        "sid": 1,
        "seq": 1,
        "msg": {
            "market_ticker": TICKER,
            "market_id": "m",
            "yes_dollars_fp": [["0.0100", "1.00"]],
            "no_dollars_fp": [["0.02", "2"]],
        },
        "sending_ts_ms": 5,
    },
    {
        "type": "orderbook_delta",
        "sid": 1,
        "seq": 2,
        "msg": {
            "market_ticker": TICKER,
            "market_id": "m",
            "price_dollars": "0.9600",
            "delta_fp": "-54.00",
            "side": "yes",
            "ts": "2026-05-14T04:38:12.18Z",
            "ts_ms": 1778733492180,
        },
    },
    {
        "type": "ticker",
        "sid": 2,
        "msg": {
            "market_ticker": TICKER,
            "market_id": "m",
            "price_dollars": "0.5",
            "yes_bid_dollars": "0.4900",
            "yes_ask_dollars": "0.5100",
            "volume_fp": "1.00",
            "open_interest_fp": "1.00",
            "dollar_volume": 4,
            "ts": 5,
            "ts_ms": 5000,
            "time": "1970-01-01T00:00:05Z",
        },
    },
    {
        "type": "trade",
        "sid": 3,
        "seq": 1,
        "msg": {
            "trade_id": "x",
            "market_ticker": TICKER,
            "yes_price_dollars": "0.3",
            "no_price_dollars": "0.7",
            "count_fp": "1.00",
            "taker_side": "no",
            "ts": 3,
        },
    },
    {
        "type": "market_lifecycle_v2",
        "sid": 4,
        "seq": 1,
        "msg": {
            "market_ticker": TICKER,
            "open_ts": 1,
            "additional_metadata": {"name": "n", "floor_strike": 1.5},
            "event_type": "created",
        },
    },
    {
        "type": "event_lifecycle",
        "sid": 4,
        "seq": 2,
        "msg": {"event_ticker": "E", "title": "t", "subtitle": "", "series_ticker": "S"},
    },
    {"type": "event_fee_update", "sid": 4, "seq": 3, "msg": {"event_ticker": "E", "fee_multiplier_override": None}},
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["yes", "0.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, one in items for inner in paths_of(one, (*path, key)))]


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    """A genuine shape with one value replaced, one key removed or added, or one byte changed; JSON may get NaN tokens."""
    frame = json.loads(json.dumps(draw(st.sampled_from(FRAMES))))
    path = draw(st.sampled_from(paths_of(frame)[1:]))
    holder = frame
    for key in path[:-1]:
        holder = holder[key]
    change = draw(st.sampled_from(["replace", "remove", "add", "byte", "cut"]))
    if change == "replace":
        holder[path[-1]] = draw(JSON)
    elif change == "remove":
        del holder[path[-1]]
    elif change == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=8))] = draw(JSON)
    payload = json.dumps(frame).encode()
    if change == "byte":
        place = draw(st.integers(0, len(payload) - 1))
        payload = payload[:place] + bytes([draw(st.integers(0, 255))]) + payload[place + 1 :]
    elif change == "cut":
        payload = payload[: draw(st.integers(0, len(payload)))]
    return payload


HOSTILE = st.one_of(mutated_frames(), st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode()))


def run(wire: str, payloads: list[bytes]) -> tuple[list[Record], list[capture.CaptureEvent]]:
    mapper = KalshiMapper("kalshi", 1)
    records: list[Record] = []
    facts: list[capture.CaptureEvent] = []
    first = Entry(EntryKind.CTL, 1, 1, encode_fact(Connected("kalshi", "main", "u", wire=wire)))
    for entry in (first, *(Entry(EntryKind.IN, n, n, payload) for n, payload in enumerate(payloads, 2))):
        mapped = mapper.map(entry)
        records.extend(mapped.records)
        facts.extend(mapped.facts)
    return records, facts


@settings(max_examples=250, deadline=None)
@given(st.lists(HOSTILE, max_size=6), st.sampled_from(["kalshi-dollars", "kalshi-cents"]))
def test_no_frame_makes_the_mapper_or_the_session_fail(payloads: list[bytes], wire: str) -> None:
    records, facts = run(wire, payloads)
    for record in records:
        # Each must fit its place downstream: a subject and Cap'n Proto text.
        assert record.ticker.encode()
        assert 0 <= record.ts_event_ns < 2**63
        assert 0 <= record.sid < 2**32
    assert msgspec.json.encode(facts)
    session = KalshiSession(Subscription(("orderbook_delta", "ticker"), (TICKER,)))
    session.open()
    for payload in payloads:
        assert isinstance(session.receive(payload), list)


@settings(max_examples=200, deadline=None)
@given(mutated_frames(), st.sampled_from([DOLLARS, CENTS]))
def test_a_frame_is_read_whole_or_told(payload: bytes, wire: Any) -> None:
    try:
        wire.decode(payload)
    except UNREADABLE:
        salvaged = salvage(payload, wire)
        assert salvaged.findings
        assert all(len(finding.detail) <= drift.DETAIL_MAX for finding in salvaged.findings)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(frame["type"]))
def test_every_shape_is_known_and_every_added_key_is_told(frame: dict[str, Any]) -> None:
    _, facts = run("kalshi-dollars", [json.dumps(frame).encode()])
    assert not [fact for fact in facts if isinstance(fact, capture.DriftDetected)]
    grown = {**frame, "brand_new": {"a": [1.5, None]}}
    records, facts = run("kalshi-dollars", [json.dumps(grown).encode()])
    (told,) = [fact for fact in facts if isinstance(fact, capture.DriftDetected)]
    assert (told.what, told.frame_type, told.field) == ("unknown-field", frame["type"], "brand_new")
    assert records == run("kalshi-dollars", [json.dumps(frame).encode()])[0]


def test_salvage_keeps_what_the_envelope_tells() -> None:
    payload = (
        b'{"type":"orderbook_delta","sid":7,"seq":9,"msg":{"market_ticker":"A","price_dollars":5,"delta_fp":"1","side":"yes"}}'
    )
    salvaged = salvage(payload, DOLLARS)
    assert salvaged[2:] == ("orderbook_delta", 7, 9, "A")
    assert salvaged.frame is None
    assert salvaged.findings == (
        Finding("wrong-type", "orderbook_delta", "msg.price_dollars", "Expected `str`, got `int` - at `$.msg.price_dollars`"),
    )


def test_prune_keeps_the_text_of_what_it_keeps() -> None:
    kept, unknown = prune(b'{"market_ticker":"A","floor_strike":1.50,"event_type":"x","z":{"deep":1}}', MarketLifecycleBody)
    assert kept == b'{"market_ticker":"A","floor_strike":1.50,"event_type":"x"}'
    assert unknown == ("z",)
    kept, unknown = prune(b'{"type":"orderbook_delta","x":1,"msg":{"y":2,"side":"no"}}', OrderbookDelta)
    assert (json.loads(kept), unknown) == ({"type": "orderbook_delta", "msg": {"side": "no"}}, ("x", "msg.y"))


@pytest.mark.parametrize(
    ("change", "what", "field"),
    [
        ({"market_ticker": ""}, "unknown-value", "market_ticker"),
        ({"market_ticker": 4}, "wrong-type", "market_ticker"),
        ({"side": "x"}, "unknown-value", "side"),
        ({"ts_ms": -1}, "unknown-value", "ts_ms"),
        ({"ts_ms": 2**90}, "unknown-value", "ts_ms"),
        ({"ts_ms": 1.5}, "wrong-type", "ts_ms"),
        ({"new": 1}, "unknown-field", "new"),
        ({"side": None}, "wrong-type", "side"),
    ],
)
def test_a_reader_error_is_classified(change: dict[str, Any], what: str, field: str) -> None:
    body = {"market_ticker": "A", "price_dollars": "0.1", "delta_fp": "1", "side": "yes"}
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(json.dumps({**body, **change}), type=DeltaBody)
    found = classify(raised.value, "orderbook_delta")
    assert (found.what, found.field) == (what, field)


def test_a_renamed_field_is_told_with_its_new_name() -> None:
    body = b'{"market_ticker":"A","price":"0.4","delta_fp":"1.00","side":"yes"}'
    found = salvage(b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":' + body + b"}", DOLLARS)
    assert [(one.what, one.field) for one in found.findings] == [
        ("missing-field", "msg.price_dollars"),
        ("unknown-field", "msg.price"),
    ]
    assert "perhaps it is called msg.price now" in found.findings[0].detail
    assert found.frame is None
