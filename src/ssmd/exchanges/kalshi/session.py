"""What to say on one Kalshi connection, and how it stands; no networking inside.

It subscribes, takes acks and errors, asks for snapshots after a jump in a book's sequence (there is no replay), and
subscribes again where the venue ended a subscription. Pings are the WebSocket layer's. It keeps no books and judges no
content: that is the mapper's, which reads the same frames from the tape and comes to the same view of the sequence.

A replayed capture answers commands it never got, so nothing here depends on an answer coming, or on an id being ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.kalshi.drift import salvage
from ssmd.exchanges.kalshi.frames import DOLLARS, TERMINAL_ERRORS, UNREADABLE, Error, Frame, Ok, Sid, Subscribed, Unsubscribed
from ssmd.exchanges.kalshi.sequence import Sequences
from ssmd.exchanges.kalshi.subscriptions import BOOK, CHANNEL_OF_TYPE, UNFILTERED, Subscriptions

TICKERS_MAX: Final = 500
"""Tickers a command; the venue publishes no limit, this keeps commands and acks at some 20 KB."""
RESTARTS_MAX: Final = 3
"""Times a channel is subscribed again on one connection before the connection is given up."""
RESYNC_FRAMES: Final = 100
"""Frames of a sid between two requests for its snapshots, while the first is unanswered."""
REFUSALS_MAX: Final = 100
_UNKNOWN_CHANNEL: Final = 8
_DELTA: Final = "orderbook_delta"
_REPLIES: Final = frozenset({"subscribed", "ok", "unsubscribed", "error"})


class Refusal(NamedTuple):
    """The venue refused a command of ours (`command_id` 0 = it named none)."""

    command_id: int
    code: int
    message: str


class _Envelope(msgspec.Struct):
    type: str
    sid: Sid = 0
    seq: int = 0
    msg: msgspec.Raw = msgspec.Raw()


class _Ticker(msgspec.Struct):
    market_ticker: str = ""


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_TICKER: Final = msgspec.json.Decoder(_Ticker)


class KalshiSession:
    """`exchanges.adapter.Session` of one connection.

    Args:
        subscription: channels and tickers wanted. The book channel cannot be had without tickers; asked for without,
            the venue refuses it (code 14) and the connection fails.
    """

    def __init__(self, subscription: Subscription, *, tickers_max: int = TICKERS_MAX) -> None:
        self._wanted = subscription
        self._tickers_max = tickers_max
        self._subs = Subscriptions()
        self._sequences = Sequences()
        self._last_id = 0
        self._failure = ""
        self._refusals: list[Refusal] = []
        # (command id, channel) -> the rest of the tickers, to be added once the channel is acknowledged.
        self._rest: dict[tuple[int, str], tuple[str, ...]] = {}
        # Commands without which something wanted does not come: subscribe and add_markets.
        self._needed: set[int] = set()
        self._restarts: dict[str, int] = {}
        # sid -> tickers whose requested snapshot is not here yet; the seq before which it is not asked again; sids
        # that jumped since.
        self._awaited: dict[int, set[str]] = {}
        self._patient_until: dict[int, int] = {}
        self._jumped: set[int] = set()

    @property
    def failure(self) -> str:
        """Why the connection is of no more use, "" while it is: channel-error or command-refused, code and text."""
        return self._failure

    @property
    def refusals(self) -> Sequence[Refusal]:
        """Errors that were answered by going on without; at most REFUSALS_MAX."""
        return tuple(self._refusals)

    def open(self) -> list[bytes]:
        """The subscribe commands: books, then ticker and trade, then the channels without a filter."""
        channels, tickers = self._wanted
        groups = (
            [channel for channel in channels if channel == BOOK],
            [channel for channel in channels if channel != BOOK and channel not in UNFILTERED],
            [channel for channel in channels if channel in UNFILTERED],
        )
        return [self._subscribe(group, () if group[0] in UNFILTERED else tickers) for group in groups if group]

    def receive(self, frame: bytes) -> list[bytes]:
        """Take one frame; commands to send because of it."""
        try:
            envelope = _ENVELOPE.decode(frame)
        except UNREADABLE:
            return []
        if self._failure:
            return []
        kind, sid, seq = envelope.type, envelope.sid, envelope.seq
        missing = 0
        if sid and seq > 0:
            missing = self._sequences.observe(sid, seq)
            if missing < 0:
                return []
        commands: list[bytes] = []
        if kind in _REPLIES:
            commands = self._reply(frame)
        elif missing or kind != _DELTA or sid in self._awaited or self._subs.is_book_unmatched or sid not in self._subs.by_sid:
            # All but the deltas of a known subscription, which teach nothing.
            self._learn(sid, kind, envelope.msg)
        if missing > 0:
            self._jumped.add(sid)
        if self._jumped and sid in self._jumped:
            commands.extend(self._resync(sid, seq))
        return commands

    # Replies

    def _reply(self, frame: bytes) -> list[bytes]:
        reply: Frame | None
        try:
            reply = DOLLARS.decode(frame)
        except UNREADABLE:
            reply = salvage(frame, DOLLARS).frame
        if isinstance(reply, Subscribed):
            return self._subscribed(reply)
        if isinstance(reply, Error):
            return self._refused(reply)
        if isinstance(reply, Ok) and reply.sid:
            self._subs.changed(reply)
        elif isinstance(reply, Unsubscribed):
            self._forget(reply.sid, is_wanted=False)
        return []

    def _subscribed(self, reply: Subscribed) -> list[bytes]:
        sub = self._subs.acknowledged(reply)
        self._sequences.begin(sub.sid)
        rest = self._rest.pop((reply.id, sub.channel), ())
        return [
            self._command(
                "update_subscription", {"sid": sub.sid, "action": "add_markets", "market_tickers": chunk}, is_needed=True
            )
            for chunk in self._chunks(rest)
        ]

    def _refused(self, reply: Error) -> list[bytes]:
        code, text = reply.msg.code, reply.msg.msg[:200]
        if code in TERMINAL_ERRORS:
            return self._ended(reply.sid, code, text)
        if reply.id in self._needed and code != _UNKNOWN_CHANNEL:
            self._failure = f"command-refused: {code} {text}"
        elif len(self._refusals) < REFUSALS_MAX:
            self._refusals.append(Refusal(reply.id, code, text))
        return []

    def _ended(self, sid: int, code: int, text: str) -> list[bytes]:
        sub = self._subs.by_sid.get(sid)
        channel = sub.channel if sub else ""
        self._forget(sid, is_wanted=True)
        if channel and channel not in self._wanted.channels:
            return []
        self._restarts[channel] = self._restarts.get(channel, 0) + 1
        if not channel or self._restarts[channel] > RESTARTS_MAX:
            self._failure = f"channel-error: {code} {text}"
            return []
        return [self._subscribe([channel], () if channel in UNFILTERED else self._wanted.tickers)]

    def _forget(self, sid: int, *, is_wanted: bool) -> None:
        self._subs.end(sid, is_wanted=is_wanted)
        self._sequences.end(sid)
        self._awaited.pop(sid, None)
        self._patient_until.pop(sid, None)
        self._jumped.discard(sid)

    # Sequence

    def _learn(self, sid: int, kind: str, msg: msgspec.Raw) -> None:
        channel = CHANNEL_OF_TYPE.get(kind, "")
        awaited = self._awaited.get(sid)
        if channel != BOOK or (not awaited and not self._subs.is_book_unmatched and sid in self._subs.by_sid):
            return
        sub = self._subs.of(sid, channel)
        try:
            ticker = _TICKER.decode(msg).market_ticker
        except UNREADABLE:
            return
        if ticker:
            self._subs.learn(sub, ticker)
        if awaited and kind == "orderbook_snapshot":
            awaited.discard(ticker)

    def _resync(self, sid: int, seq: int) -> list[bytes]:
        """Ask for all snapshots of a sid that jumped; once, until they are here or RESYNC_FRAMES have passed."""
        sub = self._subs.by_sid.get(sid)
        if sub is None or sub.channel != BOOK or not sub.tickers:
            self._jumped.discard(sid)
            return []
        if self._awaited.get(sid) and seq < self._patient_until.get(sid, 0):
            return []
        self._jumped.discard(sid)
        self._patient_until[sid] = seq + RESYNC_FRAMES
        self._awaited[sid] = set(sub.tickers)
        return [
            self._command("update_subscription", {"sid": sid, "action": "get_snapshot", "market_tickers": chunk})
            for chunk in self._chunks(tuple(sorted(sub.tickers)))
        ]

    # Commands

    def _subscribe(self, channels: list[str], tickers: tuple[str, ...]) -> bytes:
        params: dict[str, Any] = {"channels": channels}
        first, rest = tickers[: self._tickers_max], tickers[self._tickers_max :]
        if first:
            params["market_tickers"] = first
            if "ticker" in channels:
                params["send_initial_snapshot"] = True
        if BOOK in channels:
            # Sent even where it is the default: the venue has announced another one (protocol notes, section 6).
            params["use_yes_price"] = False
        if rest:
            # Else every ack would repeat all tickers before it.
            params["skip_ticker_ack"] = True
            self._rest.update({(self._last_id + 1, channel): rest for channel in channels})
        return self._command("subscribe", params, is_needed=True)

    def _command(self, cmd: str, params: dict[str, Any], *, is_needed: bool = False) -> bytes:
        self._last_id += 1
        if is_needed:
            self._needed.add(self._last_id)
        command = msgspec.json.encode({"id": self._last_id, "cmd": cmd, "params": params})
        self._subs.sent(command)
        return command

    def _chunks(self, tickers: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for start in range(0, len(tickers), self._tickers_max):
            yield tickers[start : start + self._tickers_max]
