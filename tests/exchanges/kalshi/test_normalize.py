"""The mapper on sessions made for the case: acks, holes, drift, the end of a session and the beginning of the next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssmd.domain import capture
from ssmd.exchanges.adapter import NOTHING, Mapped
from ssmd.exchanges.kalshi import translate
from ssmd.exchanges.kalshi.frames import DOLLARS, OrderbookDelta
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.output import FINDINGS_MAX, Output
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import (
    AnyFact,
    ClockStepped,
    Connected,
    DayMark,
    Disconnected,
    PreviousSession,
    Repair,
    TailCut,
    encode_fact,
)
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Side, SizeMeaning, Trade

SECOND = 1_000_000_000


class Tape:
    """One session, entry by entry; entry n is received at n milliseconds unless told otherwise."""

    def __init__(self, session: int = 5, *, wire: str = "kalshi-dollars", previous: PreviousSession | None = None) -> None:
        self.mapper = KalshiMapper("kalshi", session)
        self.n = 0
        self.began = self.ctl(
            Connected("kalshi", "main", "wss://x", wire=wire, instance="i", epoch=3, version="1", previous=previous)
        )

    def _add(self, kind: EntryKind, payload: bytes, ts_ns: int = 0) -> Mapped:
        self.n += 1
        mapped = self.mapper.map(Entry(kind, self.n, ts_ns or self.n * 1_000_000, payload))
        for number, record in enumerate(mapped.records):
            assert (record.index, record.n, record.session, record.feed) == (number, self.n, self.mapper._session, "kalshi")
        for number, fact in enumerate(mapped.facts):
            assert (fact.index, fact.n, fact.session) == (number, self.n, self.mapper._session)
        return mapped

    def frame(self, frame: dict[str, Any] | bytes, *, ts_ns: int = 0) -> Mapped:
        payload = frame if isinstance(frame, bytes) else json.dumps(frame).encode() + b"\n"
        return self._add(EntryKind.IN, payload, ts_ns)

    def ctl(self, fact: AnyFact, *, ts_ns: int = 0) -> Mapped:
        return self._add(EntryKind.CTL, encode_fact(fact), ts_ns)

    def out(self, number: int, cmd: str = "subscribe", **params: Any) -> Mapped:
        return self._add(EntryKind.OUT, json.dumps({"id": number, "cmd": cmd, "params": params}).encode())

    def book(self, *tickers: str, sid: int = 1, number: int = 1, **params: Any) -> Mapped:
        """Subscribe to books and take the ack."""
        self.out(number, channels=["orderbook_delta"], market_tickers=tickers, use_yes_price=False, **params)
        return self.frame(subscribed("orderbook_delta", sid, number))


def subscribed(channel: str, sid: int, number: int = 1) -> dict[str, Any]:
    return {"type": "subscribed", "id": number, "msg": {"channel": channel, "sid": sid}}


def snapshot(ticker: str, seq: int, sid: int = 1, **sides: list[list[str]]) -> dict[str, Any]:
    return {"type": "orderbook_snapshot", "sid": sid, "seq": seq, "msg": {"market_ticker": ticker, "market_id": "m", **sides}}


def delta(
    ticker: str, seq: int, sid: int = 1, price: str = "0.4000", size: str = "5.00", side: str = "yes", **more: Any
) -> dict[str, Any]:
    msg = {"market_ticker": ticker, "market_id": "m", "price_dollars": price, "delta_fp": size, "side": side, **more}
    return {"type": "orderbook_delta", "sid": sid, "seq": seq, "msg": msg}


def trade(ticker: str, seq: int, sid: int = 2, **more: Any) -> dict[str, Any]:
    msg = {
        "trade_id": "t1",
        "market_ticker": ticker,
        "yes_price_dollars": "0.3000",
        "no_price_dollars": "0.7000",
        "count_fp": "2.50",
    }
    return {"type": "trade", "sid": sid, "seq": seq, "msg": {**msg, "taker_book_side": "bid", **more}}


def gaps(mapped: Mapped) -> list[tuple[str, str, str, str, int, int]]:
    """(gap id, state, cause, ticker, start_ns, end_ns) of the Gap records."""
    found = [record for record in mapped.records if isinstance(record, Gap)]
    return [(gap.gap_id, gap.state, gap.cause, gap.ticker, gap.start_ns, gap.end_ns) for gap in found]


def but_intervals(mapped: Mapped) -> tuple[capture.CaptureEvent, ...]:
    """The facts of an entry without its intervals (`test_intervals`), which come after the others."""
    kept = tuple(fact for fact in mapped.facts if not isinstance(fact, capture.IntervalAssessed))
    assert kept == tuple(mapped.facts[: len(kept)])
    return kept


def drifts(mapped: Mapped) -> list[tuple[str, str, str]]:
    return [(fact.what, fact.frame_type, fact.field) for fact in mapped.facts if isinstance(fact, capture.DriftDetected)]


# Records


def test_a_snapshot_has_the_best_levels_first_on_the_yes_side() -> None:
    tape = Tape()
    tape.book("A")
    mapped = tape.frame(
        snapshot(
            "A",
            1,
            yes_dollars_fp=[["0.0100", "10.00"], ["0.4000", "2.50"]],
            no_dollars_fp=[["0.0200", "7.00"], ["0.5600", "1.00"]],
        )
    )
    assert mapped.records == (
        BookSnapshot(
            "kalshi", "A", 0, 4_000_000, 5, 4, 0, 1, 1, -4, -2, ((4000, 250), (100, 1000)), ((4400, 100), (9800, 700)), False
        ),
    )


@pytest.mark.parametrize(
    ("frame", "record"),
    [
        (
            delta("A", 2, price="0.5600", size="-1.25", side="no", ts="2026-05-14T04:44:52.862234Z", ts_ms=1778733892862),
            BookDelta(
                "kalshi", "A", 1778733892862234000, 5_000_000, 5, 5, 0, 1, 2, -4, -2, 4400, -125, Side.ASK, SizeMeaning.CHANGE
            ),
        ),
        (
            # Finer than the default exponents on both counts: nothing is rounded.
            delta("A", 2, price="0.56005", size="0.001", side="no", ts_ms=7),
            BookDelta("kalshi", "A", 7_000_000, 5_000_000, 5, 5, 0, 1, 2, -5, -3, 43995, 1, Side.ASK, SizeMeaning.CHANGE),
        ),
        (
            # The text disagrees with ts_ms: ts_ms holds.
            delta("A", 2, ts="2026-05-14T04:44:53Z", ts_ms=1778733892862),
            BookDelta(
                "kalshi", "A", 1778733892862000000, 5_000_000, 5, 5, 0, 1, 2, -4, -2, 4000, 500, Side.BID, SizeMeaning.CHANGE
            ),
        ),
    ],
)
def test_a_delta_is_a_change_of_a_level(frame: dict[str, Any], record: BookDelta) -> None:
    tape = Tape()
    tape.book("A")
    levels = [["0.4000", "9.00"], ["0.5600", "9.00"], ["0.56005", "9.00"]]
    tape.frame(snapshot("A", 1, no_dollars_fp=levels))
    assert tape.frame(frame) == ((record,), (), "")


def test_the_hot_path_gives_what_the_general_one_gives() -> None:
    for side in ("yes", "no"):
        for is_yes_priced in (False, True):
            tape = Tape()
            tape.out(1, channels=["orderbook_delta"], market_tickers=["A"], use_yes_price=is_yes_priced)
            tape.frame(subscribed("orderbook_delta", 1))
            tape.frame(snapshot("A", 1))
            raw = json.dumps(delta("A", 2, price="0.1234", size="3.21", side=side, ts="2026-05-14T04:44:52.5Z")).encode()
            decoded = DOLLARS.decode(raw)
            assert isinstance(decoded, OrderbookDelta)
            general = translate.delta(Output("kalshi", 5, 5, 5_000_000), decoded, [], is_yes_priced=is_yes_priced)
            assert tape.frame(raw).records == (general,)


def test_a_quote_without_bid_ask_or_last_says_so() -> None:
    tape = Tape()
    msg = {"market_ticker": "A", "price_dollars": "0.0000", "yes_bid_dollars": "0.0000", "yes_ask_dollars": "1.0000"}
    sizes = {
        "yes_bid_size_fp": "0.00",
        "yes_ask_size_fp": "0.00",
        "last_trade_size_fp": "0.00",
        "volume_fp": "0.00",
        "open_interest_fp": "3.10",
    }
    mapped = tape.frame({"type": "ticker", "sid": 1, "msg": {**msg, **sizes, "ts": 12}})
    assert mapped.records == (
        Quote("kalshi", "A", 12 * SECOND, 2_000_000, 5, 2, 0, 1, 0, -4, -2, None, None, None, None, None, None, 0, 310),
    )
    real = {
        **msg,
        **sizes,
        "yes_ask_dollars": "0.9800",
        "yes_ask_size_fp": "2.00",
        "price_dollars": "0.97",
        "last_trade_size_fp": "1.00",
    }
    mapped = tape.frame({"type": "ticker", "sid": 1, "msg": {**real, "ts_ms": 12_345}})
    assert mapped.records == (
        Quote("kalshi", "A", 12_345_000_000, 3_000_000, 5, 3, 0, 1, 0, -4, -2, None, None, 9800, 200, 9700, 100, 0, 310),
    )


@pytest.mark.parametrize(
    ("more", "aggressor", "drift"),
    [
        ({}, Side.BID, []),
        ({"taker_book_side": "ask"}, Side.ASK, []),
        ({"taker_book_side": "", "taker_outcome_side": "no"}, Side.ASK, []),
        ({"taker_book_side": "", "taker_side": "yes"}, Side.BID, []),
        ({"taker_book_side": "sideways"}, Side.UNKNOWN, [("unknown-value", "trade", "msg.taker_book_side")]),
        ({"no_price_dollars": "0.6000"}, Side.BID, [("unknown-value", "trade", "msg.no_price_dollars")]),
    ],
)
def test_a_trade_names_its_aggressor(more: dict[str, Any], aggressor: Side, drift: list[tuple[str, str, str]]) -> None:
    mapped = Tape().frame(trade("A", 9, ts_ms=3, is_block_trade=True, **more))
    assert mapped.records == (
        Trade("kalshi", "A", 3_000_000, 2_000_000, 5, 2, 0, 2, 9, -4, -2, "t1", 3000, 250, aggressor, True),
    )
    assert drifts(mapped) == drift


def test_a_status_keeps_the_body_verbatim() -> None:
    body = '{"market_ticker":"A","open_ts":10,"close_ts":20,"floor_strike":73499.990,'
    body += '"additional_metadata":{"name":"x","cap_strike":1e2},"event_type":"created"}'
    mapped = Tape().frame(b'{"type":"market_lifecycle_v2","sid":3,"seq":1,"msg":%b}\n' % body.encode())
    assert mapped == (
        (
            MarketStatus(
                "kalshi",
                "A",
                0,
                2_000_000,
                5,
                2,
                0,
                3,
                1,
                -4,
                -2,
                "created",
                "initialized",
                10 * SECOND,
                20 * SECOND,
                "",
                None,
                body,
            ),
        ),
        (),
        "",
    )
    cleared = {"event_ticker": "E", "fee_type_override": None, "fee_multiplier_override": None}
    (record,) = Tape().frame({"type": "event_fee_update", "sid": 3, "seq": 2, "msg": cleared}).records
    assert isinstance(record, MarketStatus)
    assert (record.ticker, record.change, record.status) == ("E", "event_fee_update", "")


def test_the_cents_wire_gives_the_same_records() -> None:
    tape = Tape(wire="kalshi-cents")
    tape.frame(
        {
            "type": "orderbook_snapshot",
            "sid": 1,
            "seq": 1,
            "msg": {"market_ticker": "A", "yes": [[47, 100]], "no": [[10, 1], [50, 3]]},
        }
    )
    mapped = tape.frame(
        {
            "type": "orderbook_delta",
            "sid": 1,
            "seq": 2,
            "msg": {"market_ticker": "A", "price": 50, "delta": -3, "side": "no", "ts": 9},
        }
    )
    assert mapped.records == (
        BookDelta("kalshi", "A", 9 * SECOND, 3_000_000, 5, 3, 0, 1, 2, -4, -2, 5000, -300, Side.ASK, SizeMeaning.CHANGE),
    )
    mapped = tape.frame(
        {
            "type": "trade",
            "sid": 2,
            "seq": 1,
            "msg": {"market_ticker": "A", "yes_price": 12, "no_price": 88, "count": 4, "taker_side": "no", "ts": 9},
        }
    )
    assert mapped.records == (
        Trade("kalshi", "A", 9 * SECOND, 4_000_000, 5, 4, 0, 2, 1, -4, -2, "", 1200, 400, Side.ASK, False),
    )
    mapped = tape.frame(
        {"type": "trade", "sid": 2, "seq": 2, "msg": {"market_ticker": "A", "count": 4, "taker_side": "no", "ts": 9}}
    )
    assert [record.seq for record in mapped.records if isinstance(record, Trade)] == []
    assert drifts(mapped)[0][:2] == ("unknown-value", "trade")


# Sequence


def test_a_jump_opens_a_hole_for_every_ticker_and_each_snapshot_closes_its_own() -> None:
    tape = Tape()
    tape.book("A", "B", "C")
    for seq, ticker in enumerate("ABC", 1):
        tape.frame(snapshot(ticker, seq))
    jump = tape.frame(delta("A", 6))
    assert gaps(jump) == [("5-7-1", "opened", "sequence-jump", ticker, 6_000_000, 0) for ticker in "ABC"]
    assert isinstance(jump.records[3], BookDelta)
    (opened,) = jump.facts
    assert isinstance(opened, capture.GapOpened)
    assert (opened.gap_id, opened.tickers, opened.sid, opened.seq_expected, opened.seq_found) == (
        "5-7-1",
        ("A", "B", "C"),
        1,
        4,
        6,
    )
    assert (opened.channel, opened.start_ns) == ("orderbook_delta", 6_000_000)
    back = tape.frame(snapshot("A", 7))
    assert gaps(back) == [("5-7-1", "closed", "sequence-jump", "A", 6_000_000, 8_000_000)]
    assert isinstance(back.records[1], BookSnapshot)
    assert back.facts == ()
    tape.frame(snapshot("B", 8))
    last = tape.frame(snapshot("C", 9))
    assert but_intervals(last) == (capture.GapClosed(5, 10, 0, 10_000_000, "5-7-1", 6_000_000, 10_000_000, ("A", "B", "C")),)
    assert gaps(tape.frame(snapshot("A", 10))) == []


def test_closings_are_told_after_a_second_though_a_ticker_stays_away() -> None:
    tape = Tape()
    tape.book("A", "B")
    tape.frame(snapshot("A", 1))
    tape.frame(delta("A", 3))
    assert tape.frame(snapshot("A", 4)).facts == ()
    assert tape.frame(delta("A", 5), ts_ns=SECOND // 2).facts == ()
    assert but_intervals(tape.frame(delta("A", 6), ts_ns=2 * SECOND)) == (
        capture.GapClosed(5, 8, 0, 2 * SECOND, "5-5-1", 4_000_000, 6_000_000, ("A",)),
    )


def test_deltas_take_the_hot_path_while_closings_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped() -> list[Mapped]:
        tape = Tape()
        tape.book("A", "B")
        given = [tape.frame(snapshot("A", 1)), tape.frame(delta("A", 3)), tape.frame(snapshot("A", 4))]
        given += [tape.frame(delta("A", 5 + at), ts_ns=SECOND // 2 + at * SECOND // 10) for at in range(8)]
        return [*given, tape.frame(snapshot("B", 13), ts_ns=2 * SECOND)]

    quick: list[Mapped | None] = []
    hot = KalshiMapper._delta_in_order

    def noted(mapper: KalshiMapper, frame: OrderbookDelta, n: int, ts_ns: int) -> Mapped | None:
        quick.append(hot(mapper, frame, n, ts_ns))
        return quick[-1]

    with monkeypatch.context() as patched:
        patched.setattr(KalshiMapper, "_delta_in_order", noted)
        by_hot_path = mapped()
    assert [one is not None for one in quick] == [False, *[True] * 6, False, True]  # behind a jump, and when it is to be told
    with monkeypatch.context() as patched:
        patched.setattr(KalshiMapper, "_delta_in_order", lambda *_: None)
        assert by_hot_path == mapped()


def test_two_jumps_are_two_holes() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    tape.frame(delta("A", 3))
    tape.frame(delta("A", 5))
    back = tape.frame(snapshot("A", 6))
    assert [gap[:2] for gap in gaps(back)] == [("5-5-1", "closed"), ("5-6-1", "closed")]


def test_acks_and_errors_take_part_in_the_sequence() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    ok = tape.frame({"type": "ok", "id": 2, "sid": 1, "seq": 2, "msg": {"market_tickers": ["A", "B"]}})
    assert ok.facts == (capture.Subscribed(5, 5, 0, 5_000_000, 1, "orderbook_delta", ("B",)),)
    assert (
        tape.frame({"type": "error", "id": 3, "sid": 1, "seq": 3, "msg": {"code": 13, "msg": "Unsupported action"}}) == NOTHING
    )
    assert gaps(tape.frame(delta("A", 4))) == []
    assert gaps(tape.frame({"type": "ok", "id": 4, "sid": 1, "seq": 6, "msg": {"market_tickers": ["A", "B"]}})) == [
        ("5-8-1", "opened", "sequence-jump", ticker, 7_000_000, 0) for ticker in "AB"
    ]


def test_ok_without_tickers_is_read_from_our_command() -> None:
    tape = Tape()
    tape.book("A", skip_ticker_ack=True)
    tape.out(2, "update_subscription", sid=1, action="add_markets", market_tickers=["C", "B"])
    (fact,) = tape.frame({"type": "ok", "id": 2, "sid": 1, "seq": 1}).facts
    assert isinstance(fact, capture.Subscribed)
    assert fact.tickers == ("B", "C")


def test_the_first_frame_of_a_sid_without_an_ack_is_no_hole() -> None:
    assert gaps(Tape().frame(delta("A", 279_597))) == []


def test_a_trade_lost_is_a_hole_that_ends_where_it_is_noticed() -> None:
    tape = Tape()
    tape.out(1, channels=["trade"], market_tickers=["A", "B"])
    tape.frame(subscribed("trade", 2))
    tape.frame(trade("A", 1))
    jump = tape.frame(trade("A", 4))
    states = [("opened", "A", 0), ("opened", "B", 0), ("closed", "A", 5_000_000), ("closed", "B", 5_000_000)]
    assert [(state, ticker, end) for _, state, _, ticker, _, end in gaps(jump)] == states
    assert [type(fact) for fact in but_intervals(jump)] == [capture.GapOpened, capture.GapClosed]


def test_a_lifecycle_frame_lost_concerns_the_whole_channel() -> None:
    tape = Tape()
    tape.out(1, channels=["market_lifecycle_v2"])
    tape.frame(subscribed("market_lifecycle_v2", 1))
    body = {"event_type": "settled", "market_ticker": "A", "settled_ts": 3}
    jump = tape.frame({"type": "market_lifecycle_v2", "sid": 1, "seq": 2, "msg": body})
    assert [(state, ticker) for _, state, _, ticker, _, _ in gaps(jump)] == [("opened", "*"), ("closed", "*")]
    (opened, closed) = but_intervals(jump)
    assert isinstance(opened, capture.GapOpened)
    assert isinstance(closed, capture.GapClosed)
    assert (opened.tickers, opened.channel, closed.tickers) == ((), "market_lifecycle_v2", ())


def test_a_repeated_frame_is_told_once_and_not_applied() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    tape.frame(delta("A", 2))
    again = tape.frame(delta("A", 2))
    assert (again.records, drifts(again)) == ((), [("duplicate-sequence", "orderbook_delta", "seq")])
    assert tape.frame(delta("A", 1)) == NOTHING
    assert [type(record) for record in tape.frame(delta("A", 3)).records] == [BookDelta]


def test_a_terminal_error_is_a_hole_until_the_next_snapshot() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    ended = tape.frame({"type": "error", "sid": 1, "seq": 2, "msg": {"code": 25, "msg": "Subscription buffer overflow"}})
    assert gaps(ended) == [("5-5-1-ended", "opened", "channel-error", "A", 5_000_000, 0)]
    tape.frame(subscribed("orderbook_delta", 9, 4))
    back = tape.frame(snapshot("A", 1, sid=9))
    assert gaps(back) == [("5-5-1-ended", "closed", "channel-error", "A", 5_000_000, 7_000_000)]


def test_an_unsubscribed_ticker_is_not_missed() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    tape.frame({"type": "unsubscribed", "id": 2, "sid": 1, "seq": 2})
    assert tape.ctl(Disconnected("stopped", last_recv_ns=1)).records == ()


# Drift


def test_an_unknown_field_is_told_and_the_frame_is_read() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    mapped = tape.frame({**delta("A", 2, new_field=1.5), "other": [1]})
    assert drifts(mapped) == [
        ("unknown-field", "orderbook_delta", "msg.new_field"),
        ("unknown-field", "orderbook_delta", "other"),
    ]
    assert mapped.records == (
        BookDelta("kalshi", "A", 0, 5_000_000, 5, 5, 0, 1, 2, -4, -2, 4000, 500, Side.BID, SizeMeaning.CHANGE),
    )
    assert drifts(tape.frame(delta("A", 3, new_field=1))) == []


def test_every_frame_is_compared_not_only_the_first_ones() -> None:
    tape = Tape()
    tape.book("A")
    for seq in range(1, 500):
        assert tape.frame(delta("A", seq)).facts == ()
    assert drifts(tape.frame(delta("A", 500, late=True))) == [("unknown-field", "orderbook_delta", "msg.late")]


def test_an_unknown_field_deep_in_a_lifecycle_body_is_told() -> None:
    body = {"event_type": "created", "market_ticker": "A", "additional_metadata": {"name": "x", "moon": 1}, "sun": 2}
    mapped = Tape().frame({"type": "market_lifecycle_v2", "sid": 1, "seq": 1, "msg": body})
    assert drifts(mapped) == [
        ("unknown-field", "market_lifecycle_v2", "msg.additional_metadata.moon"),
        ("unknown-field", "market_lifecycle_v2", "msg.sun"),
    ]
    (record,) = mapped.records
    assert isinstance(record, MarketStatus)
    assert json.loads(record.detail) == body


@pytest.mark.parametrize(
    ("payload", "drift"),
    [
        (b"", ("malformed", "", "")),
        (b"not json", ("malformed", "", "")),
        (b"[" * 100_000, ("malformed", "", "")),
        (b"[]", ("malformed", "", "")),
        (b"{}", ("missing-field", "", "type")),
        (b'{"type":3}', ("wrong-type", "", "type")),
        (b'{"type":"fill","sid":4,"msg":{}}', ("unknown-type", "fill", "")),
        (b'{"type":"trade","sid":4,"msg":{"market_ticker":"A"}}', ("missing-field", "trade", "msg.trade_id")),
        (b'{"type":"ticker","sid":"4","msg":{}}', ("wrong-type", "ticker", "sid")),
        (b'{"type":"ticker","sid":-4,"msg":{}}', ("unknown-value", "ticker", "sid")),
        (b'{"type":"ticker","sid":NaN,"msg":{}}', ("malformed", "", "")),
        (b'{"type":"event_lifecycle","sid":1,"msg":{"event_ticker":"\xff"}}', ("malformed", "event_lifecycle", "msg")),
        (b'{"type":"event_lifecycle","sid":1,"msg":{"event_ticker":7}}', ("wrong-type", "event_lifecycle", "msg.event_ticker")),
    ],
)
def test_what_cannot_be_read_is_told_and_yields_nothing(payload: bytes, drift: tuple[str, str, str]) -> None:
    mapped = Tape().frame(payload)
    assert (mapped.records, drifts(mapped)) == ((), [drift])


@pytest.mark.parametrize(
    "broken", [{"price": "1.5"}, {"size": "1e2"}, {"side": "maybe"}, {"price": "\u0660.5"}, {"ts_ms": "x"}]
)
def test_a_delta_that_cannot_be_read_is_a_hole_of_its_ticker_at_once(broken: dict[str, Any]) -> None:
    tape = Tape()
    tape.book("A", "B")
    tape.frame(snapshot("A", 1))
    mapped = tape.frame(delta("A", 2, **broken))
    assert gaps(mapped) == [("5-5-1-unmapped", "opened", "unmapped-frame", "A", 4_000_000, 0)]
    assert len(drifts(mapped)) == 1
    assert gaps(tape.frame(delta("B", 3))) == []
    assert [gap[1] for gap in gaps(tape.frame(snapshot("A", 4)))] == ["closed"]


def test_bytes_that_tell_nothing_show_as_a_jump_at_the_next_frame() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    assert tape.frame(b'{"type":"orderbook_del').records == ()
    assert gaps(tape.frame(delta("A", 3)))[0][:3] == ("5-6-1", "opened", "sequence-jump")


def test_an_unknown_type_takes_its_place_in_the_sequence() -> None:
    tape = Tape()
    tape.book("A")
    tape.frame(snapshot("A", 1))
    assert drifts(tape.frame({"type": "orderbook_news", "sid": 1, "seq": 2, "msg": {}})) == [
        ("unknown-type", "orderbook_news", "")
    ]
    assert gaps(tape.frame(delta("A", 3))) == []


def test_findings_are_bounded() -> None:
    tape = Tape()
    told = [drifts(tape.frame({"type": f"new-{number}"})) for number in range(FINDINGS_MAX + 50)]
    assert sum(map(len, told)) == FINDINGS_MAX


def test_an_unknown_wire_is_told() -> None:
    assert drifts(Tape(wire="kalshi-euros").began) == [("unknown-value", "connected", "wire")]


# The session's own facts, its end, and the next one's beginning


def test_facts_of_our_own_entries() -> None:
    tape = Tape(previous=PreviousSession(4, 77, 66, "killed"))
    assert tape.began.facts == (capture.Connected(5, 1, 0, 1_000_000, "wss://x", "kalshi-dollars", "i", 3, "1", 4),)
    assert tape.book("B", "A").facts == (capture.Subscribed(5, 3, 0, 3_000_000, 1, "orderbook_delta", ("A", "B")),)
    assert tape.ctl(DayMark("2026-05-14")).facts == (capture.DayMarked(5, 4, 0, 4_000_000, "2026-05-14"),)
    assert tape.ctl(ClockStepped(-5)).facts == (capture.ClockStepped(5, 5, 0, 5_000_000, -5),)
    assert tape.ctl(TailCut(9)).facts == (capture.TailCut(5, 6, 0, 6_000_000, 9),)
    assert tape.ctl(Repair("g", "rest", "{}")) == NOTHING
    assert drifts(tape._add(EntryKind.CTL, b"{}")) == [("malformed", "ctl", "")]


def test_the_end_of_a_session_is_a_hole_for_all_it_carried() -> None:
    tape = Tape()
    tape.book("B", "A")
    tape.out(2, channels=["market_lifecycle_v2"])
    tape.frame(subscribed("market_lifecycle_v2", 2, 2))
    tape.frame(snapshot("A", 1))
    end = tape.ctl(Disconnected("connection-lost", 1006, "gone", 6_000_000, "reset by peer"))
    assert gaps(end) == [("5-7", "opened", "connection-lost", ticker, 6_000_000, 0) for ticker in ("A", "B", "*")]
    assert [record.channel for record in end.records if isinstance(record, Gap)] == ["", "", "market_lifecycle_v2"]
    assert but_intervals(end) == (
        capture.Disconnected(5, 7, 0, 7_000_000, "connection-lost", 1006, "gone", 6_000_000, "reset by peer"),
        capture.GapOpened(
            5, 7, 1, 7_000_000, "5-7", "connection-lost", 6_000_000, "", 0, 0, 0, ("*", "A", "B"), "reset by peer"
        ),
    )


def test_the_next_session_closes_the_hole_ticker_by_ticker() -> None:
    tape = Tape(6, previous=PreviousSession(5, 7, 6_000_000, "connection-lost", "reset by peer"))
    tape.out(1, channels=["orderbook_delta"], market_tickers=["A", "B"], use_yes_price=False)
    tape.out(2, channels=["ticker", "trade"], market_tickers=["A", "B", "T"])
    tape.out(3, channels=["market_lifecycle_v2"])
    # T has no book: its ticker subscription brings it back. A and B wait for their books.
    back = tape.frame(subscribed("ticker", 1, 2))
    assert gaps(back) == [("5-7", "closed", "connection-lost", "T", 6_000_000, 5_000_000)]
    assert gaps(tape.frame(subscribed("trade", 2, 2))) == []
    life = tape.frame(subscribed("market_lifecycle_v2", 3, 3))
    assert gaps(life) == [("5-7", "closed", "connection-lost", "*", 6_000_000, 7_000_000)]
    tape.frame(subscribed("orderbook_delta", 4, 1))
    assert gaps(tape.frame(trade("A", 1))) == []
    book = tape.frame(snapshot("A", 1, sid=4))
    assert gaps(book) == [("5-7", "closed", "connection-lost", "A", 6_000_000, 10_000_000)]
    assert isinstance(book.records[1], BookSnapshot)
    last = tape.frame(snapshot("B", 2, sid=4))
    assert [fact.tickers for fact in (*life.facts, *book.facts, *last.facts) if isinstance(fact, capture.GapClosed)] == [
        ("*", "T"),
        ("A",),
        ("B",),
    ]
    assert gaps(tape.frame(snapshot("A", 3, sid=4))) == []


def test_a_session_without_predecessor_has_no_hole_before_it() -> None:
    tape = Tape()
    tape.book("A")
    assert gaps(tape.frame(snapshot("A", 1))) == []


def test_a_hole_not_closed_in_a_session_is_handed_over_at_its_end() -> None:
    tape = Tape(6, previous=PreviousSession(5, 7, 500_000, "killed"))
    tape.book("A", "B")
    tape.frame(snapshot("A", 1))
    tape.frame(delta("A", 3))
    end = tape.ctl(Disconnected("stale", last_recv_ns=5_000_000))
    assert [(gap_id, state, ticker) for gap_id, state, _, ticker, _, _ in gaps(end)] == [
        ("6-5-1", "closed", "A"),
        ("6-5-1", "closed", "B"),
        ("5-7", "closed", "B"),
        ("6-6", "opened", "A"),
        ("6-6", "opened", "B"),
    ]
    # Each interval that ends reaches past the start of the one that goes on.
    assert [end_ns for _, state, _, _, _, end_ns in gaps(end) if state == "closed"] == [6_000_000] * 3
    assert [start_ns for _, state, _, _, start_ns, _ in gaps(end) if state == "opened"] == [5_000_000] * 2


def test_a_session_that_heard_nothing_opens_its_hole_at_its_own_number() -> None:
    tape = Tape(1_000)
    tape.out(1, channels=["orderbook_delta"], market_tickers=["A"])
    assert gaps(tape.ctl(Disconnected("stale"))) == [("1000-3", "opened", "stale", "A", 1_000, 0)]


def test_the_hole_after_such_a_session_is_closed_under_the_same_name_and_start() -> None:
    tape = Tape(2_000, previous=PreviousSession(1_000, 3, 0, "stale"))
    tape.book("A")
    assert gaps(tape.frame(snapshot("A", 1))) == [("1000-3", "closed", "stale", "A", 1_000, 4_000_000)]


def test_a_market_deleted_from_the_subscription_is_not_missed() -> None:
    tape = Tape()
    tape.book("A", "B")
    tape.out(2, "update_subscription", sid=1, action="delete_markets", market_tickers=["B"])
    assert tape.frame({"type": "ok", "id": 2, "sid": 1, "seq": 1}).facts == ()
    assert [gap[3] for gap in gaps(tape.ctl(Disconnected("stopped", last_recv_ns=1)))] == ["A"]


def test_the_same_entries_give_the_same_results() -> None:
    def once() -> list[Mapped]:
        tape = Tape(previous=PreviousSession(4, 7, 1, "killed"))
        frames = [snapshot("A", 1), delta("A", 2), delta("B", 5), snapshot("B", 6), {"type": "x"}, snapshot("A", 7)]
        return [tape.began, tape.book("A", "B"), *(tape.frame(frame) for frame in frames), tape.ctl(Disconnected("stopped"))]

    assert once() == once()
