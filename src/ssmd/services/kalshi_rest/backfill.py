"""Brings a venue's past into the archive, a day at a time: trades, settled markets, candlesticks.

Theory of operation. A day and scope is one partition (`archive.backfilled`), written whole to a spool file, stored, sealed
and completed by events of the archive's own aggregate. A complete one is never fetched again; one that a kill left
incomplete is fetched anew, and its key is made of its content, so that what was stored without a seal is in nobody's way.
Rows of all markets are fetched an hour at a time and written in order, so memory holds an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive.backfilled import ALL, CANDLES, ROWS
from ssmd.archive.keys import DataType, SegmentName, Shelf
from ssmd.archive.segment import SegmentWriter
from ssmd.archive.storage import Storage
from ssmd.domain import archive
from ssmd.errors import Malformed, Unavailable
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.repairs import BACKFILL
from ssmd.exchanges.kalshi.rest import SECOND_NS
from ssmd.exchanges.kalshi.rest_history import CandleSpan, ListedMarket, candle_end_ns, read_market, series_of
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.control import AnyFact, Connected, Repair, encode_fact
from ssmd.schemas.raw_line import LineEncoder
from ssmd.schemas.records import KIND_OF
from ssmd.services.kalshi_rest.history import VenueHistory

HOUR_NS: Final = 3_600 * SECOND_NS
WIRE: Final = "kalshi-rest"
ZSTD_LEVEL: Final = 6
AHEAD_NS: Final = 48 * HOUR_NS
"""The historical list of markets has no filter by time: a walk over it is kept for so much beyond the day it was for."""


class Row(NamedTuple):
    """One row of the venue, the call that gave it, and its time (UTC ns)."""

    ts_ns: int
    key: str
    source: str
    body: bytes


class BackfilledDay(NamedTuple):
    """What became of a day. `was_there` = it was complete before, and nothing was asked."""

    date: str
    was_there: bool
    trades: int = 0
    markets: int = 0
    candles: int = 0


class Destination(NamedTuple):
    """Where the archive is."""

    env: str
    feed: str
    schema: str
    storage: Storage
    application: Application
    spool: Path
    actor: str


class Backfill:
    """See the module.

    Args:
        candle_minutes: 1, 60 or 1440; 0 = no candles.
        last_ns: end of the last day that will be asked for.
        progress: told the date and how many rows it has so far.
    """

    def __init__(
        self,
        history: VenueHistory,
        destination: Destination,
        *,
        candle_minutes: int,
        progress: Callable[[str, int], None],
        last_ns: int = 0,
    ) -> None:
        self._last_ns = last_ns
        self._walked: tuple[str, int, int] = ("", 0, 0)
        self._markets: list[ListedMarket] = []
        self._history = history
        self._to = destination
        self._candle_minutes = candle_minutes
        self._progress = progress

    async def is_there(self, date: str, ticker: str = "") -> bool:
        """Whether the day is complete already.

        Raises:
            Unavailable: the journal does not answer.
        """
        return all([await self._is_complete(date, type_, partition) for type_, partition in self._parts(ticker)])

    def _parts(self, ticker: str) -> list[tuple[DataType, str]]:
        scope = ticker or ALL
        parts: list[tuple[DataType, str]] = [("raw", f"{ROWS}{scope}"), ("normalized", f"{ROWS}{scope}")]
        return [*parts, ("raw", f"{CANDLES}{scope}")] if self._candle_minutes else parts

    async def _is_complete(self, date: str, type_: DataType, partition: str) -> bool:
        state = await self._to.application.state(archive.DECIDER, (self._to.feed, date, type_, partition))
        return state.is_complete

    async def day(self, date: str, start_ns: int, end_ns: int, ticker: str = "") -> BackfilledDay:
        """Bring the day `date`, which is [start_ns, end_ns), unless it is there.

        Raises:
            Unavailable: venue, storage or journal did not answer; what was completed stays, the rest is done again.
            Rejected: the venue refuses a call for good.
            Conflict: another backfill of the same day came first.
        """
        if await self.is_there(date, ticker):
            return BackfilledDay(date, was_there=True)
        scope = ticker or ALL
        settled = await self._settled(start_ns, end_ns, ticker)
        events = {market.ticker: market.event for market in settled}
        traded: dict[str, int] = {}
        segment = _Writing(self._to, date, f"{ROWS}{scope}", start_ns, ticker)
        try:
            count = 0
            async for rows in self._hours(start_ns, end_ns, ticker, settled):
                for row in rows:
                    if row.source != "/markets":
                        traded[row.key.partition(" ")[0]] = traded.get(row.key.partition(" ")[0], 0) + 1
                await asyncio.to_thread(segment.add, rows)
                count += len(rows)
                self._progress(date, count)
            await self._seal(segment, "raw")
            await self._seal(segment, "normalized")
        finally:
            segment.discard()
        candles = 0
        if self._candle_minutes:
            names = [ticker] if ticker else sorted({*traded, *events})
            candles = await self._candles(date, start_ns, end_ns, scope, {name: events.get(name, name) for name in names})
        return BackfilledDay(date, False, sum(traded.values()), len(settled), candles)

    async def _settled(self, start_ns: int, end_ns: int, ticker: str) -> list[ListedMarket]:
        scope, first_ns, until_ns = self._walked
        if scope != ticker or not first_ns <= start_ns <= end_ns <= until_ns:
            until_ns = max(end_ns, min(end_ns + AHEAD_NS, self._last_ns))
            self._markets = await self._walk(start_ns, until_ns, ticker)
            self._walked = ticker, start_ns, until_ns
        found = [market for market in self._markets if start_ns <= market.settled_ns < end_ns]
        return sorted(found, key=lambda market: (market.settled_ns, market.ticker))

    async def _walk(self, start_ns: int, end_ns: int, ticker: str) -> list[ListedMarket]:
        found: dict[str, ListedMarket] = {}
        async for rows in self._history.settled_markets(start_ns, end_ns, ticker):
            for row in rows:
                try:
                    market = read_market(row)
                except Malformed as error:
                    raise Unavailable(f"the venue lists a market that cannot be read: {error.message}") from error
                if start_ns <= market.settled_ns < end_ns and ticker in {"", market.ticker}:
                    found[market.ticker] = market
        return list(found.values())

    async def _hours(
        self, start_ns: int, end_ns: int, ticker: str, settled: Sequence[ListedMarket]
    ) -> AsyncIterator[list[Row]]:
        span_ns = end_ns - start_ns if ticker else HOUR_NS  # one market's day is small
        for begin_ns in range(start_ns, end_ns, span_ns):
            until_ns = min(begin_ns + span_ns, end_ns)
            trades = await self._history.trades(begin_ns, until_ns, ticker)
            rows = [Row(trade.ts_ns, f"{trade.ticker} {trade.trade_id}", "/markets/trades", trade.row) for trade in trades]
            rows += [
                Row(market.settled_ns, market.ticker, "/markets", market.row)
                for market in settled
                if begin_ns <= market.settled_ns < until_ns
            ]
            yield sorted(rows, key=lambda row: (row.ts_ns, row.source, row.key))

    async def _candles(self, date: str, start_ns: int, end_ns: int, scope: str, events: dict[str, str]) -> int:
        rows: list[Row] = []
        span = CandleSpan(start_ns // SECOND_NS + 1, end_ns // SECOND_NS, self._candle_minutes)
        for ticker, event in events.items():
            series = series_of(event)
            source = f"/series/{series}/markets/{ticker}/candlesticks?period_interval={self._candle_minutes}"
            bodies = await self._history.candles(series, ticker, span)
            # A candle ends with its period: the last one of a day still belongs to it.
            rows += [Row(candle_end_ns(body) - 1, ticker, source, bytes(body)) for body in bodies]
            self._progress(date, len(rows))
        segment = _Writing(self._to, date, f"{CANDLES}{scope}", start_ns, "" if scope == ALL else scope)
        try:
            await asyncio.to_thread(segment.add, sorted(rows, key=lambda row: (row.ts_ns, row.key)))
            await self._seal(segment, "raw")
        finally:
            segment.discard()
        return len(rows)

    async def _seal(self, segment: _Writing, type_: DataType) -> None:
        to = self._to
        parts = (to.feed, segment.date, type_, segment.partition)
        state = await to.application.state(archive.DECIDER, parts)
        if state.is_complete:
            return
        epoch = state.epoch + 1
        await to.application.handle(archive.DECIDER, parts, archive.OpenPartition(epoch, to.actor), actor=to.actor)
        incarnation, files = await segment.store(type_)
        if files:
            seal = archive.SealSegment(
                epoch, incarnation, 1, segment.last_n, f"{segment.partition}.{segment.last_n}", files,
                (archive.SessionReached(segment.session, segment.last_n),),
            )  # fmt: skip
            await to.application.handle(archive.DECIDER, parts, seal, actor=to.actor)
        await to.application.handle(archive.DECIDER, parts, archive.CompletePartition("backfilled"), actor=to.actor)


class _Writing:
    """The spool files of one day and scope: raw lines, and the records made of them by kind."""

    def __init__(self, to: Destination, date: str, partition: str, start_ns: int, ticker: str) -> None:
        self._to = to
        self.date = date
        self.partition = partition
        self.session = start_ns
        self.last_n = 0
        self._lines = LineEncoder(partition)
        self._mapper = KalshiMapper(to.feed, start_ns)
        self._gap_id = f"{BACKFILL}:{date}" + (f":{ticker}" if ticker else "")
        stem = hashlib.sha256(f"{date} {partition}".encode()).hexdigest()[:16]
        self._path = to.spool / f"{BACKFILL}-{stem}"
        self._writers: dict[str, SegmentWriter] = {}
        self._add_facts([(start_ns, Connected(to.feed, partition, "", wire=WIRE))])

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows, in order of time. Blocks."""
        self._add_facts((row.ts_ns, Repair(self._gap_id, row.source, row.body.decode())) for row in rows)

    def _add_facts(self, facts: Iterable[tuple[int, AnyFact]]) -> None:
        entries = []
        for ts_ns, fact in facts:
            self.last_n += 1
            entries.append(Entry(EntryKind.CTL, self.last_n, ts_ns, encode_fact(fact)))
        for entry in entries:
            self._put("raw", self._lines.encode(self.session, [entry]), entry.ts_recv_ns)
            for record in self._mapper.map(entry).records:
                self._put(KIND_OF[type(record)], encode_record(record), entry.ts_recv_ns)
        for writer in self._writers.values():
            writer.store(writer.take())

    def _put(self, kind: str, content: bytes, ts_ns: int) -> None:
        writer = self._writers.get(kind)
        if writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            writer = self._writers[kind] = SegmentWriter(self._path.with_name(f"{self._path.name}.{kind}"), ZSTD_LEVEL)
        writer.add(content, 1, ts_ns, ts_ns)

    async def store(self, type_: DataType) -> tuple[str, tuple[archive.SegmentFile, ...]]:
        """Finish and upload the files of `type_`; () = there is nothing of it. Their incarnation is of their content."""
        writers = {kind: self._writers[kind] for kind in sorted(self._writers) if (kind == "raw") is (type_ == "raw")}
        facts = {kind: await asyncio.to_thread(writer.finish) for kind, writer in writers.items()}
        incarnation = hashlib.sha256("".join(found.content_sha256 for found in facts.values()).encode()).hexdigest()[:16]
        files = []
        for kind, found in facts.items():
            shelf = Shelf("raw", self._to.env, self._to.feed, self.date)
            if type_ == "normalized":
                mapper = self._mapper.version
                shelf = Shelf("normalized", self._to.env, self._to.feed, self.date, self._to.schema, kind, mapper)
            key = SegmentName(shelf, self.partition, incarnation, 1, self.last_n).key
            await self._to.storage.put_file(key, writers[kind].path)
            files.append(
                archive.SegmentFile(
                    key, kind, found.size_bytes, found.sha256, found.content_bytes, found.content_sha256,
                    found.records, found.ts_recv_first_ns, found.ts_recv_last_ns,
                )
            )  # fmt: skip
        return incarnation, tuple(files)

    def discard(self) -> None:
        """Remove the spool files."""
        for writer in self._writers.values():
            writer.discard()
