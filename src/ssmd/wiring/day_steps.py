"""The steps of a trading day's start and end: each asks one thing, and is journaled once when it is done.

In one process or as a workflow's activities, these are the same functions; any may be called again after any failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ssmd.application.handler import Application
from ssmd.clock import date_of
from ssmd.domain import archive, trading_day
from ssmd.domain.trading_day import DayCommand, Phase, RecordStep, Totals
from ssmd.errors import Rejected, Unavailable
from ssmd.projections import queries
from ssmd.projections.inventory import SUPERSEDED
from ssmd.projections.views import Views
from ssmd.services.archive_positions import load_positions
from ssmd.services.standby import holder_of
from ssmd.wiring.gap_repair import Repair

HEALTHY_WITHIN_S: Final = 30.0
FLUSHED_WITHIN_S: Final = 120.0
POLL_S: Final = 0.2
ASK_TIMEOUT_S: Final = 5.0

ARCHIVERS: Final = ("raw-archiver", "normalized-archiver")
CONNECTORS: Final = ("connector",)
PROJECTORS: Final = ("projector",)
GATEWAYS: Final = ("gateway",)
FLUSHES: Final = (
    (GATEWAYS, "drain", "saved what it derived"),
    (CONNECTORS, "flush", "published what it captured"),
    (ARCHIVERS, "flush", "sealed what it held"),
    (PROJECTORS, "flush", "caught up with the journal"),
)
"""The order matters: each holds what the one before it has handed on."""

SYNC: Final = "sync"
VERIFY: Final = "verify"
SYNCED: Final = "the security master is that of the venue"
VERIFIED: Final = "the archive holds what was sealed"


class ComponentName(NamedTuple):
    """A component as its control subjects name it."""

    component: str
    instance: str

    def __str__(self) -> str:
        return f"{self.component} {self.instance}"


class Control(Protocol):
    """Asks running components (`streams.control.ControlClient`)."""

    async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
        """The component's answer: {"ok": bool, "reason": str, ...}.

        Raises:
            Unavailable: none within `timeout_s`.
        """
        ...


class DayProcedure(NamedTuple):
    """What starting and ending a day need.

    Attributes:
        feed: whose data the day's totals count.
        components: that must be healthy before the day is active.
        views: opens the views as fresh as the journal.
        say: told each step when it is done.
        actor, correlation_id: of every event written.
        sync: brings the security master up to date; what it came to. None = a day's start does without.
        verify: reads the archive of a date; what it came to. None = a day's end does without.
        repair: has a gap repaired by its connector. None = nobody is asked.
        has_workflows: whether there is a Temporal, which goes on with what a workflow began.
    """

    feed: str
    application: Application
    control: Control
    components: Sequence[ComponentName]
    views: Callable[[], Awaitable[Views]]
    say: Callable[[str], None]
    actor: str
    correlation_id: str
    sync: Callable[[], Awaitable[str]] | None = None
    verify: Callable[[str], Awaitable[str]] | None = None
    repair: Repair | None = None
    has_workflows: bool = True


def steps_of(procedure: DayProcedure, phase: Phase) -> tuple[str, ...]:
    """The phase's steps in order, each "VERB" or "VERB COMPONENT INSTANCE"."""
    if phase == "start":
        first = (SYNC,) if procedure.sync is not None else ()
        return (*first, *(f"health {name}" for name in procedure.components))
    flushes = (f"{verb} {name}" for kinds, verb, _ in FLUSHES for name in procedure.components if name.component in kinds)
    return (*flushes, *((VERIFY,) if procedure.verify is not None else ()))


async def do_step(procedure: DayProcedure, phase: Phase, date: str, step: str) -> None:
    """Do one of `steps_of`, and journal it.

    Raises:
        Unavailable: what was asked did not answer in time, or is not well; nothing was journaled.
        Rejected: the day is not in that phase any more, or there is no such step.
    """
    verb, _, rest = step.partition(" ")
    component, _, instance = rest.partition(" ")
    name = ComponentName(component, instance)
    state = await procedure.application.state(trading_day.DECIDER, (date,))
    if (phase, _words(step, verb, name)) in state.steps:
        return  # asked again because the answer was lost, or after a recovery
    match verb:
        case "sync" if procedure.sync is not None:
            await record(procedure, date, phase, SYNCED, await procedure.sync())
        case "verify" if procedure.verify is not None:
            await record(procedure, date, phase, VERIFIED, await procedure.verify(date))
        case "health":
            detail = await _until_healthy(procedure.control, name)
            await record(procedure, date, phase, _words(step, verb, name), detail)
        case "drain" | "flush":
            if name.component in PROJECTORS:
                await _complete_partitions(procedure, date)
            await _flush(procedure, date, name, verb)
        case _:
            raise Rejected("no-such-step", f"a day's {phase} has no step {step!r}: another version of ssmd planned it")


async def _complete_partitions(procedure: DayProcedure, date: str) -> None:
    """Call what is sealed of the date complete. A capture that goes on opens its partition again with its next seal."""
    for line in await queries.inventory(await procedure.views(), procedure.feed, date, date):
        if line.status == "open" and line.segments:
            await procedure.application.handle(
                archive.DECIDER,
                (procedure.feed, date, line.type, line.partition),
                archive.CompletePartition("day-end"),
                actor=procedure.actor,
                correlation_id=procedure.correlation_id,
            )


def _words(step: str, verb: str, name: ComponentName) -> str:
    """How a step is journaled when it is done."""
    match verb:
        case "sync":
            return SYNCED
        case "verify":
            return VERIFIED
        case "health":
            return f"{name} is healthy"
        case _:
            return next((f"{name} {words}" for kinds, _, words in FLUSHES if name.component in kinds), step)


async def _flush(procedure: DayProcedure, date: str, name: ComponentName, verb: str) -> None:
    """Let one component hand on what it holds; the step is journaled."""
    # Data waits for neither: what a connector had not published is on its tape, and a gateway holds nothing of its own.
    if name.component in (*CONNECTORS, *GATEWAYS) and await health_of(procedure.control, name) is None:
        detail = "what it had not published is on its tape" if name.component in CONNECTORS else ""
        await record(procedure, date, "end", f"{name} does not run", detail)
        return
    asked = await _that_archives(procedure, name) if name.component in ARCHIVERS else name
    answer = await procedure.control.request(*asked, verb, FLUSHED_WITHIN_S)
    if not answer.get("ok"):
        raise Unavailable(f"{asked} could not {verb}: {_reason(answer)}", mend=f"ssmd day end --date {date}")
    await record(procedure, date, "end", _words("", verb, asked), str(answer.get("reason", "")))


async def hand_on(procedure: DayProcedure) -> None:
    """Let every component that answers hand on what it holds; of one that cannot, nothing is asked of the next."""
    for kinds, verb, _ in FLUSHES:
        for name in procedure.components:
            if name.component in kinds and await health_of(procedure.control, name) is not None:
                await procedure.control.request(*name, verb, FLUSHED_WITHIN_S)


async def _that_archives(procedure: DayProcedure, name: ComponentName) -> ComponentName:
    """The instance that archives now: `name`, or a standby that took over from it. A takeover is waited for.

    Raises:
        Unavailable: none does.
    """
    data_type = name.component.removesuffix("-archiver")
    try:
        async with asyncio.timeout(HEALTHY_WITHIN_S):
            while True:
                positions = await load_positions(procedure.application.journal, procedure.feed, data_type)
                for instance in dict.fromkeys((holder_of(positions) or name.instance, name.instance)):
                    asked = ComponentName(name.component, instance)
                    health = await health_of(procedure.control, asked)
                    if health is not None and not health.get("stats", {}).get("stands_by_for"):
                        return asked
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(f"no {name.component} archives", mend="ssmd up, or see its log under .ssmd/") from None


async def health_of(control: Control, name: ComponentName) -> Mapping[str, Any] | None:
    """The component's word on itself; None = it does not answer."""
    try:
        return await control.request(*name, "health", ASK_TIMEOUT_S)
    except Unavailable:
        return None


async def totals_of(views: Views, feed: str, date: str) -> Totals:
    """What the inventory of `feed` and the gaps that opened on `date` (UTC) come to."""
    records: dict[str, int] = {}
    messages = segments = size_bytes = 0
    for line in await queries.inventory(views, feed, date, date):
        segments += line.segments
        size_bytes += line.size_bytes
        if line.type == "raw":
            messages += line.records
        elif line.kind and line.status != SUPERSEDED:
            records[line.kind] = records.get(line.kind, 0) + line.records
    gaps = sum(1 for gap in await queries.gaps(views, feed, date) if date_of(gap.start_ns) == date)
    return Totals(messages=messages, records=dict(sorted(records.items())), segments=segments, size_bytes=size_bytes, gaps=gaps)


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("reason") or "it gave no reason")


async def decide_day(procedure: DayProcedure, date: str, command: DayCommand) -> trading_day.State:
    """The day's state behind `command`."""
    handled = await procedure.application.handle(
        trading_day.DECIDER, (date,), command, actor=procedure.actor, correlation_id=procedure.correlation_id
    )
    return handled.state


async def record(procedure: DayProcedure, date: str, phase: Phase, step: str, detail: str) -> None:
    """Journal a step and tell it."""
    await decide_day(procedure, date, RecordStep(phase, step, detail))
    procedure.say(f"{step}{f' ({detail})' if detail else ''}")


async def _until_healthy(control: Control, name: ComponentName) -> str:
    """Wait until the component says that it is well; "" (what it could add is in its own health)."""
    reason = "it did not answer"
    try:
        async with asyncio.timeout(HEALTHY_WITHIN_S):
            while True:
                try:
                    health = await control.request(*name, "health", ASK_TIMEOUT_S)
                except Unavailable as error:
                    reason = error.message
                else:
                    if health.get("ok"):
                        return ""
                    reason = _reason(health)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(
            f"{name} was not healthy within {HEALTHY_WITHIN_S:g} s: {reason}", mend="ssmd up, or see its log under .ssmd/"
        ) from None
