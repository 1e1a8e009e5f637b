"""One connection's subscriptions: what its commands mean and which frames answer them. No networking inside.

Rules (Kalshi's AsyncAPI document and recordings of 2025 and 2026):
- sids count from 1 per connection; a channel has one subscription, a second `subscribe` merges and is answered `ok`.
- `seq` counts per sid over snapshots, deltas, trades, lifecycle, `ok`, `unsubscribed` and errors of the sid;
  `subscribed` and everything on `ticker` carry none.
- New tickers of a book subscription get a snapshot; tickers already there do not.
- `sending_ts_ms`, where the venue sends it, is the last key of every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import msgspec

from ssmd.exchanges.kalshi.simulated import wire
from ssmd.exchanges.kalshi.simulated.wire import Message

BOOK = "orderbook_delta"
TICKER = "ticker"
CHANNELS = frozenset(
    {
        BOOK,
        TICKER,
        "trade",
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
        "fill",
        "user_orders",
        "market_positions",
        "order_group_updates",
        "communications",
    }
)
_UNSEQUENCED = frozenset({TICKER, "fill", "user_orders", "market_positions"})
_FILTERED = frozenset({BOOK, TICKER, "trade"})

ERRORS = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    18: "Command timeout",
    19: "shard_factor must be > 0",
    20: "shard_factor is required when shard_key is set",
    21: "shard_key must be >= 0 and < shard_factor",
    22: "shard_factor must be <= 100",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
    27: "Too many requests",
}


class Limits(NamedTuple):
    """What a session may ask for: markets over all its subscriptions (changelog of 2026-06-18), commands a second."""

    markets: int = 500_000
    commands_s: int = 10_000


class Venue(Protocol):
    """What a subscription asks of the venue's state."""

    def orderbook(self, ticker: str, *, yes_priced: bool) -> bytes: ...

    def ticker(self, ticker: str) -> bytes | None: ...

    def ticker_of(self, market_id: str) -> str | None: ...


class Subscription:
    """One channel of one connection; `tickers` None means every market."""

    __slots__ = ("_sending_ms", "channel", "quiet_acks", "seq", "sid", "tickers", "yes_priced")

    def __init__(
        self,
        channel: str,
        sid: int,
        tickers: set[str] | None,
        *,
        yes_priced: bool,
        quiet_acks: bool,
        sending_ms: Callable[[], int],
    ) -> None:
        self._sending_ms = sending_ms
        self.channel = channel
        self.sid = sid
        self.tickers = tickers
        self.yes_priced = yes_priced
        self.quiet_acks = quiet_acks
        self.seq = 0

    def frame(self, kind: str, body: bytes, command_id: int = 0) -> bytes:
        """The next frame of this subscription."""
        if self.channel in _UNSEQUENCED:
            return wire.frame(kind, self.sid, 0, body, command_id, self._sending_ms())
        self.seq += 1
        return wire.frame(kind, self.sid, self.seq, body, command_id, self._sending_ms())


class _Refused(Exception):
    """A command the venue answers with an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _never() -> int:
    return 0


class Subscriptions:
    """State of one connection.

    Args:
        sending_ms: the time to stamp each frame with as `sending_ts_ms`; 0 = without.
    """

    def __init__(self, venue: Venue, limits: Limits = Limits(), sending_ms: Callable[[], int] = _never) -> None:  # noqa: B008 - immutable
        self._venue = venue
        self._limits = limits
        self._sending_ms = sending_ms
        self._next_sid = 1
        self.by_channel: dict[str, Subscription] = {}

    def publish(self, message: Message) -> bytes | None:
        """The frame for `message`, None when this connection did not ask for it."""
        subscription = self.by_channel.get(message.channel)
        if subscription is None:
            return None
        if subscription.tickers is not None and message.ticker and message.ticker not in subscription.tickers:
            return None
        body = message.yes_body if subscription.yes_priced and message.yes_body else message.body
        return subscription.frame(message.kind, body)

    def terminate(self, code: int) -> list[bytes]:
        """End every sequenced subscription with a terminal error (10 or 25), as the venue does to a reader too slow."""
        frames = []
        for subscription in [held for held in self.by_channel.values() if held.channel not in _UNSEQUENCED]:
            frames.append(subscription.frame("error", msgspec.json.encode({"code": code, "msg": ERRORS[code]})))
            del self.by_channel[subscription.channel]
        return frames

    def command(self, text: bytes | str, refused_with: int = 0) -> list[bytes]:
        """The frames that answer one command; `refused_with` is the code of an error it gets whatever it says, 0 = none."""
        try:
            command = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [self._error(0, 1)]
        if not isinstance(command, dict):
            return [self._error(0, 1)]
        given = command.get("id", 0)
        command_id = given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else 0
        if refused_with:
            return [self._error(command_id, refused_with)]
        try:
            return self._answer(command_id, command.get("cmd"), command.get("params"))
        except _Refused as refused:
            return [self._error(command_id, refused.code)]

    def _answer(self, command_id: int, name: object, params: object) -> list[bytes]:
        if name == "list_subscriptions":
            held = sorted(self.by_channel.values(), key=lambda subscription: subscription.sid)
            rows = [{"channel": held_.channel, "sid": held_.sid} for held_ in held]
            return [wire.reply("ok", command_id, rows, self._sending_ms())]
        if name not in {"subscribe", "unsubscribe", "update_subscription"}:
            raise _Refused(5)
        if not isinstance(params, dict) or not params:
            raise _Refused(2)
        if name == "subscribe":
            return self._subscribe(command_id, params)
        if name == "unsubscribe":
            return self._unsubscribe(command_id, params)
        return self._update(command_id, params)

    def _subscribe(self, command_id: int, params: dict[str, Any]) -> list[bytes]:
        channels = _names(params.get("channels"), missing=3)
        tickers = self._tickers(params)
        if "communications" in channels:
            _check_shard(params)
        self._check_room(sum(len(set(tickers) - self._held_of(channel)) for channel in channels if channel in _FILTERED))
        acks: list[bytes] = []
        data: list[bytes] = []
        for channel in dict.fromkeys(channels):
            if channel not in CHANNELS:
                acks.append(self._error(command_id, 8))
            elif channel == BOOK and not tickers:
                acks.append(self._error(command_id, 14))
            elif channel in self.by_channel:
                merged, added = self._merge(self.by_channel[channel], tickers, command_id)
                acks.append(merged)
                data += self._first_frames(self.by_channel[channel], added, params)
            else:
                wanted = set(tickers) if tickers and channel in _FILTERED else None
                subscription = Subscription(
                    channel,
                    self._next_sid,
                    wanted,
                    yes_priced=params.get("use_yes_price") is True,
                    quiet_acks=params.get("skip_ticker_ack") is True,
                    sending_ms=self._sending_ms,
                )
                self._next_sid += 1
                self.by_channel[channel] = subscription
                body = {"channel": channel, "sid": subscription.sid}
                acks.append(wire.reply("subscribed", command_id, body, self._sending_ms()))
                data += self._first_frames(subscription, sorted(wanted or ()), params)
        return acks + data

    def _merge(self, held: Subscription, tickers: list[str], command_id: int) -> tuple[bytes, list[str]]:
        if held.tickers is None or held.channel not in _FILTERED:
            return self._ok(held, command_id), []
        if not tickers:
            held.tickers = None  # asked for every market now
            return self._ok(held, command_id), []
        added = sorted(set(tickers) - held.tickers)
        held.tickers.update(added)
        return self._ok(held, command_id), added

    def _first_frames(self, held: Subscription, tickers: Iterable[str], params: dict[str, Any]) -> list[bytes]:
        if held.channel == BOOK:
            return [self._snapshot(held, ticker) for ticker in tickers]
        if held.channel == TICKER and params.get("send_initial_snapshot") is True:
            bodies = [self._venue.ticker(ticker) for ticker in tickers]
            return [held.frame("ticker", body) for body in bodies if body is not None]
        return []

    def _snapshot(self, held: Subscription, ticker: str, command_id: int = 0) -> bytes:
        body = self._venue.orderbook(ticker, yes_priced=held.yes_priced)
        return held.frame("orderbook_snapshot", body, command_id)

    def _ok(self, held: Subscription, command_id: int) -> bytes:
        body: dict[str, object] = {}
        if not held.quiet_acks:
            body["market_tickers"] = sorted(held.tickers or ())
        return held.frame("ok", msgspec.json.encode(body), command_id)

    def _unsubscribe(self, command_id: int, params: dict[str, Any]) -> list[bytes]:
        sids = params.get("sids")
        if not isinstance(sids, list) or not sids:
            raise _Refused(4)
        frames = []
        for sid in sids:
            held = self._by_sid(sid)
            if held is None:
                frames.append(self._error(command_id, 7))
                continue
            held.seq += 1
            reply: dict[str, object] = {"id": command_id, "sid": held.sid, "seq": held.seq, "type": "unsubscribed"}
            if sending_ms := self._sending_ms():
                reply["sending_ts_ms"] = sending_ms
            frames.append(msgspec.json.encode(reply) + b"\n")
            del self.by_channel[held.channel]
        return frames

    def _update(self, command_id: int, params: dict[str, Any]) -> list[bytes]:
        sids = params.get("sids", [])
        given = [*(sids if isinstance(sids, list) else [None, None]), *([params["sid"]] if "sid" in params else [])]
        if len(given) != 1:
            raise _Refused(12)
        held = self._by_sid(given[0])
        if held is None:
            raise _Refused(7)
        action = params.get("action")
        if not action:
            raise _Refused(15)
        if action not in {"add_markets", "delete_markets", "get_snapshot"} or held.channel not in _FILTERED:
            raise _Refused(13)
        tickers = self._tickers(params)
        if not tickers:
            raise _Refused(14)
        if action == "get_snapshot":
            if held.channel != BOOK:
                raise _Refused(13)
            return [self._snapshot(held, ticker, command_id) for ticker in tickers]
        if held.tickers is None:
            raise _Refused(11)  # a subscription to every market has no list to change
        if action == "delete_markets":
            held.tickers.difference_update(tickers)
            return [self._ok(held, command_id)]
        self._check_room(len(set(tickers) - held.tickers))
        ack, added = self._merge(held, tickers, command_id)
        return [ack, *self._first_frames(held, added, params)]

    def _held_of(self, channel: str) -> set[str]:
        held = self.by_channel.get(channel)
        return set() if held is None or held.tickers is None else held.tickers

    def _check_room(self, wanted: int) -> None:
        if wanted + sum(len(held.tickers or ()) for held in self.by_channel.values()) > self._limits.markets:
            raise _Refused(26)

    def _error(self, command_id: int, code: int) -> bytes:
        return wire.reply("error", command_id, {"code": code, "msg": ERRORS[code]}, self._sending_ms())

    def _by_sid(self, sid: object) -> Subscription | None:
        return next((held for held in self.by_channel.values() if held.sid == sid and not isinstance(sid, bool)), None)

    def _tickers(self, params: dict[str, Any]) -> list[str]:
        given: list[str] = []
        for one, many in (("market_ticker", "market_tickers"), ("market_id", "market_ids")):
            values = params.get(many, [])
            if one in params:
                values = [params[one], *values] if isinstance(values, list) else values
            if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
                raise _Refused(11)
            given += values if many == "market_tickers" else [self._venue.ticker_of(value) or value for value in values]
        return list(dict.fromkeys(given))


def _names(value: object, *, missing: int) -> list[str]:
    if value is None or value == []:
        raise _Refused(missing)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _Refused(11)
    return value


def _check_shard(params: dict[str, Any]) -> None:
    factor, key = params.get("shard_factor"), params.get("shard_key")
    if factor is None:
        if key is not None:
            raise _Refused(20)
        return
    if not isinstance(factor, int) or factor <= 0:
        raise _Refused(19)
    if factor > 100:
        raise _Refused(22)
    if key is not None and not (isinstance(key, int) and 0 <= key < factor):
        raise _Refused(21)
