"""All of a feed's listing aggregates at once: folded compactly, compared with what the venue shows, written in bulk.

A sync compares 100,000 markets. One aggregate at a time that would be 100,000 loads; here the journal is read once, and
then only what came since. What is kept per market is its master data as bytes, so that "no change" is one comparison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.application import appended
from ssmd.application.sealing import Origin, Sealing
from ssmd.clock import Clock
from ssmd.domain import listing
from ssmd.domain.decider import Catalogue
from ssmd.domain.envelope import AggregateId
from ssmd.domain.listing import ListingCommand, ListingEvent, Market, ObserveAbsence, Standing
from ssmd.domain.observation import Observation
from ssmd.errors import Conflict, Malformed
from ssmd.identifiers import RandomBytes
from ssmd.streams.backoff import backoff_s
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, AppendGroup, Journal, PoisonEvent, RecordedEvent

ATTEMPTS_MAX: Final = 10
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Market)


class Kept(NamedTuple):
    """One market: `listing.Standing` with its master data as JSON."""

    market: bytes
    stage: listing.Stage
    result: str
    value: str
    is_delisted: bool

    def standing(self) -> Standing:
        return Standing(_DECODER.decode(self.market), self.stage, self.result, self.value, self.is_delisted)


class _Event:
    """A venue event: the version of its aggregate, and its markets."""

    __slots__ = ("markets", "version")

    def __init__(self) -> None:
        self.version = 0
        self.markets: dict[str, Kept] = {}


class Listings:
    """See the module. One writer's view of one feed; not thread-safe.

    Args:
        config: git commit of the registry in force, "" = not under git.
        is_dry: nothing is written; what would have been is folded as if it were.
    """

    def __init__(
        self,
        journal: Journal,
        catalogue: Catalogue,
        clock: Clock,
        random: RandomBytes,
        feed: str,
        config: str = "",
        *,
        is_dry: bool = False,
    ) -> None:
        self._is_dry = is_dry
        self._journal = journal
        self._catalogue = catalogue
        self._random = random
        self._sealing = Sealing(clock, random, config)
        self._feed = feed
        self._events: dict[str, _Event] = {}
        self._event_of: dict[str, str] = {}
        self.position = 0
        """Journal position up to which everything is in here."""

    async def refresh(self) -> None:
        """Fold what the journal got since.

        Raises:
            Unavailable: the journal is away.
            Malformed: a listing event cannot be read by this version: comparing would write nonsense.
        """
        head = await self._journal.head()
        async for batch in self._journal.replay(after=self.position, until=head, filters=[listing.AGGREGATE]):
            for recorded in batch:
                self._take(recorded)
                self.position = recorded.position
        self.position = max(self.position, head)

    def _take(self, recorded: RecordedEvent | PoisonEvent) -> None:
        if isinstance(recorded, PoisonEvent):
            raise Malformed(f"journal position {recorded.position}: {recorded.reason}", mend="ssmd journal verify")
        feed, name = recorded.envelope.aggregate_key.parts
        if feed != self._feed:
            return
        event = self._events.setdefault(name, _Event())
        if recorded.envelope.version <= event.version:
            return
        decoded = self._catalogue.decode(recorded.envelope.type, recorded.envelope.data)
        if not isinstance(decoded, listing.EVENTS):
            raise Malformed(f"journal position {recorded.position}: {recorded.envelope.type} is no event of a listing")
        self._evolve(name, event, decoded)
        event.version = recorded.envelope.version

    def _evolve(self, name: str, event: _Event, change: ListingEvent) -> None:
        kept = event.markets.get(change.ticker)
        after = listing.evolve_market(Standing(Market(change.ticker)) if kept is None else kept.standing(), change)
        event.markets[change.ticker] = Kept(
            _ENCODER.encode(after.market), after.stage, after.result, after.value, after.is_delisted
        )
        if not after.is_delisted:
            self._event_of[change.ticker] = name
        elif self._event_of.get(change.ticker) == name:
            del self._event_of[change.ticker]

    def find(self, event: str, ticker: str) -> Kept | None:
        """The market as the journal has it; None = it was never listed."""
        found = self._events.get(event)
        return None if found is None else found.markets.get(ticker)

    def event_of(self, ticker: str) -> str:
        """The event in which the ticker is listed now, "" = in none."""
        return self._event_of.get(ticker, "")

    def open_markets(self) -> list[tuple[str, str]]:
        """(event, ticker) of every market that is neither settled nor delisted."""
        return [
            (name, ticker)
            for name, event in self._events.items()
            for ticker, kept in event.markets.items()
            if not kept.is_delisted and kept.stage != "settled"
        ]

    def is_known(self, observation: Observation) -> bool:
        """Whether the journal says just that already."""
        kept = self.find(observation.event, observation.market.ticker)
        return kept is not None and kept == Kept(
            _ENCODER.encode(observation.market),
            observation.stage,
            observation.result or kept.result,
            observation.value or kept.value,
            is_delisted=False,
        )

    async def observe(self, observations: Iterable[Observation], origin: Origin) -> list[ListingEvent]:
        """Write what is new in `observations`; the events written.

        Raises:
            Conflict: others kept writing the same aggregates; part of it may be written.
            Unavailable: the journal is away; part of it may be written: observing again writes the rest.
        """
        news = [one for one in observations if not self.is_known(one)]
        return await self._write([(one.event, one.commands()) for one in news], origin)

    async def miss(self, markets: Iterable[tuple[str, str]], reason: str, origin: Origin) -> list[ListingEvent]:
        """Write that the venue does not show these (event, ticker) any more. As `observe`."""
        return await self._write([(event, (ObserveAbsence(ticker, reason),)) for event, ticker in markets], origin)

    async def _write(self, work: Sequence[tuple[str, Sequence[ListingCommand]]], origin: Origin) -> list[ListingEvent]:
        written: list[ListingEvent] = []
        at = attempt = 0
        while at < len(work):
            chunk, after = self._plan(work, at)
            if not chunk:
                at = after
                continue
            try:
                await self._append(chunk, origin)
            except Conflict:
                attempt += 1
                if attempt >= ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.005, max_s=0.5))
                # Decided anew from where this chunk began: somebody else may have written the very same.
                await self.refresh()
                continue
            for events in chunk.values():
                written += events
            at, attempt = after, 0
        return written

    def _plan(self, work: Sequence[tuple[str, Sequence[ListingCommand]]], at: int) -> tuple[dict[str, list[ListingEvent]], int]:
        """Events by venue event, decided from work[at:] as far as they fit into one append; and where the next begins."""
        chunk: dict[str, list[ListingEvent]] = {}
        states: dict[str, listing.State] = {}
        count = 0
        while at < len(work):
            name, commands = work[at]
            state = states[name] if name in states else self._state(name)
            decided: list[ListingEvent] = []
            for command in commands:
                events = listing.decide(state, command)
                state = listing.DECIDER.fold(events, state)
                decided += events
            if decided and count + len(decided) > EVENTS_PER_APPEND_MAX:
                break
            states[name] = state
            if decided:
                chunk.setdefault(name, []).extend(decided)
            count += len(decided)
            at += 1
        return chunk, at

    def _state(self, name: str) -> listing.State:
        event = self._events.get(name)
        if event is None:
            return listing.DECIDER.initial
        return listing.State({ticker: kept.standing() for ticker, kept in event.markets.items()})

    async def _append(self, chunk: dict[str, list[ListingEvent]], origin: Origin) -> None:
        groups = []
        for name, events in chunk.items():
            aggregate = AggregateId(listing.AGGREGATE, (self._feed, name))
            known = self._events.get(name)
            version = 0 if known is None else known.version
            groups.append(AppendGroup(aggregate, version, self._sealing.seal(aggregate, version, events, origin)))
        if not self._is_dry:
            envelopes = [envelope for group in groups for envelope in group.events]
            with appended.appending(envelopes):
                position = await self._journal.append(groups, command_id=envelopes[0].id)
            appended.tell(envelopes, position)
            if position - sum(map(len, chunk.values())) == self.position:
                # Nobody wrote in between: these need not be read again.
                self.position = position
        for name, events in chunk.items():
            known = self._events.setdefault(name, _Event())
            for event in events:
                self._evolve(name, known, event)
            known.version += len(events)
