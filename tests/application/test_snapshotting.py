"""Snapshots: loading reads no more than what came since, and a snapshot that does not fit is not believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec
import pytest

from ssmd.application.handler import Application
from ssmd.application.snapshotting import SNAPSHOT_EVERY
from ssmd.clock import ManualClock
from ssmd.domain.decider import Catalogue, Decider
from ssmd.domain.envelope import AggregateId
from ssmd.errors import Unavailable
from ssmd.identifiers import system_random
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_snapshots import MemorySnapshots, NatsSnapshots, Snapshot, Snapshots


class Add(NamedTuple):
    amount: int


class Added(msgspec.Struct, frozen=True, tag="tally.added.v1"):
    amount: int


class Tally(msgspec.Struct, frozen=True):
    total: int = 0
    amounts: frozenset[int] = frozenset()


def _decide(state: Tally, command: Add) -> Sequence[Added]:
    return [] if command.amount in state.amounts else [Added(command.amount)]


def _evolve(state: Tally, event: Added) -> Tally:
    return Tally(state.total + event.amount, state.amounts | {event.amount})


DECIDER: Decider[Add, Added, Tally] = Decider("tally", ("name",), Tally(), _decide, _evolve, (Added,))
CATALOGUE = Catalogue([DECIDER])
ONE = AggregateId("tally", ("one",))


class Counting:
    """A journal that tells how many events its loads gave."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.loaded = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        events = await self._journal.load(aggregate, after_version=after_version, after_position=after_position)
        self.loaded += len(events)
        return events


@pytest.fixture(params=["memory", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue("journal_url") if request.param == "nats" else ""
    return found


@pytest.fixture
async def journal(url: str, fresh_env: str) -> AsyncIterator[Journal]:
    opened: Journal = await NatsJournal.open(url, fresh_env, ensure=True) if url else MemoryJournal(fresh_env)
    yield opened
    await opened.close()


@pytest.fixture
async def snapshots(url: str, fresh_env: str) -> AsyncIterator[Snapshots]:
    opened: Snapshots = NatsSnapshots(url, fresh_env) if url else MemorySnapshots()
    yield opened
    await opened.close()


def application(journal: Journal | Counting, snapshots: Snapshots | None) -> Application:
    return Application(journal, CATALOGUE, ManualClock(7), system_random, "", snapshots)  # type: ignore[arg-type]  # Counting delegates the rest


async def fill(journal: Journal, snapshots: Snapshots, first: int, last: int) -> None:
    writer = application(journal, snapshots)
    for start in range(first, last, 50):
        commands = [Add(amount) for amount in range(start, min(start + 50, last))]
        await writer.handle_many(DECIDER, ("one",), commands, actor="a")


async def test_a_new_process_loads_what_came_since(journal: Journal, snapshots: Snapshots) -> None:
    assert await snapshots.get(ONE) is None
    await fill(journal, snapshots, 1, 2 * SNAPSHOT_EVERY + 31)
    taken = await snapshots.get(ONE)
    assert taken is not None
    assert (taken.version, taken.position) == (2 * SNAPSHOT_EVERY, 2 * SNAPSHOT_EVERY)
    counting = Counting(journal)
    state = await application(counting, snapshots).state(DECIDER, ("one",))
    assert state == await application(journal, None).state(DECIDER, ("one",))
    assert counting.loaded == 31  # 30 events, and the one the snapshot stands behind
    again = await application(counting, snapshots).handle(DECIDER, ("one",), Add(5), actor="b")
    assert again.events == ()
    more = await application(counting, snapshots).handle(DECIDER, ("one",), Add(1000), actor="b")
    assert (more.version, more.state.total) == (2 * SNAPSHOT_EVERY + 31, state.total + 1000)


async def test_the_first_to_read_a_long_history_abbreviates_it(journal: Journal, snapshots: Snapshots) -> None:
    await fill(journal, MemorySnapshots(), 1, SNAPSHOT_EVERY + 60)
    counting = Counting(journal)
    first = await application(counting, snapshots).state(DECIDER, ("one",))
    assert counting.loaded == SNAPSHOT_EVERY + 59
    assert await application(counting, snapshots).state(DECIDER, ("one",)) == first
    assert counting.loaded == SNAPSHOT_EVERY + 60


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": "another"},
        {"shape": "other rules"},
        {"state": b"{"},
        {"position": 17},
        {"position": 10_000},
        {"version": 3},
        {"version": 9999},
    ],
)
async def test_a_snapshot_that_does_not_fit_is_not_believed(
    journal: Journal, snapshots: Snapshots, change: dict[str, object]
) -> None:
    await fill(journal, snapshots, 1, SNAPSHOT_EVERY + 20)
    taken = await snapshots.get(ONE)
    assert taken is not None
    await snapshots.put(ONE, Snapshot(**{**taken._asdict(), "state": b'{"total":666}', **change}))
    state = await application(journal, snapshots).state(DECIDER, ("one",))
    assert state.total == sum(range(1, SNAPSHOT_EVERY + 20))


async def test_a_store_that_is_away_costs_nothing_but_time(journal: Journal) -> None:
    class Away(MemorySnapshots):
        async def get(self, aggregate: AggregateId) -> Snapshot | None:
            raise Unavailable("away")

        async def put(self, aggregate: AggregateId, snapshot: Snapshot) -> None:
            raise Unavailable("away")

    await fill(journal, Away(), 1, SNAPSHOT_EVERY + 20)
    assert len((await application(journal, Away()).state(DECIDER, ("one",))).amounts) == SNAPSHOT_EVERY + 19
