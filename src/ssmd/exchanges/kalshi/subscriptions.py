"""Which channel and tickers a `sid` stands for: from the commands sent, the venue's acks, and the data itself.

Acks alone do not suffice: `subscribed` names no tickers, and a recording that is replayed answers commands we never
sent (its ids may even collide with ours), so an ack is matched by id and channel, and data teaches the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from ssmd.exchanges.kalshi.frames import UNREADABLE, Ok, OkBody, Subscribed
from ssmd.schemas.records import WHOLE_CHANNEL

BOOK: Final = "orderbook_delta"
UNFILTERED: Final = ("market_lifecycle_v2", "multivariate_market_lifecycle")
"""Channels that take no ticker filter."""
CHANNEL_OF_TYPE: Final = {
    "orderbook_snapshot": BOOK,
    "orderbook_delta": BOOK,
    "ticker": "ticker",
    "trade": "trade",
    "market_lifecycle_v2": "market_lifecycle_v2",
    # On either lifecycle channel; both have no filter, and the ack tells which one it is.
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
}


class _Params(msgspec.Struct, kw_only=True):
    channels: tuple[str, ...] = ()
    market_ticker: str = ""
    market_tickers: tuple[str, ...] = ()
    use_yes_price: bool = False
    action: str = ""
    sid: int = 0
    sids: tuple[int, ...] = ()

    @property
    def tickers(self) -> tuple[str, ...]:
        return (self.market_ticker, *self.market_tickers) if self.market_ticker else self.market_tickers


class _Command(msgspec.Struct, kw_only=True):
    id: int = 0
    cmd: str = ""
    params: _Params = msgspec.field(default_factory=_Params)


_COMMAND: Final = msgspec.json.Decoder(_Command)


class Sub:
    """One subscription.

    Attributes:
        channel: "" until known.
        tickers: known to belong to it; stays empty without a filter.
        is_whole: it was subscribed without a ticker filter.
        is_yes_priced: its NO side is in YES prices (`use_yes_price`).
        last_good_ns: receive time of its last frame in order, 0 = none.
    """

    __slots__ = ("channel", "is_whole", "is_yes_priced", "last_good_ns", "sid", "tickers")

    def __init__(self, sid: int, channel: str, *, is_whole: bool, is_yes_priced: bool) -> None:
        self.sid = sid
        self.channel = channel
        self.tickers: set[str] = set()
        self.is_whole = is_whole
        self.is_yes_priced = is_yes_priced
        self.last_good_ns = 0

    @property
    def scope(self) -> tuple[str, ...]:
        """Whom a hole in this subscription concerns: its tickers, sorted, or the whole channel."""
        return tuple(sorted(self.tickers)) if self.tickers and not self.is_whole else (WHOLE_CHANNEL,)


class Changed(NamedTuple):
    """What an ack changed in its subscription, sorted."""

    added: tuple[str, ...]
    dropped: tuple[str, ...]


class Subscriptions:
    """All subscriptions of one connection, by sid.

    Attributes:
        wanted: every ticker asked for or seen on a filtered channel in this session.
        book_tickers: those of them on the book channel.
        whole_channels: channels asked for or seen without a ticker filter.
        is_book_unmatched: a book subscription is there that no command of ours explains.
    """

    def __init__(self) -> None:
        self.by_sid: dict[int, Sub] = {}
        self.wanted: set[str] = set()
        self.book_tickers: set[str] = set()
        self.whole_channels: set[str] = set()
        self.is_book_unmatched = False
        self._commands: dict[int, _Command] = {}
        self._is_yes_priced = False

    def sent(self, payload: bytes) -> None:
        """A command of ours; anything else among our own bytes says nothing about subscriptions."""
        try:
            command = _COMMAND.decode(payload)
        except UNREADABLE:
            return
        params = command.params
        is_add = command.cmd == "update_subscription" and params.action == "add_markets"
        if command.cmd == "subscribe" or is_add or params.action == "delete_markets":
            self._commands[command.id] = command
        if command.cmd == "subscribe" or is_add:
            self.wanted.update(params.tickers)
        if command.cmd == "subscribe":
            self.whole_channels.update(channel for channel in params.channels if _is_whole(channel, params.tickers))
        if BOOK in params.channels:
            self.book_tickers.update(params.tickers)
            self._is_yes_priced = params.use_yes_price
        elif is_add and any(self._channel(sid) == BOOK for sid in (params.sid, *params.sids)):
            self.book_tickers.update(params.tickers)

    def _channel(self, sid: int) -> str:
        sub = self.by_sid.get(sid)
        return sub.channel if sub else ""

    def acknowledged(self, frame: Subscribed) -> Sub:
        """The subscription that `subscribed` begins; whatever the sid stood for before is over."""
        channel, sid = frame.msg.channel, frame.msg.sid
        command = self._commands.get(frame.id)
        if command is not None and channel not in command.params.channels:
            command = None
        tickers = command.params.tickers if command else ()
        is_whole = channel in UNFILTERED or (command is not None and _is_whole(channel, tickers))
        is_yes_priced = command.params.use_yes_price if command else self._is_yes_priced
        sub = Sub(sid, channel, is_whole=is_whole, is_yes_priced=is_yes_priced)
        if is_whole:
            self.whole_channels.add(channel)
        else:
            sub.tickers.update(tickers)
        if channel == BOOK and command is None:
            self.is_book_unmatched = True
        self.by_sid[sid] = sub
        return sub

    def changed(self, frame: Ok) -> Changed:
        """Take an `ok` with a sid.

        One of 20,000 markets may come or go, so nothing here looks at all of them where the ack does not list them.
        """
        sub = self.of(frame.sid, "")
        listed = frame.msg.market_tickers if isinstance(frame.msg, OkBody) else None
        command = self._commands.get(frame.id)
        if command is not None and command.cmd != "subscribe":
            del self._commands[frame.id]  # answered; there may be one for every market that ever was
        if sub.is_whole:
            return Changed((), ())
        if listed is not None:
            now = set(listed)
            added, dropped = now - sub.tickers, sub.tickers - now
        elif command is not None and command.params.action == "delete_markets":
            added, dropped = set(), sub.tickers.intersection(command.params.tickers)
        elif command is not None:
            added, dropped = set(command.params.tickers) - sub.tickers, set()
        else:
            return Changed((), ())
        sub.tickers.difference_update(dropped)
        sub.tickers.update(added)
        self._forget(dropped)
        self.wanted.update(added)
        if sub.channel == BOOK:
            self.book_tickers.update(added)
        return Changed(tuple(sorted(added)), tuple(sorted(dropped)))

    def of(self, sid: int, channel: str) -> Sub:
        """The subscription `sid`, which carries data of `channel` ("" = unknown)."""
        sub = self.by_sid.get(sid)
        if sub is None:
            sub = Sub(sid, channel, is_whole=channel in UNFILTERED, is_yes_priced=self._is_yes_priced)
            self.by_sid[sid] = sub
        elif sub.channel and (channel != BOOK or sub.channel == BOOK):
            return sub
        # New, or known from an ack alone, or (against its ack) carrying a book: a book is never taken for less.
        sub.channel = channel
        sub.is_whole = channel in UNFILTERED
        self.is_book_unmatched |= channel == BOOK
        if sub.is_whole:
            self.whole_channels.add(channel)
        return sub

    def learn(self, sub: Sub, ticker: str) -> bool:
        """Data of `ticker` came on `sub`; whether that is news."""
        if sub.is_whole or ticker in sub.tickers:
            return False
        sub.tickers.add(ticker)
        self.wanted.add(ticker)
        if sub.channel == BOOK:
            self.book_tickers.add(ticker)
        return True

    def of_channel(self, channel: str) -> Sub | None:
        """The subscription to `channel`, the latest where a replay has several, None = there is none."""
        return next((sub for sub in reversed(self.by_sid.values()) if sub.channel == channel), None)

    def end(self, sid: int, *, is_wanted: bool) -> None:
        """The subscription is gone; `is_wanted`: by the venue's doing, so its tickers are missed."""
        sub = self.by_sid.pop(sid, None)
        if sub is None or is_wanted:
            return
        self._forget(sub.tickers)
        if sub.is_whole:
            self.whole_channels.discard(sub.channel)

    def _forget(self, tickers: Iterable[str]) -> None:
        for ticker in tickers:
            channels = [sub.channel for sub in self.by_sid.values() if ticker in sub.tickers]
            if not channels:
                self.wanted.discard(ticker)
            if BOOK not in channels:
                self.book_tickers.discard(ticker)


def _is_whole(channel: str, tickers: tuple[str, ...]) -> bool:
    # The book channel cannot be had without tickers; where none are named the data tells them.
    return channel in UNFILTERED or (not tickers and channel != BOOK)
