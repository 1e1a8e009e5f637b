"""A session whose markets come and go, and whose commands are refused for now or not answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssmd.exchanges.adapter import ListingChange, Subscription
from ssmd.exchanges.kalshi.session import REPAIRS_MAX, RESTARTS_MAX, KalshiSession
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel, ModelSettings
from ssmd.exchanges.kalshi.simulated.subscriptions import Subscriptions

BOOKS = ("orderbook_delta",)


def frame(**keys: Any) -> bytes:
    return json.dumps(keys).encode() + b"\n"


def subscribed(number: int, sid: int = 1, channel: str = "orderbook_delta") -> bytes:
    return frame(type="subscribed", id=number, msg={"channel": channel, "sid": sid})


def ok(number: int, seq: int) -> bytes:
    return frame(type="ok", id=number, sid=1, seq=seq, msg={})


def error(number: int, code: int, **more: int) -> bytes:
    return frame(type="error", id=number, msg={"code": code, "msg": "why"}, **more)


def asked(commands: list[bytes]) -> list[tuple[int, str, list[str]]]:
    read = [json.loads(command) for command in commands]
    return [(one["id"], one["params"].get("action", one["cmd"]), one["params"].get("market_tickers", [])) for one in read]


def following(*tickers: str, channels: tuple[str, ...] = BOOKS, tickers_max: int = 500) -> KalshiSession:
    return KalshiSession(Subscription(channels, tickers, is_followed=True), tickers_max=tickers_max)


def begun(*tickers: str, **more: Any) -> KalshiSession:
    session = following(*tickers, **more)
    session.open()
    session.receive(subscribed(1))
    return session


def test_markets_come_and_go_one_by_one() -> None:
    session = begun("A", "B", "C")
    assert asked(session.want(["A", "C", "D"])) == [(2, "delete_markets", ["B"]), (3, "add_markets", ["D"])]
    assert session.unplaced == 1
    assert session.receive(ok(2, 1)) == session.receive(ok(3, 2)) == []
    assert session.unplaced == 0
    assert session.tick(100.0) == []
    # A second change while the first is on its way asks for what is new only.
    assert asked(session.want(["A", "C", "D", "E"])) == [(4, "add_markets", ["E"])]
    assert asked(session.want(["A", "C", "D", "E", "F"])) == [(5, "add_markets", ["F"])]


def test_without_markets_yet_nothing_is_asked_that_would_be_taken_for_all() -> None:
    session = following(channels=("orderbook_delta", "trade", "market_lifecycle_v2"))
    assert asked(session.open()) == [(1, "subscribe", [])]
    assert json.loads(following(channels=("trade", "market_lifecycle_v2")).open()[0])["params"]["channels"] == [
        "market_lifecycle_v2"
    ]
    assert asked(session.want(["A"])) == [(2, "subscribe", ["A"]), (3, "subscribe", ["A"])]


@pytest.mark.parametrize("code", [18, 27])
def test_a_command_refused_for_now_is_asked_again_ever_later_and_its_markets_are_never_dropped(code: int) -> None:
    session = begun("A")
    session.want(["A", "B"])
    times: list[float] = []
    number = 2
    session.receive(error(number, code))
    for second in range(1, 80):
        for number, action, tickers in asked(session.tick(float(second))):
            assert (action, tickers) == ("add_markets", ["B"])
            times.append(second)
            session.receive(error(number, code))
    assert times == [1, 3, 7, 15, 31, 63]
    assert (session.failure, session.unplaced) == ("", 1)


def test_a_command_that_is_not_answered_is_asked_again() -> None:
    session = begun("A")
    session.want(["A", "B"])
    assert [asked(session.tick(float(second))) for second in (5, 10, 11)] == [[], [], [(3, "add_markets", ["B"])]]
    assert session.receive(ok(3, 1)) == []
    assert session.unplaced == 0


def test_a_channel_that_is_full_keeps_what_it_has_and_says_what_finds_no_room() -> None:
    session = begun("A")
    session.want(["A", "B", "C"])
    session.receive(error(2, 26))
    assert (session.failure, session.unplaced, session.tick(50.0)) == ("", 2, [])
    # One goes, so there is room to be tried.
    assert asked(session.want(["B", "C"])) == [(3, "delete_markets", ["A"]), (4, "add_markets", ["B", "C"])]


def test_where_snapshots_are_refused_the_subscription_is_given_back_and_taken_anew() -> None:
    session = begun("A", "B")
    delta = {"market_ticker": "A", "price_dollars": "0.4", "delta_fp": "1.00", "side": "yes"}
    session.receive(frame(type="orderbook_snapshot", sid=1, seq=1, msg={"market_ticker": "A"}))
    assert asked(session.receive(frame(type="orderbook_delta", sid=1, seq=3, msg=delta))) == [(2, "get_snapshot", ["A", "B"])]
    (given_back,) = session.receive(error(2, 13))
    assert json.loads(given_back) == {"id": 3, "cmd": "unsubscribe", "params": {"sids": [1]}}
    assert session.tick(1.0) == []
    again = session.receive(frame(type="unsubscribed", id=3, sid=1, seq=7))
    assert asked(again) == [(4, "subscribe", ["A", "B"])]
    session.receive(subscribed(4, 2))
    assert (session.failure, session.unplaced) == ("", 0)


def test_snapshots_that_never_come_end_in_a_new_connection() -> None:
    session = begun("A")
    failures = []
    seq, sid, number = 1, 1, 1
    for _ in range(RESTARTS_MAX + 1):
        session.receive(frame(type="orderbook_snapshot", sid=sid, seq=seq, msg={"market_ticker": "A"}))
        ((number, action, _),) = asked(session.repair(["A"]) or session.receive(ok(0, seq + 5)))
        assert action == "get_snapshot"
        commands = session.tick(session._asked.now_s + 31)
        failures.append(session.failure)
        if session.failure:
            break
        ((number, action, _),) = asked(commands)
        assert action == "unsubscribe"
        ((number, action, _),) = asked(session.receive(frame(type="unsubscribed", id=number, sid=sid, seq=seq + 9)))
        sid += 1
        session.receive(subscribed(number, sid))
        session._repairs.clear()
    assert failures == [""] * RESTARTS_MAX + ["channel-error: books cannot be brought back"]


def test_a_book_that_stays_wrong_is_asked_for_only_so_often() -> None:
    session = begun("A", "B")
    assert [asked(session.repair(["A", "unknown"])) for _ in range(REPAIRS_MAX + 1)] == [
        *[[(number, "get_snapshot", ["A"])] for number in range(2, 2 + REPAIRS_MAX)],
        [],
    ]
    assert asked(session.repair(["B"])) == [(2 + REPAIRS_MAX, "get_snapshot", ["B"])]


def test_lifecycle_messages_are_news_where_markets_are_followed() -> None:
    session = following("A", channels=("orderbook_delta", "market_lifecycle_v2"))
    session.open()
    session.receive(subscribed(2, 2, "market_lifecycle_v2"))
    created = {"market_ticker": "N", "additional_metadata": {"event_ticker": "E"}, "event_type": "created", "new": 1}
    session.receive(frame(type="market_lifecycle_v2", sid=2, seq=1, msg=created))
    session.receive(frame(type="event_lifecycle", sid=2, seq=2, msg={"event_ticker": "E", "series_ticker": "S"}))
    session.receive(frame(type="market_lifecycle_v2", sid=2, seq=3, msg={"market_ticker": "A", "event_type": "settled"}))
    session.receive(frame(type="market_lifecycle_v2", sid=2, seq=4, msg=[]))
    assert session.take_changes() == [
        ListingChange("created", "N", "E", ""),
        ListingChange("event", "", "E", "S"),
        ListingChange("settled", "A", "", ""),
    ]
    assert session.take_changes() == []


def test_a_thousand_changes_against_a_venue_that_answers_end_with_exactly_what_is_wanted() -> None:
    model = MarketModel(ModelSettings(seed=3, markets=300, start_ns=1))
    tickers = list(model.markets)
    venue = Subscriptions(model)
    session = following(*tickers[:100], tickers_max=20)
    sent = session.open()

    def settle(commands: list[bytes]) -> None:
        while commands:
            answers = [answer for command in commands for answer in venue.command(command)]
            commands = [command for answer in answers for command in session.receive(answer)]

    settle(sent)
    sid = venue.by_channel["orderbook_delta"].sid
    wanted = set(tickers[:100])
    for step in range(1000):
        wanted ^= {tickers[step * 7 % 300], tickers[step * 13 % 300]}
        settle(session.want(sorted(wanted)))
        assert session.failure == ""
        # Never torn down: it is the same subscription all along.
        assert venue.by_channel["orderbook_delta"].sid == sid
    assert venue.by_channel["orderbook_delta"].tickers == wanted
    assert session.unplaced == 0
