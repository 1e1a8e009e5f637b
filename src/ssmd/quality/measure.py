"""One connection's day, entry by entry: what is counted, and each ticker's timeline.

A session that began on an earlier date is read from its beginning, because a book and a count need it; what is counted is
of the date alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.domain import capture
from ssmd.exchanges.adapter import Mapped, Mapper
from ssmd.quality.account import Account
from ssmd.quality.books import BookWatch
from ssmd.quality.coverage import Repair, Span
from ssmd.quality.intervals import CHANNELS
from ssmd.quality.prices import GridRange, PriceCounts
from ssmd.quality.sequences import SequenceCount, SequenceProof
from ssmd.quality.trades import HeldTrades, VenueTrade
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Disconnected, encode_fact
from ssmd.schemas.records import KIND_OF, WHOLE_CHANNEL, BookDelta, BookSnapshot, Gap, MarketStatus, Trade

BOOK: Final = "orderbook_delta"
TRADE: Final = "trade"
SILENCE_NS_MAX: Final = 60_000_000_000
"""A connection that is silent for longer while it is connected is called stale then."""
DRIFTS_NAMED_MAX: Final = 20
INCONSISTENT: Final = "book-inconsistent"
_IN: Final = int(EntryKind.IN)
_MEASURED: Final = frozenset({"duplicate-sequence", "off-grid"})
"""Findings of the mapper that are measured here one by one."""


class Place(NamedTuple):
    """What is needed of a frame's place in its count (`exchanges.kalshi.evidence.FramePlace`)."""

    sid: int
    seq: int
    begins: bool = False
    ends: bool = False


class Reader(NamedTuple):
    """What is special about a venue: a frame's place (None = it cannot be read), a market's grid in a status' detail."""

    place: Callable[[bytes], Any]
    grid: Callable[[str], tuple[GridRange, ...]]


class TickerWatch:
    """One ticker of a connection: its book, prices and trades, its silences."""

    __slots__ = ("book", "last_ns", "prices", "quiet_ns", "records", "trades")

    def __init__(self, ticker: str) -> None:
        self.book = BookWatch(ticker)
        self.prices = PriceCounts()
        self.trades = HeldTrades()
        self.records = 0
        self.last_ns = 0
        self.quiet_ns = 0

    def seen(self, ts_ns: int) -> None:
        """A record of it came."""
        if self.last_ns:
            self.quiet_ns = max(self.quiet_ns, ts_ns - self.last_ns)
        self.last_ns = ts_ns


class Counts(msgspec.Struct):
    """What is counted on the date. Times are receive times, 0 = none.

    Attributes:
        frames: payloads of the venue; records: by kind; unreadable: frames whose place cannot be read.
        entries_missing: tape entries that the raw archive lacks.
        drifts: what did not fit the mapper, each kind once a session; unmapped: frames that became no record.
        clock_steps: how often the clock was set; time_backwards: entries received before the one before them.
        silences: how often nothing came for longer than SILENCE_NS_MAX; silent_ns: how long in all, longest_silence_ns.
    """

    entries: int = 0
    frames: int = 0
    first_ns: int = 0
    last_ns: int = 0
    sessions: int = 0
    unreadable: int = 0
    entries_missing: int = 0
    drifts: int = 0
    drift_names: list[str] = []
    unmapped: int = 0
    clock_steps: int = 0
    time_backwards: int = 0
    silences: int = 0
    silent_ns: int = 0
    longest_silence_ns: int = 0
    records: dict[str, int] = {}


class ConnectionMeasure:
    """See the module. Entries of each session come in order of n.

    Args:
        start_ns, end_ns: the date, half open.
    """

    def __init__(self, connection: str, start_ns: int, end_ns: int, reader: Reader) -> None:
        self.connection = connection
        self.counts = Counts()
        self.tickers: dict[str, TickerWatch] = {}
        self.account = Account(connection)
        self.grids: dict[str, tuple[GridRange, ...]] = {}
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._reader = reader
        self._sequences: dict[tuple[int, int], SequenceCount] = {}
        self._ended: list[SequenceProof] = []
        self._last_n = 0
        self._is_ended = False
        self._sessions: set[int] = set()
        self._last_frame_ns = 0
        self._last_entry_ns = 0
        self._is_counted = False
        self._session = 0

    # Entries

    def take(self, session: int, entry: Entry, mapped: Mapped) -> None:
        """The next entry of the connection, with what the mapper made of it."""
        kind, n, ts_ns, payload = entry
        if session > self._session:
            self._begin_session(session)
        self._last_n = n
        counts = self.counts
        self._is_counted = is_counted = self._start_ns <= ts_ns < self._end_ns
        if is_counted:
            counts.entries += 1
            counts.first_ns = counts.first_ns or ts_ns
            counts.last_ns = max(counts.last_ns, ts_ns)
            if ts_ns < self._last_entry_ns:
                counts.time_backwards += 1
            self._sessions.add(session)
            counts.sessions = len(self._sessions)
        self._last_entry_ns = ts_ns
        if kind == _IN:
            if is_counted:
                counts.frames += 1
                if self._last_frame_ns:
                    self._silence(ts_ns - self._last_frame_ns)
            self._last_frame_ns = ts_ns
            self._count(session, payload)
        # Records first: at a session's end holes are handed over (closed, opened anew), and then it is over.
        for record in mapped.records:
            if is_counted:
                name = KIND_OF[record.__class__]
                counts.records[name] = counts.records.get(name, 0) + 1
            self._record(record)
        for fact in mapped.facts:
            self.account.take(fact)
            self._fact(session, fact)

    def _begin_session(self, session: int) -> None:
        """Sessions follow one another: whatever ended the one before, it gave nothing behind its last frame."""
        if self._session:
            self._disconnected(self._session, self._last_frame_ns or self._last_entry_ns)
        self._session = session
        self._is_ended = False

    def end(self, mapper: Mapper, *, is_last: bool) -> None:
        """No further entry of the latest session comes to `mapper`: what it has not assessed yet, it assesses now.

        Args:
            is_last: the session goes on for as long as there are entries; else another follows, and it ended with its
                last frame.
        """
        if self._is_ended:
            return
        last_ns = self._last_entry_ns if is_last else self._last_frame_ns or self._last_entry_ns
        fact = Disconnected("no-more-entries", last_recv_ns=last_ns)
        entry = Entry(EntryKind.CTL, self._last_n + 1, self._last_entry_ns, encode_fact(fact))
        for one in mapper.map(entry).facts:
            if isinstance(one, capture.IntervalAssessed | capture.GapClosed):
                self.account.take(one)

    def lost(self, session: int, missing: int, ts_ns: int) -> None:
        """`missing` entries of the session are not in the raw archive; the next was received at `ts_ns`."""
        self.counts.entries_missing += missing
        since_ns = max(self._last_entry_ns, self._start_ns)
        self.account.lost(session, since_ns, ts_ns, self.account.tickers)
        for watch in self.tickers.values():
            watch.book.lose(since_ns)
        for key in [key for key in self._sequences if key[0] == session]:
            self._end_count(key)

    def _silence(self, length_ns: int) -> None:
        counts = self.counts
        counts.longest_silence_ns = max(counts.longest_silence_ns, length_ns)
        if length_ns > SILENCE_NS_MAX:
            counts.silences += 1
            counts.silent_ns += length_ns - SILENCE_NS_MAX

    def _count(self, session: int, payload: bytes) -> None:
        place = self._reader.place(payload)
        if place is None:
            self.counts.unreadable += self._is_counted
            return
        if not place.sid or not (place.seq or place.begins):
            return
        key = session, place.sid
        count = self._sequences.get(key)
        if place.begins and count is not None and count.is_begun:
            self._end_count(key)
            count = None
        if count is None:
            count = self._sequences[key] = SequenceCount()
        if place.begins:
            count.begin()
        if place.seq:
            count.observe(place.seq)
        if place.ends:
            self._end_count(key)

    def _end_count(self, key: tuple[int, int]) -> None:
        count = self._sequences.pop(key, None)
        if count is not None:
            self._ended.append(count.proof(*key))

    # Facts

    def _fact(self, session: int, fact: capture.CaptureEvent) -> None:
        counts = self.counts
        match fact:
            case capture.Subscribed(sid=sid, channel=channel, tickers=tickers):
                self._subscribed(session, sid, channel, tickers)
            case capture.Disconnected(last_recv_ns=last_ns):
                self._is_ended = True
                self._disconnected(session, last_ns or fact.ts_recv_ns)
            case capture.DriftDetected(what=what, frame_type=frame_type, field=name) if self._is_counted:
                if what not in _MEASURED:
                    counts.drifts += 1
                    if len(counts.drift_names) < DRIFTS_NAMED_MAX:
                        counts.drift_names.append(f"{what} {frame_type} {name}".strip())
            case capture.GapOpened(cause="unmapped-frame") if self._is_counted:
                counts.unmapped += 1
            case capture.ClockStepped() if self._is_counted:
                counts.clock_steps += 1
            case _:
                pass

    def _subscribed(self, session: int, sid: int, channel: str, tickers: Sequence[str]) -> None:
        count = self._sequences.get((session, sid))
        if count is not None:
            count.channel = channel
        for ticker in tickers if channel in CHANNELS else ():
            self._watch(ticker)

    def _disconnected(self, session: int, last_ns: int) -> None:
        for watch in self.tickers.values():
            watch.book.lose(last_ns)
            watch.last_ns = 0
        self._last_frame_ns = 0
        for key in [key for key in self._sequences if key[0] == session]:
            self._end_count(key)

    # Records

    def _watch(self, ticker: str) -> TickerWatch:
        watch = self.tickers.get(ticker)
        if watch is None:
            watch = self.tickers[ticker] = TickerWatch(ticker)
        return watch

    def _record(self, record: Any) -> None:
        if isinstance(record, Gap):
            self._gap(record)
            return
        if isinstance(record, MarketStatus):
            self._learn_grid(record)
            return
        watch = self._watch(record.ticker)
        if isinstance(record, BookDelta | BookSnapshot):
            self._book(watch, record)
        elif isinstance(record, Trade) and self._is_counted:
            watch.prices.add(record.price, record.price_exponent)
            watch.trades.add(
                    VenueTrade(
                        record.trade_id, record.price, record.price_exponent, record.size, record.size_exponent,
                        record.aggressor, record.ts_event_ns,
                    )
                )  # fmt: skip
        if self._is_counted:
            watch.records += 1
            watch.seen(record.ts_recv_ns)

    def _book(self, watch: TickerWatch, record: BookDelta | BookSnapshot) -> None:
        watch.book.apply(record)
        if not self._is_counted:
            return
        if isinstance(record, BookDelta):
            watch.prices.add(record.price, record.price_exponent)
        else:
            for price, _ in (*record.bids, *record.asks):
                watch.prices.add(price, record.price_exponent)

    def _gap(self, gap: Gap) -> None:
        if gap.state == "closed" or gap.channel not in {"", BOOK}:
            return
        for watch in self.tickers.values() if gap.ticker == WHOLE_CHANNEL else (self._watch(gap.ticker),):
            # What makes a book impossible shows behind the moment up to which it was right.
            watch.book.lose(gap.ts_recv_ns if gap.cause == INCONSISTENT else gap.start_ns)

    def _learn_grid(self, record: MarketStatus) -> None:
        found = self._reader.grid(record.detail)
        known = self.grids.get(record.ticker, ())
        fresh = tuple(one for one in found if one not in known)
        if fresh:
            self.grids[record.ticker] = known + fresh

    # What it came to

    def proofs(self) -> list[SequenceProof]:
        """Every count of every session, those that ended first."""
        return [*self._ended, *(count.proof(*key) for key, count in self._sequences.items())]

    def spans(self, channel: str = "", repairs: Sequence[Repair] = ()) -> dict[str, tuple[Span, ...]]:
        """How each ticker was covered from the first to the last entry of the date; tickers that were on `channel`.

        Args:
            channel: "" = of each ticker the one that says how it is covered.
        """
        first, last = self.counts.first_ns, self.counts.last_ns
        found: dict[str, tuple[Span, ...]] = {}
        for ticker in self.account.tickers:
            shown = channel or self.account.channel_of(ticker)
            if shown and any(claim.channel == shown for claim in self.account.of(ticker)):
                self._watch(ticker)
                found[ticker] = self.account.spans(ticker, shown, first, last, repairs)
        return found

    def close(self) -> None:
        """No further entry will come: what is crossed now is crossed until the last one."""
        for watch in self.tickers.values():
            watch.book.lose(self.counts.last_ns)
