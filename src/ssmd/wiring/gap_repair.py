"""Repairing gaps, the second line: those that no connector repaired by itself are found in the views, and asked for again.

A connector repairs a gap some seconds after it is over (`services.connector.gap_repairs`). What it gave up, or forgot with
its disk, is asked for here, over its control verb `repair`; it writes the tape and journals, nobody else does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from ssmd.clock import date_of
from ssmd.domain.fact_parts import ticker_parts
from ssmd.errors import Rejected, Unavailable
from ssmd.projections import queries
from ssmd.projections.queries import GapLine
from ssmd.projections.unrepaired import is_repaired, unrepaired_gaps
from ssmd.projections.views import Views
from ssmd.registry.documents import EnvironmentDocument
from ssmd.services.connector.repair_request import VERB, RepairRequest

if TYPE_CHECKING:
    from ssmd.wiring.day_steps import ComponentName

WINDOW_DAYS: Final = 7
"""Gaps of so many UTC dates, today's included, are looked through; older ones are `ssmd data backfill`'s."""
GAPS_MAX: Final = 500
"""Of one run, the latest. Older ones have their turn when these are repaired, or too old to be asked for."""
REPAIR_WITHIN_S: Final = 240.0
"""How long the connector may take for one; less than `streams.permissions.RESPONSE_S`, after which it may not answer."""

Repair = Callable[[GapLine], Awaitable[str]]
"""Has a gap repaired; "repaired", "already" or "nothing". Raises Rejected (for good) or Unavailable (not now)."""


class AskingControl(Protocol):
    """`streams.control.ControlClient`."""

    async def request(
        self, component: str, instance: str, verb: str, timeout_s: float, payload: bytes
    ) -> Mapping[str, Any]: ...


class Wanted(NamedTuple):
    """Which gaps: of one UTC date ("" = of the window), over for `settled_ns` at least; or only the one named."""

    date: str = ""
    gap_id: str = ""
    settled_ns: int = 0


def dates_of(wanted: Wanted, now_ns: int) -> list[str]:
    """The UTC dates that are looked through."""
    if wanted.date:
        return [wanted.date]
    today = dt.date.fromisoformat(date_of(now_ns))
    return [(today - dt.timedelta(days=back)).isoformat() for back in range(WINDOW_DAYS)]


async def gaps_to_repair(views: Views, feed: str, wanted: Wanted, now_ns: int) -> list[GapLine]:
    """What is left to repair, the latest first; a gap that was named comes back although it is repaired.

    Raises:
        Rejected: "no-such-gap"; "gap-open": the one that was named is not over.
    """
    dates = dates_of(wanted, now_ns)
    if not wanted.gap_id:
        return await unrepaired_gaps(views, feed, dates, now_ns - wanted.settled_ns)
    gap = await find_gap(views, feed, dates, wanted.gap_id)
    if gap.end_ns is None:
        raise Rejected("gap-open", f"gap {gap.gap_id} is not over: {gap.cause}", mend="ssmd connector status")
    return [gap]


async def find_gap(views: Views, feed: str, dates: Sequence[str], gap_id: str, connection: str = "") -> GapLine:
    """The gap of that id. Raises Rejected: "no-such-gap"."""
    for date in dates:
        for gap in await queries.gaps(views, feed, date):
            if gap.gap_id == gap_id and connection in {"", gap.connection}:
                return gap
    days = dates[0] if len(dates) == 1 else f"the last {len(dates)} days"
    raise Rejected("no-such-gap", f"no gap {gap_id} of {days} is known", mend="ssmd data gaps")


def connector_of(document: EnvironmentDocument, connection: str, connectors: Sequence[ComponentName]) -> ComponentName:
    """The process that has a connection: "main" has main, main-2, main-3, ...

    Raises:
        Rejected: "no-such-connection": the environment has none that could.
    """
    for name in connectors:
        number = connection.removeprefix(f"{name.instance}-")
        if connection == name.instance or (number != connection and number.isdecimal()):
            return name
    known = ", ".join(name.instance for name in connectors) or "none"
    raise Rejected(
        "no-such-connection",
        f"no connector of {document.name} has the connection {connection!r}; there are: {known}",
        mend="ssmd data backfill",
    )


def repair_of(document: EnvironmentDocument, connectors: Sequence[ComponentName], control: AskingControl) -> Repair:
    """Asks the connectors of a running environment."""

    async def repaired(gap: GapLine) -> str:
        if is_repaired(gap):
            return "already"
        name = connector_of(document, gap.connection, connectors)
        results = set()
        for tickers in ticker_parts(gap.tickers):
            wanted = RepairRequest(gap.connection, gap.gap_id, gap.start_ns, gap.end_ns or 0, gap.channel, tickers)
            answer = await control.request(*name, VERB, REPAIR_WITHIN_S, msgspec.json.encode(wanted))
            if not answer.get("ok"):
                raise _error_of(answer)
            results.add(str(answer.get("result")))
        return next(one for one in ("repaired", "already", "nothing", *results) if one in results)

    return repaired


def _error_of(answer: Mapping[str, Any]) -> Rejected | Unavailable:
    """Only what the connector calls refused is not asked again."""
    reason, mend = str(answer.get("reason") or "it gave no reason"), str(answer.get("mend") or "")
    if answer.get("kind") == Rejected.__name__:
        return Rejected(str(answer.get("rule")), reason, mend=mend)
    return Unavailable(reason, mend=mend)
