"""Commands and their answers, one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssmd.exchanges.kalshi.simulated.subscriptions import Limits, Subscriptions
from ssmd.exchanges.kalshi.simulated.wire import Message

BOOKS = {"KXA-1": b'{"market_ticker":"KXA-1","market_id":"id-a"}', "KXB-1.5": b'{"market_ticker":"KXB-1.5","market_id":"id-b"}'}


class Venue:
    def orderbook(self, ticker: str, *, yes_priced: bool) -> bytes:
        return BOOKS.get(ticker, f'{{"market_ticker":"{ticker}","market_id":""}}'.encode())

    def ticker(self, ticker: str) -> bytes | None:
        return BOOKS.get(ticker)

    def ticker_of(self, market_id: str) -> str | None:
        return {"id-a": "KXA-1", "id-b": "KXB-1.5"}.get(market_id)


def ask(held: Subscriptions, command_id: int, name: str, **params: Any) -> list[Any]:
    frames = held.command(msgspec.json.encode({"id": command_id, "cmd": name, "params": params}))
    assert all(frame.endswith(b"}\n") and frame.count(b"\n") == 1 for frame in frames)
    return [msgspec.json.decode(frame) for frame in frames]


def snapshot(seq: int, ticker: str, market_id: str, **more: Any) -> dict[str, Any]:
    msg = {"market_ticker": ticker, "market_id": market_id}
    return {"type": "orderbook_snapshot", **more, "sid": 1, "seq": seq, "msg": msg}


A, B = ("KXA-1", "id-a"), ("KXB-1.5", "id-b")


def subscribed() -> Subscriptions:
    held = Subscriptions(Venue())
    ask(held, 1, "subscribe", channels=["orderbook_delta"], market_tickers=["KXA-1"], use_yes_price=False)
    return held


def test_each_channel_has_its_own_sid_and_books_their_snapshots() -> None:
    held = Subscriptions(Venue())
    assert ask(held, 5, "subscribe", channels=["orderbook_delta", "trade", "ticker"], market_tickers=["KXB-1.5", "KXA-1"]) == [
        {"type": "subscribed", "id": 5, "msg": {"channel": "orderbook_delta", "sid": 1}},
        {"type": "subscribed", "id": 5, "msg": {"channel": "trade", "sid": 2}},
        {"type": "subscribed", "id": 5, "msg": {"channel": "ticker", "sid": 3}},
        snapshot(1, *A),
        snapshot(2, *B),
    ]
    assert ask(held, 6, "list_subscriptions") == [
        {
            "type": "ok",
            "id": 6,
            "msg": [
                {"channel": "orderbook_delta", "sid": 1},
                {"channel": "trade", "sid": 2},
                {"channel": "ticker", "sid": 3},
            ],
        }
    ]


def test_a_second_subscribe_merges_with_ok_and_snapshots_only_what_is_new() -> None:
    held = subscribed()
    assert ask(held, 2, "subscribe", channels=["orderbook_delta"], market_tickers=["KXB-1.5", "KXA-1"]) == [
        {"type": "ok", "id": 2, "sid": 1, "seq": 2, "msg": {"market_tickers": ["KXA-1", "KXB-1.5"]}},
        snapshot(3, *B),
    ]
    assert ask(held, 3, "subscribe", channels=["orderbook_delta"], market_ticker="KXA-1") == [
        {"type": "ok", "id": 3, "sid": 1, "seq": 4, "msg": {"market_tickers": ["KXA-1", "KXB-1.5"]}}
    ]


def test_markets_are_added_deleted_and_snapshots_got_on_one_sequence() -> None:
    held = subscribed()
    assert ask(held, 2, "update_subscription", sid=1, action="add_markets", market_ticker="KXB-1.5") == [
        {"type": "ok", "id": 2, "sid": 1, "seq": 2, "msg": {"market_tickers": ["KXA-1", "KXB-1.5"]}},
        snapshot(3, *B),
    ]
    assert ask(held, 3, "update_subscription", sids=[1], action="delete_markets", market_tickers=["KXA-1"]) == [
        {"type": "ok", "id": 3, "sid": 1, "seq": 4, "msg": {"market_tickers": ["KXB-1.5"]}}
    ]
    assert ask(held, 4, "update_subscription", sid=1, action="get_snapshot", market_tickers=["KXB-1.5", "KXNO-1"]) == [
        snapshot(5, *B, id=4),
        snapshot(6, "KXNO-1", "", id=4),
    ]
    delta = Message("orderbook_delta", "orderbook_delta", "KXB-1.5", b'{"side":"no"}', b'{"side":"yes-priced"}')
    assert held.publish(delta) == b'{"type":"orderbook_delta","sid":1,"seq":7,"msg":{"side":"no"}}\n'
    assert held.publish(delta._replace(ticker="KXA-1")) is None


def test_unsubscribe_takes_a_seq_and_the_next_subscription_a_new_sid() -> None:
    held = subscribed()
    frames = held.command(b'{"id":2,"cmd":"unsubscribe","params":{"sids":[1,9]}}')
    assert frames == [
        b'{"id":2,"sid":1,"seq":2,"type":"unsubscribed"}\n',
        b'{"type":"error","id":2,"msg":{"code":7,"msg":"Unknown subscription ID"}}\n',
    ]
    assert ask(held, 3, "subscribe", channels=["trade"]) == [
        {"type": "subscribed", "id": 3, "msg": {"channel": "trade", "sid": 2}}
    ]


def test_skip_ticker_ack_leaves_the_list_out() -> None:
    held = Subscriptions(Venue())
    ask(held, 1, "subscribe", channels=["orderbook_delta"], market_ticker="KXA-1", skip_ticker_ack=True)
    assert ask(held, 2, "update_subscription", sid=1, action="delete_markets", market_ticker="KXA-1") == [
        {"type": "ok", "id": 2, "sid": 1, "seq": 2, "msg": {}}
    ]


def test_ticker_has_no_seq_takes_market_ids_and_gives_initial_snapshots() -> None:
    held = Subscriptions(Venue())
    frames = ask(held, 1, "subscribe", channels=["ticker"], market_ids=["id-b", "id-none"], send_initial_snapshot=True)
    assert frames[1:] == [{"type": "ticker", "sid": 1, "msg": {"market_ticker": "KXB-1.5", "market_id": "id-b"}}]
    assert ask(held, 2, "update_subscription", sid=1, action="add_markets", market_ticker="KXA-1") == [
        {"type": "ok", "id": 2, "sid": 1, "msg": {"market_tickers": ["KXA-1", "KXB-1.5", "id-none"]}}
    ]


def test_without_a_filter_every_market_comes_and_lifecycle_takes_no_filter() -> None:
    held = Subscriptions(Venue())
    ask(held, 1, "subscribe", channels=["trade", "market_lifecycle_v2"])
    assert held.publish(Message("trade", "trade", "KXA-1", b"{}")) == b'{"type":"trade","sid":1,"seq":1,"msg":{}}\n'
    lifecycle = Message("market_lifecycle_v2", "event_lifecycle", "", b"{}")
    assert held.publish(lifecycle) == b'{"type":"event_lifecycle","sid":2,"seq":1,"msg":{}}\n'
    assert held.publish(Message("ticker", "ticker", "KXA-1", b"{}")) is None


def test_use_yes_price_takes_the_other_body() -> None:
    held = Subscriptions(Venue())
    ask(held, 1, "subscribe", channels=["orderbook_delta"], market_ticker="KXA-1", use_yes_price=True)
    assert held.publish(Message("orderbook_delta", "orderbook_delta", "KXA-1", b"1", b"2")) == (
        b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":2}\n'
    )


def test_an_unknown_channel_is_an_error_beside_the_valid_ones() -> None:
    held = Subscriptions(Venue())
    assert ask(held, 4, "subscribe", channels=["ticker_v2", "trade"]) == [
        {"type": "error", "id": 4, "msg": {"code": 8, "msg": "Unknown channel name"}},
        {"type": "subscribed", "id": 4, "msg": {"channel": "trade", "sid": 1}},
    ]


ERRORS = [
    ("subscribe", {}, 2),
    ("subscribe", {"market_ticker": "KXA-1"}, 3),
    ("subscribe", {"channels": []}, 3),
    ("subscribe", {"channels": "trade"}, 11),
    ("subscribe", {"channels": ["orderbook_delta"]}, 14),
    ("subscribe", {"channels": ["trade"], "market_tickers": "KXA-1"}, 11),
    ("subscribe", {"channels": ["trade"], "market_tickers": [1]}, 11),
    ("unsubscribe", {"sid": 1}, 4),
    ("unsubscribe", {"sids": []}, 4),
    ("unsubscribe", {"sids": [2]}, 7),
    ("unsubscribe", {"sids": [True]}, 7),
    ("update_subscription", {"action": "add_markets"}, 12),
    ("update_subscription", {"sids": [1, 2], "action": "add_markets"}, 12),
    ("update_subscription", {"sid": 1, "sids": [1], "action": "add_markets"}, 12),
    ("update_subscription", {"sid": 2, "action": "add_markets"}, 7),
    ("update_subscription", {"sid": 1, "market_ticker": "KXA-1"}, 15),
    ("update_subscription", {"sid": 1, "action": "rename", "market_ticker": "KXA-1"}, 13),
    ("update_subscription", {"sid": 1, "action": "add_markets"}, 14),
    ("explode", {"sid": 1}, 5),
]


@pytest.mark.parametrize(("name", "params", "code"), ERRORS)
def test_command_errors(name: str, params: dict[str, Any], code: int) -> None:
    held = subscribed()
    (frame,) = ask(held, 3, name, **params)
    assert (frame["type"], frame["id"], frame["msg"]["code"]) == ("error", 3, code)
    assert "seq" not in frame
    assert [*held.by_channel] == ["orderbook_delta"]
    assert held.by_channel["orderbook_delta"].seq == 1


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"7", b""])
def test_what_is_no_command_is_code_1(text: bytes) -> None:
    assert Subscriptions(Venue()).command(text) == [b'{"type":"error","msg":{"code":1,"msg":"Unable to process message"}}\n']


def test_a_terminal_error_ends_the_sequenced_subscriptions() -> None:
    held = subscribed()
    ask(held, 2, "subscribe", channels=["ticker"])
    assert held.terminate(10) == [b'{"type":"error","sid":1,"seq":2,"msg":{"code":10,"msg":"Channel error"}}\n']
    assert [*held.by_channel] == ["ticker"]


def codes(frames: list[Any]) -> list[int]:
    return [frame["msg"]["code"] for frame in frames]


def test_more_markets_than_a_session_may_hold_get_26_and_change_nothing() -> None:
    held = Subscriptions(Venue(), Limits(markets=2))
    asked = {"channels": ["orderbook_delta"], "market_tickers": ["KXA-1", "KXB-1.5", "KXC-1"]}
    assert ask(held, 1, "subscribe", **asked) == [
        {"type": "error", "id": 1, "msg": {"code": 26, "msg": "Subscription market limit exceeded"}}
    ]
    ask(held, 2, "subscribe", channels=["orderbook_delta"], market_tickers=["KXA-1", "KXB-1.5"])
    again = ask(held, 3, "subscribe", channels=["orderbook_delta"], market_tickers=["KXA-1", "KXB-1.5"])
    assert [frame["type"] for frame in again] == ["ok"]  # they are held already
    assert codes(ask(held, 4, "update_subscription", sids=[1], action="add_markets", market_tickers=["KXC-1"])) == [26]
    ask(held, 5, "update_subscription", sids=[1], action="delete_markets", market_tickers=["KXA-1"])
    added = ask(held, 6, "update_subscription", sids=[1], action="add_markets", market_tickers=["KXC-1"])
    assert added[0]["msg"] == {"market_tickers": ["KXB-1.5", "KXC-1"]}


@pytest.mark.parametrize(
    ("shard", "code"),
    [({"shard_factor": 0}, 19), ({"shard_key": 1}, 20), ({"shard_factor": 3, "shard_key": 3}, 21), ({"shard_factor": 101}, 22)],
)
def test_shards_of_communications_are_checked(shard: dict[str, int], code: int) -> None:
    assert codes(ask(Subscriptions(Venue()), 1, "subscribe", channels=["communications"], **shard)) == [code]


def test_a_refused_command_has_its_id_and_does_nothing() -> None:
    held = Subscriptions(Venue())
    text = msgspec.json.encode({"id": 7, "cmd": "subscribe", "params": {"channels": ["trade"]}})
    assert held.command(text, 27) == [b'{"type":"error","id":7,"msg":{"code":27,"msg":"Too many requests"}}\n']
    assert not held.by_channel


def test_the_time_of_sending_is_the_last_key_of_every_frame() -> None:
    held = Subscriptions(Venue(), sending_ms=lambda: 1_795_363_200_123)
    command = {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": ["KXA-1"]}}
    frames = held.command(msgspec.json.encode(command))
    message = Message("orderbook_delta", "orderbook_delta", "KXA-1", b'{"market_ticker":"KXA-1"}')
    frames += [held.publish(message) or b"", *held.command(b'{"id":2,"cmd":"list_subscriptions"}')]
    frames += held.command(b'{"id":3,"cmd":"unsubscribe","params":{"sids":[1]}}') + held.command(b"?")
    assert len(frames) == 6
    assert all(frame.endswith(b',"sending_ts_ms":1795363200123}\n') for frame in frames)
