import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import archive, trading_day
from ssmd.domain.archive import SealSegment, SegmentFile
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import CompleteDay, EndDay, StartDay, Totals
from ssmd.errors import Rejected, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.views import Views, fold_views
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.wiring import day_steps
from ssmd.wiring import trading_day as procedures
from ssmd.wiring.day_steps import ComponentName, DayProcedure
from ssmd.wiring.trading_day import (
    begin,
    end_day,
    finish,
    force_end_day,
    recover_day,
    refuse_date,
    roll_day,
    start_day,
    today_in,
)

DATE = "2026-05-14"
T0 = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z
COMPONENTS = (
    ComponentName("projector", "main"),
    ComponentName("raw-archiver", "main"),
    ComponentName("normalized-archiver", "main"),
    ComponentName("connector", "main"),
)
WELL = {"ok": True, "reason": ""}


class ScriptedControl:
    """Components that answer what the test says; `asked` is what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, list[Mapping[str, Any] | Unavailable]] = {}

    async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
        self.asked.append(f"{component} {instance} {verb}")
        script = self.answers.get(f"{component} {verb}", [])
        answer = script.pop(0) if script else WELL
        if isinstance(answer, Unavailable):
            raise answer
        return answer


class Day:
    def __init__(self) -> None:
        self.journal = MemoryJournal("dev")
        self.control = ScriptedControl()
        self.said: list[str] = []
        self.application = Application(self.journal, CATALOGUE, ManualClock(T0), system_random, "c0ffee")

    @property
    def procedure(self) -> DayProcedure:
        async def views() -> Views:
            return await fold_views(self.journal)

        return DayProcedure("kalshi", self.application, self.control, COMPONENTS, views, self.said.append, "cli:anna", "c-1")

    async def types(self) -> list[str]:
        found: list[str] = []
        async for batch in self.journal.replay(filters=["trading-day"]):
            found += [one.envelope.type.removeprefix("trading-day.") for one in batch if isinstance(one, RecordedEvent)]
        return found

    async def seal(self, kind: str, records: int, seq: int) -> None:
        file = SegmentFile(f"{kind}/x", kind, 100, "0" * 64, 900, "1" * 64, records, T0, T0)
        type_ = "raw" if kind == "raw" else "normalized"
        await self.application.handle(
            archive.DECIDER,
            ("kalshi", DATE, type_, "main"),
            SealSegment(1, "ab", seq, seq, "m", (file,), ()),
            actor="archiver",
        )


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Day:
    monkeypatch.setattr(day_steps, "POLL_S", 0.001)
    monkeypatch.setattr(day_steps, "HEALTHY_WITHIN_S", 0.05)
    return Day()


async def test_a_day_is_started_and_ended_step_by_step(day: Day) -> None:
    state = await start_day(day.procedure, DATE, "routine")
    assert state.status == "active"
    await day.seal("raw", 12, 1)
    await day.seal("trade", 3, 1)
    await day.seal("book", 7, 2)
    state = await end_day(day.procedure, DATE)
    assert state.status == "complete"
    assert state.totals == Totals(messages=12, records={"book": 7, "trade": 3}, segments=3, size_bytes=300, gaps=0)
    assert day.control.asked == [
        "projector main health",
        "raw-archiver main health",
        "normalized-archiver main health",
        "connector main health",
        "connector main health",
        "connector main flush",
        "raw-archiver main health",
        "raw-archiver main flush",
        "normalized-archiver main health",
        "normalized-archiver main flush",
        "projector main flush",
    ]
    assert await day.types() == [
        "start-requested.v1",
        *["step-completed.v1"] * 4,
        "activated.v1",
        "end-requested.v1",
        *["step-completed.v1"] * 4,
        "completed.v1",
    ]
    assert day.said[-1] == "trading day 2026-05-14 is complete"


async def test_a_try_that_was_taken_for_dead_may_complete_the_day_first(day: Day) -> None:
    await start_day(day.procedure, DATE)
    await begin(day.procedure, DATE, EndDay(DATE))
    first = Totals(messages=7, records={}, segments=1, size_bytes=9, gaps=0)

    async def views() -> Views:
        # While this one counts.
        await day.application.handle(trading_day.DECIDER, (DATE,), CompleteDay(first), actor="another worker")
        return await fold_views(day.journal)

    state = await finish(day.procedure._replace(views=views), "end", DATE)
    assert (state.status, state.totals) == ("complete", first)


async def test_doing_it_again_changes_nothing(day: Day) -> None:
    await start_day(day.procedure, DATE)
    before = await day.types()
    assert (await start_day(day.procedure, DATE)).status == "active"
    assert await day.types() == before
    await end_day(day.procedure, DATE)
    done = await day.types()
    await day.seal("raw", 5, 1)
    assert (await end_day(day.procedure, DATE)).totals == Totals(messages=0, records={}, segments=0, size_bytes=0, gaps=0)
    assert await day.types() == done


async def test_a_component_that_comes_up_late_is_waited_for(day: Day) -> None:
    day.control.answers["connector health"] = [Unavailable("nobody listens"), {"ok": False, "reason": "connecting"}]
    assert (await start_day(day.procedure, DATE)).status == "active"
    assert day.control.asked.count("connector main health") == 3


async def test_a_component_that_stays_unwell_is_the_days_error_and_another_try_goes_on(day: Day) -> None:
    day.control.answers["connector health"] = [{"ok": False, "reason": "venue refused the key"}] * 10_000
    with pytest.raises(Unavailable) as caught:
        await start_day(day.procedure, DATE)
    assert caught.value.message == "connector main was not healthy within 0.05 s: venue refused the key"
    assert (await day.application.state(trading_day.DECIDER, (DATE,))).error == caught.value.message
    day.control.answers.clear()
    assert (await start_day(day.procedure, DATE)).status == "active"
    assert [one for one in await day.types() if one != "step-completed.v1"] == [
        "start-requested.v1",
        "errored.v1",
        "start-requested.v1",
        "activated.v1",
    ]


async def test_an_archiver_that_cannot_seal_keeps_the_day_from_completing(day: Day) -> None:
    await start_day(day.procedure, DATE)
    day.control.answers["raw-archiver flush"] = [{"ok": False, "reason": "disk full"}]
    with pytest.raises(Unavailable, match="raw-archiver main could not flush: disk full"):
        await end_day(day.procedure, DATE)
    assert (await day.types())[-3:] == ["end-requested.v1", "step-completed.v1", "errored.v1"]  # the connector's flush
    assert (await end_day(day.procedure, DATE)).status == "complete"


async def test_a_connector_that_cannot_publish_keeps_the_day_from_completing(day: Day) -> None:
    await start_day(day.procedure, DATE)
    day.control.answers["connector flush"] = [{"ok": False, "reason": "the streams are away"}]
    with pytest.raises(Unavailable, match="connector main could not flush: the streams are away"):
        await end_day(day.procedure, DATE)
    assert "raw-archiver main flush" not in day.control.asked


async def test_a_connector_that_does_not_run_is_not_waited_for(day: Day) -> None:
    await start_day(day.procedure, DATE)
    day.control.answers["connector health"] = [Unavailable("nobody listens")]
    assert (await end_day(day.procedure, DATE)).status == "complete"
    assert "connector main flush" not in day.control.asked
    assert "connector main does not run (what it had not published is on its tape)" in day.said


async def test_the_archiver_that_archives_is_asked_to_seal_not_the_one_that_stands_by(day: Day) -> None:
    await start_day(day.procedure, DATE)
    await day.application.handle(
        archive.DECIDER, ("kalshi", DATE, "raw", "main"), archive.OpenPartition(1, "main-2"), actor="archiver"
    )
    standing_by = {"ok": True, "reason": "", "stats": {"stands_by_for": "main-2"}}
    # The one that archived last is gone, and the other has not noticed yet: then it takes over.
    gone = Unavailable("nobody listens")
    day.control.answers["raw-archiver health"] = [gone, standing_by, gone, WELL]
    await end_day(day.procedure, DATE)
    raw = [one for one in day.control.asked if one.startswith("raw-archiver")][1:]
    assert raw == [
        *["raw-archiver main-2 health", "raw-archiver main health"] * 2,
        "raw-archiver main flush",
    ]


async def test_a_rule_that_says_no_is_not_the_days_error(day: Day) -> None:
    with pytest.raises(Rejected, match="was never started"):
        await end_day(day.procedure, DATE)
    assert await day.types() == []


async def test_an_error_that_cannot_be_journaled_is_told_with_the_first(day: Day) -> None:
    class Leaving(ScriptedControl):
        async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
            day.journal.is_away = True
            return {"ok": False, "reason": "gone"}

    day.control = Leaving()
    with pytest.raises(Unavailable, match="was not healthy") as caught:
        await start_day(day.procedure, DATE)
    assert caught.value.__notes__[0].startswith("and the day's error could not be journaled: ")


def test_today_is_that_of_the_zone() -> None:
    clock = ManualClock(1_778_725_800_000_000_000)  # 2026-05-14T02:30:00Z
    assert today_in("UTC", clock) == "2026-05-14"
    assert today_in("America/New_York", clock) == "2026-05-13"


async def test_what_is_sealed_of_an_ended_day_is_complete_until_more_comes(day: Day) -> None:
    await start_day(day.procedure, DATE)
    await day.seal("raw", 12, 1)
    await end_day(day.procedure, DATE)

    async def statuses() -> set[str]:
        return {line.status for line in await queries.inventory(await day.procedure.views(), "kalshi", DATE, DATE)}

    assert await statuses() == {"complete"}
    await day.seal("raw", 5, 2)
    assert await statuses() == {"open"}


def asked_at(at_work: bool) -> type[ScriptedControl]:
    class Told(ScriptedControl):
        """Whether whoever asked for the day still lives."""

        async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
            if component == "day" and not at_work:
                raise Unavailable("nobody listens")
            await asyncio.sleep(0)
            return await super().request(component, instance, verb, timeout_s)

    return Told


async def test_of_two_starts_at_one_moment_one_starts_and_the_other_says_who_did(day: Day) -> None:
    day.control = asked_at(at_work=True)()
    mine, theirs = (
        day.procedure,
        day.procedure._replace(
            actor="cli:bob",
            correlation_id="c-2",
            application=Application(day.journal, CATALOGUE, ManualClock(T0 + 1), system_random, "c0ffee"),
        ),
    )
    done = await asyncio.gather(start_day(mine, DATE), start_day(theirs, DATE), return_exceptions=True)
    (refused,) = [one for one in done if isinstance(one, Rejected)]
    (started,) = [one for one in done if isinstance(one, trading_day.State)]
    assert started.status == "active"
    who = ("cli:bob", "c-2") if isinstance(done[0], Rejected) else ("cli:anna", "c-1")
    assert refused.rule == "day-at-work"
    assert f"{who[0]} asked for it at 2026-05-14T12:00:00" in refused.message
    assert refused.message.endswith(f"(request {who[1]})")
    types = await day.types()
    assert (types.count("start-requested.v1"), types.count("step-completed.v1"), types[-1]) == (1, 4, "activated.v1")


async def test_what_a_dead_process_began_another_goes_on_with(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedures, "AT_WORK_WITHIN_S", 0.02)
    await begin(day.procedure, DATE, StartDay(DATE))
    day.control = asked_at(at_work=False)()
    state = await start_day(day.procedure._replace(correlation_id="c-2"), DATE)
    assert state.status == "active"
    assert (await day.types()).count("start-requested.v1") == 1


async def test_what_a_workflow_began_goes_on_without_temporal_only_where_no_worker_is(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procedures, "AT_WORK_WITHIN_S", 0.02)
    await begin(day.procedure._replace(correlation_id=f"dev/day-start/{DATE}"), DATE, StartDay(DATE))
    # There is a Temporal: it sees to its workflow, whether a worker is there or not.
    day.control.answers["worker health"] = [Unavailable("nobody listens")] * 99
    with pytest.raises(Rejected, match="is starting already"):
        await start_day(day.procedure, DATE)
    alone = day.procedure._replace(has_workflows=False)
    day.control.answers["worker health"] = []
    with pytest.raises(Rejected, match="is starting already"):
        await recover_day(alone, DATE)
    day.control.answers["worker health"] = [Unavailable("nobody listens")] * 99
    assert (await recover_day(alone, DATE)).status == "active"
    assert (await day.types()).count("start-requested.v1") == 1


async def test_a_recovery_goes_on_where_an_error_stopped_the_day(day: Day) -> None:
    await start_day(day.procedure, DATE)
    day.control.answers["raw-archiver flush"] = [{"ok": False, "reason": "disk full"}]
    with pytest.raises(Unavailable):
        await end_day(day.procedure, DATE)
    assert (await recover_day(day.procedure, DATE, "the disk was cleaned")).status == "complete"
    assert day.control.asked.count("connector main flush") == 1  # done before the error
    assert [one for one in await day.types() if one != "step-completed.v1"][2:] == [
        "end-requested.v1",
        "errored.v1",
        "recovered.v1",
        "completed.v1",
    ]


async def test_an_end_by_force_is_another_fact_and_asks_nobody(day: Day) -> None:
    await start_day(day.procedure, DATE)
    before = list(day.control.asked)
    with pytest.raises(Rejected, match="needs a reason"):
        await force_end_day(day.procedure, DATE, " ")
    assert (await force_end_day(day.procedure, DATE, "the machine burnt down")).status == "force-ended"
    assert (day.control.asked, (await day.types())[-1]) == (before, "force-ended.v1")


async def test_a_roll_ends_the_day_before_where_it_is_on(day: Day) -> None:
    await start_day(day.procedure, "2026-05-13")
    assert (await roll_day(day.procedure, DATE)).status == "active"
    assert (await day.application.state(trading_day.DECIDER, ("2026-05-13",))).status == "complete"
    assert (await roll_day(day.procedure, "2026-05-20")).status == "active"  # nothing was on the day before


@pytest.mark.parametrize(
    ("phase", "date", "is_forced", "reason", "rule"),
    [
        ("start", DATE, False, "", ""),
        ("end", "2026-05-13", False, "", ""),
        ("start", "2026-05-13", True, "the power was out", ""),
        ("end", "2026-01-01", True, "it was forgotten", ""),
        ("start", "2026-05-15", False, "", "day-in-the-future"),
        ("end", "2026-05-15", True, "why not", "day-in-the-future"),
        ("start", "2026-05-13", False, "", "day-in-the-past"),
        ("start", "2026-05-13", True, "", "no-reason"),
        ("start", "2026-05-12", True, "too late", "day-in-the-past"),
        ("end", "2026-05-12", False, "", "day-in-the-past"),
    ],
)
def test_the_rule_of_dates(phase: trading_day.Phase, date: str, is_forced: bool, reason: str, rule: str) -> None:
    if not rule:
        refuse_date(phase, date, DATE, is_forced=is_forced, reason=reason)
        return
    with pytest.raises(Rejected) as caught:
        refuse_date(phase, date, DATE, is_forced=is_forced, reason=reason)
    assert caught.value.rule == rule
