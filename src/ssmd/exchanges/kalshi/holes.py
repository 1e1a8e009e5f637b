"""Holes in what was received: opened and closed ticker by ticker, in-band (`Gap` records) and as facts.

Every ticker gets its own records at the exact entries. The facts, which become journal events, are gathered: tickers
that come back within GATHER_NS are told in one `GapClosed`, whose `end_ns` is when the last of them came back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ssmd.domain.capture import GapClosed, GapOpened
from ssmd.exchanges.kalshi.output import Closed, Output
from ssmd.exchanges.kalshi.subscriptions import BOOK
from ssmd.schemas.records import WHOLE_CHANNEL, Gap

GATHER_NS: Final = 1_000_000_000
PRICE_EXPONENT: Final = -4
SIZE_EXPONENT: Final = -2


class Hole:
    """One hole. `channel` "" = all of the session's; `pending` = tickers for which it is still open; `n` = the entry that
    shows it, 0 = it is before the session.
    """

    __slots__ = (
        "cause",
        "channel",
        "closed",
        "closed_ns",
        "evidence",
        "gap_id",
        "n",
        "pending",
        "seq_expected",
        "seq_found",
        "sid",
        "start_ns",
    )

    def __init__(
        self,
        gap_id: str,
        cause: str,
        start_ns: int,
        evidence: str,
        *,
        channel: str = "",
        sid: int = 0,
        seq_expected: int = 0,
        seq_found: int = 0,
    ) -> None:
        self.gap_id = gap_id
        self.cause = cause
        self.start_ns = start_ns
        self.evidence = evidence
        self.channel = channel
        self.sid = sid
        self.seq_expected = seq_expected
        self.seq_found = seq_found
        self.n = 0
        self.pending: set[str] = set()
        # Closed, and not yet told in a fact.
        self.closed: list[str] = []
        self.closed_ns = 0


class Holes:
    """The open holes of one session, and the one before it.

    Args:
        wanted: tickers of this session, as they become known; once all are back, the hole before it is told as closed.

    Attributes:
        tell_at_ns: when the closings gathered so far are to be told, 0 = there are none.
    """

    def __init__(self, wanted: set[str]) -> None:
        self._wanted = wanted
        self._open: list[Hole] = []
        self._before: Hole | None = None
        self._returned: set[str] = set()
        self.tell_at_ns = 0

    def begin_after(self, hole: Hole) -> None:
        """`hole` lies before this session. Which tickers it was opened for is not known here."""
        self._before = hole

    def open(self, out: Output, hole: Hole, tickers: Iterable[str], *, channels: Iterable[str] = ()) -> None:
        """Open `hole` for `tickers`, and for all of each of `channels` (those without a ticker filter)."""
        told = self._records(out, hole, tickers, channels)
        hole.pending.update(told)
        self._open.append(hole)

    def pass_over(self, out: Output, hole: Hole, tickers: Iterable[str]) -> None:
        """Open `hole` and close it at this very entry: its channel has no state to bring back."""
        told = self._records(out, hole, tickers, ())
        for ticker in told:
            _record(out, hole, ticker, hole.channel, is_closed=True)
        out.facts.append(GapClosed(*out.place, hole.gap_id, hole.start_ns, out.ts_ns, _named(hole, told)))
        out.closed.append(Closed(hole, hole.channel, told, out.ts_ns))

    def _records(self, out: Output, hole: Hole, tickers: Iterable[str], channels: Iterable[str]) -> tuple[str, ...]:
        hole.n = out.n
        named = tuple(sorted(tickers))
        for ticker in named:
            _record(out, hole, ticker, hole.channel, is_closed=False)
        for channel in sorted(channels):
            _record(out, hole, WHOLE_CHANNEL, channel, is_closed=False)
        told = (WHOLE_CHANNEL, *named) if channels else named
        out.facts.append(
            GapOpened(
                *out.place,
                hole.gap_id,
                hole.cause,
                hole.start_ns,
                hole.channel,
                hole.sid,
                hole.seq_expected,
                hole.seq_found,
                _named(hole, told),
                hole.evidence,
            )
        )
        return told

    def close_book(self, out: Output, ticker: str) -> bool:
        """A snapshot of `ticker` is here: its book is whole again. To be called before the snapshot's record is added.

        Returns:
            whether that ends a hole for it.
        """
        ended = [hole for hole in self._open if ticker in hole.pending and hole.channel in (BOOK, "")]
        for hole in ended:
            self._close(out, hole, ticker, hole.channel)
        return self.close_before(out, ticker, "") or bool(ended)

    def close_channel(self, out: Output, channel: str) -> None:
        """`channel` (not the book's) was subscribed again."""
        for hole in tuple(self._open):
            if hole.channel == channel:
                for ticker in sorted(hole.pending):
                    self._close(out, hole, ticker, channel)

    def close_before(self, out: Output, ticker: str, channel: str) -> bool:
        """The hole before this session is over for `ticker` (of `channel`, where it is WHOLE_CHANNEL); once. Whether it was."""
        before = self._before
        key = f"{ticker}{channel}"
        if before is None or key in self._returned:
            return False
        self._returned.add(key)
        _record(out, before, ticker, channel, is_closed=True)
        before.closed.append(ticker)
        before.closed_ns = out.ts_ns
        if ticker == WHOLE_CHANNEL:
            out.closed.append(Closed(before, channel, (ticker,), out.ts_ns))
        if ticker == WHOLE_CHANNEL or len(self._returned) >= len(self._wanted):
            self._tell_closed(out, before)
        else:
            self._gather(out)
        return True

    def left(self, out: Output, hole: Hole, tickers: Iterable[str]) -> None:
        """`hole`, of this session or one before it, is over for `tickers`: nobody waits for them any more."""
        named = tuple(sorted(tickers))
        for own in tuple(self._open):
            if own.gap_id == hole.gap_id:
                hole.n = own.n
                own.pending.difference_update(named)
                if not own.pending:
                    self._tell_closed(out, own)
                    self._open.remove(own)
        if self._before is not None and self._before.gap_id == hole.gap_id:
            self._returned.update(named)
        for ticker in named:
            _record(out, hole, ticker, hole.channel, is_closed=True)
        out.facts.append(GapClosed(*out.place, hole.gap_id, hole.start_ns, out.ts_ns, named))
        out.closed.append(Closed(hole, hole.channel, named, out.ts_ns))

    def pending(self) -> set[str]:
        """Tickers that some open hole waits for (WHOLE_CHANNEL is none)."""
        return set[str]().union(*(hole.pending for hole in self._open)) - {WHOLE_CHANNEL}

    @property
    def is_before_pending(self) -> bool:
        return self._before is not None

    def _close(self, out: Output, hole: Hole, ticker: str, channel: str) -> None:
        hole.pending.discard(ticker)
        _record(out, hole, ticker, channel, is_closed=True)
        hole.closed.append(ticker)
        hole.closed_ns = out.ts_ns
        if hole.pending:
            self._gather(out)
        else:
            self._tell_closed(out, hole)
            self._open.remove(hole)

    def _gather(self, out: Output) -> None:
        if not self.tell_at_ns:
            self.tell_at_ns = out.ts_ns + GATHER_NS

    def _tell_closed(self, out: Output, hole: Hole) -> None:
        if hole.closed:
            tickers = tuple(sorted(set(hole.closed)))
            out.facts.append(GapClosed(*out.place, hole.gap_id, hole.start_ns, hole.closed_ns, _named(hole, tickers)))
            # Of the hole before the session a whole channel is told by its name.
            named = tickers if hole.channel else tuple(ticker for ticker in tickers if ticker != WHOLE_CHANNEL)
            if named:
                out.closed.append(Closed(hole, hole.channel, named, hole.closed_ns))
            hole.closed.clear()

    def tell_due(self, out: Output) -> None:
        """Tell what was gathered long enough ago."""
        if self.tell_at_ns and out.ts_ns >= self.tell_at_ns:
            self.tell(out)

    def tell(self, out: Output) -> None:
        """Tell all closings not yet told."""
        self.tell_at_ns = 0
        for hole in (*self._open, *((self._before,) if self._before else ())):
            self._tell_closed(out, hole)

    def hand_over(self, out: Output, tickers: Iterable[str], channels: Iterable[str]) -> None:
        """The session ends: what is still open ends here, because the hole that now opens goes on from it.

        A later session knows only the hole right before it, so this keeps every opened hole closable.
        """
        for hole in tuple(self._open):
            for ticker in sorted(hole.pending):
                self._close(out, hole, ticker, hole.channel)
        for ticker in sorted(tickers):
            self.close_before(out, ticker, "")
        for channel in sorted(channels):
            self.close_before(out, WHOLE_CHANNEL, channel)
        self.tell(out)


def _named(hole: Hole, tickers: tuple[str, ...]) -> tuple[str, ...]:
    # In facts "no tickers" stands for a whole channel.
    return () if hole.channel and tickers == (WHOLE_CHANNEL,) else tickers


def _record(out: Output, hole: Hole, ticker: str, channel: str, *, is_closed: bool) -> None:
    out.records.append(
        Gap(
            out.feed,
            ticker,
            0,
            out.ts_ns,
            out.session,
            out.n,
            len(out.records),
            out.sid,
            out.seq,
            PRICE_EXPONENT,
            SIZE_EXPONENT,
            hole.gap_id,
            "closed" if is_closed else "opened",
            hole.cause,
            hole.start_ns,
            out.ts_ns if is_closed else 0,
            channel,
            hole.seq_expected,
            hole.seq_found,
            hole.evidence,
        )
    )
