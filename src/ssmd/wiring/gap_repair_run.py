"""Repairing gaps by hand: the steps of workflow GapRepair, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ssmd.clock import Clock
from ssmd.errors import Misconfigured, Rejected, SsmdError
from ssmd.identifiers import RandomBytes
from ssmd.projections.queries import GapLine
from ssmd.projections.views import PROJECTIONS
from ssmd.wiring.day_steps import DayProcedure
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.gap_repair import GAPS_MAX, Wanted, find_gap, gaps_to_repair
from ssmd.wiring.trading_day import day_procedure
from ssmd.wiring.views import asking_views
from ssmd.workflows.orders import is_left_alone


class GapOutcome(msgspec.Struct, frozen=True):
    """What became of a gap, `result` as `workflows.orders.Repaired` has it; in a dry run: to-do."""

    gap_id: str
    connection: str
    start_ns: int
    end_ns: int
    cause: str
    result: str
    detail: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.result in {"repaired", "already", "nothing"}


async def repair_one(procedure: DayProcedure, gap_id: str, connection: str, date: str) -> str:
    """Have one gap repaired, of which only the name is known; "repaired", "already" or "nothing".

    Raises:
        Rejected: it cannot be, for good. Unavailable: not now.
    """
    gap = await find_gap(await procedure.views(), procedure.feed, [date], gap_id, connection)
    if procedure.repair is None:
        raise Misconfigured(f"nobody can be asked to repair gap {gap_id}")
    return await procedure.repair(gap)


async def repair_gaps(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    wanted: Wanted,
    clock: Clock,
    random: RandomBytes,
    *,
    actor: str,
    say: Callable[[str], None],
    is_dry: bool = False,
) -> list[GapOutcome]:
    """Have gaps repaired, the latest first; one that cannot be keeps none from it, several of a connection its other ones.

    Args:
        say: told how far it is.
        is_dry: ask no connector; also works on an environment that does not run.

    Raises:
        Rejected: the gap that was named is not known, or not over.
        Unavailable: the environment does not run, or its journal is away.
    """
    feed = environment.document.feed
    if is_dry:
        gaps_view = [one for one in PROJECTIONS if one.name == "gaps"]
        async with asking_views(environment, variables, say, projections=gaps_view) as views:
            found = await gaps_to_repair(views, feed, wanted, clock.now_ns())
        return [_outcome(gap, "to-do", "") for gap in found]
    outcomes: list[GapOutcome] = []
    async with day_procedure(
        environment, variables, clock=clock, random=random, actor=actor, say=say, is_whole=True
    ) as procedure:
        found = (await gaps_to_repair(await procedure.views(), feed, wanted, clock.now_ns()))[:GAPS_MAX]
        for number, gap in enumerate(found, 1):
            if is_left_alone(gap.connection, [(one.connection, one.result) for one in outcomes]):
                continue
            outcome = await _tried(procedure, gap)
            say(f"{number} of {len(found)}: gap {gap.gap_id} {outcome.result}{f': {outcome.detail}' if outcome.detail else ''}")
            outcomes.append(outcome)
    return outcomes


async def _tried(procedure: DayProcedure, gap: GapLine) -> GapOutcome:
    try:
        if procedure.repair is None:
            raise Misconfigured(f"nobody can be asked to repair gap {gap.gap_id}")
        # Somebody may have repaired it since: its connector knows.
        result = await procedure.repair(gap)
    except SsmdError as error:
        return _outcome(gap, "refused" if isinstance(error, Rejected) else "failed", error.message)
    return _outcome(gap, result, "")


def _outcome(gap: GapLine, result: str, detail: str) -> GapOutcome:
    return GapOutcome(gap.gap_id, gap.connection, gap.start_ns, gap.end_ns or 0, gap.cause, result, detail)
