"""Where answers come from when the cache is current, behind, damaged, empty or away."""

from __future__ import annotations

from typing import Any

import pytest

from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.days import DAYS
from ssmd.projections.folder import Folder, decode_events
from ssmd.projections.rebuild import rebuild
from ssmd.projections.store import RowStore
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.views import PROJECTIONS, QUERIED, Views, fold_views, freshest_views, open_views

DATE = "2026-05-14"
NOON = 1_778_760_000_000_000_000


async def build(story: Any, store: RowStore) -> None:
    for projection in PROJECTIONS:
        await rebuild(story.journal, store, projection)


async def answers(views: Views) -> list[Any]:
    return [
        await queries.days(views),
        await queries.day_status(views, DATE),
        await queries.day_history(views, DATE),
        await queries.captures(views, "kalshi"),
        await queries.gaps(views, "kalshi", DATE),
        await queries.inventory(views, "kalshi"),
    ]


async def test_a_current_cache_answers_alone(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, ""))
    await build(story, store)
    views = await freshest_views(store, story.journal)
    assert (views.source, views.position, views.warnings()) == ("cache", 1, ())
    assert await answers(views) == await answers(await fold_views(story.journal))


async def test_a_cache_that_is_behind_gets_the_journals_tail_on_top(story: Any, store: RowStore, segment: Any) -> None:
    story.connect(7, NOON)
    story.open_gap("g1", NOON, ("KX-A", "KX-B"))
    story.seal(1, 5, segment())
    story.day(trading_day.StartRequested(DATE, ""))
    await build(story, store)
    stamps = [await store.current(projection.name) for projection in QUERIED]
    # The gap's row moves to another key, the day's row changes, lines are new.
    story.close_gap("g1", NOON, NOON + 5, ("KX-A", "KX-B"))
    story.day(trading_day.Activated())
    last = story.connect(8, NOON + 9)
    views = await freshest_views(store, story.journal, patience_seconds=0)
    assert (views.source, views.position) == ("cache+journal", last)
    assert await answers(views) == await answers(await fold_views(story.journal))
    assert [await store.current(projection.name) for projection in QUERIED] == stamps

    # The projector wakes up and passes by: what is held is still whole, then the cache is the newer one.
    story.day(trading_day.EndRequested("later"))
    async for batch in story.journal.replay():
        for upto in (last - 1, last + 1):
            for projection, stamp in zip(QUERIED, stamps, strict=True):
                now = await store.current(projection.name)
                assert stamp is not None
                assert now is not None
                pieces = [message for message in batch if message.position <= upto]
                folder = Folder(projection, store, now)
                await folder.apply(decode_events(pieces, CATALOGUE, projection.aggregates), upto)
            day = await queries.day_status(views, DATE)
            assert day.status == ("active" if upto < last else "ending")
    assert await answers(views) == await answers(await fold_views(story.journal))


async def test_an_empty_cache_leaves_the_journal_to_answer(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, ""))
    with pytest.raises(Unavailable, match="projection days is absent"):
        await open_views(store)
    views = await freshest_views(store, story.journal)
    assert (views.source, views.position) == ("journal", 1)
    assert (await queries.day_status(views, DATE)).status == "starting"
    assert await answers(views) == await answers(await freshest_views(None, story.journal))


async def test_a_cache_of_another_version_is_not_read(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, ""))
    await build(story, store)
    await store.swap(await store.begin("days", 99), await store.current("days"))
    with pytest.raises(Unavailable, match=f"at version 99, version {DAYS.version} is needed"):
        await open_views(store)
    assert (await freshest_views(store, story.journal)).source == "journal"


async def test_a_cache_that_is_away_leaves_the_journal_to_answer(story: Any) -> None:
    story.day(trading_day.StartRequested(DATE, ""))
    away = RedisRowStore("redis://127.0.0.1:1/0", "t", random=system_random, deadline_seconds=0.5)
    views = await freshest_views(away, story.journal)
    assert (views.source, (await queries.day_status(views, DATE)).status) == ("journal", "starting")
    await away.close()


async def test_a_journal_that_is_away_leaves_the_cache_to_answer_with_a_note(story: Any, store: RowStore) -> None:
    story.day(trading_day.StartRequested(DATE, ""))
    await build(story, store)
    story.journal.is_away = True
    views = await freshest_views(store, story.journal)
    assert (await queries.day_status(views, DATE)).status == "starting"
    (note,) = views.warnings()
    assert "as of position 1" in note
    await store.clear()
    with pytest.raises(Unavailable):
        await freshest_views(store, story.journal)


async def test_a_journal_that_lost_its_tail_stops_queries_with_the_range(story: Any, store: RowStore) -> None:
    for _ in range(5):
        story.day(trading_day.Activated())
    await build(story, store)
    shorter = type(story)()
    shorter.day(trading_day.Activated())
    shorter.day(trading_day.Activated())
    with pytest.raises(Malformed, match=r"events 3\.\.5 are lost"):
        await freshest_views(store, shorter.journal)


async def test_answers_that_may_lack_something_say_so(story: Any, store: RowStore) -> None:
    story.journal.put("t.journal.trading-day.2026-05-14", b"nonsense")
    views = await freshest_views(store, story.journal)
    (warning,) = views.warnings()
    assert warning.startswith("projection days passed over 1 events")
