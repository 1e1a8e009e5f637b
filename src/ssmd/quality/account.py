"""The mapper's own assessments of one connection (`capture.interval-assessed`), as a day's quality reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ssmd.domain import capture
from ssmd.quality.coverage import Repair, Span
from ssmd.quality.intervals import Claim, channel_of, painted
from ssmd.schemas.records import WHOLE_CHANNEL

_EVER_NS: Final = 1 << 62


class Account:
    """Of one connection, session by session. Facts come in tape order."""

    def __init__(self, connection: str) -> None:
        self._connection = connection
        self._sets: dict[str, frozenset[str]] = {}
        self._of: dict[str, list[Claim]] = {}
        self._of_all: list[Claim] = []
        # Whom the hole behind a session was opened for; the session that tells its end does not know.
        self._named: dict[str, set[str]] = {}
        # Holes that nobody has told the end of, and for whom.
        self._open: dict[str, tuple[Claim, set[str]]] = {}

    @property
    def tickers(self) -> list[str]:
        """Everybody of whom anything is known."""
        still = (tickers for _, tickers in self._open.values())
        return sorted(set(self._of).union(*still) - {WHOLE_CHANNEL})

    def take(self, fact: capture.CaptureEvent) -> None:
        """Take a fact, if it is of this kind."""
        if isinstance(fact, capture.GapOpened) and not fact.channel and fact.tickers:
            self._named.setdefault(fact.gap_id, set()).update(fact.tickers)
            claim = Claim(
                self._connection, "", "missing", fact.cause, fact.gap_id, fact.start_ns, _EVER_NS, fact.session, is_open=True
            )
            self._open.setdefault(fact.gap_id, (claim, set()))[1].update(fact.tickers)
        elif isinstance(fact, capture.GapClosed) and fact.gap_id in self._open:
            tickers = self._open[fact.gap_id][1]
            tickers.difference_update(fact.tickers or tuple(tickers))
            if not tickers:
                del self._open[fact.gap_id]
        elif isinstance(fact, capture.IntervalAssessed):
            self._assessed(fact)

    def _assessed(self, fact: capture.IntervalAssessed) -> None:
        members = (self._sets.get(fact.base, frozenset()) - frozenset(fact.dropped)) | frozenset(fact.tickers)
        self._sets.setdefault(fact.ticker_set, members)
        claim = Claim(
            self._connection, fact.channel, fact.verdict, fact.cause, fact.gap_id, fact.start_ns, fact.end_ns, fact.session
        )
        if fact.verdict == "repaired" and not members:
            self._of_all.append(claim)
        if fact.verdict == "missing" and not fact.first_n:
            members &= self._named.get(fact.gap_id, members)
        self._add(claim, members)

    def lost(self, session: int, start_ns: int, end_ns: int, tickers: Iterable[str]) -> None:
        """What was received in [start_ns, end_ns) is not in the raw archive."""
        claim = Claim(self._connection, "", "missing", "archive", f"archive-{session}-{end_ns}", start_ns, end_ns, session)
        self._add(claim, tickers)

    def _add(self, claim: Claim, members: Iterable[str]) -> None:
        for ticker in members:
            self._of.setdefault(ticker, []).append(claim)

    def of(self, ticker: str) -> list[Claim]:
        """All that is claimed of a ticker."""
        still = [claim for claim, tickers in self._open.values() if ticker in tickers]
        return [*self._of.get(ticker, ()), *self._of.get(WHOLE_CHANNEL, ()), *self._of_all, *still]

    def channel_of(self, ticker: str) -> str:
        """The channel that says how it is covered, "" = none does."""
        return channel_of(self.of(ticker))

    def spans(self, ticker: str, channel: str, start_ns: int, end_ns: int, repairs: Iterable[Repair] = ()) -> tuple[Span, ...]:
        """The verdicts within [start_ns, end_ns), in order, none overlapping, neighbours of one verdict joined."""
        filled = [
            Claim(self._connection, channel, "repaired", "", one.gap_id, one.start_ns, one.end_ns)
            for one in repairs
            if not one.tickers or ticker in one.tickers
        ]
        found: list[Span] = []
        for low, high, verdict, _ in painted([*self.of(ticker), *filled], channel, start_ns, end_ns):
            if found and found[-1].end_ns == low and found[-1].verdict == verdict:
                found[-1] = found[-1]._replace(end_ns=high)
            else:
                found.append(Span(low, high, verdict))
        return tuple(found)
