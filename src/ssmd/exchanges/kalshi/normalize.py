"""Tape entries of one Kalshi session -> market records and facts.

What is checked of every frame: its keys against `frames` (all of them), its values, and its place in the sequence of
its subscription. A frame that repeats or comes late is told and yields nothing (its change is already in the book).
A frame that cannot be read is told; if its envelope tells that it was sequenced data, a hole opens for its ticker (cause
unmapped-frame), because the records lack its change although the tape has it.

Holes, besides that: sequence-jump (frames of a sid are missing; every ticker of the sid is suspect, for the lost
frame's ticker is unknown), channel-error (the venue ended a subscription), book-inconsistent (a book that cannot be,
though no frame is missing), and the one after the session's end.
A book's hole ends at the next snapshot of the ticker. Trades and lifecycle have no state, so theirs ends where it is
noticed. When the session ends, what is still open ends too, and goes on as the hole after the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ssmd.domain import capture
from ssmd.errors import Malformed
from ssmd.exchanges.adapter import NOTHING, Mapped
from ssmd.exchanges.kalshi import causes, translate
from ssmd.exchanges.kalshi.book_check import Broken
from ssmd.exchanges.kalshi.checks import Checks
from ssmd.exchanges.kalshi.drift import Finding, classify, salvage
from ssmd.exchanges.kalshi.frames import (
    DOLLARS,
    TERMINAL_ERRORS,
    UNREADABLE,
    DataFrame,
    Error,
    Frame,
    Lifecycle,
    Ok,
    OrderbookDelta,
    OrderbookSnapshot,
    Subscribed,
    TickerFrame,
    TradeFrame,
    Unsubscribed,
)
from ssmd.exchanges.kalshi.holes import Hole, Holes
from ssmd.exchanges.kalshi.intervals import Intervals
from ssmd.exchanges.kalshi.null_rates import DELTAS_EVERY
from ssmd.exchanges.kalshi.output import Findings, Output, type_of
from ssmd.exchanges.kalshi.own_entries import OwnEntries
from ssmd.exchanges.kalshi.sequence import Sequences
from ssmd.exchanges.kalshi.subscriptions import BOOK, CHANNEL_OF_TYPE, Sub, Subscriptions
from ssmd.exchanges.kalshi.timestamps import event_ns
from ssmd.exchanges.kalshi.translate import CHANGES, PRICES
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.records import WHOLE_CHANNEL, BookDelta, Record, Side, SizeMeaning

_IN: Final = int(EntryKind.IN)
_BID: Final = Side.BID
_ASK: Final = Side.ASK
_CHANGE: Final = SizeMeaning.CHANGE
_new: Final = tuple.__new__


class KalshiMapper:
    """`exchanges.adapter.Mapper` for one session.

    Args:
        feed: the registry's name of the feed, for the records.
        session: the session's number, as in its blocks.
    """

    version = 2
    """2: a book that cannot be opens a hole (book-inconsistent)."""

    def __init__(self, feed: str, session: int) -> None:
        self._feed = feed
        self._session = session
        self._decode: Callable[[bytes], Frame] = DOLLARS.decode
        self._sequences = Sequences()
        self._subs = Subscriptions()
        self._holes = Holes(self._subs.wanted)
        self._intervals = Intervals(self._sequences)
        self._findings = Findings()
        self._checks = Checks()
        self._own = OwnEntries(session, self._subs, self._holes, self._intervals, self._findings, self._checks.offset)

    @property
    def clock_offset_ns(self) -> int:
        """See `Mapper`."""
        return self._checks.offset.offset_ns

    def __getstate__(self) -> dict[str, object]:
        """Everything but functions: a mapper can be pickled, and goes on as if it had not been."""
        return {name: value for name, value in vars(self).items() if name != "_decode"}

    def __setstate__(self, state: dict[str, object]) -> None:
        if "_own" not in state:
            raise Malformed("the state of a mapper of an earlier version of ssmd")
        vars(self).update(state)
        self._decode = self._own.wire.decode

    def _mapped(self, out: Output) -> Mapped:
        if out.closed:
            self._intervals.returned(out)
        return out.mapped()

    def map(self, entry: Entry) -> Mapped:
        """What `entry` means; entries come in order of n without holes."""
        kind, n, ts_ns, payload = entry
        if kind != _IN:
            return self._aside(entry)
        try:
            frame = self._decode(payload)
        except UNREADABLE:
            out = Output(self._feed, self._session, n, ts_ns)
            self._salvage(out, payload)
            return self._mapped(out)
        if frame.__class__ is OrderbookDelta:
            mapped = self._delta_in_order(frame, n, ts_ns)
            if mapped is not None:
                return mapped
        out = Output(self._feed, self._session, n, ts_ns)
        self._take(out, frame)
        return self._mapped(out)

    def _delta_in_order(self, frame: OrderbookDelta, n: int, ts_ns: int) -> Mapped | None:
        """The hot path: nearly all frames are deltas in order, of a ticker known on the sid, with usual numbers.

        It makes no helper object and looks nothing up twice; whatever is unusual is left, untouched, to `_take` (None).
        Its records equal those of `translate.delta`.
        """
        sid, seq, msg = frame.sid, frame.seq, frame.msg
        ticker = msg.market_ticker
        sub = self._subs.by_sid.get(sid)
        if sub is None or ticker not in sub.tickers or sub.channel != BOOK:
            return None
        checks = self._checks
        offset = checks.offset
        if ts_ns >= offset.due_ns or 0 < self._holes.tell_at_ns <= ts_ns:
            return None
        try:
            price = PRICES[msg.price_dollars]
            size = CHANGES[msg.delta_fp]
            ts_event_ns = event_ns(msg.ts, msg.ts_ms)
        except Malformed:
            return None
        if not self._sequences.follows(sid, seq):
            return None
        sub.last_good_ns = ts_ns
        if msg.side == "yes":
            side = _BID
        else:
            side = _ASK
            if not sub.is_yes_priced:
                price = 10_000 - price
        # Positional, in the order of `records.Header` and `records.BookDelta`: keywords would cost a third more.
        record = BookDelta(
            self._feed, ticker, ts_event_ns, ts_ns, self._session, n, 0, sid, seq, -4, -2, price, size, side, _CHANGE
        )
        if ts_ns - ts_event_ns < offset.least_ns:  # noqa: PLR1730 - see above
            offset.least_ns = ts_ns - ts_event_ns
        wrong = checks.books.change(ticker, side is _BID, price, size, ts_ns)
        nulls = checks.nulls
        if wrong is not None:
            return self._told(sub, record, wrong, nulls.look(frame))
        nulls.deltas = deltas = nulls.deltas + 1
        if not deltas % DELTAS_EVERY and (vanished := nulls.look(frame)):
            return self._told(sub, record, None, vanished)
        # What `Mapped((record,), ())` does, without the Python-level constructor of a named tuple.
        return _new(Mapped, ((record,), (), ""))

    def _told(self, sub: Sub, record: BookDelta, wrong: Broken | str | None, vanished: Iterable[Finding]) -> Mapped:
        out = Output(self._feed, self._session, record.n, record.ts_recv_ns)
        out.sid, out.seq, out.records = record.sid, record.seq, [record]
        self._tell_wrong(out, sub, record.ticker, wrong)
        self._findings.tell(out, *vanished)
        return out.mapped()

    # Frames

    def _salvage(self, out: Output, payload: bytes) -> None:
        self._holes.tell_due(out)
        salvaged = salvage(payload, self._own.wire)
        self._findings.tell(out, *salvaged.findings)
        if salvaged.frame is not None:
            self._take(out, salvaged.frame)
            return
        first = salvaged.findings[0]
        out.unmapped = f"{first.what} {first.frame_type} {first.field}: {first.detail}"
        if not salvaged.sid or not salvaged.seq:
            # If it was sequenced data, the next frame of its subscription shows the jump.
            return
        out.sid, out.seq = salvaged.sid, salvaged.seq
        channel = CHANNEL_OF_TYPE.get(salvaged.frame_type, "")
        sub = self._subs.of(salvaged.sid, channel)
        if salvaged.ticker and channel:
            self._learn(out, sub, salvaged.ticker)
        good_ns = sub.last_good_ns
        if self._is_in_sequence(out, sub, salvaged.frame_type) and channel:
            tickers = (salvaged.ticker,) if salvaged.ticker else sub.scope
            self._open(out, causes.unmapped_frame(out, sub, good_ns), tickers)

    def _take(self, out: Output, frame: Frame) -> None:
        self._holes.tell_due(out)
        offset = self._checks.offset
        if out.ts_ns >= offset.due_ns:
            offset.judge(out)
            if out.ts_ns >= self._intervals.due_ns:
                self._intervals.cut(out)
        if isinstance(frame, Subscribed):
            self._subscribed(out, frame)
            return
        out.sid = frame.sid
        out.seq = 0 if isinstance(frame, TickerFrame) else frame.seq
        if isinstance(frame, Error):
            self._error(out, frame)
        elif isinstance(frame, Ok | Unsubscribed):
            self._changed(out, frame)
        else:
            self._data(out, frame)

    def _data(self, out: Output, frame: DataFrame) -> None:
        frame_type = type_of(frame)
        sub = self._subs.of(frame.sid, CHANNEL_OF_TYPE[frame_type])
        ticker = "" if isinstance(frame, Lifecycle) else frame.msg.market_ticker
        if ticker:
            self._learn(out, sub, ticker)
        good_ns = sub.last_good_ns
        if not self._is_in_sequence(out, sub, frame_type):
            return
        notes: list[Finding] = []
        try:
            self._record(out, frame, sub, notes)
        except UNREADABLE as error:
            notes.append(classify(error, frame_type, "msg"))
            out.unmapped = f"{notes[-1].what} {frame_type} {notes[-1].field}: {notes[-1].detail}"
            if out.seq:
                self._open(out, causes.unmapped_frame(out, sub, good_ns), (ticker,) if ticker else sub.scope)
        self._findings.tell(out, *notes, *self._checks.nulls.look(frame))

    def _learn(self, out: Output, sub: Sub, ticker: str) -> None:
        # A book is covered from its snapshot on.
        if self._subs.learn(sub, ticker) and sub.channel != BOOK:
            self._intervals.join(out, sub, (ticker,))

    def _record(self, out: Output, frame: DataFrame, sub: Sub, notes: list[Finding]) -> None:
        # The record is made first: one that cannot be made brings nothing back.
        record: Record
        if isinstance(frame, OrderbookDelta):
            record = translate.delta(out, frame, notes, is_yes_priced=sub.is_yes_priced)
        elif isinstance(frame, OrderbookSnapshot):
            record = translate.snapshot(out, frame, is_yes_priced=sub.is_yes_priced)
            self._intervals.snapshot(out, sub, record.ticker, ends_hole=self._holes.close_book(out, record.ticker))
        elif isinstance(frame, TickerFrame):
            record = translate.quote(out, frame, notes)
            if self._checks.is_repeated(record, notes):
                return
            self._has_returned(out, sub, (record.ticker,))
        elif isinstance(frame, TradeFrame):
            record = translate.trade(out, frame, notes)
            self._has_returned(out, sub, (record.ticker,))
        else:
            record = translate.status(out, frame, notes)
            self._has_returned(out, sub, ())
        if record.index != len(out.records):
            record = msgspec.structs.replace(record, index=len(out.records))
        out.records.append(record)
        self._tell_wrong(out, sub, record.ticker, self._checks.record(out, record))

    def _tell_wrong(self, out: Output, sub: Sub, ticker: str, wrong: Broken | str | None) -> None:
        if isinstance(wrong, Broken):
            self._open(out, causes.book_inconsistent(out, sub, wrong), (ticker,))
        elif wrong:
            self._findings.tell(out, Finding("off-grid", "orderbook_delta", ticker, wrong))

    def _subscribed(self, out: Output, frame: Subscribed) -> None:
        sub = self._subs.acknowledged(frame)
        out.sid = sub.sid
        self._intervals.begin(out, sub)
        self._sequences.begin(sub.sid)
        sub.last_good_ns = out.ts_ns
        tickers = tuple(sorted(sub.tickers))
        out.facts.append(capture.Subscribed(*out.place, sub.sid, sub.channel, tickers))
        if sub.channel != BOOK:
            self._intervals.join(out, sub, (WHOLE_CHANNEL,) if sub.is_whole else tickers)
            self._holes.close_channel(out, sub.channel)
            self._has_returned(out, sub, tickers)

    def _changed(self, out: Output, frame: Ok | Unsubscribed) -> None:
        if not frame.sid:
            return
        sub = self._subs.of(frame.sid, "")
        if not self._is_in_sequence(out, sub, type_of(frame)):
            return
        if isinstance(frame, Unsubscribed):
            if sub.channel == BOOK:
                self._checks.books.forget(sub.tickers)
            self._intervals.end(out, frame.sid)
            self._subs.end(frame.sid, is_wanted=False)
            self._sequences.end(frame.sid)
            return
        added, dropped = self._subs.changed(frame)
        self._intervals.leave(out, sub, dropped)
        if sub.channel == BOOK:
            self._checks.books.forget(dropped)
        if added:
            out.facts.append(capture.Subscribed(*out.place, sub.sid, sub.channel, added))
            if sub.channel != BOOK:
                self._intervals.join(out, sub, added)
            self._has_returned(out, sub, added)

    def _error(self, out: Output, frame: Error) -> None:
        is_terminal = frame.msg.code in TERMINAL_ERRORS
        if not frame.sid:
            if is_terminal:
                detail = f"terminal error {frame.msg.code} names no sid, so no subscription can be told to be gone"
                self._findings.tell(out, Finding("missing-field", "error", "sid", detail))
            return
        sub = self._subs.of(frame.sid, "")
        if not self._is_in_sequence(out, sub, "error") or not is_terminal:
            return
        hole = causes.channel_error(out, sub, frame)
        self._open(out, hole, sub.scope, is_over=True)
        self._intervals.end(out, frame.sid)
        self._subs.end(frame.sid, is_wanted=True)
        self._sequences.end(frame.sid)

    def _has_returned(self, out: Output, sub: Sub, tickers: tuple[str, ...]) -> None:
        """Data, or a subscription to it, is here on a channel other than the book's."""
        if sub.channel == BOOK or not self._holes.is_before_pending:
            return
        if sub.is_whole:
            self._holes.close_before(out, WHOLE_CHANNEL, sub.channel)
        if self._subs.is_book_unmatched:
            # Any ticker may have a book to come, and its book is what counts.
            return
        for ticker in tickers:
            if ticker not in self._subs.book_tickers:
                self._holes.close_before(out, ticker, "")

    # Sequence

    def _is_in_sequence(self, out: Output, sub: Sub, frame_type: str) -> bool:
        """Whether the frame is to be taken; where frames are missing before it, their hole is opened."""
        if out.seq:
            missing = self._sequences.observe(sub.sid, out.seq)
            if missing < 0:
                detail = f"sid {sub.sid}: seq {out.seq} came again or late, after {out.seq - missing - 1}; not applied"
                self._findings.tell(out, Finding("duplicate-sequence", frame_type, "seq", detail))
                return False
            if missing:
                self._open(out, causes.sequence_jump(out, sub, missing), sub.scope)
        sub.last_good_ns = out.ts_ns
        return True

    def _open(self, out: Output, hole: Hole, tickers: tuple[str, ...], *, is_over: bool = False) -> None:
        self._intervals.lose(out, hole, tickers)
        if hole.channel in (BOOK, "") or is_over:
            self._checks.books.forget(tickers)
            self._holes.open(out, hole, tickers)
        else:
            self._holes.pass_over(out, hole, tickers)
            self._intervals.returned(out)

    # Our own entries

    def _aside(self, entry: Entry) -> Mapped:
        kind, n, ts_ns, payload = entry
        if kind == EntryKind.OUT:
            self._subs.sent(payload)
            return NOTHING
        out = Output(self._feed, self._session, n, ts_ns)
        self._holes.tell_due(out)
        self._own.take(out, payload)
        self._decode = self._own.wire.decode
        return self._mapped(out)
