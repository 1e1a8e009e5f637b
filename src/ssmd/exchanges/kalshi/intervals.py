"""What can be said of every moment of a session's subscriptions: verified, unverifiable or missing; as facts.

A ticker is covered on a sid from where its data is whole (a book: from its snapshot on) until a hole opens, it leaves, or
the session ends. Covered time is assessed at its end, and at a cut (some seconds into each full hour; each day-mark):

- verified up to the last counted frame of the sid, for the venue's count shows that nothing before it is absent;
- unverifiable behind that (tail), where the venue does not count (no-sequence), where the acknowledgement that begins the
  count was not seen (no-beginning);
- missing from a hole's last proven moment until its end, told with the hole's end.

At a cut a counted sid is assessed up to its last counted frame only: the next one proves what is between.

Tickers that become whole within GATHER_NS are covered from the last of them on: what is rounded is rounded against us.
Nothing here happens for each frame: only where something begins, ends or is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from ssmd.domain.capture import GapRepaired, IntervalAssessed, Verdict
from ssmd.exchanges.kalshi.evidence import UNCOUNTED
from ssmd.exchanges.kalshi.holes import GATHER_NS, Hole
from ssmd.exchanges.kalshi.output import Output
from ssmd.exchanges.kalshi.sequence import Sequences
from ssmd.exchanges.kalshi.subscriptions import BOOK, Sub
from ssmd.exchanges.kalshi.ticker_sets import TickerSets
from ssmd.schemas.records import WHOLE_CHANNEL

CUT_NS: Final = 3_600_000_000_000
TRADE: Final = "trade"


class _Cohort:
    """Tickers of a sid that are covered since the same moment. `begun_ns`: since when others may join them."""

    __slots__ = ("begun_ns", "first_n", "first_seq", "start_ns")

    def __init__(self, start_ns: int, first_n: int, first_seq: int) -> None:
        self.begun_ns = self.start_ns = start_ns
        self.first_n = first_n
        self.first_seq = first_seq


class _Cover:
    """Who is covered on a sid. `is_begun`: its acknowledgement was seen; `gathering`: the cohort that may still be joined."""

    __slots__ = ("covered", "gathering", "is_begun", "sub")

    def __init__(self, sub: Sub, *, is_begun: bool) -> None:
        self.sub = sub
        self.is_begun = is_begun
        self.covered: dict[str, _Cohort] = {}
        self.gathering: _Cohort | None = None


class _Finding(NamedTuple):
    """What is told of some tickers."""

    verdict: Verdict
    cause: str
    start_ns: int
    end_ns: int
    first_seq: int
    last_seq: int
    evidence: str


class Intervals:
    """Of one session. Tickers are given sorted, or one by one in the order of the tape.

    Attributes:
        due_ns: when the next cut is to be made.
    """

    def __init__(self, sequences: Sequences) -> None:
        self.due_ns = 0
        self._sequences = sequences
        self._sets = TickerSets()
        self._covers: dict[int, _Cover] = {}
        # Ticker -> (sid, seq) of the snapshot that ended a hole which was not told as closed yet.
        self._awaiting: dict[str, tuple[int, int]] = {}

    # Beginnings

    def begin(self, out: Output, sub: Sub) -> None:
        """`sub` was acknowledged. To be called before its count begins anew."""
        cover = self._covers.get(sub.sid)
        if cover is not None and not cover.is_begun:
            # Data overtook the acknowledgement.
            cover.sub, cover.is_begun = sub, True
        else:
            self.end(out, sub.sid)
            self._covers[sub.sid] = _Cover(sub, is_begun=True)

    def join(self, out: Output, sub: Sub, tickers: Iterable[str]) -> None:
        """The data of `tickers` (WHOLE_CHANNEL = of all) is whole from here."""
        cover = self._covers.get(sub.sid)
        if cover is None:
            cover = self._covers[sub.sid] = _Cover(sub, is_begun=False)
        fresh = [ticker for ticker in tickers if ticker not in cover.covered]
        if not fresh:
            return
        seq = self._sequences.last(sub.sid)
        cohort = cover.gathering
        if cohort is None or out.ts_ns >= cohort.begun_ns + GATHER_NS:
            cohort = cover.gathering = _Cohort(out.ts_ns, out.n, seq)
        cohort.start_ns, cohort.first_n, cohort.first_seq = out.ts_ns, out.n, seq
        cover.covered.update(dict.fromkeys(fresh, cohort))

    def snapshot(self, out: Output, sub: Sub, ticker: str, *, ends_hole: bool) -> None:
        """A book is whole; where that `ends_hole`, it is covered once the hole is told as closed."""
        if ends_hole:
            self._awaiting[ticker] = sub.sid, out.seq
        elif ticker not in self._awaiting:
            self.join(out, sub, (ticker,))

    def returned(self, out: Output) -> None:
        """Tell the holes that were told as closed at this entry, and cover their tickers from there."""
        for hole, channel, tickers, end_ns in out.closed:
            self._missed(out, hole, channel, tickers, end_ns)
            if channel in {"", BOOK}:
                self._cover_awaiting(out, tickers, end_ns)
            elif (cover := self._covers.get(hole.sid)) is not None:
                cohort = _Cohort(end_ns, out.n, self._sequences.last(hole.sid))
                cover.covered.update({ticker: cohort for ticker in tickers if ticker not in cover.covered})
        out.closed.clear()

    def _cover_awaiting(self, out: Output, tickers: Iterable[str], end_ns: int) -> None:
        cohorts: dict[int, _Cohort] = {}
        for ticker in tickers:
            sid, seq = self._awaiting.pop(ticker, (0, 0))
            cover = self._covers.get(sid)
            if cover is None:
                continue
            cohort = cohorts.setdefault(sid, _Cohort(end_ns, out.n, seq))
            cohort.first_seq = max(cohort.first_seq, seq)
            cover.covered.setdefault(ticker, cohort)

    # Ends

    def lose(self, out: Output, hole: Hole, tickers: Iterable[str]) -> None:
        """`hole` opens for `tickers` of its sid."""
        tickers = tuple(tickers)
        for ticker in tickers:
            if self._awaiting.get(ticker, (0, 0))[0] == hole.sid:
                del self._awaiting[ticker]
        seq = hole.seq_expected - 1 if hole.seq_expected else self._sequences.last(hole.sid)
        self._end(out, hole.sid, tickers, hole.start_ns, seq)

    def leave(self, out: Output, sub: Sub, tickers: Iterable[str]) -> None:
        """They were taken off the subscription."""
        tickers = tuple(tickers)
        for ticker in tickers:
            if self._awaiting.get(ticker, (0, 0))[0] == sub.sid:
                del self._awaiting[ticker]
        self._end(out, sub.sid, tickers, out.ts_ns, self._sequences.last(sub.sid))

    def end(self, out: Output, sid: int) -> None:
        """The subscription is gone. To be called before its count ends."""
        cover = self._covers.get(sid)
        if cover is not None:
            self._end(out, sid, tuple(cover.covered), out.ts_ns, self._sequences.last(sid))
            self._forget(sid)

    def finish(self, out: Output, last_recv_ns: int) -> None:
        """The session is over; its last frame came at `last_recv_ns`, 0 = there was none."""
        self.returned(out)
        for sid, cover in tuple(self._covers.items()):
            self._end(out, sid, tuple(cover.covered), last_recv_ns, self._sequences.last(sid))
            self._forget(sid)

    def _forget(self, sid: int) -> None:
        del self._covers[sid]
        for ticker in [ticker for ticker, (on, _) in self._awaiting.items() if on == sid]:
            del self._awaiting[ticker]

    def _end(self, out: Output, sid: int, tickers: Iterable[str], until_ns: int, seq: int) -> None:
        cover = self._covers.get(sid)
        if cover is None:
            return
        groups: dict[_Cohort, list[str]] = {}
        for ticker in tickers:
            cohort = cover.covered.pop(ticker, None)
            if cohort is not None:
                groups.setdefault(cohort, []).append(ticker)
        for cohort, names in groups.items():
            self._assess(out, cover, cohort, names, until_ns, seq)

    # Cuts

    def cut(self, out: Output) -> None:
        """Tell what is proven so far; cohorts that go on from the same moment become one."""
        self.due_ns = (out.ts_ns // CUT_NS + 1) * CUT_NS
        for sid, cover in self._covers.items():
            cover.gathering = None
            seq = self._sequences.last(sid)
            is_counted = cover.sub.channel not in UNCOUNTED
            until_ns = cover.sub.last_good_ns if is_counted else out.ts_ns
            if is_counted and not seq:
                continue
            groups: dict[_Cohort, list[str]] = {}
            for ticker, cohort in cover.covered.items():
                if cohort.start_ns < until_ns:
                    groups.setdefault(cohort, []).append(ticker)
            following = _Cohort(until_ns, out.n, seq)
            for cohort, names in groups.items():
                self._assess(out, cover, cohort, names, until_ns, seq)
                cover.covered.update(dict.fromkeys(names, following))

    # Facts

    def _assess(self, out: Output, cover: _Cover, cohort: _Cohort, tickers: list[str], until_ns: int, seq: int) -> None:
        sub, start_ns = cover.sub, cohort.start_ns
        is_counted = sub.channel not in UNCOUNTED
        good_ns = min(until_ns, sub.last_good_ns) if is_counted and seq else 0
        first_seq = min(cohort.first_seq, seq)
        if good_ns > start_ns:
            told = f"seq {first_seq} to {seq} of sid {sub.sid}"
            if cover.is_begun:
                found = _Finding("verified", "", start_ns, good_ns, first_seq, seq, f"{told}, none missing")
            else:
                evidence = f"{told}; the acknowledgement of sid {sub.sid} was not seen"
                found = _Finding("unverifiable", "no-beginning", start_ns, good_ns, first_seq, seq, evidence)
            self._tell(out, sub, cohort, tickers, found)
            start_ns = good_ns
        if until_ns <= start_ns:
            return
        if is_counted:
            evidence = f"nothing counted came on sid {sub.sid} after seq {seq}"
            found = _Finding("unverifiable", "tail", start_ns, until_ns, seq, seq, evidence)
        else:
            evidence = f"the venue does not count {sub.channel}"
            found = _Finding("unverifiable", "no-sequence", start_ns, until_ns, 0, 0, evidence)
        self._tell(out, sub, cohort, tickers, found)

    def _tell(self, out: Output, sub: Sub, cohort: _Cohort, tickers: Iterable[str], found: _Finding) -> None:
        verdict, cause, start_ns, end_ns, first_seq, last_seq, evidence = found
        self._add(
            out,
            tickers,
            IntervalAssessed(
                *out.place, sub.sid, sub.channel, verdict, cause, "", start_ns, end_ns, cohort.first_n, first_seq, last_seq,
                "", "", (), (), evidence,
            ),
        )  # fmt: skip

    def _missed(self, out: Output, hole: Hole, channel: str, tickers: tuple[str, ...], end_ns: int) -> None:
        cover = self._covers.get(hole.sid)
        is_nobody = tickers == (WHOLE_CHANNEL,) and cover is not None and not cover.sub.is_whole
        if end_ns <= hole.start_ns or is_nobody:
            return
        before, after = (hole.seq_expected - 1, hole.seq_found) if hole.seq_expected else (0, 0)
        self._add(
            out,
            tickers,
            IntervalAssessed(
                *out.place, hole.sid, channel, "missing", hole.cause, hole.gap_id, hole.start_ns, end_ns, hole.n, before, after,
                "", "", (), (), hole.evidence,
            ),
        )  # fmt: skip

    def repaired(self, out: Output, told: GapRepaired) -> None:
        """A gap's trades were had from elsewhere; nothing else of it can be had again."""
        self._add(
            out,
            told.tickers,
            IntervalAssessed(
                *out.place, 0, TRADE, "repaired", "", told.gap_id, told.start_ns, told.end_ns, 0, 0, 0,
                "", "", (), (), told.evidence,
            ),
        )  # fmt: skip

    def _add(self, out: Output, tickers: Iterable[str], event: IntervalAssessed) -> None:
        for named in self._sets.name(tickers):
            out.assessed.append(msgspec.structs.replace(event, **named._asdict()))
