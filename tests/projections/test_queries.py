"""Questions and their answers, from the cache and from the journal alike."""

from __future__ import annotations

from typing import Any

import msgspec

from ssmd.domain import archive, capture, trading_day
from ssmd.domain.trading_day import Totals
from ssmd.projections import queries
from ssmd.projections.gaps import GapFilling
from ssmd.projections.reading import AsOf
from ssmd.projections.rebuild import rebuild
from ssmd.projections.store import RowStore
from ssmd.projections.views import PROJECTIONS, Views, fold_views, open_views

SECOND = 1_000_000_000
NOON = 1_778_760_000 * SECOND
MIDNIGHT = NOON + 43_200 * SECOND
DATE = "2026-05-14"
NEXT = "2026-05-15"


async def views_of(story: Any, store: RowStore) -> Views:
    """Views out of `store`, once they are seen to give what the journal gives."""
    for projection in PROJECTIONS:
        await rebuild(story.journal, store, projection)
    return await open_views(store)


async def test_a_day_from_start_to_totals(story: Any, store: RowStore) -> None:
    totals = Totals(messages=10, records={"trade": 3, "book": 4}, segments=2, size_bytes=999, gaps=1)
    story.day(trading_day.StartRequested(DATE, "daily"), ts_ns=NOON)
    story.day(trading_day.StepCompleted("start", "streams", "5 applied"), ts_ns=NOON + 1)
    story.day(trading_day.Activated(), ts_ns=NOON + 2)
    story.day(trading_day.EndRequested("demo over"), ts_ns=NOON + 3, actor="cli:ben")
    story.day(trading_day.StepCompleted("end", "drained", ""), ts_ns=NOON + 4)
    last = story.day(trading_day.Completed(totals), ts_ns=NOON + 5)
    day = await queries.day_status(await views_of(story, store), DATE)
    steps = [(step.phase, step.step, step.detail, step.ts_ns - NOON) for step in day.steps]
    assert steps == [("start", "streams", "5 applied", 1), ("end", "drained", "", 4)]
    assert (day.status, day.error, day.totals, day.position, day.config) == ("complete", "", totals, last, "c0ffee")
    assert (day.started_by, day.start_reason, day.ended_by, day.end_reason) == ("cli:anna", "daily", "cli:ben", "demo over")
    times = (day.start_requested_ns, day.activated_ns, day.end_requested_ns, day.completed_ns, day.errored_ns)
    assert [ns - NOON if ns else None for ns in times] == [0, 2, 3, 5, None]


async def test_a_day_that_failed_and_was_started_again(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, ""), ts_ns=NOON)
    story.day(trading_day.Errored("starting", "port taken"), ts_ns=NOON + 1)
    failed = await queries.day_status(await fold_views(story.journal), DATE)
    assert (failed.status, failed.error, failed.errored_ns) == ("error", "port taken", NOON + 1)
    story.day(trading_day.StartRequested(DATE, "again"), ts_ns=NOON + 2)
    day = await queries.day_status(await views_of(story, store), DATE)
    assert (day.status, day.error, day.errored_ns, day.start_reason) == ("starting", "", 0, "again")
    assert await queries.days(await open_views(store)) == [day]


async def test_a_day_nobody_started_is_pending(story: Any, store: RowStore) -> None:
    views = await views_of(story, store)
    assert (await queries.day_status(views, DATE)).status == "pending"
    assert (await queries.day_history(views, DATE)).lines == ()
    assert await queries.days(views) == []


async def test_history_tells_who_did_what_when_and_why(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, "demo"), ts_ns=NOON - 5)
    story.connect(7, NOON)
    story.open_gap("g1", NOON + 2 * SECOND, ("KX-A", "KX-B", "KX-C", "KX-D"), at_ns=NOON + 3 * SECOND)
    # Journaled late, out of order: history is in order of what happened.
    story.capture(capture.Disconnected(7, 20, 0, NOON + SECOND, "stale", 0, "", NOON, "no frame for 10 s"))
    story.archive(archive.Completed("day-end", 2, 30, 300), ts_ns=NOON + 9 * SECOND)
    story.capture(capture.DayMarked(8, 2, 0, MIDNIGHT + 1, DATE))
    story.connect(9, MIDNIGHT + 2)
    history = await queries.day_history(await views_of(story, store), DATE)
    assert [(line.at_ns - NOON, line.actor, line.what) for line in history.lines] == [
        (-5, "cli:anna", "start requested (demo)"),
        (0, "connector:main", "connected to wss://venue/ws as session 7 (host-1, epoch 1)"),
        (SECOND, "connector:main", "disconnected: stale (no frame for 10 s)"),
        (
            3 * SECOND,
            "connector:main",
            (
                "gap g1 opened on orderbook_delta for KX-A, KX-B, KX-C and 1 more from 2026-05-14T12:00:02.000000000Z:"
                " sequence-jump, expected 5, found 9 (seq 9 after 4)"
            ),
        ),
        (9 * SECOND, "archiver:raw", "complete (day-end): 2 segments, 30 records, 300 bytes"),
        (MIDNIGHT + 1 - NOON, "connector:main", f"no further entry of {DATE} will come"),
    ]
    first = history.lines[0]
    assert (first.subject, first.type) == (f"trading-day/{DATE}", "trading-day.start-requested.v1")
    assert (first.correlation_id, first.causation_id, first.config, first.position) == ("request-1", "command-1", "c0ffee", 1)
    (other,) = (await queries.day_history(await open_views(store), NEXT)).lines
    assert other.at_ns == MIDNIGHT + 2


async def test_a_gap_closes_ticker_by_ticker(story: Any, store: RowStore) -> None:
    story.open_gap("g1", NOON, ("KX-B", "KX-A"))
    story.close_gap("g1", NOON, NOON + 4 * SECOND, ("KX-A",))
    half = await fold_views(story.journal)
    (gap,) = await queries.gaps(half, "kalshi", DATE)
    assert (gap.end_ns, gap.tickers, gap.open_tickers) == (None, ("KX-A", "KX-B"), ("KX-B",))
    (mine,) = await queries.gaps(half, "kalshi", DATE, "KX-A")
    assert (mine.end_ns, mine.tickers, mine.open_tickers) == (NOON + 4 * SECOND, ("KX-A",), ())
    story.close_gap("g1", NOON, NOON + 3 * SECOND, ("KX-B",))
    (gap,) = await queries.gaps(await views_of(story, store), "kalshi", DATE)
    assert gap == queries.GapLine(
        gap_id="g1",
        feed="kalshi",
        connection="main",
        session=7,
        cause="sequence-jump",
        evidence="seq 9 after 4",
        channel="orderbook_delta",
        seq_expected=5,
        seq_found=9,
        start_ns=NOON,
        end_ns=NOON + 4 * SECOND,
        tickers=("KX-A", "KX-B"),
        open_tickers=(),
    )
    assert await queries.gaps(await open_views(store), "kalshi", DATE, "KX-C") == []


async def test_a_gap_belongs_to_every_date_it_touches(story: Any, store: RowStore) -> None:
    story.open_gap("over-midnight", MIDNIGHT - SECOND)
    story.close_gap("over-midnight", MIDNIGHT - SECOND, MIDNIGHT + SECOND)
    story.open_gap("one-day", NOON)
    story.close_gap("one-day", NOON, NOON + SECOND)
    story.open_gap("still-open", MIDNIGHT + 5)
    views = await views_of(story, store)
    found = {
        date: [gap.gap_id for gap in await queries.gaps(views, "kalshi", date)]
        for date in ("2026-05-13", DATE, NEXT, "2026-05-16", "")
    }
    assert found == {
        "2026-05-13": [],
        DATE: ["one-day", "over-midnight"],
        NEXT: ["over-midnight", "still-open"],
        "2026-05-16": ["still-open"],
        "": ["one-day", "over-midnight", "still-open"],
    }
    whole = (await queries.gaps(views, "kalshi", NEXT, "ANY"))[0]
    assert (whole.end_ns, whole.tickers) == (MIDNIGHT + SECOND, ("ANY",))


async def test_an_end_without_a_beginning_is_a_gap_of_unknown_cause(story: Any) -> None:
    story.close_gap("lost", NOON, NOON + SECOND, ("KX-A",))
    (gap,) = await queries.gaps(await fold_views(story.journal), "kalshi", DATE)
    assert (gap.cause, gap.start_ns, gap.end_ns, gap.tickers) == ("", NOON, NOON + SECOND, ("KX-A",))
    # Its beginning turns up, and says that it concerned more.
    story.open_gap("lost", NOON, ("KX-A", "KX-B"))
    (gap,) = await queries.gaps(await fold_views(story.journal), "kalshi", DATE)
    assert (gap.cause, gap.end_ns, gap.open_tickers) == ("sequence-jump", None, ("KX-B",))


async def test_inventory_by_kind_with_sessions_and_status(story: Any, store: RowStore, segment: Any) -> None:
    story.archive(archive.Opened(1, "host-1"))
    story.seal(1, 5, segment(records=10))
    story.seal(6, 9, segment(number=2, records=5, first_ns=NOON + 9 * SECOND))
    story.archive(archive.Completed("day-mark", 2, 15, 1500))
    story.archive(archive.Opened(1, "host-1"), type_="normalized")
    story.seal(1, 5, segment("trade", records=2), segment("book", records=8), type_="normalized")
    story.archive(archive.Opened(1, "host-1"), date=NEXT)
    views = await views_of(story, store)
    lines = [
        (line.date, line.type, line.kind, line.status, line.segments, line.records, line.size_bytes, line.sessions)
        for line in await queries.inventory(views, "kalshi")
    ]
    assert lines == [
        (DATE, "normalized", "book", "open", 1, 8, 800, {"7": 5}),
        (DATE, "normalized", "trade", "open", 1, 2, 200, {"7": 5}),
        (DATE, "raw", "raw", "complete", 2, 15, 1500, {"7": 9}),
        (NEXT, "raw", "", "open", 0, 0, 0, {}),
    ]
    raw = (await queries.inventory(views, "kalshi", DATE, DATE))[-1]
    assert (raw.ts_recv_first_ns, raw.ts_recv_last_ns) == (NOON, NOON + 10 * SECOND)
    assert [line.date for line in await queries.inventory(views, "kalshi", NEXT)] == [NEXT]
    assert await queries.inventory(views, "kraken") == []


async def test_a_reopened_partition_is_open(story: Any, segment: Any) -> None:
    story.seal(1, 5, segment())
    story.archive(archive.Completed("day-end", 1, 10, 1000))
    story.archive(archive.Reopened("late-data"))
    (line,) = await queries.inventory(await fold_views(story.journal), "kalshi")
    assert (line.status, line.records) == ("open", 10)


async def test_captures_tell_connections_and_sessions(story: Any, store: RowStore) -> None:
    story.connect(7, NOON)
    story.capture(capture.Subscribed(7, 2, 0, NOON + 1, 3, "trade", ("KX-A", "KX-B")))
    story.capture(capture.DriftDetected(7, 3, 0, NOON + 2, "unknown-field", "trade", "novelty", ""))
    story.open_gap("g1", NOON + 3)
    story.capture(capture.Disconnected(7, 4, 0, NOON + 4, "closed-by-venue", 1001, "bye", NOON + 3, "close frame"))
    story.connect(8, NOON + 5, version="0.2.0")
    story.connect(7, NOON, connection="other")
    main, other = await queries.captures(await views_of(story, store), "kalshi")
    now = main.connection
    assert (now.is_connected, now.since_ns, now.session, now.version) == (True, NOON + 5, 8, "0.2.0")
    assert (now.sessions, now.disconnects, now.gaps_opened, now.drifts) == (2, 1, 1, 1)
    assert now.drift == "unknown-field: trade.novelty"
    first, second = main.sessions
    assert (first.session, first.connected_ns, first.ended_ns, first.cause) == (7, NOON, NOON + 4, "closed-by-venue")
    assert [(sub.sid, sub.channel, sub.tickers) for sub in first.subscriptions] == [(3, "trade", 2)]
    assert (second.session, second.ended_ns, second.config) == (8, 0, "c0ffee")
    assert [session.session for session in other.sessions] == [7]


async def test_the_same_questions_as_of_an_instant_and_a_position(story: Any) -> None:
    story.day(trading_day.StartRequested(DATE, ""), ts_ns=NOON)
    story.day(trading_day.Activated(), ts_ns=NOON + 10)
    # A writer whose clock is behind: what it wrote came after, so it was not knowable before.
    story.day(trading_day.EndRequested(""), ts_ns=NOON + 5)
    statuses = {
        as_of: (await queries.day_status(await fold_views(story.journal, as_of), DATE)).status
        for as_of in (AsOf(ts_ns=NOON - 1), AsOf(ts_ns=NOON), AsOf(ts_ns=NOON + 5), AsOf(ts_ns=NOON + 10), AsOf(position=2))
    }
    assert list(statuses.values()) == ["pending", "starting", "starting", "ending", "active"]


async def test_a_gap_tells_what_of_it_was_filled(story: Any, store: RowStore) -> None:
    story.open_gap("g1", NOON, ("KX-A", "KX-B"))
    story.close_gap("g1", NOON, NOON + 9 * SECOND, ("KX-A", "KX-B"))
    told = capture.GapRepaired(7, 12, 0, NOON + 20 * SECOND, "g1", "rest", NOON, NOON + 5 * SECOND, 3, ("KX-A",), "trades")
    story.capture(told)
    story.capture(msgspec.structs.replace(told, n=13, gap_id="nobody-knows"))
    (gap,) = await queries.gaps(await views_of(story, store), "kalshi", DATE)
    assert gap.repairs == (GapFilling("rest", NOON, NOON + 5 * SECOND, 3, ("KX-A",), "trades"),)
    (mine,) = await queries.gaps(await open_views(store), "kalshi", DATE, "KX-A")
    (other,) = await queries.gaps(await open_views(store), "kalshi", DATE, "KX-B")
    assert (len(mine.repairs), len(other.repairs)) == (1, 0)


async def test_a_day_in_one_line(story: Any, store: RowStore, segment: Any) -> None:
    story.archive(archive.Opened(1, "a"))
    story.seal(1, 5, segment(records=10))
    story.seal(6, 9, segment(number=6, records=5))
    story.archive(archive.Completed("day-mark", 2, 15, 1500))
    story.seal(1, 5, segment("trade", records=4), type_="normalized")
    story.open_gap("g1", NOON, ("KX-A",))
    story.open_gap("g2", NOON - 86_400 * SECOND, ("KX-A",))
    story.close_gap("g2", NOON - 86_400 * SECOND, NOON - 86_399 * SECOND, ("KX-A",))
    quality = archive.QualityAssessed(1, 900_000, 1, 1, 0, 0, 0, 3, ())
    story.archive(quality)
    key = segment().key
    story.archive(archive.Damaged(key, "flipped", "aa", "bb"))
    (day,) = await queries.days_inventory(await views_of(story, store), "kalshi")
    assert day == queries.DayInventory(
        feed="kalshi", date=DATE, status="damaged", lines=15, records=4, segments=3, size_bytes=1900, quality_ppm=900_000,
        gaps=1, open_gaps=1, damaged=1, pruned_segments=0, pruned_bytes=0, holds=(),
    )  # fmt: skip
    story.archive(archive.Held("audit", "why"))
    story.archive(archive.Pruned((key,), 1000, "old"))
    (day,) = await queries.days_inventory(await views_of(story, store), "kalshi")
    assert (day.status, day.pruned_segments, day.damaged, day.holds) == ("open", 1, 0, ("audit",))
    story.archive(archive.Pruned((segment(number=6).key,), 500, "old"))
    story.archive(archive.Pruned((segment("trade").key,), 400, "old"), type_="normalized")
    (day,) = await queries.days_inventory(await views_of(story, store), "kalshi")
    assert (day.status, day.segments, day.size_bytes, day.pruned_segments, day.pruned_bytes) == ("pruned", 0, 0, 3, 1900)
