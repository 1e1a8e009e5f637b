from __future__ import annotations

import json
from typing import Any

import pytest

from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.kalshi.session import RESTARTS_MAX, RESYNC_FRAMES, KalshiSession, Refusal

ALL = ("orderbook_delta", "ticker", "trade", "market_lifecycle_v2")


def frame(**keys: Any) -> bytes:
    return json.dumps(keys).encode() + b"\n"


def subscribed(channel: str, sid: int, number: int) -> bytes:
    return frame(type="subscribed", id=number, msg={"channel": channel, "sid": sid})


def delta(seq: int, ticker: str = "A", sid: int = 1) -> bytes:
    body = {"market_ticker": ticker, "price_dollars": "0.4", "delta_fp": "1.00", "side": "yes"}
    return frame(type="orderbook_delta", sid=sid, seq=seq, msg=body)


def snapshot(seq: int, ticker: str, sid: int = 1) -> bytes:
    return frame(type="orderbook_snapshot", sid=sid, seq=seq, msg={"market_ticker": ticker})


def read(commands: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(command) for command in commands]


def opened(
    tickers: tuple[str, ...] = ("A", "B"), channels: tuple[str, ...] = ("orderbook_delta",), **more: Any
) -> KalshiSession:
    session = KalshiSession(Subscription(channels, tickers), **more)
    session.open()
    return session


def resync(number: int, *tickers: str, sid: int = 1) -> dict[str, Any]:
    params = {"sid": sid, "action": "get_snapshot", "market_tickers": list(tickers)}
    return {"id": number, "cmd": "update_subscription", "params": params}


def test_one_command_a_group_and_the_price_leg_is_explicit() -> None:
    session = KalshiSession(Subscription(ALL, ("A", "B")))
    assert read(session.open()) == [
        {
            "id": 1,
            "cmd": "subscribe",
            "params": {"channels": ["orderbook_delta"], "market_tickers": ["A", "B"], "use_yes_price": False},
        },
        {
            "id": 2,
            "cmd": "subscribe",
            "params": {"channels": ["ticker", "trade"], "market_tickers": ["A", "B"], "send_initial_snapshot": True},
        },
        {"id": 3, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}},
    ]


def test_no_tickers_means_all_where_the_channel_allows_it() -> None:
    session = KalshiSession(Subscription(("ticker", "trade"), ()))
    assert read(session.open()) == [{"id": 1, "cmd": "subscribe", "params": {"channels": ["ticker", "trade"]}}]


def test_tickers_beyond_a_command_are_added_once_the_channel_is_acknowledged() -> None:
    session = KalshiSession(Subscription(("orderbook_delta",), ("A", "B", "C", "D", "E")), tickers_max=2)
    (command,) = read(session.open())
    assert command["params"] == {
        "channels": ["orderbook_delta"],
        "market_tickers": ["A", "B"],
        "use_yes_price": False,
        "skip_ticker_ack": True,
    }
    assert session.receive(subscribed("orderbook_delta", 8, 77)) == []
    added = read(session.receive(subscribed("orderbook_delta", 9, 1)))
    assert [(one["id"], one["params"]) for one in added] == [
        (2, {"sid": 9, "action": "add_markets", "market_tickers": ["C", "D"]}),
        (3, {"sid": 9, "action": "add_markets", "market_tickers": ["E"]}),
    ]
    assert session.receive(subscribed("orderbook_delta", 9, 1)) == []


def test_a_jump_asks_for_all_snapshots_of_the_sid_in_chunks() -> None:
    session = opened(("A", "B", "C"), tickers_max=2)
    session.receive(subscribed("orderbook_delta", 1, 1))
    session.receive(frame(type="ok", id=2, sid=1, seq=1))
    assert read(session.receive(delta(3))) == [resync(3, "A", "B"), resync(4, "C")]
    assert session.receive(delta(4)) == []


def test_the_ack_consumes_a_seq_and_its_list_is_what_is_resynced() -> None:
    session = opened(("A",))
    session.receive(subscribed("orderbook_delta", 1, 1))
    session.receive(snapshot(1, "A"))
    session.receive(frame(type="ok", id=9, sid=1, seq=2, msg={"market_tickers": ["A", "Z"]}))
    assert session.receive(delta(3)) == []
    assert read(session.receive(delta(5))) == [resync(2, "A", "Z")]


def test_further_jumps_wait_for_the_snapshots_asked_for() -> None:
    session = opened()
    session.receive(subscribed("orderbook_delta", 1, 1))
    session.receive(snapshot(1, "A"))
    assert read(session.receive(delta(3))) == [resync(2, "A", "B")]
    assert session.receive(delta(5)) == []
    assert session.receive(snapshot(6, "A")) == []
    # The last one is here, but it may be older than the second jump: asked once more.
    assert read(session.receive(snapshot(7, "B"))) == [resync(3, "A", "B")]
    assert session.receive(snapshot(8, "A")) == []
    assert session.receive(snapshot(9, "B")) == []


def test_a_snapshot_lost_too_is_asked_for_again() -> None:
    session = opened()
    session.receive(subscribed("orderbook_delta", 1, 1))
    session.receive(snapshot(1, "A"))
    session.receive(delta(3))
    session.receive(delta(5))
    sent = [command for seq in range(6, 3 + RESYNC_FRAMES + 10) for command in session.receive(delta(seq))]
    assert read(sent) == [resync(3, "A", "B")]


def test_a_jump_on_another_channel_asks_for_nothing() -> None:
    session = opened(channels=("trade",))
    session.receive(subscribed("trade", 1, 1))
    assert session.receive(frame(type="trade", sid=1, seq=5, msg={})) == []


def test_a_terminal_error_subscribes_again_and_then_gives_up() -> None:
    session = opened()
    error = {"code": 25, "msg": "Subscription buffer overflow"}
    for sid in range(1, RESTARTS_MAX + 2):
        session.receive(subscribed("orderbook_delta", sid, sid))
        session.receive(snapshot(1, "A", sid))
        commands = read(session.receive(frame(type="error", sid=sid, seq=2, msg=error)))
        if sid <= RESTARTS_MAX:
            params = {"channels": ["orderbook_delta"], "market_tickers": ["A", "B"], "use_yes_price": False}
            assert commands == [{"id": sid + 1, "cmd": "subscribe", "params": params}]
            assert session.failure == ""
    assert commands == []
    assert session.failure == "channel-error: 25 Subscription buffer overflow"
    assert session.receive(delta(9)) == []


@pytest.mark.parametrize(
    ("number", "code", "failure"),
    [(1, 9, "command-refused: 9 why"), (1, 14, "command-refused: 14 why"), (1, 8, ""), (0, 5, ""), (99, 9, "")],
)
def test_a_refused_command_fails_the_connection_if_it_was_ours_and_needed(number: int, code: int, failure: str) -> None:
    session = opened()
    assert session.receive(frame(type="error", id=number, msg={"code": code, "msg": "why"})) == []
    assert session.failure == failure
    assert session.refusals == (() if failure else (Refusal(number, code, "why"),))


def test_a_refused_repair_does_not_fail_the_connection() -> None:
    session = opened()
    session.receive(subscribed("orderbook_delta", 1, 1))
    session.receive(delta(3))
    session.receive(frame(type="error", id=2, msg={"code": 13, "msg": "Unsupported action"}))
    assert (session.failure, session.refusals) == ("", (Refusal(2, 13, "Unsupported action"),))


def test_tickers_of_a_subscription_nobody_asked_for_are_learned() -> None:
    session = opened(("OTHER",), ("ticker",))
    session.receive(subscribed("orderbook_delta", 5, 1))
    session.receive(snapshot(1, "X", 5))
    session.receive(delta(2, "Y", 5))
    assert read(session.receive(delta(4, "X", 5))) == [resync(2, "X", "Y", sid=5)]
    # A second recorded connection begins: sids and seqs start over.
    session.receive(subscribed("orderbook_delta", 5, 1))
    assert session.receive(snapshot(1, "X", 5)) == []
    assert session.receive(delta(2, "X", 5)) == []
