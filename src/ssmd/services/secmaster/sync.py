"""One comparison of the venue's list of markets with the journal's, as a procedure that may be run again at any time.

A market that a full pass did not show is asked for by its ticker before anything is said of it: half a page, a cursor that
lost its place or a filter that hides what was settled drops nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.application.listings import Listings
from ssmd.application.sealing import Origin
from ssmd.domain import listing, secmaster_sync
from ssmd.domain.listing import ListingEvent
from ssmd.domain.observation import Observation
from ssmd.domain.secmaster_sync import CompleteSync, Counts, FailSync, StartSync, SyncCommand
from ssmd.errors import Malformed, SsmdError
from ssmd.services.secmaster.venue import Scope, VenueMarkets
from ssmd.telemetry import request

ASKED_AT_ONCE: Final = 100
"""Markets asked for by ticker in one go."""
UNREADABLE_TOLD_MAX: Final = 3
ABSENT: Final = "the venue does not show it, nor knows its ticker"
MOVED: Final = "its ticker is used by another event"

_STAGES: Final = ("listed", "closed", "determined", "settled")


class SyncParts(NamedTuple):
    """What a sync works with. `say` is told progress: (markets compared, events written)."""

    feed: str
    venue: VenueMarkets
    listings: Listings
    application: Application
    say: Callable[[int, int], None]


async def sync(
    parts: SyncParts, scope: Scope, sync_id: str, *, actor: str, correlation_id: str = "", is_dry: bool = False
) -> Counts:
    """Compare, and write what differs; what it came to.

    Args:
        is_dry: the run itself is not journaled either (`parts.listings` must be dry, too).

    Raises:
        Unavailable, Malformed, Rejected, Conflict: it ended early, and that is journaled (if the journal answers); what
            it had written until then stands.
    """
    origin = Origin(actor, correlation_id or request.current() or sync_id)
    if is_dry:
        return await _Run(parts, scope, origin).work()
    await _tell(parts, StartSync(sync_id, str(scope)), origin)
    run = _Run(parts, scope, origin)
    try:
        counts = await run.work()
    except SsmdError as error:
        try:
            await _tell(parts, FailSync(sync_id, error.message), origin)
        except SsmdError as second:
            error.add_note(f"and that could not be journaled: {second.message}")
        raise
    await _tell(parts, CompleteSync(sync_id, counts), origin)
    return counts


async def _tell(parts: SyncParts, command: SyncCommand, origin: Origin) -> None:
    await parts.application.handle(
        secmaster_sync.DECIDER, (parts.feed,), command, actor=origin.actor, correlation_id=origin.correlation_id
    )


class _Run:
    """One run's counts, and what it has seen."""

    def __init__(self, parts: SyncParts, scope: Scope, origin: Origin) -> None:
        self._parts = parts
        self._scope = scope
        self._origin = origin
        self._seen: dict[str, str] = {}
        self._events: set[str] = set()
        self._written: Counter[type[ListingEvent]] = Counter()

    async def work(self) -> Counts:
        parts = self._parts
        await parts.listings.refresh()
        before = parts.venue.requests
        doubtful: dict[str, None] = {}
        async for page in parts.venue.pages(self._scope):
            certain = []
            for one in page:
                self._seen[one.market.ticker] = one.event
                self._events.add(one.event)
                if self._goes_back(one):
                    doubtful[one.market.ticker] = None
                else:
                    certain.append(one)
            await self._observe(certain)
            parts.say(len(self._seen), self._written.total())
        # A page may come from a cache that is older than what a lifecycle message told us: what goes back is asked anew.
        await self._ask(list(doubtful))
        if self._scope.is_full:
            await self._look_for_absent()
        if unreadable := sorted(parts.venue.unreadable.items()):
            told = "; ".join(reason for _, reason in unreadable[:UNREADABLE_TOLD_MAX])
            raise Malformed(
                f"{len(unreadable)} markets could not be understood, all else is written: {told}", mend="upgrade ssmd"
            )
        return self._counts(parts.venue.requests - before)

    def _goes_back(self, shown: Observation) -> bool:
        kept = self._parts.listings.find(shown.event, shown.market.ticker)
        return kept is not None and _STAGES.index(shown.stage) < _STAGES.index(kept.stage)

    async def _ask(self, tickers: Sequence[str]) -> set[str]:
        """Ask for markets by ticker and write what they are; those the venue knows."""
        known: set[str] = set()
        for at in range(0, len(tickers), ASKED_AT_ONCE):
            found = await self._parts.venue.ask(tickers[at : at + ASKED_AT_ONCE])
            known.update(one.market.ticker for one in found)
            for one in found:
                self._seen[one.market.ticker] = one.event
            await self._observe(found)
            self._parts.say(len(self._seen), self._written.total())
        return known

    async def _observe(self, shown: Sequence[Observation]) -> None:
        listings = self._parts.listings
        names = [(listings.event_of(one.market.ticker), one) for one in shown]
        # Before it is listed anew: readers know a market by its ticker.
        moved = [(name, one.market.ticker) for name, one in names if name not in ("", one.event)]
        self._count(await listings.miss(moved, MOVED, self._origin))
        self._count(await listings.observe(shown, self._origin))

    async def _look_for_absent(self) -> None:
        absent = [one for one in self._parts.listings.open_markets() if one[1] not in self._seen and self._covers(*one)]
        known = await self._ask([ticker for _, ticker in absent])
        gone = [one for one in absent if one[1] not in known and one[1] not in self._parts.venue.unreadable]
        self._count(await self._parts.listings.miss(gone, ABSENT, self._origin))

    def _covers(self, event: str, ticker: str) -> bool:
        if not self._scope.series:
            return True
        kept = self._parts.listings.find(event, ticker)
        return kept is not None and kept.standing().market.series in self._scope.series

    def _count(self, events: Sequence[ListingEvent]) -> None:
        self._written.update(type(event) for event in events)

    def _counts(self, requests: int) -> Counts:
        written = self._written
        return Counts(
            events=len(self._events),
            markets=len(self._seen),
            listed=written[listing.MarketListed] + written[listing.MarketRelisted],
            changed=written[listing.MarketChanged] + written[listing.MarketAmended],
            closed=written[listing.MarketClosed] + written[listing.MarketDetermined] + written[listing.MarketSettled],
            delisted=written[listing.MarketDelisted],
            requests=requests,
        )
