"""Questions on markets' past, answered from the listing events themselves: the views know only what is so now."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ssmd.domain import listing
from ssmd.domain.decider import Catalogue
from ssmd.domain.listing_history import KnownEvent, standing_at
from ssmd.errors import Malformed, Rejected
from ssmd.projections.reading import AsOf, closing, within
from ssmd.projections.secmaster import MarketRow
from ssmd.streams.journal import Journal, PoisonEvent, RecordedEvent


async def listing_events(
    journal: Journal, catalogue: Catalogue, feed: str, known_at: AsOf | None = None
) -> AsyncGenerator[tuple[str, RecordedEvent, listing.ListingEvent]]:
    """(venue event, as recorded, fact) of every listing event of a feed known by `known_at` (None = now), in order.

    Raises:
        Malformed: an event cannot be read: the past cannot be told.
        Rejected: `known_at` is ahead of the journal. Unavailable: the journal is away.
    """
    head = await journal.head()
    until = head
    if known_at is not None and known_at.position is not None:
        if known_at.position > head:
            raise Rejected("as-of-ahead", f"the journal ends at position {head}, there is no {known_at.position} yet")
        until = known_at.position
    # The prefix by an instant is one of the whole journal: an event of another kind may end it.
    filters = [listing.AGGREGATE] if known_at is None or known_at.ts_ns is None else []
    async with closing(journal.replay(until=until, filters=filters)) as batches:
        async for batch in batches:
            known = batch if known_at is None or known_at.ts_ns is None else within(batch, known_at.ts_ns)
            for recorded in known:
                found = _listing_event(recorded, catalogue, feed)
                if found is not None:
                    yield found
            if len(known) < len(batch):
                return


def _listing_event(
    recorded: RecordedEvent | PoisonEvent, catalogue: Catalogue, feed: str
) -> tuple[str, RecordedEvent, listing.ListingEvent] | None:
    if isinstance(recorded, PoisonEvent):
        raise Malformed(f"journal position {recorded.position}: {recorded.reason}", mend="ssmd journal verify")
    if recorded.envelope.aggregate != listing.AGGREGATE:
        return None
    of_feed, event_ticker = recorded.envelope.aggregate_key.parts
    decoded = catalogue.decode(recorded.envelope.type, recorded.envelope.data)
    if of_feed != feed or not isinstance(decoded, listing.EVENTS):
        return None
    return event_ticker, recorded, decoded


async def markets_at(
    journal: Journal, catalogue: Catalogue, feed: str, valid_ns: int, known_at: AsOf | None = None
) -> list[MarketRow]:
    """The markets that were listed at `valid_ns`, as they were then, by what was known at `known_at`; by ticker.

    A ticker that two venue events have used is the one's whose fact is the later.

    Raises:
        as `listing_events`.
    """
    facts: dict[tuple[str, str], list[KnownEvent]] = {}
    config: dict[tuple[str, str], str] = {}
    async for event_ticker, recorded, event in listing_events(journal, catalogue, feed, known_at):
        key = (event.ticker, event_ticker)
        facts.setdefault(key, []).append(KnownEvent(recorded.position, recorded.envelope.ts_ns, event))
        config[key] = recorded.envelope.config
    rows: dict[str, MarketRow] = {}
    for key, known in sorted(facts.items()):
        ticker, event_ticker = key
        standing = standing_at(known, valid_ns)
        if standing is None or (standing.is_delisted and ticker in rows):
            continue
        told = [one for one in known if one.valid_ns <= valid_ns]
        row = MarketRow(
            feed=feed,
            event=event_ticker,
            market=standing.market,
            stage=standing.stage,
            result=standing.result,
            value=standing.value,
            is_delisted=standing.is_delisted,
            listed_ns=min(one.ts_ns for one in told),
            changed_ns=max(one.ts_ns for one in told),
            config=config[key],
            position=max(one.position for one in told),
        )
        held = rows.get(ticker)
        if held is None or held.is_delisted or row.position > held.position:
            rows[ticker] = row
    return [rows[ticker] for ticker in sorted(rows)]
