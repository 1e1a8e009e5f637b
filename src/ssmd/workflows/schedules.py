"""Temporal schedules of one environment: what there should be, how that differs from what is there, and the change.

{env}/days        DayTurn          at every start and end of a trading day; buffered: late ones come one after the other
{env}/sync        SecmasterSync    every few minutes, what changed; skipped while one runs
{env}/sync-full   SecmasterSync    daily, everything
{env}/keys        KeyExpiryCheck   daily
{env}/gaps        GapRepair        every so often; skipped while one runs
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple

import msgspec
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from ssmd.workflows.connection import RPC_TIMEOUT, task_queue, translating
from ssmd.workflows.orders import RepairOrder, SyncOrder, TurnOrder

KINDS: Final = ("days", "sync", "sync-full", "keys", "gaps")
Kind = Literal["days", "sync", "sync-full", "keys", "gaps"]
_WORKFLOW: Final[dict[Kind, str]] = {
    "days": "DayTurn",
    "sync": "SecmasterSync",
    "sync-full": "SecmasterSync",
    "keys": "KeyExpiryCheck",
    "gaps": "GapRepair",
}
_NOTE: Final = "made by ssmd env apply, definition "


class Moment(NamedTuple):
    """A time of day on some days of the week (0 = Sunday, as Temporal has it)."""

    hour: int
    minute: int
    weekdays: tuple[int, ...]


class Definition(NamedTuple):
    """One schedule as it should be.

    Attributes:
        moments: in `timezone`; every_s: or so often, 0 = not.
        is_buffered: runs that fall due while one is on are kept, in order; else they are skipped.
        catchup_s: a time that was missed for longer is not made up for.
    """

    env: str
    kind: Kind
    timezone: str
    moments: tuple[Moment, ...]
    every_s: int
    is_buffered: bool
    catchup_s: int

    @property
    def id(self) -> str:
        return f"{self.env}/{self.kind}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class Change(NamedTuple):
    """A schedule that is not as it should be. `detail`: what differs, "" = all of it."""

    id: str
    action: Literal["create", "change", "remove"]
    detail: str = ""


async def differences(client: Client, env: str, wanted: Sequence[Definition]) -> list[Change]:
    """What `apply` would do. Raises Unavailable."""
    changes: list[Change] = []
    by_id = {one.id: one for one in wanted}
    for kind in KINDS:
        name = f"{env}/{kind}"
        found = await _describe(client, name)
        definition = by_id.get(name)
        if definition is None:
            if found is not None:
                changes.append(Change(name, "remove"))
        elif found is None:
            changes.append(Change(name, "create", _words(definition)))
        elif detail := _detail(definition, found):
            changes.append(Change(name, "change", detail))
    return changes


async def apply(client: Client, env: str, wanted: Sequence[Definition]) -> list[Change]:
    """Make it so; what was done. Doing it again does nothing. Raises Unavailable."""
    changes = await differences(client, env, wanted)
    by_id = {one.id: one for one in wanted}
    for change in changes:
        handle = client.get_schedule_handle(change.id)
        with translating(f"schedule {change.id}"):
            if change.action == "remove":
                await handle.delete(rpc_timeout=RPC_TIMEOUT)
                continue
            schedule = schedule_of(by_id[change.id])

            def updated(given: ScheduleUpdateInput, schedule: Schedule = schedule) -> ScheduleUpdate:
                # Whoever paused it by hand had a reason.
                schedule.state.paused = given.description.schedule.state.paused
                return ScheduleUpdate(schedule)

            try:
                if change.action == "create":
                    await client.create_schedule(change.id, schedule, rpc_timeout=RPC_TIMEOUT)
                    continue
            except ScheduleAlreadyRunningError:
                pass  # somebody else applied at the same moment
            await handle.update(updated, rpc_timeout=RPC_TIMEOUT)
    return changes


def schedule_of(definition: Definition) -> Schedule:
    """As Temporal takes it."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            _WORKFLOW[definition.kind], _argument(definition), id=definition.id, task_queue=task_queue(definition.env)
        ),
        spec=ScheduleSpec(
            calendars=[
                ScheduleCalendarSpec(
                    hour=[ScheduleRange(one.hour)],
                    minute=[ScheduleRange(one.minute)],
                    day_of_week=[ScheduleRange(day) for day in one.weekdays],
                )
                for one in definition.moments
            ],
            intervals=[ScheduleIntervalSpec(timedelta(seconds=definition.every_s))] if definition.every_s else [],
            time_zone_name=definition.timezone,
        ),
        policy=SchedulePolicy(overlap=_overlap(definition), catchup_window=timedelta(seconds=definition.catchup_s)),
        state=ScheduleState(note=f"{_NOTE}{definition.digest}"),
    )


def _argument(definition: Definition) -> object:
    match definition.kind:
        case "days":
            return TurnOrder(definition.env)
        case "sync" | "sync-full":
            return SyncOrder(definition.env, is_full=definition.kind == "sync-full")
        case "keys":
            return definition.env
        case "gaps":
            return RepairOrder(definition.env, actor=f"schedule:{definition.id}")


def _overlap(definition: Definition) -> ScheduleOverlapPolicy:
    return ScheduleOverlapPolicy.BUFFER_ALL if definition.is_buffered else ScheduleOverlapPolicy.SKIP


def _detail(definition: Definition, found: ScheduleDescription) -> str:
    """What differs, "" = nothing. The server's own word is compared: a hand may have been at it."""
    wanted, there = schedule_of(definition), found.schedule
    pairs: list[tuple[str, Any, Any]] = [
        ("overlap", there.policy.overlap.name, wanted.policy.overlap.name),
        ("catch-up window", there.policy.catchup_window, wanted.policy.catchup_window),
        ("time zone", there.spec.time_zone_name or "UTC", definition.timezone),
        ("every", [one.every for one in there.spec.intervals], [one.every for one in wanted.spec.intervals]),
        ("times", _times(there.spec), _times(wanted.spec)),
        ("definition", there.state.note or "", wanted.state.note),
    ]
    return "; ".join(f"{name} from {_shown(was)} to {_shown(now)}" for name, was, now in pairs if was != now)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.removeprefix(_NOTE)
    return ", ".join(str(one) for one in value) or "none" if isinstance(value, list) else str(value)


def _times(spec: ScheduleSpec) -> list[str]:
    """Calendars in words that compare, whatever ranges they are written with."""
    return sorted(
        f"{'/'.join(_numbers(one.hour))}:{'/'.join(_numbers(one.minute))} on {','.join(_numbers(one.day_of_week))}"
        for one in spec.calendars
    )


def _numbers(ranges: Sequence[ScheduleRange]) -> list[str]:
    found = {number for one in ranges for number in range(one.start, max(one.start, one.end) + 1, max(1, one.step))}
    return [f"{number:02}" for number in sorted(found)]


def _words(definition: Definition) -> str:
    if definition.every_s:
        return f"every {definition.every_s} s"
    return f"{'; '.join(_times(schedule_of(definition).spec))} {definition.timezone}"


async def _describe(client: Client, name: str) -> ScheduleDescription | None:
    try:
        return await client.get_schedule_handle(name).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        with translating(f"schedule {name}"):
            raise
