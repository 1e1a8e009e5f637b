"""The one door for writes, over the memory journal: what is decided, written, kept and tried again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from ssmd.application.handler import ATTEMPTS_MAX, Application
from ssmd.clock import ManualClock
from ssmd.domain import capture, trading_day
from ssmd.domain.capture import DayMarked, RecordFact, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import AggregateId
from ssmd.domain.trading_day import ActivateDay, EndDay, StartDay
from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.streams.journal import AppendGroup, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal

DAY = ("2026-05-14",)
CONNECTION = ("kalshi", "main")
NOON_NS = 1_778_760_000_000_000_000


class CountingJournal(MemoryJournal):
    """Counts calls, and can be told to let another writer in first, or to lose an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.appends: list[tuple[int, str]] = []
        self.conflicts = 0
        self.lost_answers = 0

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        self.loads += 1
        return await super().load(aggregate, after_version=after_version)

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        self.appends.append((sum(len(group.events) for group in groups), command_id))
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("told to")
        position = await super().append(groups, command_id=command_id)
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("told to")
        return position


_COUNT = itertools.count(1)


def _random(size: int) -> bytes:
    return next(_COUNT).to_bytes(size, "big")


@pytest.fixture
def journal() -> CountingJournal:
    return CountingJournal()


@pytest.fixture
def application(journal: CountingJournal) -> Application:
    return Application(journal, CATALOGUE, ManualClock(NOON_NS), _random, config="c0ffee")


def _facts(first: int, count: int) -> list[RecordFact]:
    return [
        RecordFact(TapePlace(1, n, 0), DayMarked(session=1, n=n, index=0, ts_recv_ns=NOON_NS, date="2026-05-14"))
        for n in range(first, first + count)
    ]


async def test_events_travel_in_envelopes_that_say_who_when_and_why(application: Application, journal: CountingJournal) -> None:
    handled = await application.handle(
        trading_day.DECIDER, DAY, StartDay("2026-05-14", "demo"), actor="cli:anna", command_id="cmd-1"
    )
    assert handled.events == (trading_day.StartRequested("2026-05-14", "demo"),)
    assert (handled.position, handled.version, handled.state.status) == (1, 1, "starting")
    (recorded,) = await journal.load(AggregateId("trading-day", DAY))
    assert recorded.envelope == handled.envelopes[0]
    envelope = recorded.envelope
    assert (envelope.type, envelope.aggregate, envelope.aggregate_id, envelope.version, envelope.ts_ns) == (
        "trading-day.start-requested.v1",
        "trading-day",
        "2026-05-14",
        1,
        NOON_NS,
    )
    assert (envelope.actor, envelope.correlation_id, envelope.causation_id, envelope.config) == (
        "cli:anna",
        "cmd-1",
        "cmd-1",
        "c0ffee",
    )
    assert bytes(envelope.data) == b'{"type":"trading-day.start-requested.v1","date":"2026-05-14","reason":"demo"}'


async def test_without_a_command_id_the_first_event_names_the_correlation(application: Application) -> None:
    handled = await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="cli:anna")
    assert (handled.envelopes[0].correlation_id, handled.envelopes[0].causation_id) == (handled.envelopes[0].id, "")


async def test_deciding_again_writes_nothing_and_tells_where_the_aggregate_stands(
    application: Application, journal: CountingJournal
) -> None:
    first = await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a")
    again = await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="b")
    assert (again.events, again.envelopes) == ((), ())
    assert (again.position, again.version, again.state) == (first.position, first.version, first.state)
    assert len(journal.appends) == 1


async def test_a_rejection_passes_through_and_writes_nothing(application: Application, journal: CountingJournal) -> None:
    with pytest.raises(Rejected) as raised:
        await application.handle(trading_day.DECIDER, DAY, EndDay("2026-05-14"), actor="a")
    assert (raised.value.rule, raised.value.mend) == ("day-not-started", "ssmd day start --date 2026-05-14")
    assert journal.appends == []


async def test_a_conflict_is_decided_again_on_what_the_other_wrote(application: Application, journal: CountingJournal) -> None:
    other = Application(journal, CATALOGUE, ManualClock(NOON_NS), _random)
    await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a")
    await other.handle(trading_day.DECIDER, DAY, trading_day.RecordStep("start", "streams"), actor="b")
    handled = await application.handle(trading_day.DECIDER, DAY, ActivateDay(), actor="a")
    assert (handled.version, handled.state.status, handled.state.steps) == (3, "active", (("start", "streams"),))


async def test_a_kept_state_never_answers_for_an_aggregate_that_moved(
    application: Application, journal: CountingJournal
) -> None:
    other = Application(journal, CATALOGUE, ManualClock(NOON_NS), _random)
    await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a")
    await other.handle(trading_day.DECIDER, DAY, trading_day.FailDay("no disk"), actor="b")
    retried = await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a")
    assert (retried.version, retried.state.status) == (3, "starting")
    await other.handle(trading_day.DECIDER, DAY, ActivateDay(), actor="b")
    ended = await application.handle(trading_day.DECIDER, DAY, EndDay("2026-05-14"), actor="a")
    assert ended.state.status == "ending"
    assert await application.state(trading_day.DECIDER, DAY) == ended.state


async def test_conflicts_without_end_are_given_up(application: Application, journal: CountingJournal) -> None:
    journal.conflicts = ATTEMPTS_MAX
    with pytest.raises(Conflict):
        await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a")
    assert len(journal.appends) == ATTEMPTS_MAX
    assert await journal.head() == 0


async def test_after_a_lost_answer_calling_again_finds_out(application: Application, journal: CountingJournal) -> None:
    journal.lost_answers = 1
    with pytest.raises(Unavailable):
        await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a", command_id="c")
    again = await application.handle(trading_day.DECIDER, DAY, StartDay("2026-05-14"), actor="a", command_id="c")
    assert (again.events, again.position, again.state.status) == ((), 1, "starting")


async def test_many_facts_load_once_and_append_in_thousands(application: Application, journal: CountingJournal) -> None:
    handled = await application.handle_many(capture.DECIDER, CONNECTION, _facts(1, 2500), actor="connector:kalshi-0")
    assert [events for events, _ in journal.appends] == [1000, 1000, 500]
    assert handled.events == tuple(fact.event for fact in _facts(1, 2500))
    assert [one.version for one in handled.envelopes] == list(range(1, 2501))
    assert (handled.position, handled.version, handled.state.last) == (2500, 2500, TapePlace(1, 2500, 0))
    again = await application.handle_many(capture.DECIDER, CONNECTION, _facts(2400, 200), actor="connector:kalshi-0")
    assert (len(again.events), again.version) == (99, 2599)
    assert journal.loads == 1


async def test_a_rejection_among_many_writes_none(application: Application, journal: CountingJournal) -> None:
    misplaced = RecordFact(TapePlace(1, 9, 0), _facts(8, 1)[0].event)
    with pytest.raises(Rejected) as raised:
        await application.handle_many(capture.DECIDER, CONNECTION, [*_facts(1, 5), misplaced], actor="a")
    assert raised.value.rule == "capture-place-mismatch"
    assert await journal.head() == 0


async def test_a_conflict_between_appends_goes_on_with_the_rest(application: Application, journal: CountingJournal) -> None:
    other = Application(journal, CATALOGUE, ManualClock(NOON_NS), _random)
    await application.handle_many(capture.DECIDER, CONNECTION, _facts(1, 10), actor="a")
    await other.handle_many(capture.DECIDER, CONNECTION, _facts(11, 5), actor="b")
    handled = await application.handle_many(capture.DECIDER, CONNECTION, _facts(9, 1500), actor="a")
    assert [fact.n for fact in handled.events] == list(range(16, 1509))
    stored = await journal.load(AggregateId("capture", CONNECTION))
    assert [CATALOGUE.decode(one.envelope.type, one.envelope.data) for one in stored] == [
        fact.event for fact in _facts(1, 1508)
    ]
    assert [one.envelope.actor for one in stored] == ["a"] * 10 + ["b"] * 5 + ["a"] * 1493


async def test_nothing_to_do_is_nothing_written(application: Application, journal: CountingJournal) -> None:
    handled = await application.handle_many(capture.DECIDER, CONNECTION, [], actor="a")
    assert (handled.events, handled.position, handled.version, journal.appends) == ((), 0, 0, [])
