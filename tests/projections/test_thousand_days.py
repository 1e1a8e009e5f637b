"""The history of 1,000 days, from the cache and from the journal alone: equal, and soon.

Soon by the time this process works: a wall clock would measure what else the machine does.
"""

from __future__ import annotations

import datetime as dt
import time

import msgspec

from ssmd.domain import trading_day
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.identifiers import system_random, uuid7
from ssmd.projections import queries
from ssmd.projections.days import DAYS, Day
from ssmd.projections.rebuild import rebuild
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.views import fold_views, freshest_views
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_nats import NatsJournal

FIRST = dt.date(2023, 8, 18)
COUNT = 1_000
SECOND = 1_000_000_000
STEPS = ("projector main", "raw-archiver main", "normalized-archiver main", "connector main", "gateway main")
CACHE_MAX_S, JOURNAL_MAX_S = 1.0, 5.0


def events_of(date: str) -> list[trading_day.DayEvent]:
    """A day from start to end."""
    return [
        trading_day.StartRequested(date, "the schedule"),
        *(trading_day.StepCompleted("start", f"{name} is healthy", "") for name in STEPS),
        trading_day.Activated(),
        trading_day.EndRequested("the schedule"),
        *(trading_day.StepCompleted("end", f"{name} has handed on", "") for name in STEPS),
        trading_day.Completed(trading_day.Totals(1_000_000, {"book": 900_000, "trade": 1_000}, 40, 1 << 30, 2)),
    ]


def group_of(number: int) -> AppendGroup:
    date = (FIRST + dt.timedelta(days=number)).isoformat()
    aggregate = AggregateId(trading_day.AGGREGATE, (date,))
    at_ns = 1_692_316_800 * SECOND + number * 86_400 * SECOND
    envelopes = [
        Envelope(
            id=uuid7(at_ns + version, system_random),
            type=tag_of(event),
            aggregate=aggregate.aggregate,
            aggregate_id=aggregate.key,
            version=version,
            ts_ns=at_ns + version * SECOND,
            actor="schedule:kalshi-prod/days",
            correlation_id=f"kalshi-prod/day/{date}",
            causation_id="",
            config="c0ffee",
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        for version, event in enumerate(events_of(date), 1)
    ]
    return AppendGroup(aggregate, 0, envelopes)


async def test_a_thousand_days_are_told_soon_and_alike(journal_url: str, cache_url: str, fresh_env: str) -> None:
    journal = await NatsJournal.open(journal_url, fresh_env, ensure=True)
    store = RedisRowStore(cache_url, fresh_env, random=system_random)
    try:
        for first in range(0, COUNT, 20):
            groups = [group_of(number) for number in range(first, first + 20)]
            await journal.append(groups, command_id=groups[0].events[0].id)
        await rebuild(journal, store, DAYS)

        async def timed(*, from_cache: bool) -> tuple[list[Day], list[queries.DayHistory], float]:
            began_s = time.process_time()
            views = await (freshest_views(store, journal, [DAYS]) if from_cache else fold_views(journal, projections=[DAYS]))
            days = await queries.days(views)
            histories = [await queries.day_history(views, day.date) for day in days[:: COUNT // 10]]
            return days, histories, time.process_time() - began_s

        cached, cached_histories, cache_s = await timed(from_cache=True)
        folded, folded_histories, journal_s = await timed(from_cache=False)
    finally:
        await store.clear()
        await store.close()
        await journal.close()
    assert len(cached) == COUNT
    assert cached[-1].status == "complete"
    assert (cached, cached_histories) == (folded, folded_histories)
    assert len(cached_histories[0].lines) == len(events_of("x"))
    measured = f"cache {cache_s:.2f} s, journal {journal_s:.2f} s"
    assert cache_s < CACHE_MAX_S, measured
    assert journal_s < JOURNAL_MAX_S, measured
