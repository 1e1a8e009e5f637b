"""Every question, one typed function each: what CLI, gateway and programs call. All read `views.Views`."""

from __future__ import annotations

import msgspec

from ssmd.projections import access as access_view
from ssmd.projections import captures as captures_view
from ssmd.projections import days as days_view
from ssmd.projections import gaps as gaps_view
from ssmd.projections import inventory as inventory_view
from ssmd.projections import quality as quality_view
from ssmd.projections import secmaster as secmaster_view
from ssmd.projections import troubles as troubles_view
from ssmd.projections.access import ClientRow, KeyRow
from ssmd.projections.captures import Connection, Session
from ssmd.projections.days import Day, HistoryLine
from ssmd.projections.gaps import GapFilling, GapRow
from ssmd.projections.inventory import SUPERSEDED, Holding, Partition
from ssmd.projections.projection import utc_date
from ssmd.projections.quality import PartitionQuality
from ssmd.projections.secmaster import Found, MarketRow, SyncRow
from ssmd.projections.ticker_days import TickerDay, ticker_days
from ssmd.projections.troubles import DeadLetter, FeedbackItem
from ssmd.projections.views import Views
from ssmd.projections.working_set import decode_row


class DayHistory(msgspec.Struct, frozen=True):
    """A date's day and its lines, by the time they happened and then by journal position."""

    day: Day
    lines: tuple[HistoryLine, ...]


class AuditLine(msgspec.Struct, frozen=True):
    """A line and why it came about.

    Attributes:
        cause_position: of the event that led to it, where that is among the day's, else None; `cause`: that one in words.
        request: what the request it belongs to began with, "" where that is not among the day's lines.
    """

    line: HistoryLine
    cause_position: int | None
    cause: str
    request: str


class InventoryLine(msgspec.Struct, frozen=True):
    """What there is of one kind in one partition. `kind` "" = the partition is open and holds nothing yet.

    `sessions`: session -> last tape entry archived. Times are receive times, 0 = none. Pruned: of the whole partition.
    `mapper`: the newest version that made the records, 0 = raw; status "superseded": kept, but others took its place.
    """

    feed: str
    date: str
    type: str
    kind: str
    partition: str
    status: str
    segments: int
    records: int
    size_bytes: int
    content_bytes: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int
    sessions: dict[str, int]
    pruned_segments: int = 0
    pruned_bytes: int = 0
    holds: dict[str, str] = {}
    mapper: int = 0


class DayInventory(msgspec.Struct, frozen=True):
    """What there is of one date, of all connections and kinds.

    Attributes:
        status: pruned = all of it; damaged = an object is, and was not repaired; open = of any partition; else complete.
        lines: of the raw archive; records: normalized ones, without superseded ones; segments, size_bytes: all there is.
        quality_ppm: the worst connection's score in millionths, None = never assessed.
        gaps: known holes that touch the date; open_gaps: those of them that have not ended.
    """

    feed: str
    date: str
    status: str
    lines: int
    records: int
    segments: int
    size_bytes: int
    quality_ppm: int | None
    gaps: int
    open_gaps: int
    damaged: int
    pruned_segments: int
    pruned_bytes: int
    holds: tuple[str, ...]


class GapLine(msgspec.Struct, frozen=True):
    """One hole, as `projections.gaps.GapRow` has it.

    Attributes:
        end_ns: None = open (for at least one ticker; for the ticker asked for).
        tickers: whom it concerned; empty = all of the channel, or of the session where `channel` is "".
        open_tickers: those of them it has not ended for.
        repairs: what of it was filled since, () = it was not repaired.
    """

    gap_id: str
    feed: str
    connection: str
    session: int
    cause: str
    evidence: str
    channel: str
    seq_expected: int
    seq_found: int
    start_ns: int
    end_ns: int | None
    tickers: tuple[str, ...]
    open_tickers: tuple[str, ...]
    repairs: tuple[GapFilling, ...] = ()


class CaptureLine(msgspec.Struct, frozen=True):
    """A connection and its sessions, oldest first."""

    connection: Connection
    sessions: tuple[Session, ...]


async def day_status(views: Views, date: str) -> Day:
    """Where a trading day stands; one nobody started is pending."""
    key = days_view.day_key(date)
    value = (await views.read(days_view.NAME, keys=[key])).rows.get(key)
    return Day(date) if value is None else decode_row(value, Day)


async def day_history(views: Views, date: str) -> DayHistory:
    """Who did what, when and why on a date."""
    key = days_view.day_key(date)
    rows = dict((await views.read(days_view.NAME, keys=[key], prefixes=[days_view.lines_prefix(date)])).rows)
    day = rows.pop(key, None)
    lines = [decode_row(value, HistoryLine) for value in rows.values()]
    lines.sort(key=lambda line: (line.at_ns, line.position))
    return DayHistory(Day(date) if day is None else decode_row(day, Day), tuple(lines))


def audit(history: DayHistory) -> list[AuditLine]:
    """The lines of a history, each with what led to it, as far as that is among them."""
    by_event = {line.event_id: line for line in history.lines if line.event_id}
    first_of: dict[str, HistoryLine] = {}
    for line in sorted(history.lines, key=lambda one: one.position):
        if line.correlation_id:
            first_of.setdefault(line.correlation_id, line)
    audited = []
    for line in history.lines:
        cause = by_event.get(line.causation_id)
        begun = first_of.get(line.correlation_id)
        request = "" if begun is None else f"{begun.subject}: {begun.what}"
        audited.append(AuditLine(line, cause.position if cause else None, cause.what if cause else "", request))
    return audited


async def secmaster(
    views: Views, feed: str, *, ticker: str = "", category: str = "", series: str = "", expiry: str = ""
) -> list[MarketRow]:
    """Markets of a feed that fit everything asked for, by ticker; all of them when nothing is.

    Args:
        expiry: UTC date.
    """
    name = secmaster_view.NAME
    if ticker:
        keys = {secmaster_view.market_key(feed, ticker)}
    else:
        wanted = (
            (secmaster_view.CATEGORY, category),
            (secmaster_view.SERIES, series),
            (secmaster_view.EXPIRY, expiry),
        )
        prefixes = [secmaster_view.index_prefix(index, feed, value) for index, value in wanted if value]
        if not prefixes:
            page = await views.read(name, prefixes=[secmaster_view.markets_prefix(feed)])
            return [decode_row(value, MarketRow) for value in page.rows.values()]
        page = await views.read(name, prefixes=prefixes[:1])
        keys = {secmaster_view.market_key(feed, decode_row(value, Found).ticker) for value in page.rows.values()}
    rows = (await views.read(name, keys=sorted(keys))).rows
    found = [decode_row(value, MarketRow) for value in rows.values()]
    return [one for one in found if _fits(one, category, series, expiry)]


def _fits(row: MarketRow, category: str, series: str, expiry: str) -> bool:
    market = row.market
    date = utc_date(market.expiry_ns) if market.expiry_ns > 0 else ""
    asked = ((category, market.category), (series, market.series), (expiry, date))
    return all(not wanted or wanted == found for wanted, found in asked)


async def sync_status(views: Views, feed: str) -> SyncRow | None:
    """How the latest comparison with the venue's list went; None = there was none."""
    key = secmaster_view.sync_key(feed)
    value = (await views.read(secmaster_view.NAME, keys=[key])).rows.get(key)
    return None if value is None else decode_row(value, SyncRow)


async def quality(views: Views, feed: str, date: str) -> tuple[list[PartitionQuality], list[TickerDay]]:
    """What a date's data is worth: by partition, and by ticker. Needs the views quality and gaps."""
    rows = (await views.read(quality_view.NAME, prefixes=[quality_view.partitions_prefix(feed, date)])).rows
    return [decode_row(value, PartitionQuality) for value in rows.values()], await ticker_days(views, feed, date)


async def keys(views: Views) -> list[KeyRow]:
    """Every key ever defined or set, by name. Never a value."""
    rows = (await views.read(access_view.KEYS_NAME, prefixes=[access_view.KEYS_PREFIX])).rows
    return [decode_row(value, KeyRow) for value in rows.values()]


async def clients(views: Views) -> list[ClientRow]:
    """Every client that is not deleted, by id."""
    rows = (await views.read(access_view.CLIENTS_NAME, prefixes=[access_view.CLIENTS_PREFIX])).rows
    found = [decode_row(value, ClientRow) for value in rows.values()]
    return [one for one in found if one.status != "deleted"]


async def dead_letters(views: Views, *, is_open: bool = True) -> list[DeadLetter]:
    """What could not be processed, oldest first; `is_open`: only what still waits."""
    rows = (await views.read(troubles_view.DEAD_LETTERS_NAME, prefixes=[troubles_view.LETTERS_PREFIX])).rows
    found = [decode_row(value, DeadLetter) for value in rows.values()]
    return sorted((one for one in found if not is_open or one.status == "open"), key=lambda one: (one.recorded_ns, one.id))


async def feedback(views: Views) -> list[FeedbackItem]:
    """Every complaint, oldest first."""
    rows = (await views.read(troubles_view.FEEDBACK_NAME, prefixes=[troubles_view.ITEMS_PREFIX])).rows
    found = [decode_row(value, FeedbackItem) for value in rows.values()]
    return sorted(found, key=lambda one: (one.reported_ns, one.id))


async def days(views: Views) -> list[Day]:
    """Every trading day anybody asked to start, oldest first."""
    page = await views.read(days_view.NAME, prefixes=[days_view.DAYS_PREFIX])
    return [decode_row(value, Day) for value in page.rows.values()]


async def inventory(views: Views, feed: str, date_from: str = "", date_to: str = "") -> list[InventoryLine]:
    """What is stored, by date, type, partition and kind.

    Args:
        date_from, date_to: both inclusive; "" = unbounded.
    """
    is_one_date = date_from != "" and date_from == date_to
    prefix = (
        inventory_view.partitions_of_date_prefix(feed, date_from) if is_one_date else inventory_view.partitions_prefix(feed)
    )
    lines = []
    for value in (await views.read(inventory_view.NAME, prefixes=[prefix])).rows.values():
        partition = decode_row(value, Partition)
        if partition.date >= date_from and (not date_to or partition.date <= date_to):
            holdings = partition.kinds or {"": Holding()}
            of_partition = [_inventory_line(partition, kind, holding) for kind, holding in holdings.items()]
            superseded = msgspec.structs.replace(partition, status=SUPERSEDED, mapper=0)
            of_partition += [_inventory_line(superseded, kind, holding) for kind, holding in partition.older.items()]
            lines += sorted(of_partition, key=lambda line: (line.kind, line.status))
    return lines


async def days_inventory(views: Views, feed: str, date_from: str = "", date_to: str = "") -> list[DayInventory]:
    """What is stored, date by date. Needs the views inventory, quality and gaps.

    Args:
        date_from, date_to: both inclusive; "" = unbounded.
    """
    by_date: dict[str, list[InventoryLine]] = {}
    for line in await inventory(views, feed, date_from, date_to):
        by_date.setdefault(line.date, []).append(line)
    gaps_rows = await views.read(gaps_view.NAME, prefixes=gaps_view.all_gaps_prefixes(feed))
    holes = [decode_row(value, GapRow) for value in gaps_rows.rows.values()]
    # One read for all dates: a read each took most of the time of a long inventory.
    rows = (await views.read(quality_view.NAME, prefixes=[quality_view.all_partitions_prefix(feed)])).rows
    partitions: dict[str, list[PartitionQuality]] = {}
    for value in rows.values():
        row = decode_row(value, PartitionQuality)
        partitions.setdefault(row.date, []).append(row)
    return [
        _day_inventory(feed, date, lines, partitions.get(date, []), [hole for hole in holes if hole.touches(date)])
        for date, lines in sorted(by_date.items())
    ]


def _day_inventory(
    feed: str, date: str, lines: list[InventoryLine], partitions: list[PartitionQuality], holes: list[GapRow]
) -> DayInventory:
    scores = [one.score_ppm for one in partitions if one.score_ppm is not None]
    damaged = sum(len(one.damaged) for one in partitions)
    statuses = {line.status for line in lines if line.status != SUPERSEDED}
    status = "damaged" if damaged else "pruned" if statuses == {"pruned"} else "open" if "open" in statuses else "complete"
    pruned = {(line.type, line.partition): (line.pruned_segments, line.pruned_bytes) for line in lines}
    return DayInventory(
        feed=feed,
        date=date,
        status=status,
        lines=sum(line.records for line in lines if line.type == "raw"),
        records=sum(line.records for line in lines if line.type != "raw" and line.status != SUPERSEDED),
        segments=sum(line.segments for line in lines),
        size_bytes=sum(line.size_bytes for line in lines),
        quality_ppm=min(scores, default=None),
        gaps=len(holes),
        open_gaps=sum(hole.is_open for hole in holes),
        damaged=damaged,
        pruned_segments=sum(segments for segments, _ in pruned.values()),
        pruned_bytes=sum(size_bytes for _, size_bytes in pruned.values()),
        holds=tuple(sorted({name for line in lines for name in line.holds})),
    )


def _inventory_line(partition: Partition, kind: str, holding: Holding) -> InventoryLine:
    return InventoryLine(
        feed=partition.feed,
        date=partition.date,
        type=partition.type,
        kind=kind,
        partition=partition.partition,
        status=partition.status,
        segments=holding.segments,
        records=holding.records,
        size_bytes=holding.size_bytes,
        content_bytes=holding.content_bytes,
        ts_recv_first_ns=holding.ts_recv_first_ns,
        ts_recv_last_ns=holding.ts_recv_last_ns,
        sessions=partition.sessions,
        pruned_segments=partition.pruned_segments,
        pruned_bytes=partition.pruned_bytes,
        holds=partition.holds,
        mapper=partition.mapper,
    )


async def gaps(views: Views, feed: str, date: str = "", ticker: str | None = None) -> list[GapLine]:
    """The holes that touch a UTC date, by start.

    Args:
        date: "" = all dates.
        ticker: only those that concern it, and their end as it saw it.
    """
    prefixes = gaps_view.gaps_prefixes(feed, date) if date else gaps_view.all_gaps_prefixes(feed)
    page = await views.read(gaps_view.NAME, prefixes=prefixes)
    lines = []
    for value in page.rows.values():
        gap = decode_row(value, GapRow)
        if ticker is not None:
            if not gap.concerns(ticker):
                continue
            gap = gap.as_seen_by(ticker)
        if not date or gap.touches(date):
            lines.append(_gap_line(gap))
    lines.sort(key=lambda line: (line.start_ns, line.connection, line.gap_id))
    return lines


def _gap_line(gap: GapRow) -> GapLine:
    return GapLine(
        gap_id=gap.gap_id,
        feed=gap.feed,
        connection=gap.connection,
        session=gap.session,
        cause=gap.cause,
        evidence=gap.evidence,
        channel=gap.channel,
        seq_expected=gap.seq_expected,
        seq_found=gap.seq_found,
        start_ns=gap.start_ns,
        end_ns=gap.end_ns or None,
        tickers=() if gap.is_whole else tuple(gap.tickers),
        open_tickers=() if gap.is_whole else tuple(ticker for ticker, end in gap.tickers.items() if not end),
        repairs=gap.repairs,
    )


async def captures(views: Views, feed: str) -> list[CaptureLine]:
    """What a feed's connections are doing, and the sessions each had."""
    prefixes = (captures_view.connections_prefix(feed), captures_view.sessions_prefix(feed))
    rows = (await views.read(captures_view.NAME, prefixes=prefixes)).rows
    connections: list[Connection] = []
    sessions: dict[str, list[Session]] = {}
    for key, value in rows.items():
        if key.startswith(prefixes[0]):
            connections.append(decode_row(value, Connection))
        else:
            session = decode_row(value, Session)
            sessions.setdefault(session.connection, []).append(session)
    return [CaptureLine(one, tuple(sessions.get(one.connection, ()))) for one in connections]
