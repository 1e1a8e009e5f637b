"""Markets that do not come back after a hole, because they are not captured any more: they settled meanwhile, say.

No snapshot will ever end the hole for them. The connector does, once its session has had the time to learn which markets
there are, and what it wrote is mapped: a `MarketsLeft` fact on the tape. What has not come back from between sessions is
kept beside the tape, so that no restart forgets it:

    {tape}/departures.json    the holes, each with the tickers that have not come back

It is an intention and no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ssmd.domain.capture import CaptureEvent, GapClosed, GapOpened
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import Subscription
from ssmd.schemas.control import MarketsLeft
from ssmd.schemas.records import WHOLE_CHANNEL
from ssmd.streams.publisher import NOWHERE, EntryPlace

SETTLE_S: Final = 30.0
"""A session that old has read the listing, and been told by the venue what it subscribed to."""
TICKERS_MAX: Final = 1_000
"""Tickers in one fact."""
HOLES_MAX: Final = 1_024
"""Holes remembered; of more the oldest are forgotten, and stay open."""


class _Hole(msgspec.Struct):
    """A hole and the `tickers` that have not come back."""

    gap_id: str
    cause: str
    start_ns: int
    channel: str
    tickers: set[str]


class Departures:
    """See the module. `captures` at a session's start and `want` later, `offer` from the follower, `tell` every second."""

    def __init__(self, directory: Path, log: Any) -> None:
        self._path = directory / "departures.json"
        self._log = log
        self._holes: dict[str, _Hole] = {hole.gap_id: hole for hole in self._kept()}
        self._told: set[tuple[str, str]] = set()
        # How far the tape went when it was last mapped as far as it then went.
        self._awaited = NOWHERE
        # None = all there are.
        self._wanted: AbstractSet[str] | None = None

    @property
    def waiting(self) -> int:
        """Tickers, each once a hole, that have not come back."""
        return sum(len(hole.tickers) for hole in self._holes.values())

    def captures(self, subscription: Subscription) -> None:
        """What the session that begins captures."""
        is_chosen = subscription.is_followed or bool(subscription.tickers)
        self._wanted = frozenset(subscription.tickers) if is_chosen else None

    def want(self, tickers: Iterable[str]) -> None:
        """From now on these markets."""
        self._wanted = frozenset(tickers)

    def offer(self, facts: Iterable[CaptureEvent]) -> None:
        """Take facts, in tape order; never waits."""
        is_kept_changed = False
        for fact in facts:
            if isinstance(fact, GapOpened):
                is_kept_changed |= self._opened(fact)
            elif isinstance(fact, GapClosed):
                is_kept_changed |= self._closed(fact)
        if is_kept_changed:
            self._keep()

    def _opened(self, fact: GapOpened) -> bool:
        tickers = {ticker for ticker in fact.tickers if ticker != WHOLE_CHANNEL}
        if not tickers:
            return False
        hole = self._holes.setdefault(fact.gap_id, _Hole(fact.gap_id, fact.cause, fact.start_ns, fact.channel, set()))
        hole.tickers |= tickers
        if len(self._holes) > HOLES_MAX:
            oldest = self._holes.pop(next(iter(self._holes)))
            self._log.warning("departures-forgotten", gap=oldest.gap_id, tickers=len(oldest.tickers))
        return not fact.channel

    def _closed(self, fact: GapClosed) -> bool:
        hole = self._holes.get(fact.gap_id)
        if hole is None:
            return False
        closed = hole.tickers.intersection(fact.tickers) if fact.tickers else set(hole.tickers)
        hole.tickers -= closed
        self._told -= {(hole.gap_id, ticker) for ticker in closed}
        if not hole.tickers:
            del self._holes[fact.gap_id]
        return bool(closed) and not hole.channel

    def tell(self, age_s: float, write: Callable[[MarketsLeft], None], written: EntryPlace, acked: EntryPlace) -> None:
        """Write what is due in a session that old; each ticker of a hole once. What cannot be written is due again.

        Args:
            written, acked: how far the tape goes, and what of it was mapped and published. While streams are away, or are
                filled again, a ticker may have come back on the tape and nobody here knows it: then nothing is told.
        """
        if acked < self._awaited:
            return
        self._awaited = written
        if self._wanted is None or age_s < SETTLE_S or not self._holes:
            return
        with suppress(Unavailable):
            self._tell(self._wanted, write)

    def _tell(self, wanted: AbstractSet[str], write: Callable[[MarketsLeft], None]) -> None:
        for hole in tuple(self._holes.values()):
            left = sorted(ticker for ticker in hole.tickers if ticker not in wanted and (hole.gap_id, ticker) not in self._told)
            for at in range(0, len(left), TICKERS_MAX):
                tickers = tuple(left[at : at + TICKERS_MAX])
                write(MarketsLeft(hole.gap_id, hole.cause, hole.start_ns, tickers, hole.channel))
                self._told.update((hole.gap_id, ticker) for ticker in tickers)
                self._log.info("markets-left", gap=hole.gap_id, count=len(tickers), first=tickers[0])

    def _keep(self) -> None:
        # What opens and ends within a session is handed on to the hole after it: only those holes outlive it.
        holes = [hole for hole in self._holes.values() if not hole.channel]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(holes))
            fresh.replace(self._path)
        except OSError as error:
            self._log.warning("departures-not-kept", reason=str(error))

    def _kept(self) -> list[_Hole]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Hole])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            self._log.warning("departures-not-known", reason=str(error))
            return []
