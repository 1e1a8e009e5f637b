"""What to say on one Kalshi connection, and how it stands; no networking inside.

It subscribes, follows markets that come and go one by one, takes acks and errors, asks for snapshots after a jump in a
book's sequence (there is no replay), and subscribes again where the venue ended a subscription. What was refused for now
or not answered is asked again (`asked`). Pings are the WebSocket layer's. It keeps no books and judges no content: that
is the mapper's, which reads the same frames from the tape and comes to the same view of the sequence.

A replayed capture answers commands it never got, so nothing here depends on an answer coming, or on an id being ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.exchanges.adapter import ListingChange, Subscription
from ssmd.exchanges.kalshi.asked import Action, Asked
from ssmd.exchanges.kalshi.drift import salvage
from ssmd.exchanges.kalshi.frames import DOLLARS, TERMINAL_ERRORS, UNREADABLE, Error, Frame, Ok, Sid, Subscribed, Unsubscribed
from ssmd.exchanges.kalshi.listing_changes import LISTING_TYPES, change_in
from ssmd.exchanges.kalshi.sequence import Sequences
from ssmd.exchanges.kalshi.subscriptions import BOOK, CHANNEL_OF_TYPE, UNFILTERED, Subscriptions

TICKERS_MAX: Final = 500
"""Tickers a command; the venue publishes no limit, this keeps commands and acks at some 20 KB."""
RESTARTS_MAX: Final = 3
"""Times a channel is subscribed again on one connection before the connection is given up."""
RESYNC_FRAMES: Final = 100
"""Frames of a sid between two requests for its snapshots, while the first is unanswered."""
REPAIRS_MAX: Final = 3
"""Times a market's book is asked anew on one connection because it could not be right."""
REFUSALS_MAX: Final = 100
CHANGES_MAX: Final = 10_000
_UNKNOWN_CHANNEL: Final = 8
_LIMIT_EXCEEDED: Final = 26
_NOT_NOW: Final = frozenset({18, 27})
"""Command timeout, too many requests: the same command works later."""
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
        channels = subscription.channels
        self._whole = [channel for channel in channels if channel in UNFILTERED]
        # Books first, each channel once.
        filtered = dict.fromkeys(channel for channel in channels if channel not in UNFILTERED)
        self._filtered = sorted(filtered, key=lambda channel: channel != BOOK)
        self._is_followed = subscription.is_followed
        self._desired = dict.fromkeys(subscription.tickers)
        self._tickers_max = tickers_max
        # Else every ack would repeat all tickers before it.
        self._is_quiet = self._is_followed or len(subscription.tickers) > tickers_max
        self._subs = Subscriptions()
        self._sequences = Sequences()
        self._asked = Asked()
        self._last_id = 0
        self._failure = ""
        self._refusals: list[Refusal] = []
        self._changes: list[ListingChange] = []
        # Channels the venue does not know; channels that take no more markets.
        self._closed: set[str] = set()
        self._full: set[str] = set()
        self._restarts: dict[str, int] = {}
        self._repairs: dict[str, int] = {}
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

    @property
    def unplaced(self) -> int:
        """Markets wanted that the first of the filtered channels does not carry."""
        channel = next((one for one in self._filtered if one not in self._closed), "")
        sub = self._subs.of_channel(channel)
        if sub is not None and sub.is_whole:
            return 0
        return len(self._desired.keys() - sub.tickers) if sub else len(self._desired)

    @property
    def without_room(self) -> frozenset[str]:
        """Markets wanted that a channel which takes no more does not carry."""
        left: set[str] = set()
        for channel in self._full:
            sub = self._subs.of_channel(channel)
            left |= self._desired.keys() - sub.tickers if sub is not None else self._desired.keys()
        return frozenset(left)

    def take_changes(self) -> Sequence[ListingChange]:
        """What the venue told of markets that come and go since the last call; only where they are followed."""
        changes, self._changes = self._changes, []
        return changes

    def open(self) -> list[bytes]:
        """The subscribe commands: books, then ticker and trade, then the channels without a filter."""
        groups = [
            [channel for channel in self._filtered if channel == BOOK],
            [channel for channel in self._filtered if channel != BOOK],
        ]
        commands = [self._subscribe(group) for group in groups if group and (self._desired or not self._is_followed)]
        return [*commands, self._subscribe(self._whole)] if self._whole else commands

    def want(self, tickers: Iterable[str]) -> list[bytes]:
        """From now on these tickers, all of them; commands that add and take away, the others stay untouched."""
        before, self._desired = self._desired, dict.fromkeys(tickers)
        dropped = before.keys() - self._desired.keys()
        commands: list[bytes] = []
        for channel in self._filtered:
            sub = self._subs.of_channel(channel)
            if dropped:
                self._full.discard(channel)
            if sub is not None and dropped and not sub.is_whole:
                gone = tuple(sorted(dropped & sub.tickers))
                commands += [self._update(sub.sid, channel, "delete", chunk) for chunk in self._chunks(gone)]
            commands += self._reconcile(channel)
        return commands

    def repair(self, tickers: Iterable[str]) -> list[bytes]:
        """Their books cannot be right: ask for snapshots, REPAIRS_MAX times for each."""
        sub = self._subs.of_channel(BOOK)
        if sub is None or self._failure:
            return []
        wrong = [ticker for ticker in tickers if ticker in sub.tickers and self._repairs.get(ticker, 0) < REPAIRS_MAX]
        for ticker in wrong:
            self._repairs[ticker] = self._repairs.get(ticker, 0) + 1
        if wrong:
            self._awaited.setdefault(sub.sid, set()).update(wrong)
        return [self._update(sub.sid, BOOK, "snapshot", chunk) for chunk in self._chunks(wrong)]

    def tick(self, now_s: float) -> list[bytes]:
        """Called about once a second: ask again for what was refused for now, or not answered."""
        self._asked.now_s = now_s
        if self._failure:
            return []
        commands: list[bytes] = []
        for command in self._asked.overdue():
            if command.action == "snapshot" and any(command.tickers & awaited for awaited in self._awaited.values()):
                commands += self._restart_books()
            elif command.action == "unsubscribe":
                self._failure = "command-refused: no answer to unsubscribe"
        for channel in self._filtered:
            commands += self._reconcile(channel)
        return commands

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
            command = self._asked.answered(reply.id)
            if command is not None:
                self._asked.went_well(command.channel)
        elif isinstance(reply, Unsubscribed):
            self._forget(reply.sid, is_wanted=False)
            command = self._asked.answered(reply.id)
            if command is not None:
                return [self._subscribe([command.channel])]
        return []

    def _subscribed(self, reply: Subscribed) -> list[bytes]:
        sub = self._subs.acknowledged(reply)
        self._sequences.begin(sub.sid)
        if self._asked.answered(reply.id, sub.channel) is None:
            return []
        self._asked.went_well(sub.channel)
        return self._reconcile(sub.channel)

    def _refused(self, reply: Error) -> list[bytes]:
        code, text = reply.msg.code, reply.msg.msg[:200]
        if code in TERMINAL_ERRORS:
            return self._ended(reply.sid, code, text)
        command = self._asked.answered(reply.id) if reply.id else None
        if len(self._refusals) < REFUSALS_MAX:
            self._refusals.append(Refusal(reply.id, code, text))
        if command is None or code == _UNKNOWN_CHANNEL:
            if command is not None:
                self._closed.add(command.channel)
            return []
        if code in _NOT_NOW:
            self._asked.refused(command.channel)
        elif code == _LIMIT_EXCEEDED and command.action in ("subscribe", "add"):
            self._full.add(command.channel)
        elif command.action == "snapshot":
            return self._restart_books()
        elif command.action != "delete":
            self._refusals.pop()
            self._failure = f"command-refused: {code} {text}"
        return []

    def _ended(self, sid: int, code: int, text: str) -> list[bytes]:
        sub = self._subs.by_sid.get(sid)
        channel = sub.channel if sub else ""
        self._forget(sid, is_wanted=True)
        if channel and channel not in (*self._filtered, *self._whole):
            return []
        if not self._may_restart(channel) or not channel:
            self._failure = f"channel-error: {code} {text}"
            return []
        return [self._subscribe([channel])]

    def _may_restart(self, channel: str) -> bool:
        self._restarts[channel] = self._restarts.get(channel, 0) + 1
        return self._restarts[channel] <= RESTARTS_MAX

    def _forget(self, sid: int, *, is_wanted: bool) -> None:
        self._subs.end(sid, is_wanted=is_wanted)
        self._sequences.end(sid)
        self._awaited.pop(sid, None)
        self._patient_until.pop(sid, None)
        self._jumped.discard(sid)

    # Sequence

    def _learn(self, sid: int, kind: str, msg: msgspec.Raw) -> None:
        if kind in LISTING_TYPES and self._is_followed and len(self._changes) < CHANGES_MAX:
            change = change_in(kind, msg)
            if change is not None:
                self._changes.append(change)
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
        self._patient_until[sid] = seq + RESYNC_FRAMES + len(sub.tickers)
        self._awaited[sid] = set(sub.tickers)
        return [self._update(sid, BOOK, "snapshot", chunk) for chunk in self._chunks(sorted(sub.tickers))]

    def _restart_books(self) -> list[bytes]:
        """Snapshots cannot be had by asking: give the subscription back, and take it anew."""
        sub = self._subs.of_channel(BOOK)
        if sub is None or self._asked.is_asked(BOOK, "unsubscribe"):
            return []
        if not self._may_restart(BOOK):
            self._failure = "channel-error: books cannot be brought back"
            return []
        self._last_id += 1
        self._asked.sent(self._last_id, "unsubscribe", BOOK, frozenset())
        return [self._encoded("unsubscribe", {"sids": [sub.sid]})]

    # Commands

    def _reconcile(self, channel: str) -> list[bytes]:
        """What is wanted of a filtered channel, and neither there nor asked for."""
        if self._failure or channel in self._closed or channel in self._full or self._asked.is_patient(channel):
            return []
        if self._asked.is_asked(channel, "unsubscribe") or self._asked.is_asked(channel, "subscribe"):
            return []
        sub = self._subs.of_channel(channel)
        if sub is None:
            return [self._subscribe([channel])] if self._desired or not self._is_followed else []
        if sub.is_whole:
            return []
        missing = self._desired.keys() - sub.tickers
        if missing:
            missing -= self._asked.tickers(channel, "add")
        wanted = [ticker for ticker in self._desired if ticker in missing] if missing else []
        return [self._update(sub.sid, channel, "add", chunk) for chunk in self._chunks(wanted)]

    def _subscribe(self, channels: list[str]) -> bytes:
        params: dict[str, Any] = {"channels": channels}
        first = () if channels[0] in UNFILTERED else tuple(self._desired)[: self._tickers_max]
        if first:
            params["market_tickers"] = first
            if "ticker" in channels:
                params["send_initial_snapshot"] = True
        if BOOK in channels:
            # Sent even where it is the default: the venue has announced another one (protocol notes, section 6).
            params["use_yes_price"] = False
        if first and (self._is_quiet or len(self._desired) > len(first)):
            params["skip_ticker_ack"] = True
        self._last_id += 1
        for channel in channels:
            self._asked.sent(self._last_id, "subscribe", channel, frozenset(first))
        return self._encoded("subscribe", params)

    def _update(self, sid: int, channel: str, action: Action, tickers: Sequence[str]) -> bytes:
        self._last_id += 1
        self._asked.sent(self._last_id, action, channel, frozenset(tickers))
        params = {"sid": sid, "action": _ACTIONS[action], "market_tickers": tickers}
        return self._encoded("update_subscription", params)

    def _encoded(self, cmd: str, params: dict[str, Any]) -> bytes:
        command = msgspec.json.encode({"id": self._last_id, "cmd": cmd, "params": params})
        self._subs.sent(command)
        return command

    def _chunks(self, tickers: Sequence[str]) -> Iterator[Sequence[str]]:
        for start in range(0, len(tickers), self._tickers_max):
            yield tickers[start : start + self._tickers_max]


_ACTIONS: Final[dict[Action, str]] = {"add": "add_markets", "delete": "delete_markets", "snapshot": "get_snapshot"}
