"""Group commit: many appends at once, each with its own outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.streams.connection import Connection
from ssmd.streams.journal import AppendGroup, RecordedEvent
from ssmd.streams.journal_nats import NatsJournal

_IDS = itertools.count(1)


def group(name: str, after: int, count: int = 1) -> AppendGroup:
    aggregate = AggregateId("load", (name,))
    events = [
        Envelope(f"g{next(_IDS)}", "t.v1", "load", aggregate.key, version, 1, "", "", "", "", msgspec.Raw(b"{}"))
        for version in range(after + 1, after + 1 + count)
    ]
    return AppendGroup(aggregate, after, events)


@asynccontextmanager
async def opened(url: str, env: str, **options: Any) -> AsyncIterator[NatsJournal]:
    journal = await NatsJournal.open(url, env, ensure=True, **options)
    try:
        yield journal
    finally:
        await journal.close()


async def stored(journal: NatsJournal) -> dict[str, int]:
    """Position by event id; nothing stands twice."""
    found = [message async for batch in journal.replay() for message in batch]
    events = [one for one in found if isinstance(one, RecordedEvent)]
    assert len(events) == len(found) == len({one.envelope.id for one in events})
    return {one.envelope.id: one.position for one in events}


async def test_many_appends_share_batches_and_each_learns_its_position(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal:
        appends = [[group(f"a{index}", 0, 1 + index % 3)] for index in range(600)]
        positions = await asyncio.gather(*(journal.append(one, command_id=f"c{index}") for index, one in enumerate(appends)))
        held = await stored(journal)
        for groups, position in zip(appends, positions, strict=True):
            events = groups[0].events
            assert [held[event.id] for event in events] == list(range(position - len(events) + 1, position + 1))
        assert journal._group_commit.grouped > 300
        # Done again: found out, one by one, and nothing more is written.
        again = await asyncio.gather(*(journal.append(one, command_id=f"c{index}") for index, one in enumerate(appends)))
        assert again == positions
        assert await stored(journal) == held


async def test_one_appends_error_is_nobody_elses(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal, opened(journal_url, fresh_env) as other:
        await asyncio.gather(*(journal.append([group(f"a{index}", 0)], command_id=f"s{index}") for index in range(400)))
        for index in (250, 260):
            # Behind the first writer's back: what it remembers of these aggregates is wrong now.
            await other.append([group(f"a{index}", 1)], command_id=f"o{index}")
        appends = [[group(f"a{index}", 0 if index in {150, 300} else 1)] for index in range(400)]
        appends[350] = [*appends[350], group("b", 0, 995)]
        appends[351] = [*appends[351], group("b", 0)]
        ids = [f"s{index}" if index == 200 else f"c{index}" for index in range(400)]
        results = await asyncio.gather(
            *(journal.append(one, command_id=name) for one, name in zip(appends, ids, strict=True)), return_exceptions=True
        )
        held = await stored(journal)
        failed = {index for index, result in enumerate(results) if isinstance(result, BaseException)}
        assert failed - {350, 351} == {150, 200, 250, 260, 300}
        assert len(failed & {350, 351}) == 1
        assert isinstance(results[200], Rejected)
        assert all(isinstance(results[index], Conflict) for index in failed - {200})
        for index, result in enumerate(results):
            is_there = [event.id in held for one in appends[index] for event in one.events]
            assert all(is_there) if index not in failed else not any(is_there)
            if index not in failed:
                assert held[appends[index][-1].events[-1].id] == result


async def test_an_event_too_large_is_refused_alone(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal:
        appends = [[group(f"a{index}", 0)] for index in range(300)]
        large = appends[200][0].events[0]
        appends[200][0] = appends[200][0]._replace(
            events=[msgspec.structs.replace(large, data=msgspec.Raw(b'"' + b"x" * 9_000_000 + b'"'))]
        )
        results = await asyncio.gather(
            *(journal.append(one, command_id=f"c{index}") for index, one in enumerate(appends)), return_exceptions=True
        )
        assert [index for index, result in enumerate(results) if not isinstance(result, int)] == [200]
        assert isinstance(results[200], Rejected)
        assert results[200].rule == "event-too-large"
        assert len(await stored(journal)) == 299


async def test_several_appends_of_one_aggregate_do_not_share_a_batch(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal:
        racing = [journal.append([group("one", 0)], command_id=f"r{index}") for index in range(200)]
        others = [journal.append([group(f"a{index}", 0)], command_id=f"c{index}") for index in range(200)]
        results = await asyncio.gather(*racing, *others, return_exceptions=True)
        won = [result for result in results[:200] if isinstance(result, int)]
        assert len(won) == 1
        assert all(isinstance(result, int | Conflict) for result in results[:200])
        assert all(isinstance(result, int) for result in results[200:])
        assert len(await stored(journal)) == 201


async def test_after_a_lost_answer_each_is_looked_up(journal_url: str, fresh_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(journal_url, fresh_env) as journal:
        genuine = Connection.request
        lost = 0

        async def deaf(self: Connection, subject: str, payload: bytes, **options: Any) -> Any:
            nonlocal lost
            answer = await genuine(self, subject, payload, **options)
            if "Nats-Batch-Commit" in (options.get("headers") or {}) and not lost:
                lost += 1
                raise Unavailable("the answer was lost")
            return answer

        monkeypatch.setattr(Connection, "request", deaf)
        appends = [[group(f"a{index}", 0)] for index in range(300)]
        positions = await asyncio.gather(*(journal.append(one, command_id=f"c{index}") for index, one in enumerate(appends)))
        assert lost == 1
        held = await stored(journal)
        assert [held[one[0].events[0].id] for one in appends] == positions


async def test_closing_tells_those_who_wait(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal:
        appending = [
            asyncio.create_task(journal.append([group(f"a{index}", 0)], command_id=f"c{index}")) for index in range(300)
        ]
        await asyncio.sleep(0)
        await journal.close()
        results = await asyncio.gather(*appending, return_exceptions=True)
        assert all(isinstance(result, int | Unavailable) for result in results), results
        assert any(isinstance(result, Unavailable) for result in results)
