"""Lifecycle messages of the live feed, brought into the security master at once; the sync puts right what was missed.

Theory of operation. A message of the market stream says that something happened to a market. What it says in full (a
result) is written as it is. Of anything else it is a hint: the market is asked for by its ticker, some times if the answer
does not show it yet, because REST lags behind the stream. What is still not shown then is left to the next sync, and so is
what happened while nobody followed: following begins at the stream's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ssmd.application.listings import Listings
from ssmd.application.sealing import Origin
from ssmd.clock import Clock
from ssmd.domain.listing import Stage
from ssmd.domain.observation import Observation
from ssmd.errors import Malformed, SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.records import MarketStatus
from ssmd.services.component import Health
from ssmd.services.secmaster.venue import VenueMarkets
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import StreamMessage, StreamReader, Transport
from ssmd.telemetry.structured import structlog

NAME: Final = "secmaster"
PENDING_MAX: Final = 10_000
"""Markets waiting to be asked for; beyond that the sync must find them."""
ASKED_AT_ONCE: Final = 100
TRIES_MAX: Final = 6
NEXT_S: Final = 0.2
SECOND_NS: Final = 1_000_000_000
_EXPECTED: Final[dict[str, Stage]] = {"determined": "determined", "settled": "settled"}
"""What REST must show before a hint is answered; of any other change the market itself is enough."""


class _Hint(NamedTuple):
    """A market to be asked for. `due_ns`: not before (monotonic)."""

    stage: Stage | None
    tries: int
    due_ns: int


class LifecycleFollower:
    """See the module. A component; one per environment (two would only write each other's facts once)."""

    name = NAME

    def __init__(
        self,
        transport: Transport,
        listings: Listings,
        venue: VenueMarkets,
        clock: Clock,
        random: RandomBytes,
        *,
        env: str,
        feed: str,
        instance: str = "main",
    ) -> None:
        self.instance = instance
        self._transport = transport
        self._listings = listings
        self._venue = venue
        self._clock = clock
        self._random = random
        self._filter = subjects.kind_filter(env, feed, "status")
        self._origin = Origin(f"{NAME}:{instance}", "")
        self._log: Any = structlog.get_logger()
        self._pending: dict[str, _Hint] = {}
        self._stop = asyncio.Event()
        self._reader: StreamReader | None = None
        self._trouble = ""
        self._failures = 0
        self._counts = {"messages": 0, "written": 0, "asked": 0, "given_up": 0, "overflowed": 0, "unreadable": 0}

    async def run(self) -> None:
        """Follow until `stop`."""
        try:
            while not self._stop.is_set():
                try:
                    await self._round()
                except Malformed:
                    # The journal cannot be understood by this version: going on would write nonsense.
                    raise
                except SsmdError as error:
                    await self._wait(error)
                else:
                    self._trouble, self._failures = "", 0
        finally:
            await self._close()

    async def stop(self) -> None:
        """Let `run` return."""
        self._stop.set()

    async def flush(self) -> None:
        """Nothing is held that the next sync would not find."""

    def health(self) -> Health:
        return Health(not self._trouble, self._trouble, {**self._counts, "pending": len(self._pending)})

    async def _wait(self, error: SsmdError) -> None:
        self._trouble = error.message
        self._failures += 1
        self._log.warning("cannot follow lifecycles", reason=error.message, attempt=self._failures)
        if isinstance(error, Unavailable):
            await self._close()
        try:
            async with asyncio.timeout(backoff_s(self._failures, self._random, max_s=30.0)):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()

    async def _round(self) -> None:
        if self._reader is None:
            await self._listings.refresh()
            state = await self._transport.state("market")
            self._reader = await self._transport.read("market", after=state.last_seq, filters=[self._filter])
        messages = await self._reader.next(NEXT_S)
        await self._take(messages)
        await self._ask_due()

    async def _take(self, messages: Iterable[StreamMessage]) -> None:
        records = [record for message in messages for record in self._statuses(message)]
        if any(record.change == "determined" and not self._listings.event_of(record.ticker) for record in records):
            # A sync has listed it since.
            await self._listings.refresh()
        told: list[Observation] = []
        for record in records:
            told += self._told_by(record)
            self._hint(record)
        if told:
            self._counts["written"] += len(await self._listings.observe(told, self._origin))

    def _statuses(self, message: StreamMessage) -> list[MarketStatus]:
        self._counts["messages"] += 1
        try:
            return [record for record in decode_records(message.payload) if isinstance(record, MarketStatus)]
        except Malformed as error:
            # Bad bytes on the stream are the archiver's business to record; here they only lack a hint.
            self._counts["unreadable"] += 1
            self._log.warning("unreadable message", seq=message.seq, reason=error.message)
            return []

    def _told_by(self, record: MarketStatus) -> list[Observation]:
        """What the message says in full."""
        event = self._listings.event_of(record.ticker)
        kept = self._listings.find(event, record.ticker) if event else None
        if kept is None or record.change != "determined" or not record.result:
            return []
        market = kept.standing().market
        return [Observation(event, market, "determined", record.ts_event_ns, record.result)]

    def _hint(self, record: MarketStatus) -> None:
        if record.change in {"event_lifecycle", "event_fee_update", "determined"}:
            return
        if record.ticker not in self._pending and len(self._pending) >= PENDING_MAX:
            self._counts["overflowed"] += 1
            return
        self._pending[record.ticker] = _Hint(_EXPECTED.get(record.change), 0, self._clock.monotonic_ns())

    async def _ask_due(self) -> None:
        now_ns = self._clock.monotonic_ns()
        due = [ticker for ticker, hint in self._pending.items() if hint.due_ns <= now_ns][:ASKED_AT_ONCE]
        if not due:
            return
        self._counts["asked"] += len(due)
        try:
            found = await self._venue.ask(due)
        except Malformed as error:
            # The sync journals what the venue answers. It ends nobody here: the process has days to drive, too.
            for ticker in due:
                del self._pending[ticker]
            self._counts["given_up"] += len(due)
            self._log.warning("left to the next sync", tickers=len(due), reason=error.message)
            return
        self._counts["written"] += len(await self._listings.observe(found, self._origin))
        shown = {one.market.ticker: one.stage for one in found}
        for ticker in due:
            hint = self._pending.pop(ticker)
            if ticker in shown and hint.stage in (None, shown[ticker]):
                continue
            if hint.tries + 1 >= TRIES_MAX:
                self._counts["given_up"] += 1
                self._log.info("left to the next sync", ticker=ticker)
                continue
            pause_ns = int(backoff_s(hint.tries + 1, self._random, first_s=1.0, max_s=30.0) * SECOND_NS)
            self._pending[ticker] = _Hint(hint.stage, hint.tries + 1, now_ns + pause_ns)
